"""Baselines and σ that nobody chose, far from a table's columns: one sentence, once per call, and silence elsewhere."""

import inspect
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import datasets

import locapprox as lx
from experiments import data

RNG = np.random.default_rng(5)
B = 60
TABLE = pd.DataFrame(
    {
        "age": RNG.uniform(18, 80, B).round(),
        "income": RNG.lognormal(10.5, 0.5, B),
        "gain": np.where(RNG.random(B) < 0.9, 0.0, RNG.lognormal(8, 1, B)),
        "years": RNG.integers(0, 30, B).astype(float),
        "score": RNG.standard_normal(B),
    }
)
BASELINE = r"^the baseline is 0, which was not chosen, and no instance is near 0 in columns age, income: give baseline="
SIGMA = r"^sigma=0\.1 is one number .* less than a thousandth of the standard deviation of columns income, gain: scale"


def model(a):
    return np.tanh(np.asarray(a, dtype=float).sum(1) / 1e5)


def notices(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [w for w in caught if str(w.message).startswith(("the baseline is", "sigma="))]


def explains(method, x, f=model):
    return lambda: lx.explain(f, x, method, n_samples=100)


MASKS = {"LIME": lx.lime, "KernelSHAP": lx.kernel_shap, "Occlusion": lx.occlusion}


@pytest.mark.parametrize("name", MASKS)
def test_a_baseline_that_nobody_chose_is_said_once_at_the_users_line(name):
    (caught,) = notices(explains(MASKS[name](), TABLE))
    assert caught.filename == __file__
    with pytest.warns(UserWarning, match=BASELINE):
        lx.explain(model, TABLE, MASKS[name](), n_samples=100)
    (caught,) = notices(explains(MASKS[name](), TABLE.to_numpy()))
    assert "columns 0, 1: give" in str(caught.message)
    for chosen in (0.0, TABLE.mean().to_numpy(), lx.Background(TABLE.to_numpy()[:3])):
        assert notices(explains(MASKS[name](baseline=chosen), TABLE)) == []


def test_the_default_still_is_zero():
    for method in (*MASKS.values(), lx.integrated_gradients, lx.gradient_x_input, lx.Multiplicative):
        assert inspect.signature(method).parameters["baseline"].default == 0.0
    assert lx.kernel_shap().neighbourhood.baseline == 0.0
    e, chosen = (lx.explain(model, TABLE.iloc[:4], m, n_samples=32) for m in (lx.kernel_shap(), lx.kernel_shap(0.0)))
    assert repr(e.method) == repr(chosen.method)
    assert torch.equal(e.weights, chosen.weights)


def test_a_sigma_for_columns_of_other_units_is_said_once():
    (caught,) = notices(explains(lx.c_lime(), TABLE))
    with pytest.warns(UserWarning, match=SIGMA):
        lx.explain(model, TABLE, lx.c_lime(), n_samples=100)
    assert len(notices(explains(lx.c_lime(0.1), TABLE))) == 1  # chosen, and still no number for all columns
    assert notices(explains(lx.c_lime(0.1 * TABLE.std()), TABLE)) == []
    (caught,) = notices(explains(lx.c_lime(), 1e-6 * TABLE[["score"]]))
    assert "more than a thousand times the standard deviation of column score" in str(caught.message)
    assert notices(explains(lx.c_lime(0.1), 1e-6 * TABLE[["score"]])) == []


def test_a_call_of_many_fits_says_it_once():
    def call():
        methods = [lx.kernel_shap(), lx.occlusion(), lx.c_lime()]
        lx.faithfulness(model, TABLE[:20], methods, [lx.kernel_shap(), lx.c_lime()], n_samples=60, replicates=3)

    assert len(notices(call)) == 2
    assert len(notices(lambda: lx.explain_mean(model, TABLE, lx.kernel_shap(), n_samples=20, replicates=3))) == 1
    assert len(notices(lambda: lx.profile(model, TABLE, lx.lime(), [1e5, 2e5], n_samples=60))) == 1


def scaled(x):
    return (x - x.mean(0)) / x.std(0)


SILENT = {
    "standardised": lambda: scaled(TABLE.to_numpy()),
    "min-max": lambda: ((TABLE - TABLE.min()) / (TABLE.max() - TABLE.min())).to_numpy(),
    "too few instances": lambda: TABLE.to_numpy()[:9],
    "WHO": lambda: data.load("who").x_explain,
    "HELOC": lambda: data.load("heloc").x_explain,
    "diabetes": lambda: data.load("diabetes").x_explain,
    "digits, flat": lambda: datasets.load_digits().data,
    "iris": lambda: datasets.load_iris().data,
    "images": lambda: datasets.load_digits().images + 100,
}


@pytest.mark.parametrize("name", SILENT)
def test_silence(name):
    try:
        x = np.asarray(SILENT[name](), dtype=float)
    except Exception as error:
        if name not in ("WHO", "HELOC"):
            raise
        pytest.skip(f"no data: {error}")
    rng = np.random.default_rng(1)
    for rows in (9, 10, 12, 20, 40, len(x)):
        some = x[rng.choice(len(x), min(rows, len(x)), replace=False)]
        for method in (lx.kernel_shap(), lx.c_lime(), *(lx.c_lime(sigma) for sigma in (1e-6, 0.01, 5.0))):
            said = method.neighbourhood.notice(torch.tensor(some), None)
            assert said is None

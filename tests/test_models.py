"""Models of all kinds: the same numbers whatever they are wrapped in, and left as they were found."""

import copy
import itertools
import os
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from torch import nn

import locapprox as lx

F64 = torch.float64
METHODS = list(lx.paper_methods().values())
IDS = [m.name for m in METHODS]
VALUES = [m for m in METHODS if m.loss == lx.SquaredError()]
GRADIENTS = [m for m in METHODS if m.loss != lx.SquaredError()]


def close(a, b, tolerance=1e-10):
    for name in ("weights", "intercept", "standard_error", "loss"):
        one, two = getattr(a, name), getattr(b, name)
        torch.testing.assert_close(one, two, rtol=tolerance, atol=tolerance, msg=lambda m, name=name: f"{name}: {m}")


# ---- torch modules are left as they were


def messy():
    """Dropout, batch statistics, an in-place first layer: everything that a call can spoil."""
    rng = torch.Generator().manual_seed(0)
    net = nn.Sequential(
        nn.ReLU(inplace=True),
        nn.Linear(6, 8),
        nn.BatchNorm1d(8),
        nn.Dropout(0.5),
        nn.ReLU(inplace=True),
        nn.Linear(8, 1),
    ).double()
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=rng, dtype=F64)
        parameter.grad = torch.full_like(parameter, 7.0)
    net[2].running_mean += 0.3
    net[2].running_var *= 2.0
    return net


def state(net):
    return (
        [m.training for m in net.modules()],
        {k: v.clone() for k, v in net.state_dict().items()},
        [p.grad.clone() for p in net.parameters()],
        [p.requires_grad for p in net.parameters()],
        [len(m._forward_hooks) + len(m._backward_hooks) + len(m._forward_pre_hooks) for m in net.modules()],
    )


def same(a, b):
    assert a[0] == b[0], "training flags"
    assert all(torch.equal(a[1][k], b[1][k]) for k in a[1]), "parameters or running statistics"
    assert all(torch.equal(p, q) for p, q in zip(a[2], b[2], strict=True)), "gradients"
    assert a[3:] == b[3:], "requires_grad or hooks"


@pytest.mark.usefixtures("errors_as_they_are")
@pytest.mark.parametrize("method", METHODS, ids=IDS)
def test_a_module_is_explained_in_evaluation_mode_and_put_back(method, x):
    net = messy()
    net[3].eval()  # mixed flags: one part is already in evaluation mode
    before, kept = state(net), x.clone()
    with pytest.warns(UserWarning, match="training mode"):
        e = lx.explain(net, x, method, n_samples=64)
    same(before, state(net))
    assert torch.equal(x, kept)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calm = lx.explain(copy.deepcopy(net).eval(), x, method, n_samples=64)
    close(e, calm, 1e-13)
    # by hand: x is not what an in-place first layer left of it
    inner = copy.deepcopy(net).eval()
    inner[0] = nn.ReLU(inplace=False)
    inner[4] = nn.ReLU(inplace=False)
    close(calm, lx.explain(inner, x, method, n_samples=64), 1e-13)


@pytest.mark.parametrize("method", [lx.kernel_shap(), lx.smoothgrad(sigma=0.3)], ids=["values", "gradients"])
def test_validate_leaves_the_module_as_it_was(method, x):
    """The model may have gone back to training since."""
    net = messy().eval()
    e = lx.explain(net, x, method, n_samples=64)
    quiet = e.validate(200)
    net.train()
    before = state(net)
    with pytest.warns(UserWarning, match="training mode"):
        loud = e.validate(200)
    same(before, state(net))
    torch.testing.assert_close(loud, quiet, rtol=1e-12, atol=0)


def test_the_warning_points_at_the_caller(tmp_path):
    """In a process of its own: the type checks of the tests put frames between."""
    script = tmp_path / "user.py"
    script.write_text(
        "import warnings, torch, locapprox as lx\n"
        "def fit():\n"
        "    return lx.explain(torch.nn.Linear(3, 1), torch.ones(1, 3), lx.occlusion())\n"
        "def check(e):\n"
        "    return e.validate(5)\n"
        "def lines(function, *args):\n"
        "    with warnings.catch_warnings(record=True) as seen:\n"
        "        warnings.simplefilter('always')\n"
        "        out = function(*args)\n"
        "    print(*(f'{w.filename}:{w.lineno}' for w in seen))\n"
        "    return out\n"
        "lines(check, lines(fit))\n"
    )
    root = Path(lx.__file__).parents[1]
    done = subprocess.run([sys.executable, script], cwd=root, env={**os.environ, "PYTHONPATH": str(root)},
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert done.stdout.split() == [f"{script}:3", f"{script}:5"]


class Fails(nn.Module):
    """Works for a few calls, then raises."""

    def __init__(self, error):
        super().__init__()
        self.inner, self.error, self.calls = nn.Linear(6, 1).double(), error, 0
        self.frozen = nn.Dropout().eval()

    def forward(self, a):
        assert not self.training
        self.calls += 1
        if self.calls > 3:
            raise self.error
        return self.inner(a)


@pytest.mark.parametrize("error", [KeyError("lost"), RuntimeError("shape"), KeyboardInterrupt()], ids=repr)
def test_mode_comes_back_when_the_model_raises(x, error):
    net = Fails(error).train()
    net.frozen.eval()
    expected = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else ValueError
    with pytest.warns(UserWarning, match="training mode"), pytest.raises(expected) as caught:
        lx.explain(net, x, lx.kernel_shap(), n_samples=40, batch_size=8)
    assert caught.value is error or caught.value.__cause__ is error
    assert net.training
    assert net.inner.training
    assert not net.frozen.training


@pytest.mark.usefixtures("errors_as_they_are")
def test_parameters_need_no_gradient(tanh_net, x):
    frozen = copy.deepcopy(tanh_net).requires_grad_(False)
    for method in GRADIENTS:
        close(lx.explain(frozen, x, method, n_samples=20), lx.explain(tanh_net, x, method, n_samples=20), 1e-14)
    with torch.no_grad():
        close(lx.explain(tanh_net, x, GRADIENTS[0]), lx.explain(frozen, x, GRADIENTS[0]), 1e-14)


def test_inputs_that_require_gradients_stay_leaves(tanh_net, x):
    leaf = x.clone().requires_grad_()
    e = lx.explain(tanh_net, leaf, lx.smoothgrad(), n_samples=20)
    assert leaf.grad is None
    assert not e.weights.requires_grad


def test_an_explanation_keeps_instances_of_its_own(tanh_net, x):
    """What becomes of the user's tensor afterwards changes nothing that is asked of the explanation."""
    mine = x.clone()
    e = lx.explain(tanh_net, mine, lx.lime(9.0, 0.1), n_samples=64)
    before = [e.predict(x + 1), e.validate(64), e.points(1)[1]]
    mine.mul_(-2)
    assert torch.equal(e.x, x)
    for one, other in zip(before, [e.predict(x + 1), e.validate(64), e.points(1)[1]], strict=True):
        assert torch.equal(one, other)


def test_threads_share_a_module_in_training_mode(x):
    """The first to finish must not put training mode back under the others: one puts it back, the last."""

    class Slow(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = messy()

        def forward(self, a):
            time.sleep(2e-4)
            return self.net(a)

    model, budgets = Slow(), (64, 400) * 4

    def weights(n):
        return lx.explain(model, x, lx.smoothgrad(0.3), n_samples=n, batch_size=50, progress=False).weights

    model.eval()
    alone = {n: weights(n) for n in budgets}
    model.train()
    before = state(model)
    with ThreadPoolExecutor(len(budgets)) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        together = list(pool.map(weights, budgets))
    for n, one in zip(budgets, together, strict=True):
        assert torch.equal(one, alone[n])
    torch.testing.assert_close(state(model), before, rtol=0, atol=0)


# ---- random state


@pytest.mark.parametrize("method", METHODS, ids=IDS)
def test_global_random_state_is_neither_read_nor_changed(method, tanh_net, x):
    fits = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        before = torch.get_rng_state().clone(), np.random.get_state()[1].copy()  # noqa: NPY002
        fits.append(lx.explain(tanh_net, x, method, n_samples=64))
        fits[-1].validate(64)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert torch.equal(fits[0].weights, fits[1].weights)
    assert torch.equal(fits[0].standard_error, fits[1].standard_error)


@pytest.mark.usefixtures("errors_as_they_are")
def test_the_seed_matters(tanh_net, x):
    one, two = (lx.explain(tanh_net, x, lx.c_lime(), n_samples=64, seed=s) for s in (0, 1))
    assert not torch.equal(one.weights, two.weights)
    z = (one.weights - two.weights) / (one.standard_error**2 + two.standard_error**2).sqrt()
    assert float(z.abs().max()) < 5


# ---- batches


@pytest.mark.parametrize("method", METHODS, ids=IDS)
@pytest.mark.parametrize("batch_size", [1, 7, 10_000])
def test_batch_size_changes_nothing(method, batch_size, tanh_net, x):
    default = lx.explain(tanh_net, x, method, n_samples=150)
    close(lx.explain(tanh_net, x, method, n_samples=150, batch_size=batch_size), default)


def test_batch_size_is_the_most_rows_of_a_call(x):
    seen = []

    def model(a):
        seen.append(len(a))
        return a.sum(1)

    lx.explain(model, x, lx.lime(), n_samples=90, batch_size=11)
    assert max(seen) <= 11
    assert sum(seen) - 8 == 90 * len(x)


def test_one_row_is_asked_about_again_once(x):
    """Among neighbours, however many methods and replicates there are, and none to validate."""
    rows = []

    def model(a):
        rows.append(len(a))
        return a.sum(1)

    def spent(call):
        rows.clear()
        return call(), sum(rows) - 8, rows[1]

    e, drawn, again = spent(lambda: lx.explain(model, x, lx.c_lime(), n_samples=50))
    assert (drawn, again) == (5 * 50, 8)
    for use, drawn in ((lambda: e.validate(30), 5 * 30), (lambda: e[1:3].validate(30), 2 * 30), (e.on_input, 0)):
        rows.clear()
        use()
        assert sum(rows) == drawn
    mean = spent(lambda: lx.explain_mean(model, x, lx.c_lime(), n_samples=50, replicates=3))
    assert mean[1:] == (3 * 5 * 50, 8)
    methods = [lx.c_lime(), lx.occlusion()]
    test = spent(lambda: lx.faithfulness(model, x, methods, methods, n_samples=50, replicates=2))
    assert test[1:] == (2 * 2 * (5 * 50 + 5 * 7), 8)


@pytest.mark.parametrize(("instances", "calls"), [(1, [1]), (39, [39]), (40, [40, 4])])
def test_a_module_is_asked_again_when_a_tenth_of_its_rows_pays_for_it(instances, calls):
    """One forward pass for a gradient; a module that draws random numbers is asked at once."""
    net, drops, seen = nn.Linear(6, 1), nn.Linear(6, 9), []
    net.register_forward_hook(lambda _, given, out: seen.append(len(out)))
    drops.register_forward_hook(lambda _, given, out: nn.functional.dropout(out, 0.5).sum(1))
    lx.explain(net, torch.randn(instances, 6), lx.vanilla_gradients())
    assert seen == calls
    seed = torch.random.manual_seed(0)  # one number may be kept or dropped twice
    with pytest.raises(ValueError, match="changes from call to call"):
        lx.explain(drops, torch.randn(instances, 6, generator=seed), lx.vanilla_gradients())


OWN = type("Own", (LinearRegression,), {})


@pytest.mark.parametrize(
    ("model", "calls"),
    [
        (LinearRegression(), 1),
        (make_pipeline(StandardScaler(), LinearRegression()), 1),
        (make_pipeline(FunctionTransformer(np.sin), LinearRegression()), 2),
        (make_pipeline(OWN()), 2),
        (OWN(), 2),
    ],
    ids=["estimator", "pipeline", "with a function", "with one of a user's", "of a user's"],
)
def test_estimators_of_scikit_learn_alone_are_not_asked_again(model, calls, x, monkeypatch):
    seen, predict = [], LinearRegression.predict
    monkeypatch.setattr(LinearRegression, "predict", lambda self, a: seen.append(len(a)) or predict(self, a))
    lx.explain(model.fit(x.numpy(), x.sum(1).numpy()), x.numpy(), lx.occlusion())
    assert len(seen) == calls


@pytest.mark.parametrize(("wide", "calls"), [(4, [25 * 1024] * 8), (640, [1024] * 200)])
def test_calls_are_smaller_where_layers_are_wide_and_even(wide, calls):
    """Two blocks of 1,024 draws for 100 instances: at most 32,768 rows a call, and at most 5 · 2¹⁷ / 640 = 1,024."""
    net, seen = nn.Sequential(nn.Linear(6, wide), nn.Tanh(), nn.Linear(wide, 1)).eval(), []
    net.register_forward_hook(lambda _, given, out: seen.append(len(given[0])))
    lx.explain(net, torch.randn(100, 6), lx.c_lime(), n_samples=2048)
    assert [seen[0], *seen[2:]] == calls  # and after the first four rows to see that they agree


def test_values_for_several_targets_cost_no_more_calls(three_outputs, x):
    rows = [0]

    def model(a):
        rows[0] += len(a)
        return three_outputs(a).detach()

    lx.explain(model, x, lx.kernel_shap(), n_samples=40, target=0)
    one, rows[0] = rows[0], 0
    lx.explain(model, x, lx.kernel_shap(), n_samples=40, target=range(3))
    assert rows[0] == one


@pytest.mark.parametrize("method", METHODS, ids=IDS)
def test_an_instance_does_not_depend_on_the_others(method, tanh_net, x):
    together = lx.explain(tanh_net, x, method, n_samples=150)
    for i in range(len(x)):
        alone = lx.explain(tanh_net, x[i : i + 1], method, n_samples=150)
        torch.testing.assert_close(alone.weights[0], together.weights[i], rtol=0, atol=1e-10)
        torch.testing.assert_close(alone.standard_error[0], together.standard_error[i], rtol=1e-8, atol=1e-12)
        torch.testing.assert_close(alone.loss[0], together.loss[i], rtol=1e-8, atol=1e-14)


def test_the_memory_limit_changes_nothing_but_the_errors(monkeypatch, tanh_net, x):
    """Instances in smaller batches, outputs not kept: the weights are the same."""
    from locapprox.fit import plan

    for method in METHODS:
        whole = lx.explain(tanh_net, x, method, n_samples=150)
        with monkeypatch.context() as patch:
            patch.setattr(plan, "MEMORY", 300)
            part = lx.explain(tanh_net, x, method, n_samples=150)
        torch.testing.assert_close(part.weights, whole.weights, rtol=0, atol=1e-10)


# ---- targets


@pytest.mark.parametrize("method", METHODS, ids=IDS)
def test_targets(method, three_outputs, x):
    single = [lx.explain(three_outputs, x, method, n_samples=64, target=t) for t in range(3)]
    assert not torch.allclose(single[0].weights, single[1].weights)
    several = lx.explain(three_outputs, x, method, n_samples=64, target=range(3))
    assert several.weights.shape == (5, 3, 6)
    assert several.intercept.shape == several.loss.shape == several.r2.shape == (5, 3)
    for t in range(3):
        torch.testing.assert_close(several.weights[:, t], single[t].weights, rtol=0, atol=1e-12)
        torch.testing.assert_close(several.standard_error[:, t], single[t].standard_error, rtol=1e-8, atol=1e-12)
        torch.testing.assert_close(several.loss[:, t], single[t].loss, rtol=1e-8, atol=1e-14)
        torch.testing.assert_close(several.validate(30)[:, t], single[t].validate(30), rtol=1e-8, atol=1e-14)
        torch.testing.assert_close(several.predict(x / 2)[:, t], single[t].predict(x / 2), rtol=0, atol=1e-11)
    some = lx.explain(three_outputs, x, method, n_samples=64, target=range(2, 0, -1))
    torch.testing.assert_close(some.weights[:, 0], single[2].weights, rtol=0, atol=1e-12)
    torch.testing.assert_close(some.weights[:, 1], single[1].weights, rtol=0, atol=1e-12)
    chosen = [2, 0, 1, 1, 0]
    for target in (chosen, np.array(chosen), torch.tensor(chosen)):
        for batch_size in (None, 3):
            own = lx.explain(three_outputs, x, method, n_samples=64, target=target, batch_size=batch_size)
            for i, t in enumerate(chosen):
                torch.testing.assert_close(own.weights[i], single[t].weights[i], rtol=0, atol=1e-11)
    for function in (lambda out: out[:, 1] - out[:, 2], lambda out: out[:, 1:2] - out[:, 2:]):
        margin = lx.explain(three_outputs, x, method, n_samples=64, target=function)
        torch.testing.assert_close(margin.weights, single[1].weights - single[2].weights, rtol=0, atol=1e-11)


def test_one_output_in_either_shape(tanh_net, x):
    column = lx.explain(tanh_net, x, lx.kernel_shap(), n_samples=64)
    flat = lx.explain(lambda a: tanh_net(a)[:, 0], x, lx.kernel_shap(), n_samples=64)
    close(column, flat, 1e-14)
    close(column, lx.explain(tanh_net, x, lx.kernel_shap(), n_samples=64, target=0), 1e-14)
    one = lx.explain(tanh_net, x, lx.kernel_shap(), n_samples=64, target=range(1))
    assert one.weights.shape == (5, 1, 6)
    torch.testing.assert_close(one.weights[:, 0], column.weights, rtol=0, atol=1e-14)


def test_several_outputs_without_a_target_are_an_error(three_outputs, x):
    with pytest.raises(ValueError, match="3 outputs"):
        lx.explain(three_outputs, x, lx.lime())
    for target in (3, -1, [0, 1, 2, 3, 0], range(4)):
        with pytest.raises(ValueError, match="target"):
            lx.explain(three_outputs, x, lx.lime(), target=target)


# ---- scikit-learn


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(200, 4)), columns=["age", "dose", "height", "mass"])
    value = frame["age"] * 2 + frame["dose"] ** 2 - frame["height"] * frame["mass"]
    return frame, value.to_numpy(), (value > 0.3).astype(int).to_numpy() + (value > 2)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("fitted_on", ["frame", "array"])
@pytest.mark.parametrize("explained", ["frame", "array", "tensor"])
def test_regressors_take_frames_arrays_and_tensors(table, fitted_on, explained):
    """The same numbers however data come, and no warning about feature names."""
    frame, y, _ = table
    model = RandomForestRegressor(n_estimators=10, random_state=0).fit(
        frame if fitted_on == "frame" else frame.to_numpy(), y
    )
    rows = frame.iloc[:3]
    x = {"frame": rows, "array": rows.to_numpy(), "tensor": torch.from_numpy(rows.to_numpy(copy=True))}[explained]
    e = lx.explain(model, x, lx.kernel_shap(), n_samples=16)
    plain = RandomForestRegressor(n_estimators=10, random_state=0).fit(frame.to_numpy(), y)
    expected = lx.explain(lambda a: plain.predict(a), rows.to_numpy(), lx.kernel_shap(), n_samples=16)
    close(e, expected, 1e-12)
    names = list(frame.columns) if explained == "frame" else ["0", "1", "2", "3"]
    assert e.to_frame()["feature"].tolist() == 3 * names
    np.testing.assert_allclose(e.to_frame()["weight"], expected.weights.numpy().ravel(), atol=1e-12)


@pytest.mark.filterwarnings("error")
def test_classifiers_are_explained_by_probability(table):
    frame, _, y = table
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, y)
    e = lx.explain(model, frame.iloc[:3], lx.occlusion(), target=range(3))
    x = frame.iloc[:3]
    for j, name in enumerate(frame.columns):
        without = x.assign(**{name: 0.0})
        expected = model.predict_proba(x) - model.predict_proba(without)
        np.testing.assert_allclose(e.weights[:, :, j].numpy(), expected, atol=1e-12)
    assert e.to_frame().groupby("target")["weight"].count().to_dict() == {0: 12, 1: 12, 2: 12}
    torch.testing.assert_close(e.weights.sum(1), torch.zeros(3, 4, dtype=F64), rtol=0, atol=1e-12)


def test_a_linear_regression_has_its_coefficients(table):
    frame, y, _ = table
    model = LinearRegression().fit(frame, y)
    e = lx.explain(model, frame.iloc[:3], lx.c_lime(), n_samples=50)
    np.testing.assert_allclose(e.weights.numpy(), np.tile(model.coef_, (3, 1)), atol=1e-9)
    e = lx.explain(model, frame.iloc[:3], lx.lime(width=5.0), n_samples=50)
    np.testing.assert_allclose(e.weights.numpy(), model.coef_ * frame.iloc[:3].to_numpy(), atol=1e-9)


def test_array_models_and_frame_models_see_what_was_passed(table):
    frame = table[0].iloc[:2]
    kinds = []

    def model(a):
        kinds.append(type(a))
        return np.asarray(a).sum(1)

    for x, kind in (
        (frame, pd.DataFrame),
        (frame.to_numpy(), np.ndarray),
        (torch.tensor(frame.to_numpy(copy=True)), torch.Tensor),
    ):
        kinds.clear()
        e = lx.explain(model, x, lx.occlusion())
        assert set(kinds) == {kind}
        np.testing.assert_allclose(e.weights.numpy(), frame.to_numpy(), atol=1e-12)
    names = []
    lx.explain(lambda a: names.append(list(a.columns)) or a["age"], frame, lx.lime(), n_samples=20)
    assert all(n == list(frame.columns) for n in names)


def test_gradients_of_arrays_are_refused_with_a_way_out(table):
    frame, y, _ = table
    model = MLPRegressor(hidden_layer_sizes=(4,), max_iter=5, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(frame.to_numpy(), y)
    for method in GRADIENTS:
        with pytest.raises(TypeError, match=r"c_lime"):
            lx.explain(model, frame.to_numpy()[:2], method, n_samples=10)
    with pytest.raises(TypeError, match="differentiably"):
        lx.explain(lambda a: a.detach().sum(1), torch.ones(1, 3), lx.vanilla_gradients())


# ---- dtypes and shapes


@pytest.mark.parametrize("method", METHODS, ids=IDS)
def test_float32_is_float64_up_to_the_models_rounding(method, tanh_net, x):
    single = copy.deepcopy(tanh_net).float()
    if method.name in (
        "LIME",
        "KernelSHAP",
        "C-LIME",
        "SmoothGrad",
    ):  # the same draw for both: masks, or a coarse sigma
        method = {"C-LIME": lx.c_lime(0.5), "SmoothGrad": lx.smoothgrad(0.5)}.get(method.name, method)
    e, double = lx.explain(single, x.float(), method, n_samples=200), lx.explain(tanh_net, x, method, n_samples=200)
    assert e.weights.dtype == e.loss.dtype == F64
    if method.name in ("C-LIME", "SmoothGrad"):  # randn differs between dtypes: within both errors
        z = (e.weights - double.weights) / (e.standard_error**2 + double.standard_error**2).sqrt()
        assert float(z.abs().max()) < 5
    else:
        torch.testing.assert_close(e.weights, double.weights, rtol=0, atol=2e-5)


def test_arrays_get_the_modules_dtype(tanh_net, x):
    for net in (tanh_net, copy.deepcopy(tanh_net).float()):
        for array in (x.numpy(), x.float().numpy(), pd.DataFrame(x.numpy())):
            e = lx.explain(net, array, lx.vanilla_gradients())
            assert e.x.dtype == next(net.parameters()).dtype
            torch.testing.assert_close(
                e.weights, lx.explain(tanh_net, x, lx.vanilla_gradients()).weights, rtol=0, atol=1e-5
            )


def test_whole_numbers_are_taken(x):
    e = lx.explain(lambda a: a.sum(1) * 2.0, np.arange(6).reshape(2, 3), lx.occlusion())
    np.testing.assert_allclose(e.weights.numpy(), [[0, 2, 4], [6, 8, 10]], atol=1e-6)


@pytest.mark.parametrize("method", METHODS, ids=IDS)
def test_shapes_only_fold(method):
    """(2, 1, 3) inputs have the weights of their six entries in a row."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(3, 2, 1, 3, generator=rng, dtype=F64)

    def model(a):
        a = a.flatten(1)
        return torch.sin(a[:, 0] * a[:, 5]) + (a**2).sum(1)

    folded, flat = (lx.explain(model, a, method, n_samples=100) for a in (x, x.flatten(1)))
    assert folded.weights.shape == folded.standard_error.shape == x.shape
    torch.testing.assert_close(folded.weights.flatten(1), flat.weights, rtol=0, atol=1e-12)
    torch.testing.assert_close(folded.loss, flat.loss, rtol=1e-9, atol=1e-14)


def test_a_convolution_with_batch_norm():
    torch.manual_seed(3)
    net = nn.Sequential(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(12, 2))
    net = net.double().eval()
    x = torch.randn(2, 2, 3, 3, dtype=F64)
    leaf = x.clone().requires_grad_()
    g = torch.autograd.grad(net(leaf)[:, 1].sum(), leaf)[0]
    torch.testing.assert_close(lx.explain(net, x, lx.vanilla_gradients(), target=1).weights, g, rtol=0, atol=1e-13)
    torch.testing.assert_close(lx.explain(net, x, lx.gradient_x_input(), target=1).weights, g * x, rtol=0, atol=1e-13)
    labels = torch.arange(9).reshape(3, 3)
    e = lx.explain(net, x, lx.kernel_shap(features=labels), n_samples=512, target=1)
    total = (net(x) - net(torch.zeros_like(x)))[:, 1].detach()
    torch.testing.assert_close(e.weights.sum(1), total, rtol=0, atol=1e-12)


# ---- kinds of numbers: what is of another kind is the same, or a sentence (test_bad_input)

W = torch.arange(1.0, 7.0, dtype=F64)


class Picky(torch.Tensor):
    """A subclass that knows next to nothing, and keeps to itself what it makes."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function.__name__ not in ("__matmul__", "matmul"):
            raise RuntimeError(f"no {function.__name__}")
        return super().__torch_function__(function, types, args, kwargs or {})


def occluded(model, x, **settings):
    return lx.explain(model, x, lx.occlusion(), **settings).weights


ARRAYS = {
    "big-endian": lambda a: a.astype(">f8"),
    "long": lambda a: a.astype(np.longdouble),
    "backwards": lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
    "of columns": np.asfortranarray,
    "nothing masked": np.ma.masked_array,
    "matrix": np.matrix,
    "sparse columns": lambda a: pd.DataFrame(a).astype(pd.SparseDtype(float, 0.0)),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_kinds_of_arrays(kind, x):
    expected = (x * W).numpy()
    got = occluded(lambda a: np.asarray(a) @ W.numpy(), ARRAYS[kind](x.numpy()))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
    if kind not in ("matrix", "sparse columns"):
        got = occluded(lambda a: ARRAYS[kind]((a @ W.numpy())[:, None]), x.numpy())
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
        base = lx.occlusion(ARRAYS[kind](x[:1].numpy())[0])
        got = lx.explain(lambda a: a @ W, x, base).weights
        np.testing.assert_allclose(got, (x - x[0]) * W, rtol=0, atol=1e-12)


@pytest.mark.parametrize("part", [lambda t: t.as_subclass(Picky), nn.Parameter], ids=["picky", "parameter"])
def test_subclasses_of_tensors(part, x):
    torch.testing.assert_close(occluded(lambda a: a @ W, part(x)), x * W, rtol=0, atol=1e-12)
    torch.testing.assert_close(lx.explain(lambda a: a @ W, x, lx.occlusion(part(x[0]))).weights, (x - x[0]) * W)


def test_results_of_a_subclass_have_their_gradient(x):
    e = lx.explain(lambda a: (a @ W).as_subclass(Picky), x, lx.smoothgrad(), n_samples=8)
    torch.testing.assert_close(e.weights, W.expand(5, 6))
    torch.testing.assert_close(occluded(lambda a: (a @ W).as_subclass(Picky), x), x * W, rtol=0, atol=1e-12)


def test_lists_of_scores_have_their_gradient(x):
    e = lx.explain(lambda a: [row @ W for row in a], x, lx.smoothgrad(), n_samples=8)
    torch.testing.assert_close(e.weights, W.expand(5, 6))
    e = lx.explain(lambda a: [torch.stack([row[0], row @ W]) for row in a], x, lx.smoothgrad(), n_samples=8, target=1)
    torch.testing.assert_close(e.weights, W.expand(5, 6))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_eight_bits(dtype, x):
    """They are exact in float32, and nothing can be added in them."""
    small = x.to(dtype)
    torch.testing.assert_close(occluded(lambda a: a.double() @ W, small), small.double() * W, rtol=0, atol=1e-12)
    e = lx.explain(lambda a: a @ W, x, lx.occlusion(small[0]))
    torch.testing.assert_close(e.weights, (x - small[0].double()) * W, rtol=0, atol=1e-12)
    y, without = (torch.stack([a @ W for a in rows]).to(dtype).double() for rows in (x, x * (torch.arange(6) > 0)))
    got = occluded(lambda a: (a @ W).to(dtype), x)
    torch.testing.assert_close(got[:, 0], y - without, rtol=0, atol=1e-12)


class Quantised(nn.Module):
    """A line with a table of another dtype before its weights."""

    def __init__(self, table, dtype):
        super().__init__()
        self.table = nn.Parameter(torch.ones(2).to(table), requires_grad=False)
        self.weight = nn.Parameter(W.to(dtype), requires_grad=False)

    def forward(self, x):
        self.seen = x.dtype
        return x @ self.weight.to(x.dtype)


@pytest.mark.parametrize(
    ("table", "dtype", "seen"),
    [
        *((table, torch.float32, torch.float32) for table in (torch.int8, torch.uint8, torch.bool)),
        (torch.int8, torch.int8, F64),
        (torch.float16, torch.float32, torch.float32),
        (torch.float32, torch.float16, torch.float32),
        (torch.float16, torch.bfloat16, torch.float32),
        (torch.float16, torch.float16, torch.float16),
        (torch.float8_e5m2, torch.float32, torch.float32),
        (torch.complex64, torch.float32, torch.float32),
    ],
)
def test_arrays_get_the_widest_dtype_of_a_module(table, dtype, seen, x):
    """An eighth is an eighth in all of them, and 0 in whole numbers."""
    net, eighths = Quantised(table, dtype), (8 * x).round() / 8
    for given in (eighths.numpy(), pd.DataFrame(eighths.numpy())):
        got = occluded(net, given)
        assert net.seen == seen
        torch.testing.assert_close(got, eighths * W, rtol=0, atol=2e-2 if seen == torch.float16 else 1e-5)
    occluded(net, eighths)
    assert net.seen == F64


def test_a_baseline_is_a_copy(x):
    """Changed afterwards, array or tensor, it is what it was; with features of every instance, too."""
    labels = torch.stack([torch.arange(6), *[torch.tensor([0, 0, 1, 1, 2, 2])] * 4])
    for copied, features in itertools.product((torch.clone, lambda row: row.numpy().copy()), (None, labels)):
        base = copied(x[0])
        method, sample = lx.kernel_shap(base, features), lx.kernel_shap(lx.Background(base[None]), features)
        expected = lx.explain(lambda a: a @ W, x, lx.kernel_shap(x[0].clone(), features), n_samples=64).weights
        base[:] = 1e6
        for changed in (method, sample):
            got = lx.explain(lambda a: a @ W, x, changed, n_samples=64).weights
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.uint64, ">i4"])
def test_labels_of_any_whole_numbers(dtype, x):
    """A PNG's are bytes, which index a tensor as a mask."""
    labels = np.array([0, 0, 1, 1, 2, 2])
    for given in (labels, np.tile(labels, (5, 1))):
        expected = lx.explain(lambda a: a @ W, x, lx.kernel_shap(features=given), n_samples=8).weights
        torch.testing.assert_close(expected, (x * W).unflatten(1, (3, 2)).sum(2))
        kinds = [given.astype(dtype)] + ([torch.from_numpy(given).to(torch.uint8)] if dtype == np.uint8 else [])
        for one in kinds:
            got = lx.explain(lambda a: a @ W, x, lx.kernel_shap(features=one), n_samples=8).weights
            assert torch.equal(got, expected)


def test_limes_mean_and_scale_of_any_kind(x):
    mean, scale = x.mean(0), x.std(0)

    def weights(*parts):
        where = lx.LimeTabular(*parts, width=9.0)
        return lx.explain(lambda a: a @ W, x, lx.Method("own", where, lx.SquaredError()), n_samples=64).weights

    expected = weights(mean, scale)
    torch.testing.assert_close(expected, (scale * W).expand(5, 6))
    assert torch.equal(weights(mean.numpy(), scale.numpy()), expected)
    assert torch.equal(weights(0.5, 2), weights(torch.full((6,), 0.5, dtype=F64), torch.full((6,), 2.0, dtype=F64)))


# ---- devices

NETWORK = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1), nn.Sigmoid()).double().eval()
LABELS = torch.stack([torch.arange(6), *[torch.tensor([0, 0, 1, 1, 2, 2])] * 4])


def squares(where, surrogate=None):
    return lx.Method("own", where, lx.SquaredError(), surrogate or lx.Linear())


@pytest.fixture
def elsewhere():
    """What says nothing of its device is made where there is nothing."""

    def on(function):
        torch.set_default_device("meta")
        try:
            return function()
        finally:
            torch.set_default_device(None)

    return on


EVERYWHERE = {
    **lx.paper_methods(),
    "features": lx.kernel_shap(torch.ones(6), LABELS),
    "background": lx.kernel_shap(lx.Background(torch.eye(6))),
    "coalitions": squares(lx.Multiplicative(lx.AllCoalitions())),
    "points": squares(lx.NearestPoints(torch.randn(40, 6, generator=torch.Generator().manual_seed(0)), 20)),
    "table": squares(lx.LimeTabular(0.0, 1.0, 9.0)),
    "covariance": squares(lx.Additive(lx.CorrelatedNormal(torch.eye(6)))),
    "antithetic": squares(lx.Additive(lx.Normal(torch.ones(6), antithetic=True))),
    "sparse": squares(lx.Additive(lx.Normal(0.1)), lx.Sparse(2)),
    "logistic": squares(lx.Multiplicative(lx.AllCoalitions()), lx.Logistic()),
}


@pytest.mark.parametrize("name", EVERYWHERE)
@pytest.mark.filterwarnings("ignore:n_samples is small")
def test_the_default_device_changes_nothing(name, elsewhere, x):
    def numbers():
        e = lx.explain(NETWORK, x, EVERYWHERE[name], n_samples=48 if name == "KernelSHAP" else 64)
        parts = [e.weights, e.standard_error, e.loss, e.validate(50), *e.interval(), e.points(0)[1], e[1:].weights]
        return [*parts, lx.concat([e[:1], e[1:]]).weights, e.predict(x)]

    for one, two in zip(elsewhere(numbers), numbers(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0, equal_nan=True)


def test_the_default_device_changes_no_evaluation(elsewhere, x, tmp_path):
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=F64)

    def numbers():
        methods = [lx.lime(9.0), lx.c_lime()]
        f = lx.faithfulness(NETWORK, x, methods, methods, n_samples=200, progress=False)
        e = lx.explain(NETWORK, x, lx.occlusion())
        tests = [lx.perturbation_test(NETWORK, x, [e], replace=how, draws=2) for how in ("baseline", "noise")]
        patched = lx.occlusion(lx.Blurred(1.0), lx.per_channel(lx.patches(images.shape, 4), 3))
        seen = lx.explain(lambda a: a.flatten(1).square().sum(1), lx.as_images(images.numpy()), patched)
        lx.check_surrogate(lx.Linear())
        lx.check_distribution(lx.Normal(0.1))
        lx.check_neighbourhood(lx.Additive(lx.Normal(0.1)), x)
        tables = [f.table.select_dtypes("number"), *(test.changes[test.measure] for test in tests)]
        given = lx.as_explanation(x, x, lx.smoothgrad(), intercept=0.0)
        tensors = [seen.on_input(), lx.load(e.save(tmp_path / "e")).predict(x), given.predict(x)]
        return [*(torch.tensor(np.asarray(table), device="cpu") for table in tables), *tensors]

    for one, two in zip(elsewhere(numbers), numbers(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0, equal_nan=True)


# ---- bad answers


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (lambda a: a.sum(), "one row of scores per input"),
        (lambda a: a[:1].sum(1), "one row of scores per input"),
        (lambda a: a.sum(1) * torch.nan, "NaN"),
        (lambda a: torch.rand(len(a)), "changes from call to call"),
    ],
)
def test_useless_answers_are_named(model, match, x):
    with pytest.raises(ValueError, match=match):
        lx.explain(model, x, lx.lime())


def test_out_of_memory_names_the_argument(x):
    def model(a):
        if len(a) > 10:
            raise RuntimeError("CUDA out of memory")
        return a.sum(1)

    with pytest.raises(MemoryError, match="batch_size"):
        lx.explain(model, x, lx.lime())
    lx.explain(model, x, lx.lime(), batch_size=10)


def test_a_module_that_passed_is_asked_again_where_it_may_have_changed():
    """It draws random numbers now; or only calls of one row have been seen, which tell nothing of rows beside it."""

    class Dropping(nn.Module):
        on = False

        def forward(self, x):
            return nn.functional.dropout(x, 0.5, training=self.on).sum(1)

    class Mixing(nn.Module):
        def forward(self, x):
            return x.square().sum(1) - x.square().sum(1).mean() * (len(x) > 1)

    x, model = torch.rand(3, 4, generator=torch.Generator().manual_seed(0)), Dropping()
    for _ in range(2):
        lx.explain(model, x, lx.c_lime(), n_samples=50)
    model.on = True
    with pytest.raises(ValueError, match="must answer every row alone"):
        lx.explain(model, x, lx.c_lime(), n_samples=50)
    mixing = Mixing()
    lx.explain(mixing, x, lx.c_lime(), n_samples=50, batch_size=1)
    with pytest.raises(ValueError, match="must answer every row alone"):
        lx.explain(mixing, x, lx.c_lime(), n_samples=50)

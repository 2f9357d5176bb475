"""Weights and R² against the width of a neighbourhood."""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt

import locapprox as lx

F64 = torch.float64


def wave(a):
    """sin(3 a) in the first feature: C-LIME's weight is 3 exp(−9σ²/2) cos(3a) (Stein), the others' is 0."""
    return torch.sin(3 * a[:, 0])


def test_a_profile_knows_the_weights_at_every_width():
    x, sigmas = torch.tensor([[0.2, 1.0], [0.8, -1.0]], dtype=F64), [0.05, 0.2, 0.5]
    p = lx.profile(wave, x, lx.c_lime(), sigmas, n_samples=4000)
    table = p.table.set_index(["width", "instance", "feature"]).sort_index()
    for width in sigmas:
        for i in range(2):
            row = table.loc[(width, i, "0")]
            exact = 3 * np.exp(-4.5 * width**2) * np.cos(3 * float(x[i, 0]))
            assert abs(row["weight"] - exact) < 4 * row["standard_error"]
            assert row["low"] < row["weight"] < row["high"]
    r2 = table.xs(("0", 0), level=("feature", "instance"))["r2"]
    assert list(r2) == sorted(r2, reverse=True)  # the wider, the less a line explains of a wave


def at(make):
    return lambda width: make(width).neighbourhood


METHODS = {
    "kernel": (lx.lime(features=[0, 0, 1, 1, 2, 2]), lambda w: lx.lime(w, features=[0, 0, 1, 1, 2, 2])),
    "chosen": (lx.lime(), lx.lime),
    "sigma": (lx.smoothgrad(), lx.smoothgrad),
    "function": (lx.c_lime, lx.c_lime),
    "tabular": (
        lx.Method("", lx.LimeTabular(0.0, 1.0), lx.SquaredError()),
        lambda w: lx.Method("", lx.LimeTabular(0.0, 1.0, w), lx.SquaredError()),
    ),
}


@pytest.mark.parametrize("kind", METHODS)
def test_a_profile_is_the_explanations_at_its_widths(kind, three_outputs, x):
    method, make = METHODS[kind]
    given = pd.DataFrame(x.numpy(), columns=list("abcdef"))
    p = lx.profile(three_outputs, given, method, [4.0, 2.0], n_samples=200, seed=3, target=range(2), level=0.9)
    assert p.widths == [2.0, 4.0]
    for width in p.widths:
        e = lx.explain(three_outputs, given, make(width), n_samples=200, seed=3, target=range(2))
        rows = p.table[p.table["width"] == width]
        assert torch.equal(p.explanations[width].weights, e.weights)
        low, high = e.interval(0.9)
        for name, numbers in {"weight": e.weights, "low": low, "high": high}.items():
            np.testing.assert_array_equal(rows[name], numbers.flatten())
        some = rows[rows["feature"] == rows["feature"].iloc[0]]
        np.testing.assert_array_equal(some["r2"], e.r2.flatten())
        np.testing.assert_array_equal(some["loss"], e.loss.flatten())


def test_a_width_that_fails_is_listed_and_loses_nothing(tanh_net, x):
    widths = [1e-3, 2.0, 8.0, 1e-2]
    p = lx.profile(tanh_net, x, lx.lime(), widths, n_samples=300)
    assert sorted(p.failed) == [1e-3, 1e-2]
    assert "too narrow" in p.failed[1e-2]
    assert "too narrow" in repr(p)
    assert p.table.groupby("width")["weight"].count().tolist() == [0, 0, 30, 30]
    assert len(p.table) == 4 * 30
    with pytest.raises(ValueError, match=r"nothing can be fitted at any of the widths; at 0\.01: .*too narrow"):
        lx.profile(tanh_net, x, lx.lime(), [1e-3, 1e-2])


def test_the_picture_has_the_numbers(tanh_net, x):
    p = lx.profile(tanh_net, x, lx.lime(), [1e-3, 2.0, 4.0, 8.0], n_samples=300)
    upper, lower = p.plot(instance=2, top=3)
    assert upper.get_shared_x_axes().joined(upper, lower)
    rows = p.table[p.table["instance"] == 2]
    largest = rows.groupby("feature")["weight"].apply(lambda w: w.abs().max()).nlargest(3).index
    lines = {line.get_label(): line for line in upper.lines if not line.get_label().startswith("_")}
    assert list(lines) == list(largest)
    for name, line in lines.items():
        np.testing.assert_array_equal(line.get_ydata(), rows[rows["feature"] == name]["weight"])
    np.testing.assert_array_equal(lower.lines[0].get_ydata(), rows[rows["feature"] == "0"]["r2"])
    assert len(upper.collections) == 3
    plt.close(upper.figure)
    for wrong in ({"instance": 5}, {"score": 1}, {"top": 0}):
        with pytest.raises(ValueError, match=r"^instance must be below 5 and score below 1|^top must be"):
            p.plot(**wrong)


REFUSED = {
    "no width": (lx.occlusion(), [1.0], r"neither a kernel nor one σ .*pass a function"),
    "a sigma per entry": (lx.c_lime(torch.ones(6)), [1.0], r"neither a kernel nor one σ"),
    "widths twice": (lx.lime(), [1.0, 1.0], "^widths must be positive numbers, each once"),
    "no widths": (lx.lime(), [], "^widths must be positive numbers, each once"),
    "a negative width": (lx.lime(), [1.0, -1.0], "^widths must be positive and finite"),
    "other features": (lambda w: lx.lime(features=[0] * 6 if w > 5 else None), [1.0, 9.0], "other features at other"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_profile_says_so(case, tanh_net, x):
    method, widths, words = REFUSED[case]
    with pytest.raises(ValueError, match=words):
        lx.profile(tanh_net, x, method, widths)


def test_what_is_wrong_with_the_call_is_not_a_width_that_failed(three_outputs, x):
    with pytest.raises(ValueError, match="target"):
        lx.profile(three_outputs, x, lx.lime(), [1.0, 2.0])
    with pytest.raises(TypeError, match="method must be a Method"):
        lx.profile(three_outputs, x, lambda width: width, [1.0], target=0)

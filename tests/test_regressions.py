"""Mistakes that were once made, each with the number that gave it away."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LinearRegression
from sklearn.svm import SVC

import locapprox as lx


def squares(rows):
    return (rows**2).sum(1)


def test_columns_of_a_frame_are_matched_by_name():
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(50, 2)), columns=["a", "b"])
    model = LinearRegression().fit(table, 10 * table["a"])
    with pytest.raises(ValueError, match="in another order than the model was fitted on"):
        lx.explain(model, table[["b", "a"]][:1], lx.occlusion())


def test_outputs_keep_the_models_precision():
    def model(rows):
        return 1e9 + rows.astype(float).sum(1) + rows[:, 0] * rows[:, 1] * 0.5

    e = lx.explain(model, np.array([[3, 4, 5]]), lx.kernel_shap(), n_samples=8)
    np.testing.assert_allclose(e.weights.numpy(), [[6, 7, 5]], atol=1e-5)
    e = lx.explain(lambda rows: 1e6 + rows.double().sum(1), torch.full((1, 3), 0.3), lx.kernel_shap(), n_samples=8)
    np.testing.assert_allclose(e.weights.numpy(), np.full((1, 3), 0.3), atol=1e-6)


def test_a_baseline_of_the_batch_is_refused():
    x = torch.arange(12.0, dtype=torch.float64).reshape(4, 3)
    with pytest.raises(ValueError, match="for an instance alone as among others"):
        lx.explain(squares, x, lx.occlusion(baseline=lambda x: x.mean(0).expand_as(x)))
    with pytest.raises(ValueError, match="the same each time"):
        lx.explain(squares, x, lx.occlusion(baseline=torch.randn_like))
    for baseline in (x / 2, lambda x: x / 2):  # of x's shape: one for each instance, and no sample to average over
        e = lx.explain(squares, x, lx.occlusion(baseline=baseline))
        torch.testing.assert_close(e.weights, 0.75 * x**2, rtol=0, atol=1e-12)


def test_a_fit_that_is_shrunk_claims_no_error():
    x = torch.arange(1.0, 7.0, dtype=torch.float64)[None]
    with pytest.warns(UserWarning, match="standard errors are unknown"):
        e = lx.explain(squares, x, lx.kernel_shap(), n_samples=10)
    assert bool(e.standard_error.isnan().all())


def test_nearest_points_are_the_nearest():
    data = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)) + 2000
    x = data[:2] + 0.01
    draw = lx.NearestPoints(data, 5).draw(x, 1, torch.Generator())
    for i in range(2):
        distance = np.sort(np.linalg.norm(data.double().numpy() - x[i].double().numpy(), axis=1))[:5]
        np.testing.assert_allclose(np.sort(draw.xi[i].norm(dim=-1).numpy()), distance, rtol=1e-3)


class InBlocks:
    """A custom neighbourhood whose draws depend on how many are asked for."""

    def __init__(self, weigh=torch.ones, fixed=0):
        self.weigh, self.fixed = weigh, fixed

    def draw(self, x, n, rng):
        size = torch.rand(n, 1, generator=rng, dtype=x.dtype)
        xi = torch.randn(n, x.shape[1], generator=rng, dtype=x.dtype) * size
        return lx.Draw(xi, self.weigh(n), n_fixed=self.fixed)

    def place(self, x, xi):
        return x[:, None] + xi


def test_points_are_what_the_model_saw():
    seen, x = [], torch.ones(1, 2, dtype=torch.float64)
    model, method = lambda rows: (seen.append(rows), squares(rows))[1], lx.Method("", InBlocks(), lx.SquaredError())
    e = lx.explain(model, x, method, n_samples=2500)
    assert {tuple(row) for row in e.points()[1].tolist()} <= {tuple(row) for row in torch.cat(seen).tolist()}


def test_a_draw_that_does_not_add_up_over_blocks_breaks_the_contract():
    x = torch.ones(2, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match="weights must not shrink"):
        lx.check_neighbourhood(InBlocks(lambda n: torch.full((n,), 1 / n)), x)
    with pytest.raises(ValueError, match="n_fixed=1 rows must not change with the seed"):
        lx.check_neighbourhood(InBlocks(fixed=1), x)


def test_x_is_copied():
    x = torch.ones(1, 3, dtype=torch.float64)
    e = lx.explain(lambda rows: rows.mul_(2).sum(1), x, lx.c_lime())
    assert torch.equal(x, torch.ones(1, 3, dtype=torch.float64))
    before = e.predict(x.clone())
    x.add_(5)
    assert torch.equal(before, e.predict(torch.ones(1, 3, dtype=torch.float64)))


def test_batch_size_counts_the_inputs_of_a_background_sample():
    sizes, x = [], np.random.default_rng(0).normal(size=(3, 4))
    background = np.random.default_rng(1).normal(size=(20, 4))
    model = lambda rows: (sizes.append(len(rows)), rows.sum(1))[1]  # noqa: E731
    lx.explain(model, x, lx.kernel_shap(baseline=lx.Background(background)), batch_size=50)
    assert max(sizes) <= 50


def test_inference_mode_outside_does_not_matter():
    net = torch.nn.Linear(3, 1).eval()
    with torch.inference_mode():
        e = lx.explain(net, torch.ones(1, 3), lx.smoothgrad())
    torch.testing.assert_close(e.weights, net.weight.detach().double(), rtol=1e-6, atol=0)


def test_a_classifier_of_labels_is_pointed_out():
    x = np.random.default_rng(0).normal(size=(40, 2))
    model = SVC().fit(x, (x[:, 0] > 0).astype(int))
    with pytest.warns(UserWarning, match="decision_function"):
        lx.explain(model, x[:1], lx.occlusion())


def test_half_precision_sums_do_not_overflow():
    x = torch.tensor([[2.0, 1.0]])
    model = lambda rows: 200 * (rows**2).sum(1)  # noqa: E731
    full, half = (lx.explain(model, v, lx.smoothgrad(1.0)).weights for v in (x, x.half()))
    torch.testing.assert_close(half, full, rtol=0.1, atol=30.0)


def test_a_surrogate_that_is_zero_at_the_test_point_is_still_affine():
    """Carrying a surrogate to another placement compared with g at one point only, where g may vanish."""
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    frame = lx.faithfulness(lambda z: z[:, 0] + z[:, 1] ** 2, x, [lx.kernel_shap()], [lx.c_lime()]).table
    assert frame["error"][0] == pytest.approx(2 * 0.1**4, rel=0.3)  # g = x₁: what is left is Var of 0.01 χ²(1)


class PlainNoise:
    """Gaussian noise, and nothing else."""

    def draw(self, x, n, rng):
        return lx.Draw(0.3 * torch.randn(n, x.shape[1], generator=rng, dtype=x.dtype), torch.ones(n))

    def place(self, x, xi):
        return x[:, None] + xi


def refuse(self, *_):
    raise AssertionError("read")


OWN = dict.fromkeys(("kernel", "check", "at", "stream", "batches", "blocks", "on_input", "to_input", "advice"), refuse)
OWN |= {"features": ["age", "dose"], "distribution": "skewed", "whole_budget": "no", "draws_at_once": "x", "kind": 3}
OWN |= {"interpolates": "?", "spread": "wide", "takes_missing": 5, "binary": None, "__qualname__": "PlainNoise"}


@pytest.mark.parametrize("loss", [lx.SquaredError(), lx.GradientMatching()], ids=["values", "gradients"])
def test_attributes_of_a_users_own_meaning_are_not_read(loss):
    """0.1 lost column names, changed the shape of weights or died in the engine over each of these."""
    own = type("PlainNoise", (PlainNoise,), OWN)()
    x = pd.DataFrame(np.random.default_rng(0).normal(size=(3, 4)), columns=list("abcd"))
    lx.check_neighbourhood(own, x)
    odd, plain = (
        lx.explain(lambda frame: (frame["a"] * frame["b"]).to_numpy(), x, lx.Method("", where, lx.SquaredError()))
        if not loss.gradient
        else lx.explain(lambda a: a.prod(1), torch.tensor(x.to_numpy()), lx.Method("", where, loss), n_samples=1500)
        for where in (own, PlainNoise())
    )
    assert odd.feature_names == plain.feature_names
    for name in ("weights", "intercept", "standard_error", "loss"):
        assert torch.equal(getattr(odd, name), getattr(plain, name)), name
    inputs = x if not loss.gradient else torch.tensor(x.to_numpy())
    assert torch.equal(odd.predict(inputs), plain.predict(inputs))
    assert torch.equal(odd.on_input(), plain.on_input())
    assert torch.equal(odd.validate(50), plain.validate(50))

"""Units: f·s, f + c, weights·s and x·s change an explanation as they must, whatever the parts, or a sentence says why.

Factors are powers of two near 1e±12, which cost no digit, so what remains is round-off; 1e±12 itself where no unit of
the library's own is rounded.
"""

import warnings
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from scipy.optimize import lsq_linear
from torch import Tensor

import locapprox as lx
from locapprox.fit.lasso_path import last_with

F32, F64 = torch.float32, torch.float64
TINY, HUGE = 2.0**-40, 2.0**40
D = 5


class Heavier(lx.BaseDistribution):
    """A distribution whose weights are multiplied."""

    def __init__(self, own, factor: float) -> None:
        self.own, self.factor = own, factor
        for name in ("draws_at_once", "interpolates", "binary", "spread"):
            setattr(self, name, getattr(own, name))

    @property
    def kind(self) -> str:
        return self.own.kind

    def draw(self, d, n, rng, dtype):
        draw = self.own.draw(d, n, rng, dtype)
        coarse = None if draw.coarse_weight is None else self.factor * draw.coarse_weight
        return replace(draw, weight=self.factor * draw.weight, coarse_weight=coarse)


def function(dtype):
    rng = torch.Generator().manual_seed(3)
    W, v = torch.randn(D, 8, generator=rng, dtype=F64).to(dtype), torch.randn(8, 1, generator=rng, dtype=F64).to(dtype)
    return lambda a: torch.tanh(a @ W) @ v / 4


def inputs(dtype):
    return torch.randn(2, D, generator=torch.Generator().manual_seed(4), dtype=F64).to(dtype)


class Setting:
    """A neighbourhood, and the same one in units of x that are s times smaller, with weights times w."""

    def __init__(self, make, additive=True):
        self.make, self.additive = make, additive


NEIGHBOURHOODS = {
    "normal": Setting(lambda s, w: lx.Additive(Heavier(lx.Normal(0.3 * s), w))),
    "pairs": Setting(lambda s, w: lx.Additive(Heavier(lx.Normal(0.3 * s, antithetic=True), w))),
    "kernel": Setting(lambda s, w: lx.Additive(Heavier(lx.Normal(0.3 * s), w), lx.ExponentialKernel(0.9 * s))),
    "LIME": Setting(
        lambda s, w: lx.Multiplicative(Heavier(lx.FairMasks(), w), 0.1 * s, kernel=lx.ExponentialKernel(2.5 * s)), False
    ),
    "SHAP": Setting(lambda s, w: lx.Multiplicative(Heavier(lx.ShapleyMasks(), w), 0.1 * s), False),
    "occlusion": Setting(lambda s, w: lx.Multiplicative(Heavier(lx.LeaveOneOut(), w), 0.1 * s), False),
    "path": Setting(lambda s, w: lx.Multiplicative(Heavier(lx.GaussLegendre(), w), 0.1 * s), False),
    "point": Setting(lambda s, w: lx.Additive(Heavier(lx.PointMass(0.0), w))),
}
every = pytest.mark.parametrize("dtype", [F32, F64], ids=["float32", "float64"])
LOSSES = {"values": (1.0, 0.0), "slopes": (0.0, 1.0), "both": (1.0, 0.25)}
SURROGATES = {
    "linear": lx.Linear(),
    "through 0": lx.Linear(intercept=False),
    "sparse": lx.Sparse(2),
    "constrained": lx.Constrained(lambda w, intercept: [w >= 0]),
    "logistic": lx.Logistic(),
}
# what values alone determine no surrogate on: one direction, one point; rows that outputs through 0 do not meet
REFUSED = ("n_samples is too small", "only has rows to interpolate", "cannot all be", "between 0 and 1", "(0, 1)")


def explained(model, x, neighbourhood, loss, surrogate, n=60):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return lx.explain(model, x, lx.Method("", neighbourhood, lx.Loss(*loss), surrogate), n_samples=n)
        except ValueError as error:
            if not any(words in str(error) for words in REFUSED):
                raise
            return None


def same(got: Tensor, expected: Tensor, rtol: float, scale: Tensor | float = 0.0) -> None:
    """Up to rtol of the largest among them, or of `scale`."""
    size = torch.as_tensor(expected.nan_to_num(0.0).abs().max()).clamp_min(scale)
    torch.testing.assert_close(got, expected, rtol=0, atol=float(rtol * size), equal_nan=True)


def alike(got, expected, rtol, f=1.0, c=0.0, xi=1.0):
    """Weights · f / ξ, intercept · f + c, losses · f²; r² and degrees of freedom stay."""
    if expected is None or got is None:
        assert got is expected
        return
    same(got.weights, expected.weights * (f / xi), rtol)
    same(got.intercept, expected.intercept * f + c, rtol, f)
    same(got.standard_error, expected.standard_error * (f / xi), rtol, (expected.weights * (f / xi)).abs().max() / 10)
    same(got.r2, expected.r2, 10 * rtol, 1.0)
    assert torch.equal(got.degrees_of_freedom, expected.degrees_of_freedom)


def cases():
    """All of them are slow together: of surrogates that are, and of float32, only some always run."""
    for (name, where), (of, loss), (kind, surrogate), dtype in product(
        NEIGHBOURHOODS.items(), LOSSES.items(), SURROGATES.items(), (F32, F64)
    ):
        if name in ("path", "point") and (kind, of) in (("constrained", "values"), ("logistic", "slopes")):
            continue  # many minima: no one says which
        always = dtype == F64 and name == "SHAP"
        always |= kind == "linear" and (dtype == F64 or name in ("normal", "LIME"))
        marks = [] if always else [pytest.mark.slow]
        yield pytest.param(where, loss, surrogate, dtype, id=f"{name}-{of}-{kind}-{dtype}", marks=marks)


@pytest.mark.parametrize(("where", "loss", "surrogate", "dtype"), list(cases()))
def test_units(where, loss, surrogate, dtype):
    f, x = function(dtype), inputs(dtype)
    logistic = isinstance(surrogate, lx.Logistic)
    model = (lambda a: torch.sigmoid(f(a))) if logistic else f
    one = explained(model, x, where.make(1, 1), loss, surrogate)
    tight = 1e-9 if dtype == F64 else 1e-5
    iterates = logistic or isinstance(surrogate, lx.Constrained)
    exact = tight if iterates or (loss[1] and dtype == F32) else 1e-12
    if not logistic:
        for s in (TINY, HUGE):
            alike(explained(lambda a, s=s: s * model(a), x, where.make(1, 1), loss, surrogate), one, exact, f=s)
        for s in (1e-12, 1e12):
            alike(explained(lambda a, s=s: s * model(a), x, where.make(1, 1), loss, surrogate), one, tight, f=s)
        if surrogate.intercept:
            c = 2.0**20 if dtype == F64 else 4.0
            digits = 1e3 * c * torch.finfo(dtype).eps
            alike(explained(lambda a: model(a) + c, x, where.make(1, 1), loss, surrogate), one, max(exact, digits), c=c)
    for s in (TINY, HUGE):
        alike(explained(model, x, where.make(1, s), loss, surrogate), one, exact)
    for s in (TINY, HUGE):
        xi = s if where.additive else 1.0
        scaled = (loss[0], loss[1] * xi**2)
        got = explained(lambda a, s=s: model(a / s), x * s, where.make(s, 1), scaled, surrogate)
        alike(got, one, exact, xi=xi)


# ---- what was not


def on_masks(surrogate, loss=None, n=200, **kernel):
    where = lx.Multiplicative(lx.FairMasks(), **kernel)
    return {"method": lx.Method("", where, loss or lx.SquaredError(), surrogate), "n_samples": n, "progress": False}


@pytest.mark.parametrize(
    ("s", "c"), [(1, 0), (1e-5, 0), (1e-8, 0), (1e-12, 0), (1e8, 0), (1e12, 0), (1, 1e6), (1e-5, 1e-5)]
)
def test_the_constrained_surrogate_is_bounded_least_squares_in_any_unit(s, c, draw_of):
    f, x = function(F64), inputs(F64)
    xi = draw_of(lx.Multiplicative(lx.FairMasks()), x, 200).xi
    e = lx.explain(lambda a: s * f(a) + c, x, **on_masks(lx.Constrained(lambda w, intercept: [w >= 0])))
    bounds = np.r_[np.zeros(D), -np.inf], np.inf
    for i in range(2):
        X = np.c_[xi.numpy(), np.ones(len(xi))]
        best = lsq_linear(X, f(x[i] * xi)[:, 0].numpy(), bounds, tol=1e-15).x
        np.testing.assert_allclose(e.weights[i] / s, best[:D], atol=1e-9)
        assert (best[:D] < 1e-12).any()
        assert (float(e.intercept[i]) - c) / s == pytest.approx(best[D], abs=1e-9 + 1e-15 * c / s)


@pytest.mark.parametrize("s", [1, 1e-8, 1e8])
def test_a_norm_is_bounded_in_any_unit(s):
    """Second-order cones: the multiplier makes the minimum that of ridge, so (A + λI) w = b with ‖w‖ = r."""
    cp, f, x = pytest.importorskip("cvxpy"), function(F64), inputs(F64)[:1]
    free = lx.explain(lambda a: s * f(a), x, **on_masks(lx.Linear()))
    r = 0.5 * float(free.weights.norm())
    e = lx.explain(lambda a: s * f(a), x, **on_masks(lx.Constrained(lambda w, _: [cp.norm(w) <= r])))
    assert float(e.weights.norm()) == pytest.approx(r, rel=1e-7)
    sample = draw_rows(x)
    X = sample - sample.mean(0)
    pull = X.mT @ (f(x * sample)[:, 0] - X @ e.weights[0] / s)
    assert float(torch.cosine_similarity(pull, e.weights[0] / s, 0)) == pytest.approx(1, abs=1e-9)


def draw_rows(x):
    from locapprox.fit.seeds import generator

    where = lx.Multiplicative(lx.FairMasks())
    return torch.cat([draw.xi for draw in where.blocks(x, 200, generator(0, where, "fit", x))])


def test_the_free_intercept_of_a_constrained_mean_gradient():
    """That of `Linear` where the constraints allow it, else the nearest."""
    f, x = function(F64), inputs(F64)
    loss = lx.GradientMatching()
    free = lx.explain(f, x, **on_masks(lx.Linear(), loss))
    for most in (np.inf, float(free.intercept.min()) - 1):
        surrogate = lx.Constrained(lambda w, b, most=most: [w <= 100, *([b <= most] if most < np.inf else [])])
        e = lx.explain(f, x, **on_masks(surrogate, loss))
        torch.testing.assert_close(e.weights, free.weights, rtol=0, atol=1e-8)
        torch.testing.assert_close(e.intercept, free.intercept.clamp(max=most), rtol=0, atol=1e-8)


@pytest.mark.parametrize("given", [None, [True], [], True])
def test_constraints_that_are_none(given):
    with pytest.raises(TypeError, match=r"must return a list of cvxpy constraints, such as \[w >= 0\], got "):
        lx.explain(function(F64), inputs(F64), **on_masks(lx.Constrained(lambda w, b: given)))


def test_constraints_that_are_not_convex_or_not_met():
    f, x = function(F64), inputs(F64)
    with pytest.raises(ValueError, match="constraints must be convex"):
        lx.explain(f, x, **on_masks(lx.Constrained(lambda w, b: [w**2 >= 1])))
    with pytest.raises(ValueError, match="cannot all be met"):
        lx.explain(f, x, **on_masks(lx.Constrained(lambda w, b: [w >= 1, w <= 0])))


def test_the_lasso_path_need_not_be_followed_to_its_end():
    """Features leave the path, and come back below k: what is found is what the whole path has."""
    from sklearn.linear_model import lars_path_gram

    left = 0
    for seed in (*range(40), 161, 650):
        rng, d = np.random.default_rng(seed), 40
        k, X = int(rng.integers(2, 14)), rng.normal(size=(60, d)) @ rng.normal(size=(d, d))
        gram, score = X.T @ X, X.T @ (X[:, :12].sum(1) + 30 * rng.normal(size=60))
        size = np.sqrt(np.diagonal(gram))
        gram, score = gram / np.outer(size, size), score / size
        score = score / np.abs(score).max() * 512
        path = lars_path_gram(score, gram, n_samples=1, method="lasso", max_iter=8 * d)[2]
        support = (path != 0).sum(0)
        last = np.flatnonzero(support <= k)[-1]
        left += last > np.flatnonzero(support > k)[0]
        found = last_with(torch.from_numpy(gram)[None], torch.from_numpy(score)[None], k)[0]
        np.testing.assert_array_equal(found, path[:, last] != 0)
    assert left == 2


@pytest.mark.parametrize("s", [1e-30, 1e-23, 1e19, 1e30])
def test_gradients_whose_squares_leave_float32(s):
    f, x = function(F32), inputs(F32)
    for where in (lx.Additive(lx.Normal(0.3)), lx.Additive(lx.Normal(0.3, antithetic=True))):
        method = lx.Method("", where, lx.GradientMatching())
        one = lx.explain(f, x, method, n_samples=100, progress=False)
        got = lx.explain(lambda a: f(a) * s, x, method, n_samples=100, progress=False)
        assert (one.standard_error > 0).all()
        torch.testing.assert_close(got.weights / s, one.weights, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(got.standard_error / s, one.standard_error, rtol=1e-4, atol=0)
        torch.testing.assert_close(got.r2, one.r2, rtol=1e-4, atol=1e-5)


@every
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("w", [1e-250, 1e-30, 1e30, 1e300])
def test_weights_of_any_size(w, loss, dtype):
    f, x = function(dtype), inputs(dtype)
    one, got = (explained(f, x, NEIGHBOURHOODS["normal"].make(1, s), loss, lx.Linear()) for s in (1, w))
    alike(got, one, 1e-11 if dtype == F64 else 1e-5)


def test_the_effective_sample_size_of_gradients():
    f, x = function(F64), inputs(F64)
    with pytest.raises(ValueError, match=r"effective sample size of .* for a mean gradient, which needs 30; width=0.5"):
        lx.explain(f, x, **on_masks(lx.Linear(), lx.GradientMatching(), kernel=lx.ExponentialKernel(0.5)))
    e = lx.explain(f, x, **on_masks(lx.Linear(), lx.GradientMatching(), kernel=lx.ExponentialKernel(3.0)))
    assert (e.standard_error > 0).all()


@pytest.mark.parametrize("method", [lx.smoothgrad(), lx.integrated_gradients(), lx.c_lime()], ids=lambda m: m.name)
def test_autocast_reaches_the_model_and_nothing_else(method):
    W = torch.randn(D, 1, generator=torch.Generator().manual_seed(1))

    def of_its_own(a):
        with torch.autocast("cpu", enabled=False):
            return torch.tanh(a @ W)

    x, seen = inputs(F32), []
    plain = lx.explain(of_its_own, x, method, n_samples=400, progress=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = lx.explain(of_its_own, x, method, n_samples=400, progress=False)
        lx.explain(lambda a: seen.append((a @ W).dtype) or of_its_own(a), x, method, n_samples=400, progress=False)
    assert set(seen) == {torch.bfloat16}
    for name in ("weights", "standard_error", "loss"):
        assert torch.equal(getattr(got, name), getattr(plain, name)), name


class Own:
    def __init__(self, sigma):
        self.sigma = sigma

    def draw(self, x, n, rng):
        return lx.Draw(self.sigma * torch.randn(n, D, generator=rng, dtype=x.dtype), torch.ones(n))

    def place(self, x, xi):
        return x[:, None] + xi


@pytest.mark.parametrize(
    "where", [Own(1e-20), lx.Additive(lx.CorrelatedNormal(1e-40 * torch.eye(D, dtype=F64)))], ids=["own", "correlated"]
)
def test_noise_that_drowns_in_x_is_named(where):
    with pytest.warns(UserWarning, match=r"ξ is so small that x_ξ rounds to x in torch\.float64"):
        lx.explain(function(F64), inputs(F64), lx.Method("", where, lx.SquaredError()), n_samples=100, progress=False)


def test_an_input_at_its_baseline_does_not_drown():
    e = lx.explain(function(F64), torch.zeros(1, D, dtype=F64), lx.kernel_shap(), progress=False)
    assert (e.weights == 0).all()


def test_exact_rows_that_are_not_met_in_any_unit(given):
    """Through 0, f(x) at ξ = 0 cannot be interpolated; 1e-12 was once as good as 0."""
    xi = torch.cat([torch.zeros(1, D), torch.randn(40, D, generator=torch.Generator().manual_seed(1))]).double()
    weight = torch.ones(41, dtype=F64)
    weight[0] = torch.inf
    for s in (1, 1e-13, 1e12):
        method = lx.Method("", given(lx.Draw(xi, weight)), lx.SquaredError(), lx.Linear(intercept=False))
        with pytest.raises(ValueError, match="cannot all be interpolated"):
            lx.explain(lambda a, s=s: s * (1 + function(F64)(a)), inputs(F64), method, progress=False)


# ---- sentences


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e300])
def test_perturbations_that_no_sum_can_hold(value, given):
    xi = torch.randn(60, D, generator=torch.Generator().manual_seed(1), dtype=F64)
    xi[7, 2] = value
    method = lx.Method("", given(lx.Draw(xi, torch.ones(60, dtype=F64))), lx.SquaredError())
    with pytest.raises(ValueError, match=r"NaN, or too large|NaN or infinite"):
        lx.explain(lambda a: torch.tanh(a.nan_to_num(0.0)).sum(1), inputs(F64), method, progress=False)


def test_outputs_that_are_no_probabilities(given):
    x, method = inputs(F64), lx.Method("", lx.Additive(lx.Normal(0.3)), lx.SquaredError(), lx.Logistic())
    with pytest.raises(ValueError, match="outputs between 0 and 1, and the model's go from"):
        lx.explain(lambda a: 100 + 50 * a.sum(1), x, method, n_samples=100, progress=False)
    with pytest.raises(ValueError, match="all but 0 or 1 in the draw has no finite weights"):
        lx.explain(lambda a: (a[:, 0] > 0).double(), x, method, n_samples=100, progress=False)


@pytest.mark.parametrize("size", [2.9996, 2.5])
def test_an_effective_size_is_not_rounded_to_what_is_needed(size, given):
    """Three rows of two weights, 1 and t, have an effective size of (2 + t)² / (2 + t²)."""
    t = next(t for t in np.linspace(0, 1, 10**6) if (2 + t) ** 2 / (2 + t * t) >= size)
    weight = torch.zeros(20, dtype=F64)
    weight[:3] = torch.tensor([1.0, 1.0, t])
    xi = torch.randn(20, 2, generator=torch.Generator().manual_seed(1), dtype=F64)
    method = lx.Method("", given(lx.Draw(xi, weight)), lx.SquaredError())
    words = "just under 3" if size > 2.9 else "2.5"
    with pytest.raises(ValueError, match=f"effective sample size of {words} for 3 weights"):
        lx.explain(lambda a: a.sum(1), inputs(F64)[:, :2], method, progress=False)


def test_a_width_to_use_is_no_narrower_than_what_is_enough():
    """Two digits, rounded up."""
    for least in (2.44, 2.5, 2.96, 0.099, 1e-5):
        words = lx.ExponentialKernel(least / 2).advice(torch.tensor([least / 3, least], dtype=F64), None)
        assert least <= float(words.split("use width=")[1].split()[0]) < 1.1 * least, words

"""The least-squares engine against explicit refits, stacked systems and Lagrange multipliers."""

import numpy as np
import pytest
import torch
from torch.utils.weak import WeakIdKeyDictionary

import locapprox as lx
from locapprox.fit import errors, jackknife, plan, solve
from locapprox.fit.ridge import Shrunk

F64 = torch.float64
pytestmark = pytest.mark.usefixtures("errors_as_they_are")


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def kkt(gram, rhs, exact, target):
    """min ½ θᵀAθ − θᵀr subject to Cθ = c by Lagrange multipliers."""
    p, e = gram.shape[0], exact.shape[0]
    top = torch.cat([gram, exact.mT], dim=1)
    bottom = torch.cat([exact, gram.new_zeros(e, e)], dim=1)
    return torch.linalg.lstsq(torch.cat([top, bottom]), torch.cat([rhs, target])[:, None], driver="gelsd").solution[
        :p, 0
    ]


def wls(X, weight, y):
    """Weighted least squares by numpy's lstsq on the scaled rows (rows of infinite weight by multipliers)."""
    X, weight, y = (torch.as_tensor(a) for a in (X, weight, y))
    exact = weight.isinf()
    if exact.any():
        A, w = X[~exact], weight[~exact]
        return kkt(A.mT @ (w[:, None] * A), A.mT @ (w * y[~exact]), X[exact], y[exact])
    root = weight.sqrt()
    return torch.from_numpy(np.linalg.lstsq((root[:, None] * X).numpy(), (root * y).numpy(), rcond=None)[0])


def design(xi):
    return torch.cat([xi, xi.new_ones(len(xi), 1)], dim=1)


def theta_of(e):
    return torch.cat([e.weights, e.intercept[:, None]], dim=1)


def f(a):
    """A model that no line fits."""
    return torch.sin(2 * a[:, 0] * a[:, 1]) + a[:, 2].abs() + (a**2).sum(1) / 5


def outputs(x, xi):
    return f((x[:, None] + xi).flatten(0, 1)).view(len(x), -1)


def method(given, draw, loss=None, cuts=(), intercept=True):
    return lx.Method("given", given(draw, cuts), loss or lx.SquaredError(), lx.Linear(intercept))


# ---- solving


@pytest.mark.parametrize("intercept", [True, False])
def test_weighted_least_squares(given, intercept):
    x, xi, weight = randn(3, 4), randn(40, 4, seed=1), randn(40, seed=2).exp()
    e = lx.explain(f, x, method(given, lx.Draw(xi, weight), intercept=intercept))
    for i, y in enumerate(outputs(x, xi)):
        expected = wls(design(xi) if intercept else xi, weight, y)
        torch.testing.assert_close(e.weights[i], expected[:4], rtol=0, atol=1e-11)
        torch.testing.assert_close(
            e.intercept[i], expected[4] if intercept else torch.zeros((), dtype=F64), atol=1e-11, rtol=0
        )


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("intercept", [True, False])
def test_rows_of_infinite_weight_are_met(given, rows, intercept):
    x, xi, weight = randn(3, 4), randn(40, 4, seed=1), randn(40, seed=2).exp()
    weight[[5, 17, 39][:rows]] = torch.inf
    e = lx.explain(f, x, method(given, lx.Draw(xi, weight), intercept=intercept))
    for i, y in enumerate(outputs(x, xi)):
        expected = wls(design(xi) if intercept else xi, weight, y)
        torch.testing.assert_close(e.weights[i], expected[:4], rtol=0, atol=1e-10)
        met = xi[weight.isinf()] @ e.weights[i] + e.intercept[i]
        torch.testing.assert_close(met, y[weight.isinf()], rtol=0, atol=1e-12)


def test_a_row_of_infinite_weight_is_one_for_every_instance(given):
    x, xi, weight = randn(2, 4), randn(40, 4, seed=1), torch.ones(2, 40, dtype=F64)
    weight[1, 5] = torch.inf
    with pytest.raises(ValueError, match="inf for some instances, finite for others"):
        lx.explain(f, x, method(given, lx.Draw(xi, weight)))


def test_elimination_equals_multipliers_with_dependent_rows():
    """Repeated and dependent exact rows that agree are no error; those that disagree are."""
    a = randn(12, 5)
    gram, rhs = a.mT @ a, randn(2, 1, 5, seed=3)
    exact = randn(2, 5, seed=4)
    exact = torch.cat([exact, exact[:1], exact[:1] - 3 * exact[1:2]])
    target = randn(2, 1, 5, seed=5) @ exact.mT
    theta, inverse = solve.eliminate(gram[None], rhs, exact, target)
    for i in range(2):
        torch.testing.assert_close(theta[i, 0], kkt(gram, rhs[i, 0], exact, target[i, 0]), rtol=0, atol=1e-10)
    assert float((exact @ inverse[0]).abs().max()) < 1e-12  # no step leaves the exact rows
    torch.testing.assert_close(inverse[0] @ gram @ inverse[0], inverse[0], rtol=0, atol=1e-12)
    target[1, 0, 3] += 0.1
    with pytest.raises(ValueError, match="cannot all be interpolated"):
        solve.eliminate(gram[None], rhs, exact, target)


def test_as_many_exact_rows_as_unknowns(given):
    """Nothing is left to fit: the surrogate interpolates."""
    x, xi = randn(2, 3), randn(10, 3, seed=1)
    weight = torch.ones(10, dtype=F64)
    weight[:4] = torch.inf
    e = lx.explain(f, x, method(given, lx.Draw(xi, weight)))
    for i, y in enumerate(outputs(x, xi)):
        torch.testing.assert_close(theta_of(e)[i], torch.linalg.solve(design(xi[:4]), y[:4]), rtol=0, atol=1e-10)
        torch.testing.assert_close(e.loss[i], (y - design(xi) @ theta_of(e)[i])[4:].square().mean(), rtol=1e-9, atol=0)
    assert (e.standard_error == 0).all()


def test_too_few_rows_say_so(given):
    x, ones = randn(2, 4), torch.ones(30, dtype=F64)
    with pytest.raises(ValueError, match=r"n_samples.*determine 4 of the 5 weights"):
        lx.explain(f, x, method(given, lx.Draw(randn(4, 4, seed=1), ones[:4], n_fixed=4)))
    copies = randn(3, 4, seed=1).repeat(10, 1)
    with pytest.raises(ValueError, match="determine 3 of the 5 weights"):
        lx.explain(f, x, method(given, lx.Draw(copies, ones)))


def test_weights_on_too_few_rows_are_refused(given):
    """An effective sample size (Σw)² / Σw² below the number of weights is named."""
    x, xi, weight = randn(2, 4), randn(60, 4, seed=1), torch.full((60,), 1e-3, dtype=F64)
    weight[:3] = 1.0
    size = float(weight.sum() ** 2 / weight.square().sum())
    assert 3 < size < 4
    with pytest.raises(ValueError, match=f"effective sample size of {size:.3g} for 5 weights"):
        lx.explain(f, x, method(given, lx.Draw(xi, weight)))
    with pytest.raises(ValueError, match="effective sample size of 0 for 5 weights"):
        lx.explain(f, x, method(given, lx.Draw(xi, 0 * weight)))


@pytest.mark.parametrize("n", [4, 6, 9])
@pytest.mark.parametrize("per_instance", [False, True])
def test_few_rows_are_ridge_by_generalised_cross_validation(given, n, per_instance):
    """min Σ w (y − Xθ)² + λ Σ v_j θ_j², v the features' variances, λ on a grid by RSS / (1 − tr H / n)²."""
    x, xi = randn(2, 4), randn(n, 4, seed=1) * torch.tensor([0.1, 1.0, 5.0, 1.0], dtype=F64)
    weight = 1 + randn(2, n, seed=2).square() / 10 if per_instance else torch.ones(n, dtype=F64)
    with pytest.warns(UserWarning, match="n_samples is small"):
        e = lx.explain(f, x, method(given, lx.Draw(xi, weight)))
    for i, y in enumerate(outputs(x, xi)):
        w, X = weight[i] if per_instance else weight, design(xi)
        mean = (w[:, None] * xi).sum(0) / w.sum()
        variance = (w[:, None] * (xi - mean) ** 2).sum(0) / w.sum()
        gram, penalty = X.mT @ (w[:, None] * X), torch.diag(torch.cat([variance, variance.new_zeros(1)]))
        unit = gram.trace() / penalty.trace()
        tried = []
        for t in torch.logspace(-8, 8, 81, dtype=F64):
            inverse = torch.linalg.inv(gram + t * unit * penalty)
            theta = inverse @ (X.mT @ (w * y))
            rss = (w * (y - X @ theta) ** 2).sum()
            hat = (inverse @ gram).trace()
            if hat > 0.8 * n:
                continue  # nearly interpolating: GCV is 0 / 0 there
            tried.append((float(rss / max(1 - hat / n, 1e-3) ** 2), t, theta))
        _, t, best = min(tried, key=lambda one: one[0])
        torch.testing.assert_close(theta_of(e)[i], best, rtol=1e-5, atol=1e-6)
        if n > 5:  # leaving out is exact at that λ
            left_out = torch.empty(n, dtype=F64)
            for r in range(n):
                rows = gram - w[r] * torch.outer(X[r], X[r]) + t * unit * penalty
                refit = torch.linalg.solve(rows, X.mT @ (w * y) - X[r] * w[r] * y[r])
                left_out[r] = y[r] - X[r] @ refit
            torch.testing.assert_close(e.loss[i], (w * left_out**2).sum() / w.sum(), rtol=1e-5, atol=0)
        assert bool(e.standard_error[i].isnan().all())  # the bias: nobody knows


@pytest.mark.filterwarnings("ignore:n_samples is small")
@pytest.mark.parametrize("intercept", [True, False])
def test_ridge_of_pairs_is_that_of_their_differences(given, intercept):
    """±ξ without an intercept: as if only one of each pair had been drawn. What is even in ξ shrinks nothing."""
    xi, x = randn(7, 6, seed=1), randn(2, 6)
    xi = xi - xi.mean(0)  # the penalty is of the features' variances
    pairs = lx.Draw(torch.stack([xi, -xi], 1).reshape(-1, 6), torch.ones(14, dtype=F64), unit_size=2)

    def odd(a, even=0.0):
        z = a - x[0]
        return torch.sin(z @ torch.linspace(-1, 1, 6, dtype=F64)) + even * (1 + (z**2).sum(1))

    own, half = method(given, pairs, intercept=intercept), lx.Draw(xi, torch.ones(7, dtype=F64))
    e, large = (lx.explain(lambda a, c=c: odd(a, c), x[:1], own) for c in (0.0, 50.0))
    alone = lx.explain(odd, x[:1], method(given, half, intercept=False))
    torch.testing.assert_close(large.weights, e.weights, rtol=1e-6, atol=1e-9)
    if not intercept:
        torch.testing.assert_close(e.weights, alone.weights)


@pytest.mark.parametrize("unit", [1, 2])
@pytest.mark.parametrize("shared", [False, True])
def test_leaving_out_needs_no_inverse_of_its_own_for_every_problem(unit, shared):
    """The same residuals from basis and diagonal as from M = basis diag(1 / kept) basisᵀ written out."""
    b, k, n, p = 2, 3, 8, 4
    X, rest, weight = randn(n, p), randn(b, k, n, seed=1), randn(b, n, seed=2).square() / 9
    basis, kept = randn(1 if shared else b, p, p, seed=3), 50 + randn(b * k, p, seed=4).square()
    full = basis.repeat_interleave(b * k // len(basis), 0)
    dense = (full / kept[:, None]) @ full.mT
    total, *unknown = jackknife.jackknife(X, weight, Shrunk(basis, kept), rest, unit)
    torch.testing.assert_close(total, jackknife.jackknife(X, weight, dense, rest, unit)[0])
    assert all(part.isnan().all() for part in unknown)


def test_badly_scaled_features_are_no_rank_loss(given):
    """Columns of size 1e-6 and 1e6 beside each other: accurate, relative to each."""
    x, scale = torch.zeros(1, 4, dtype=F64), torch.tensor([1e-6, 1.0, 1e6, 1e3], dtype=F64)
    xi = randn(200, 4, seed=1) * scale
    e = lx.explain(lambda a: (a / scale).sum(1) + 7, x, method(given, lx.Draw(xi, torch.ones(200, dtype=F64))))
    torch.testing.assert_close(e.weights[0] * scale, torch.ones(4, dtype=F64), rtol=0, atol=1e-9)


def test_a_large_constant_cancels_nothing(given):
    x, xi = randn(2, 3), randn(50, 3, seed=1)
    draw = lx.Draw(xi, torch.ones(50, dtype=F64))
    small, large = (lx.explain(lambda a, c=c: f(a) + c, x, method(given, draw)) for c in (0.0, 1e8))
    torch.testing.assert_close(large.weights, small.weights, rtol=0, atol=1e-6)
    torch.testing.assert_close(large.loss, small.loss, rtol=1e-5, atol=0)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_a_null_space_is_never_formed(rows):
    exact = randn(rows, 5, seed=1)[[*range(rows), 0]] * torch.tensor([1e-4, 1, 1, 1e5, 1], dtype=F64)  # one row twice
    null = solve.particular(exact, randn(2, 3, rows)[..., [*range(rows), 0]])[1]
    N, A = null.matrix, randn(2, 5, 5, seed=3)
    A = A + A.mT
    assert N.shape == (5, null.columns) == (5, 5 - rows)
    scale = 1 / exact.abs().amax(0)
    torch.testing.assert_close(exact * scale @ (N / scale[:, None]), torch.zeros(rows + 1, 5 - rows, dtype=F64))
    torch.testing.assert_close(null.restricted(A), N.mT @ A @ N)
    torch.testing.assert_close(null.embedded(A[:, : 5 - rows, : 5 - rows]), N @ A[:, : 5 - rows, : 5 - rows] @ N.mT)


# ---- blocks


@pytest.mark.parametrize(
    "loss", [lx.SquaredError(), lx.GradientMatching(), lx.SquaredError() + 0.3 * lx.GradientMatching()]
)
@pytest.mark.parametrize("per_instance", [False, True])
def test_blocks_change_nothing(given, loss, per_instance):
    x, xi = randn(3, 4), randn(120, 4, seed=1)
    weight = randn(3, 120, seed=2).exp() if per_instance else randn(120, seed=2).exp()
    weight[..., :3] = torch.inf if loss.gradient == 0 else 1.0
    draw = lx.Draw(xi, weight, unit_size=2, n_fixed=20)
    whole = lx.explain(f, x, method(given, draw, loss))
    cut = lx.explain(f, x, method(given, draw, loss, cuts=(22, 24, 70)))
    for name in ("weights", "intercept", "standard_error", "loss", "r2"):
        torch.testing.assert_close(
            getattr(cut, name), getattr(whole, name), rtol=1e-9, atol=1e-11, msg=lambda m, name=name: f"{name}: {m}"
        )
    assert (whole.standard_error > 0).all()


@pytest.mark.parametrize("at_once", [1, 600])
@pytest.mark.parametrize("n", [12, 200], ids=["shrunk", "enough"])
@pytest.mark.parametrize("kernel", [None, lx.ExponentialKernel(3.0)], ids=["one matrix", "a matrix each"])
@pytest.mark.parametrize("surrogate", [lx.Linear(), lx.Sparse(2)], ids=["linear", "sparse: a matrix for each score"])
@pytest.mark.filterwarnings("ignore:n_samples is small")
def test_passes_over_few_instances_at_once_change_nothing(surrogate, kernel, n, at_once, monkeypatch):
    def model(a):
        return torch.stack([f(a), torch.cos(a).sum(1), a[:, 0] * a[:, 1]], dim=1)

    own = lx.Method("own", lx.Additive(lx.Normal(1.0), kernel), lx.SquaredError(), surrogate)
    settings = {"n_samples": n, "target": range(3), "progress": False}
    whole = lx.explain(model, randn(5, 4), own, **settings)
    monkeypatch.setattr(errors, "AT_ONCE", at_once)
    parts = lx.explain(model, randn(5, 4), own, **settings)
    for name in ("weights", "standard_error", "loss"):
        torch.testing.assert_close(
            getattr(parts, name), getattr(whole, name), rtol=1e-9, atol=1e-12, equal_nan=True, msg=name
        )


@pytest.mark.parametrize("unit", [1, 2])
@pytest.mark.parametrize("per_instance", [False, True])
def test_a_weight_that_rests_on_one_unit_has_no_error(given, unit, per_instance):
    """The third feature is in one row (one pair) only: without it, no fit."""
    xi = randn(40, 3, seed=1)
    xi[:, 2] = 0
    xi[6, 2] = 1.0
    weight = randn(2, 40, seed=2).exp() if per_instance else torch.ones(40, dtype=F64)
    own = method(given, lx.Draw(xi, weight, unit_size=unit))
    with pytest.warns(UserWarning, match="some weights rest on a single draw"):
        e = lx.explain(f, randn(2, 3), own)
    assert e.weights.isfinite().all()
    assert e.standard_error.isnan().all()
    assert e.loss.isnan().all()


@pytest.mark.filterwarnings("ignore:some weights rest")
def test_kernel_shap_on_few_masks_alone_and_among_others():
    """Six features, 24 masks, of which one pair alone tells two features apart; enough masks as advised: finite."""
    x = randn(3, 6)
    for n, known in ((24, False), (32, True)):
        together = lx.explain(f, x, lx.kernel_shap(), n_samples=n, seed=42)
        alone = lx.explain(f, x[:1], lx.kernel_shap(), n_samples=n, seed=42)
        assert bool(together.standard_error.isfinite().all()) == known
        torch.testing.assert_close(alone.standard_error, together.standard_error[:1], equal_nan=True)
        torch.testing.assert_close(alone.loss, together.loss[:1], equal_nan=True)


@pytest.mark.parametrize("own", [lx.lime(width=9.0), lx.c_lime(), lx.kernel_shap()], ids=lambda m: m.name)
@pytest.mark.parametrize(("level", "dtype"), [(0.47, torch.float32), (1e6, torch.float32), (0.1, torch.bfloat16)])
def test_a_constant_model_has_weights_of_zero_and_no_r2(own, level, dtype):
    """In any precision: values are centred in float64."""
    e = lx.explain(lambda a: torch.full((len(a),), level, dtype=dtype), randn(2, 4).float(), own, n_samples=2500)
    assert (e.weights == 0).all()
    assert e.r2.isnan().all()


def test_large_outputs_of_low_precision_do_not_overflow_in_sums():
    def model(a):
        return f(a) * 1e36

    x, own = randn(2, 4).float(), lx.c_lime(sigma=0.7)
    small, large = lx.explain(f, x, own, n_samples=2500), lx.explain(model, x, own, n_samples=2500)
    torch.testing.assert_close(large.weights / 1e36, small.weights, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(large.r2, small.r2, rtol=1e-4, atol=1e-5)


def test_streamed_draw_equals_the_concatenated_one(given, draw_of):
    """3,000 draws come in blocks of 1,024; the system is that of all of them."""
    x, own = randn(2, 4), lx.c_lime(sigma=0.7)
    e = lx.explain(f, x, own, n_samples=3000, seed=3)
    xi = draw_of(own.neighbourhood, x, 3000, 3).xi
    assert len(xi) == 3000
    assert len(xi.unique(dim=0)) == 3000
    for i, y in enumerate(outputs(x, xi)):
        torch.testing.assert_close(theta_of(e)[i], wls(design(xi), torch.ones(3000, dtype=F64), y), rtol=0, atol=1e-11)


# ---- pieces of algebra: one product with all pairs of columns, or a loop


@pytest.mark.parametrize("p", [3, 64, 65])
def test_grams_and_quadratic_forms_by_both_paths(p):
    X, weight = randn(80, p), randn(3, 2, 80, seed=1).square()
    expected = torch.einsum("ni,gsn,nj->gsij", X, weight, X)
    torch.testing.assert_close(solve.weighted_gram(X, weight), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(solve.weighted_gram(X, weight[:1, :1]), expected[:1, :1], rtol=1e-12, atol=1e-12)
    m = randn(3, p, p, seed=2)
    m = m + m.mT
    for some in (m, m[:1]):
        torch.testing.assert_close(
            solve.quadratic(X, some), torch.einsum("ni,gij,nj->gn", X, some, X), rtol=1e-11, atol=1e-11
        )


@pytest.mark.parametrize("p", [3, 66], ids=["pairs of columns", "loop"])
@pytest.mark.parametrize("unit", [1, 2])
@pytest.mark.parametrize("g", [1, 2])
def test_the_jackknife_refits_without_every_unit(p, unit, g):
    n = 2 * (p // 2) + 16
    X, y, weight = randn(n, p, seed=1), randn(2, 1, n, seed=2), randn(g, n, seed=3).exp()
    theta = torch.stack([wls(X, weight[min(i, g - 1)], y[i, 0]) for i in range(2)])[:, None]
    inverse = torch.linalg.inv(solve.weighted_gram(X, weight))
    residual = y - theta @ X.mT
    total, first, second, distance, squared = jackknife.jackknife(X, weight, inverse, residual, unit)
    for i in range(2):
        w, gram = weight[min(i, g - 1)], solve.weighted_gram(X, weight)[min(i, g - 1)]
        delta, cook, kept, errors = [], [], [], 0.0
        for u in range(n // unit):
            keep = torch.ones(n, dtype=torch.bool)
            keep[u * unit : (u + 1) * unit] = False
            root = w[keep, None].sqrt()
            refit = torch.linalg.lstsq(root * X[keep], root * y[i, 0, keep, None]).solution[:, 0]
            delta.append(theta[i, 0] - refit)
            cook.append(delta[-1] @ gram @ delta[-1])
            e = y[i, 0, ~keep] - X[~keep] @ refit
            kept.append((w[~keep] * e * residual[i, 0, ~keep]).sum() / (w[~keep] * e.square()).sum())
            errors += (w[~keep] * e.square()).sum()
        delta, cook, kept = torch.stack(delta), torch.stack(cook), torch.stack(kept)[:, None]
        torch.testing.assert_close(total[i, 0], errors, rtol=1e-9, atol=0)
        torch.testing.assert_close(first[i, 0], (kept**0.25 * delta).sum(0), rtol=0, atol=1e-9)
        torch.testing.assert_close(second[i, 0], (kept.sqrt() * delta.square()).sum(0), rtol=1e-8, atol=1e-12)
        torch.testing.assert_close(distance[i, 0], cook.sum(), rtol=1e-8, atol=0)
        torch.testing.assert_close(squared[i, 0], cook.square().sum(), rtol=1e-8, atol=0)


@pytest.mark.parametrize("equal", [True, False], ids=["equal weights", "other weights"])
def test_the_jackknife_of_pairs_whose_sum_is_interpolated(equal):
    """Masks and complements, their sum c, θ · c fixed: refits under that constraint, without every pair in turn."""
    pairs, p = 12, 5
    x, c = randn(pairs, p, seed=1), randn(1, p, seed=2)
    X = torch.stack([x, c - x], dim=1).reshape(-1, p)
    y, target = randn(2, 3, 2 * pairs, seed=3), randn(2, 3, 1, seed=4)
    weight = randn(1, pairs, seed=5).exp().repeat_interleave(2, 1)
    weight[0, 1] *= 1 if equal else 2

    def fit(keep):
        w = weight * keep
        return solve.eliminate(solve.weighted_gram(X, w), (w[:, None] * y) @ X, c, target)

    theta, inverse = fit(torch.ones(2 * pairs))
    residual = y - theta @ X.mT
    total, first, second = jackknife.jackknife(X, weight, inverse, residual, 2)[:3]
    assert jackknife._pair_sums_have_no_leverage(X, weight, inverse) == equal
    without = 1 - torch.eye(pairs).repeat_interleave(2, 1)
    refits = torch.stack([fit(keep)[0] for keep in without])
    left_out, of_unit = y - refits @ X.mT, (1 - without)[:, None, None] * weight
    torch.testing.assert_close(total, (of_unit * left_out.square()).sum((0, -1)), rtol=1e-9, atol=0)
    if equal:  # only the difference of a pair moves θ
        left_out, residual = (rows - rows.unflatten(-1, (-1, 2)).flip(-1).flatten(-2) for rows in (left_out, residual))
    kept = (of_unit * left_out * residual).sum(-1) / (of_unit * left_out.square()).sum(-1)
    delta = kept[..., None] ** 0.25 * (theta - refits)
    torch.testing.assert_close(first, delta.sum(0), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(second, delta.square().sum(0), rtol=1e-9, atol=1e-12)


def test_pairs_of_columns_are_formed_once_for_a_block(monkeypatch):
    """The Gram matrices, the leverages and the errors of LIME share them."""
    formed = []

    class Kept(WeakIdKeyDictionary):
        def __setitem__(self, key, value):
            formed.append(key)
            super().__setitem__(key, value)

    monkeypatch.setattr(solve, "_PAIRS", Kept())
    lx.explain(f, randn(3, 4), lx.lime(width=9.0), n_samples=500)
    assert len(formed) == 1


# ---- errors and losses, end to end


def test_standard_errors_are_half_way_between_hc2_and_hc3(given):
    """Σ (M xᵢ wᵢ rᵢ)² / (1 − hᵢ)^1.5, M = (XᵀWX)⁻¹; the loss is the weighted mean of squared (rᵢ / (1 − hᵢ))."""
    x, xi, weight = randn(3, 4), randn(60, 4, seed=1), randn(3, 60, seed=2).exp()
    for w_all in (weight, weight[0]):
        e = lx.explain(f, x, method(given, lx.Draw(xi, w_all)))
        for i, y in enumerate(outputs(x, xi)):
            w, X = weight[i] if w_all.ndim == 2 else w_all, design(xi)
            m = torch.linalg.inv(X.mT @ (w[:, None] * X))
            leverage = w * ((X @ m) * X).sum(1)
            left_out = (y - X @ wls(X, w, y)) / (1 - leverage)
            error = (m @ (X * (w * left_out * (1 - leverage) ** 0.25)[:, None]).mT).square().sum(1).sqrt()
            torch.testing.assert_close(e.standard_error[i], error[:4], rtol=1e-9, atol=0)
            torch.testing.assert_close(e.loss[i], (w * left_out**2).sum() / w.sum(), rtol=1e-9, atol=0)


@pytest.mark.parametrize("unit", [1, 2])
@pytest.mark.parametrize("per_instance", [False, True])
def test_errors_and_loss_beside_fixed_and_exact_rows_are_refits(given, unit, per_instance):
    """The jackknife over the sampled units only, centred; the loss takes fixed rows as they are."""
    x, xi = randn(2, 3), randn(42, 3, seed=1)
    weight = randn(2, 42, seed=2).exp() if per_instance else randn(42, seed=2).exp()
    weight[..., [0, 5]] = torch.inf
    e = lx.explain(f, x, method(given, lx.Draw(xi, weight, unit_size=unit, n_fixed=12), cuts=(12, 24)))
    units = 30 // unit
    for i, y in enumerate(outputs(x, xi)):
        w, X = weight[i] if per_instance else weight, design(xi)
        delta, squares = [], torch.zeros(42, dtype=F64)
        full = wls(X, w, y)
        squares[:12] = (y - X @ full)[:12].square()
        for u in range(units):
            out = torch.zeros(42, dtype=torch.bool)
            out[12 + u * unit : 12 + (u + 1) * unit] = True
            refit = wls(X[~out], w[~out], y[~out])
            squares[out] = (y - X @ refit)[out].square()
            kept = (w * (y - X @ full) * (y - X @ refit))[out].sum() / (w * squares)[out].sum()
            delta.append(kept**0.25 * (refit - full))
        delta = torch.stack(delta)
        error = ((units - 1) / units * (delta - delta.mean(0)).square().sum(0)).sqrt()
        torch.testing.assert_close(e.standard_error[i], error[:3], rtol=1e-7, atol=1e-12)
        finite = ~w.isinf()
        expected = (w * squares)[finite].sum() / w[finite].sum()
        torch.testing.assert_close(e.loss[i], expected, rtol=1e-7, atol=0)


@pytest.mark.parametrize("unit", [1, 2])
@pytest.mark.parametrize(
    "loss", [lx.SquaredError(), 2.0 * lx.SquaredError() + 0.3 * lx.GradientMatching()], ids=["values", "both"]
)
def test_delete_groups_are_refits(given, monkeypatch, unit, loss):
    """Where outputs are not kept: 20 groups of units (dealt in turn), each deleted and the rest weighted up."""
    x, n, fixed = randn(2, 3), 12 + 94 * unit, 12
    xi, weight = randn(n, 3, seed=1), randn(n, seed=2).exp()
    weight[[0, 5]] = torch.inf
    monkeypatch.setattr(plan, "MEMORY", 10)
    e = lx.explain(
        f, x, method(given, lx.Draw(xi, weight, unit_size=unit, n_fixed=fixed), loss, cuts=(fixed + 8 * unit,))
    )
    assert e.degrees_of_freedom.tolist() == [19, 19]
    group = torch.full((n,), -1)
    group[fixed:] = (torch.arange(n - fixed) // unit) % 20
    for i in range(2):
        base = stacked(x[i], xi, weight, loss)
        refits = []
        for j in range(20):
            w = weight.clone()
            sampled = w[group >= 0].sum()
            w[group >= 0] *= sampled / (sampled - w[group == j].sum())
            w[group == j] = 0
            refits.append(stacked(x[i], xi, w, loss))
        steps = torch.stack(refits) - torch.stack(refits).mean(0)
        error = (19 / 20 * steps.square().sum(0)).sqrt()
        torch.testing.assert_close(e.weights[i], base[:3], rtol=0, atol=1e-10)
        torch.testing.assert_close(e.standard_error[i], error[:3], rtol=1e-6, atol=0)
        finite = ~weight.isinf()
        X, w = design(xi[finite]), weight[finite]
        curvature = loss.value * (X @ steps.mT).square().mT @ w / w.sum() + loss.gradient * steps[:, :3].square().sum(1)
        expected = mean_loss(x[i], xi, weight, loss, base) + 2 * 19 / 20 * curvature.sum()
        torch.testing.assert_close(e.loss[i], expected, rtol=1e-6, atol=0)


def value_and_gradient(x, xi):
    leaf = (x + xi).requires_grad_()
    y = f(leaf)
    return y.detach(), torch.autograd.grad(y.sum(), leaf)[0]


def stacked(x, xi, weight, loss, intercept=True):
    """Values and gradients as rows √(αw)[ξ, 1] and √(βw) eⱼ of one system; infinite weights by multipliers."""
    y, g = value_and_gradient(x, xi)
    X = design(xi) if intercept else xi
    finite = ~weight.isinf()
    w, d = weight[finite], xi.shape[1]
    slopes = torch.eye(d, X.shape[1], dtype=F64).repeat(int(finite.sum()), 1)
    rows = torch.cat(
        [
            (loss.value * w).sqrt()[:, None] * X[finite],
            (loss.gradient * w).sqrt().repeat_interleave(d)[:, None] * slopes,
        ]
    )
    right = torch.cat(
        [(loss.value * w).sqrt() * y[finite], (loss.gradient * w).sqrt().repeat_interleave(d) * g[finite].flatten()]
    )
    if finite.all():
        return torch.linalg.lstsq(rows, right[:, None], driver="gelsd").solution[:, 0]
    return kkt(rows.mT @ rows, rows.mT @ right, X[~finite], y[~finite])


def mean_loss(x, xi, weight, loss, theta):
    y, g = value_and_gradient(x, xi)
    finite, d = ~weight.isinf(), xi.shape[1]
    each = loss.value * (y - design(xi) @ theta).square() + loss.gradient * (g - theta[:d]).square().sum(1)
    return (weight * each)[finite].sum() / weight[finite].sum()


@pytest.mark.parametrize("exact", [0, 1, 2])
@pytest.mark.parametrize(
    "loss", [lx.SquaredError() + 0.3 * lx.GradientMatching(), lx.GradientMatching()], ids=["sobolev", "gradients"]
)
def test_gradient_rows_equal_the_stacked_system(given, exact, loss):
    x, xi, weight = randn(3, 4), randn(45, 4, seed=1), randn(45, seed=2).exp()
    weight[:exact] = torch.inf
    e = lx.explain(f, x, method(given, lx.Draw(xi, weight), loss))
    for i in range(3):
        theta = stacked(x[i], xi, weight, loss)
        if exact == 0 and loss.value == 0:  # free: the mean output is met
            y, _ = value_and_gradient(x[i], xi)
            theta[4] = ((y - xi @ theta[:4]) * weight).sum() / weight.sum()
        torch.testing.assert_close(theta_of(e)[i], theta, rtol=0, atol=1e-10)


class Late:
    """Its first infinite weight comes in the second block of 1,024 rows, and nothing says so before."""

    def draw(self, x, n, rng):
        xi, weight = torch.randn(n, x.shape[1], generator=rng, dtype=x.dtype), torch.ones(n, dtype=F64)
        weight[: int(n < 1024)] = torch.inf
        return lx.Draw(xi, weight)

    def place(self, x, xi):
        return x[:, None] + xi


@pytest.mark.parametrize(
    "loss", [lx.SquaredError() + 0.3 * lx.GradientMatching(), lx.GradientMatching()], ids=["sobolev", "gradients"]
)
@pytest.mark.parametrize("n", [1025, 1500], ids=["alone", "beside others"])
def test_a_row_to_interpolate_in_the_second_block_alone(loss, n, draw_of):
    x = randn(3, 4)
    e = lx.explain(f, x, lx.Method("late", Late(), loss), n_samples=n)
    draw = draw_of(Late(), x, n)
    assert draw.weight.isinf().nonzero().tolist() == [[1024]]
    for i in range(3):
        torch.testing.assert_close(theta_of(e)[i], stacked(x[i], draw.xi, draw.weight, loss), rtol=0, atol=1e-9)
    assert (e.standard_error > 0).all()
    assert (e.degrees_of_freedom == 19).all()  # by twenty groups


def test_mean_gradient_error_counts_units(given):
    """Weighted mean of unit sums: variance U/(U−1) Σ W² (ḡ_u − w)² / (Σ W)², for pairs and single rows."""
    x, xi, weight = randn(2, 3), randn(60, 3, seed=1), randn(60, seed=2).exp()
    for unit in (1, 2):
        e = lx.explain(f, x, method(given, lx.Draw(xi, weight, unit_size=unit), lx.GradientMatching(), cuts=(20,)))
        units = 60 // unit
        for i in range(2):
            g = value_and_gradient(x[i], xi)[1]
            mean = (weight[:, None] * g).sum(0) / weight.sum()
            per_unit = (weight[:, None] * (g - mean)).view(units, unit, 3).sum(1)
            variance = units / (units - 1) * per_unit.square().sum(0) / weight.sum() ** 2
            torch.testing.assert_close(e.weights[i], mean, rtol=0, atol=1e-12)
            torch.testing.assert_close(e.standard_error[i], variance.sqrt(), rtol=1e-9, atol=0)
            expected = (
                mean_loss(x[i], xi, weight, lx.GradientMatching(), torch.cat([mean, mean[:1]])) + 2 * variance.sum()
            )
            torch.testing.assert_close(e.loss[i], expected, rtol=1e-9, atol=0)


def test_r2_compares_with_the_best_constant(given):
    x, xi, weight = randn(2, 3), randn(60, 3, seed=1), randn(60, seed=2).exp()
    e = lx.explain(f, x, method(given, lx.Draw(xi, weight)))
    for i, y in enumerate(outputs(x, xi)):
        mean = (weight * y).sum() / weight.sum()
        variance = (weight * (y - mean) ** 2).sum() / weight.sum()
        torch.testing.assert_close(e.r2[i], 1 - e.loss[i] / variance, rtol=1e-9, atol=0)


def test_enumerations_carry_no_error(given):
    x, xi = randn(2, 3), randn(30, 3, seed=1)
    for loss in (lx.SquaredError(), lx.GradientMatching(), lx.SquaredError() + lx.GradientMatching()):
        e = lx.explain(f, x, method(given, lx.Draw(xi, torch.ones(30, dtype=F64), n_fixed=30), loss))
        assert (e.standard_error == 0).all()
        assert e.degrees_of_freedom.tolist() == [torch.inf] * 2
        for i in range(2):
            expected = mean_loss(x[i], xi, torch.ones(30, dtype=F64), loss, theta_of(e)[i])
            torch.testing.assert_close(e.loss[i], expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("loss", "fixed", "unit", "degrees"),
    [
        (lx.SquaredError(), 0, 1, 60 - 4),  # units − unknowns
        (lx.SquaredError(), 0, 2, 30 - 4),
        (lx.SquaredError(), 20, 2, 20 - 1),  # beside fixed rows: units − 1
        (lx.GradientMatching(), 0, 1, 60 - 1),
        (lx.GradientMatching(), 0, 2, 30 - 1),
        (lx.SquaredError() + lx.GradientMatching(), 0, 1, 20 - 1),  # groups
        (lx.SquaredError(), 60, 1, torch.inf),
        (lx.GradientMatching(), 60, 1, torch.inf),
    ],
)
def test_degrees_of_freedom(given, loss, fixed, unit, degrees):
    draw = lx.Draw(randn(60, 3, seed=1), torch.ones(60, dtype=F64), unit_size=unit, n_fixed=fixed)
    e = lx.explain(f, randn(2, 3), method(given, draw, loss))
    assert e.degrees_of_freedom.tolist() == [degrees] * 2
    assert e.n_samples.tolist() == [60] * 2


def test_losses_add_and_scale():
    both = 2.0 * (lx.SquaredError() + lx.GradientMatching() * 0.5)
    assert (both.value, both.gradient) == (2.0, 1.0)
    assert sum([lx.SquaredError(), lx.SquaredError(), lx.GradientMatching()]) == both
    assert lx.SquaredError() == lx.Loss(1.0, 0.0) != lx.GradientMatching() == lx.Loss(0.0, 1.0)
    assert hash(lx.SquaredError()) == hash(lx.Loss(1.0, 0.0))
    names = [loss.name for loss in (lx.SquaredError(), 3.0 * lx.GradientMatching(), both)]
    assert names == ["squared error", "gradient matching", "2 squared error + 1 gradient matching"]
    for bad in ((-1.0, 2.0), (0.0, 0.0), (torch.inf, 0.0)):
        with pytest.raises(ValueError, match="loss"):
            lx.Loss(*bad)

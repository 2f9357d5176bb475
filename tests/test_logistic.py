"""Errors of the logistic surrogate: its Hessian by autograd, one Newton step by refits, coverage by counting."""

from dataclasses import replace
from functools import cache

import pytest
import torch

import locapprox as lx
from locapprox._problem import Problem
from locapprox.fit.descent import minimise, start
from locapprox.fit.links import LOGISTIC
from locapprox.fit.newton_errors import Newton, conjugate_gradients, curvature, losses, without_rows, without_units
from locapprox.fit.rows import kept_rows
from locapprox.fit.sampling import samples

F64 = torch.float64
LOSSES = [lx.SquaredError(), lx.GradientMatching(), lx.SquaredError() + 0.5 * lx.GradientMatching()]
NAMES = ["values", "gradients", "both"]


def f(a):
    """A probability that is no logistic function of a line."""
    bent = 0.6 * torch.sin(2 * a[:, 0] * a[:, 1]) + 0.3 * a[:, 1] ** 2
    return torch.sigmoid(1.2 * a[:, 0] - 0.8 * a[:, 1] + bent)


X = torch.tensor([[0.3, -0.2], [-0.5, 0.7]], dtype=F64)
NOISE = lx.Additive(lx.Normal(0.8))


def rows_of(loss, n=40, where=NOISE):
    sample = next(samples(Problem(f, X), where, n, 0, "fit"))
    rows = kept_rows(sample, loss, LOGISTIC, True).rows
    return rows, minimise(rows, start(rows))


def method(loss, where=NOISE):
    return lx.Method("logistic", where, loss, lx.Logistic())


@pytest.mark.parametrize("loss", LOSSES, ids=NAMES)
def test_the_hessian_is_that_of_autograd(loss):
    rows, theta = rows_of(loss)
    total = rows.weight.sum(-1)
    for problem in range(2):
        one, at = rows.of(torch.tensor([problem])), theta[problem]
        exact = torch.autograd.functional.hessian(lambda t, one=one: one.objective(t[None])[0], at)
        mine = rows.at(theta).normal(whole=True).gram[problem]
        torch.testing.assert_close(mine, total[problem] * exact / 2, rtol=1e-9, atol=1e-9)
        for i in (0, 7):  # a row's own share of it, times a vector
            row = torch.autograd.functional.hessian(
                lambda t, one=one, i=i: one.weight[0, i] * losses(one, t.expand(1, len(one.X), -1))[0, i] / 2, at
            )
            v = torch.tensor([0.3, -1.0, 0.7], dtype=F64)
            got = curvature(rows.at(theta)).times(v.expand(2, len(rows.X), -1))[problem, i]
            torch.testing.assert_close(got, row @ v, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("errors_as_they_are")
@pytest.mark.parametrize("unit_size", [1, 2])
@pytest.mark.parametrize("loss", LOSSES, ids=NAMES)
def test_errors_and_loss_are_those_of_refits_without_each_unit(loss, unit_size):
    """The jackknife by brute force; a Newton step is off by the square of a unit's influence."""
    where = NOISE if unit_size == 1 else lx.Additive(lx.Normal(0.8, antithetic=True))
    n, gaps = 300, {}
    rows, theta = rows_of(loss, n, where)
    e = lx.explain(f, X, method(loss, where), n_samples=n)
    full = rows.y - torch.sigmoid(theta @ rows.X.mT)
    steps, left_out = [], []
    for u in range(n // unit_size):
        unit = slice(u * unit_size, (u + 1) * unit_size)
        weight = rows.weight.clone()
        weight[:, unit] = 0
        without = minimise(replace(rows, weight=weight), theta)
        rest = (rows.y - torch.sigmoid(without @ rows.X.mT))[:, unit]
        kept = (rest * full[:, unit]).sum(1) / rest.square().sum(1) if loss.gradient == 0 else torch.ones(2)
        steps.append(kept[:, None] ** 0.25 * (theta - without))
        left_out.append(losses(rows, without[:, None].expand(-1, n, -1))[:, unit].sum(-1))
    units, steps = n // unit_size, torch.stack(steps)
    variance = steps.square().sum(0) * (1 if loss.gradient == 0 else (units - 1) / units)
    gaps["error"] = (e.standard_error / variance.sqrt()[:, :2] - 1).abs().max()
    gaps["loss"] = (e.loss / (torch.stack(left_out).sum(0) / n) - 1).abs().max()
    print({name: float(gap) for name, gap in gaps.items()})
    assert gaps["error"] < 0.02
    assert gaps["loss"] < 0.002


@pytest.mark.usefixtures("errors_as_they_are")
@pytest.mark.parametrize("loss", LOSSES, ids=NAMES)
def test_beside_rows_to_interpolate_too(loss):
    """Coalitions: the empty and the full one interpolated, sizes enumerated, pairs of masks as units."""
    d, n = 6, 50
    w = torch.linspace(-1, 1.5, d, dtype=F64)

    def g(a):
        return torch.sigmoid(a @ w + 0.4 * torch.sin(3 * a[:, 0] * a[:, 1]) * a[:, 2])

    x = torch.linspace(0.5, 1.5, d, dtype=F64)[None]
    where = lx.Multiplicative(lx.ShapleyMasks())
    sample = next(samples(Problem(g, x), where, n, 0, "fit"))
    kept = kept_rows(sample, loss, LOGISTIC, True)
    rows, fixed = kept.rows, kept.n_fixed
    theta = minimise(rows, start(rows))
    steps = []
    for u in range((len(rows.X) - fixed) // 2):
        weight = rows.weight.clone()
        weight[:, fixed + 2 * u : fixed + 2 * u + 2] = 0
        steps.append(theta - minimise(replace(rows, weight=weight), theta))
    units, steps = len(steps), torch.stack(steps)
    assert units >= 8
    error = ((units - 1) / units * (steps - steps.mean(0)).square().sum(0)).sqrt()
    e = lx.explain(g, x, lx.Method("masks", where, loss, lx.Logistic()), n_samples=n)
    ratio = e.standard_error / error[:, :d]
    print(ratio)
    assert (ratio - 1).abs().max() < 0.1


def test_conjugate_gradients_solve_and_tell_what_is_indefinite():
    torch.manual_seed(0)
    root = torch.randn(3, 5, 4, 4, dtype=F64)
    A = root @ root.mT + 0.1 * torch.eye(4, dtype=F64)
    right = torch.randn(3, 5, 4, dtype=F64)
    times = lambda v: (A @ v[..., None])[..., 0]  # noqa: E731
    found, lost = conjugate_gradients(times, lambda v: v, right)
    torch.testing.assert_close(found, torch.linalg.solve(A, right), rtol=1e-6, atol=1e-6)
    assert not lost.any()
    N = torch.linalg.qr(torch.randn(4, 2, dtype=F64))[0]  # on a subspace, with a preconditioner that knows no other
    onto, inverse = N @ N.mT, N @ torch.linalg.inv(N.mT @ A.mean((0, 1)) @ N) @ N.mT
    found, lost = conjugate_gradients(lambda v: times(v) @ onto, lambda v: v @ inverse, right @ onto)
    expected = (N @ torch.linalg.solve(N.mT @ A @ N, N.mT @ right[..., None]))[..., 0]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert not lost.any()
    A[1, 2] -= 100 * torch.eye(4, dtype=F64)
    assert conjugate_gradients(times, lambda v: v, right)[1].tolist() == [False, True, False]


@pytest.mark.parametrize("where", [NOISE, lx.Multiplicative(lx.FairMasks())], ids=["noise", "masks"])
@pytest.mark.parametrize("loss", LOSSES[1:], ids=NAMES[1:])
def test_the_closed_form_of_rows_left_out_is_what_conjugate_gradients_find(loss, where):
    rows, theta = rows_of(loss, 60, where)
    newton = Newton.at(rows, theta)
    (closed, lost), (found, _) = without_rows(newton, 5, 1), without_units(newton, 5, 1)
    assert not lost.any()
    torch.testing.assert_close(closed, found, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("loss", [*LOSSES, lx.CrossEntropy()], ids=[*NAMES, "likelihood"])
def test_the_last_step_leaves_no_gradient(loss):
    """By autograd, over the Hessian: how far the minimum is; Newton's steps stop one before that is seen."""
    rows, theta = rows_of(loss, 200)
    for problem in range(2):
        one, at = rows.of(torch.tensor([problem])), theta[problem].clone().requires_grad_()
        slope = torch.autograd.grad(one.objective(at[None])[0], at)[0]
        bend = torch.autograd.functional.hessian(lambda t, one=one: one.objective(t[None])[0], at.detach())
        assert torch.linalg.solve(bend, slope).abs().max() < 1e-10 * at.abs().max()


def test_degrees_and_single_units_as_for_a_linear_surrogate(given):
    """Of one sampled pair beside enumerated rows nothing is known: NaN, as from Linear, and not 0."""
    e = lx.explain(f, X, method(lx.SquaredError()), n_samples=12)
    assert e.degrees_of_freedom.tolist() == [9.0, 9.0]
    e = lx.explain(f, X, method(lx.GradientMatching()), n_samples=50)
    assert e.degrees_of_freedom.tolist() == [49.0, 49.0]
    xi = torch.randn(22, 2, generator=torch.Generator().manual_seed(3), dtype=F64)
    draw = lx.Draw(xi, torch.ones(22, dtype=F64), unit_size=2, n_fixed=20)
    for loss in LOSSES[:2]:
        for surrogate in (lx.Logistic(), lx.Linear()):
            one = lx.explain(f, X, lx.Method("one pair", given(draw), loss, surrogate))
            assert one.standard_error.isnan().all(), (loss, surrogate)
    fixed = lx.explain(f, X, method(lx.SquaredError(), given(lx.Draw(xi, torch.ones(22, dtype=F64), n_fixed=22))))
    assert (fixed.standard_error == 0).all()
    assert fixed.degrees_of_freedom.isinf().all()


@cache
def truth_of(loss):
    return lx.explain(f, X, method(loss), n_samples=100_000, seed=10**6, progress=False).weights


def coverage(loss, n, seeds):
    """Share of 95 % intervals that hold the weights of 100,000 draws, among those that are known, and their number."""
    truth = truth_of(loss)
    held = known = 0
    for seed in range(seeds):
        low, high = lx.explain(f, X, method(loss), n_samples=n, seed=seed, progress=False).interval()
        some = low.isfinite()
        held, known = held + int(((low <= truth) & (truth <= high) & some).sum()), known + int(some.sum())
    return held / known, known / (4 * seeds)


@pytest.mark.parametrize("n", [12, 50, 500])
@pytest.mark.parametrize("loss", LOSSES, ids=NAMES)
def test_intervals_cover(loss, n):
    """.95 within 2 points and the sampling error of 100 seeds (four weights each, whose errors are dependent)."""
    share, known = coverage(loss, n, 100)
    print(f"covered {share:.3f}, known {known:.3f}")
    assert known > (0.5 if n == 12 else 0.9)
    assert abs(share - 0.95) < 0.02 + 2 * (0.95 * 0.05 / 100) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("n", [12, 50, 500])
@pytest.mark.parametrize("loss", LOSSES, ids=NAMES)
def test_intervals_cover_long(loss, n):
    """93 to 97 % over 1,000 seeds."""
    share, known = coverage(loss, n, 1000)
    print(f"covered {share:.3f}, known {known:.3f}")
    assert 0.93 <= share <= 0.97
    assert known > 0.9

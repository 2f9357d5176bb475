"""Constraints: programmes solved many at once, against Clarabel and cvxpy one by one."""

import numpy as np
import pytest
import torch

import locapprox as lx
from locapprox.fit import active_sets, constrained
from locapprox.fit.solve import to_unit_diagonal

cp = pytest.importorskip("cvxpy")
F64 = torch.float64
TIGHT = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-10)


def programmes(seed, B=20):
    """Of unit diagonal, some poorly conditioned; bounds, repeated and random rows, equations."""
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(1, 9)), int(rng.integers(1, 12))
    X = torch.from_numpy(rng.normal(size=(B, 3 * n, n)) * 10 ** rng.uniform(-2, 2, n))
    P = X.mT @ X
    scale = to_unit_diagonal(P)
    P = P * scale[:, :, None] * scale[:, None, :]
    G = torch.from_numpy(rng.normal(size=(B, m, n)))
    bounds = torch.from_numpy(rng.random(m) < 0.5)
    G[:, bounds] = -torch.eye(n, dtype=F64)[torch.from_numpy(rng.integers(n, size=int(bounds.sum())))]
    inside = torch.from_numpy(rng.normal(size=(B, n)))
    equal = torch.from_numpy(np.arange(m) < rng.integers(0, max(1, min(n, m) // 2)))
    slack = torch.from_numpy(rng.exponential(0.3, size=(B, m)) * (rng.random((B, m)) < 0.8)) * ~equal
    return P, torch.from_numpy(rng.normal(size=(B, n))), G, (G @ inside[..., None])[..., 0] + slack, equal


@pytest.mark.parametrize("seed", range(8))
def test_programmes_are_those_of_clarabel(seed):
    P, c, G, h, equal = programmes(seed)
    u, active, solved = active_sets.solve(P, c, G, h, equal, torch.zeros_like(h, dtype=torch.bool))
    assert solved.double().mean() > 0.25
    for i in solved.nonzero()[:, 0].tolist():
        v, rows = cp.Variable(len(c[i])), (G[i].numpy(), h[i].numpy())
        rules = [a @ v == b if e else a @ v <= b for a, b, e in zip(*rows, equal, strict=True)]
        cost = cp.Minimize(cp.quad_form(v, cp.psd_wrap(P[i].numpy())) / 2 - c[i].numpy() @ v)
        cp.Problem(cost, rules).solve(cp.CLARABEL, **TIGHT)
        gap = u[i] - torch.from_numpy(v.value)
        assert float(gap @ P[i] @ gap) < 1e-14
    again = active_sets.solve(P, c, G, h, equal, active)
    assert torch.equal(again[2] & solved, solved)
    torch.testing.assert_close(again[0][solved], u[solved], rtol=0, atol=0)


def test_what_has_no_minimum_or_many_is_not_solved():
    """Two bounds that exclude each other; P that leaves a direction open, unless a constraint closes it."""
    P, c, none = torch.eye(2, dtype=F64)[None], torch.ones(1, 2, dtype=F64), torch.zeros(1, 2, dtype=torch.bool)
    G, equal = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]], dtype=F64), torch.zeros(2, dtype=torch.bool)
    assert not active_sets.solve(P, c, G, torch.tensor([[0.0, -1.0]], dtype=F64), equal, none)[2].any()
    flat = torch.diag(torch.tensor([1.0, 0.0], dtype=F64))[None]
    assert not active_sets.solve(flat, c, G, torch.tensor([[2.0, 0.0]], dtype=F64), equal, none)[2].any()
    closed = torch.tensor([[[0.0, 1.0], [-1.0, 0.0]]], dtype=F64), torch.tensor([[3.0, 0.0]], dtype=F64)
    u, active, solved = active_sets.solve(flat, c, *closed, torch.tensor([True, False]), none)
    assert solved.all()
    assert u.tolist() == [[1.0, 3.0]]
    assert active.tolist() == [[True, False]]


def test_a_row_of_zeros_holds_or_not():
    P, c, G = torch.eye(1, dtype=F64)[None], torch.ones(1, 1, dtype=F64), torch.zeros(1, 2, 1, dtype=F64)
    equal, none = torch.tensor([True, False]), torch.zeros(1, 2, dtype=torch.bool)
    for h, holds in (([0.0, 1.0], True), ([0.0, -1.0], False), ([1.0, 1.0], False)):
        u, _, solved = active_sets.solve(P, c, G, torch.tensor([h], dtype=F64), equal, none)
        assert bool(solved) == holds
        assert not holds or u.tolist() == [[1.0]]


RULES = {
    "bounds": lambda w, c: [w >= 0],
    "order": lambda w, c: [w[:-1] >= w[1:], c >= 0.1],
    "sum": lambda w, c: [cp.sum(w) == 0.3],
    "‖w‖₁": lambda w, c: [cp.norm(w, 1) <= 0.2],
    "largest": lambda w, c: [cp.max(w) - cp.min(w) <= 0.1],
    "‖w‖₂": lambda w, c: [cp.norm(w) <= 0.2],
    "‖w‖₂ and bounds": lambda w, c: [cp.norm(w[:2]) <= 0.1, w[2:] >= 0],
    "exponential": lambda w, c: [cp.sum(cp.exp(w)) <= 5],
    "semidefinite": lambda w, c: [cp.bmat([[w[0] + 0.1, w[1]], [w[1], w[2] + 0.1]]) >> 0],
    "nothing binds": lambda w, c: [w <= 100],
}


def inputs(n=3):
    return torch.randn(n, 5, generator=torch.Generator().manual_seed(4), dtype=F64)


def f(a):
    rng = torch.Generator().manual_seed(3)
    W, v = torch.randn(5, 8, generator=rng, dtype=F64), torch.randn(8, 2, generator=rng, dtype=F64)
    return torch.tanh(a @ W) @ v / 4


def constrained_to(rule, where):
    method = lx.Method("", where, lx.SquaredError(), lx.Constrained(rule))
    return lx.explain(f, inputs(), method, n_samples=100, target=range(2), progress=False)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_every_kind_of_cone_is_what_cvxpy_finds(rule, draw_of):
    x, where = inputs(), lx.Multiplicative(lx.FairMasks())
    xi = draw_of(where, x, 100).xi.numpy()
    e = constrained_to(rule, where)
    for i, j in np.ndindex(3, 2):
        w, c, y = cp.Variable(5), cp.Variable(), f(x[i] * torch.from_numpy(xi))[:, j].numpy()
        cp.Problem(cp.Minimize(cp.sum_squares(xi @ w + c - y)), rule(w, c)).solve(cp.CLARABEL, **TIGHT)
        np.testing.assert_allclose(e.weights[i, j], w.value, atol=4e-6)
        assert float(e.intercept[i, j]) == pytest.approx(float(c.value), abs=4e-6)


def test_linear_constraints_need_few_programmes_one_by_one(monkeypatch):
    one_by_one = []
    solved = constrained.Programme._by_clarabel
    monkeypatch.setattr(constrained.Programme, "_by_clarabel", lambda *a: one_by_one.append(a) or solved(*a))
    found = {}
    for name in ("bounds", "order", "sum", "nothing binds", "‖w‖₂"):
        one_by_one.clear()
        found[name] = constrained_to(RULES[name], lx.Additive(lx.Normal(0.3))), len(one_by_one)
    assert [calls for _, calls in found.values()] == [0, 0, 0, 0, 6 * 21]  # the last is no linear one
    monkeypatch.setattr(active_sets, "MOST_STEPS", 0)
    for name, (e, _) in list(found.items())[:4]:
        slow = constrained_to(RULES[name], lx.Additive(lx.Normal(0.3)))
        torch.testing.assert_close(slow.weights, e.weights, rtol=0, atol=1e-8)
        both = ~(slow.standard_error + e.standard_error).isnan()  # bounds that bind are met but for round-off there
        torch.testing.assert_close(slow.standard_error[both], e.standard_error[both], rtol=1e-5, atol=1e-8)


def test_what_the_rows_to_interpolate_say_may_be_said_again():
    """Efficiency is no constraint of KernelSHAP's weights; what remains of it there is round-off."""
    x, method = inputs(1), lx.kernel_shap()
    g = lambda a: f(a)[:, :1]  # noqa: E731
    gap = float(g(x) - g(0 * x))
    free = lx.explain(g, x, method, n_samples=60, progress=False)
    for rule in (lambda w, c: [cp.sum(w) == gap], lambda w, c: [cp.sum(w) <= gap, w <= 10]):
        again = lx.Method("", method.neighbourhood, method.loss, lx.Constrained(rule))
        e = lx.explain(g, x, again, n_samples=60, progress=False)
        torch.testing.assert_close(e.weights, free.weights, rtol=0, atol=1e-9)
    off = lx.Method("", method.neighbourhood, method.loss, lx.Constrained(lambda w, c: [cp.sum(w) == gap + 1e-3]))
    with pytest.raises(ValueError, match="cannot all be met"):
        lx.explain(g, x, off, n_samples=60, progress=False)

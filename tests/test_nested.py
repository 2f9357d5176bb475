"""Nested rules of quadrature: what they are exact for, where an instance stops, what it costs and how sure it is."""

import numpy as np
import pytest
import torch

import locapprox as lx
from tests.test_calibration import OneLayer

F64 = torch.float64
X = torch.randn(40, 14, generator=torch.Generator().manual_seed(8), dtype=F64)


def draw(n, low=0.0, high=1.0):
    return lx.Fejer(low, high).draw(1, n, torch.Generator(), F64)


def stopping(tol):
    return lx.Method("", lx.Multiplicative(lx.Fejer(tol=tol)), lx.GradientMatching())


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 14, 15, 16, 100, 1000, 5000])
def test_every_rule_is_exact_for_as_many_powers_as_nodes_and_has_those_of_the_one_before(n):
    got = draw(n, -1.0, 3.0)
    t, rules = got.xi[:, 0], torch.cat([got.coarse_weight, got.weight[None]])
    assert 8 * n / 9 - 1 < len(t) <= n
    assert bool((t.diff() > 0).all())
    known = torch.zeros(len(t), dtype=torch.bool)
    for weight in rules[rules.any(1)]:
        used = weight != 0
        assert bool((weight[used] > 0).all())
        assert bool(used[known].all())
        known = used
        for degree in range(min(int(used.sum()), 12)):
            exact = (3.0 ** (degree + 1) - (-1.0) ** (degree + 1)) / (degree + 1) / 4
            assert float((weight * t**degree).sum()) == pytest.approx(exact, rel=1e-11)
    assert bool(known.all())


class Counts:
    """A model that counts its rows."""

    def __init__(self, model):
        self.model, self.rows = model, 0

    def __call__(self, x):
        self.rows += len(x)
        return self.model(x)


def test_a_smooth_model_is_exact_on_few_nodes_and_a_kinked_one_asks_for_no_row_twice():
    smooth, kinked = Counts(OneLayer("tanh")), Counts(OneLayer("relu"))
    e, r = (lx.explain(model, X, lx.integrated_gradients(), n_samples=1000) for model in (smooth, kinked))
    exact = lx.explain(OneLayer("tanh"), X, stopping(0.0), n_samples=1000)
    assert (exact.n_samples == 959).all()
    assert (r.n_samples == 959).all()
    assert int(e.n_samples.max()) <= 59
    probes = kinked.rows - 959 * len(X)
    assert 0 <= probes == smooth.rows - int(e.n_samples.sum())
    gap = (e.weights - exact.weights).abs()
    assert float((gap <= e.standard_error + 1e-14).double().mean()) > 0.95
    assert bool((gap.amax(1) <= e.standard_error.amax(1) + 1e-14).all())
    assert bool((e.standard_error <= 1e-6 * e.weights.abs().amax(1, keepdim=True)).all())
    complete = OneLayer("tanh")(X) - OneLayer("tanh")(0 * X)
    torch.testing.assert_close(e.weights.sum(1), complete, rtol=0, atol=1e-6)
    torch.testing.assert_close(e.loss, exact.loss, rtol=1e-4, atol=1e-6)
    points = e.points(0)[0].xi
    assert len(points) == int(e.n_samples[0])


def test_an_instance_stops_as_it_would_alone():
    """Half of them never meet the kink; every score must be known."""

    def model(x):
        return torch.stack([(x.sin()).sum(1) + (x[:, 0] - 0.3).relu(), x.sum(1).tanh()], dim=1)

    x = X[:6].clone()
    x[:, 0] = torch.tensor([1.0, -1, 1, -1, 1, -1])
    method = lx.integrated_gradients(features=[0, 1] * 7)
    e = lx.explain(model, x, method, n_samples=300, target=range(2))
    assert ((e.n_samples == 287) == (x[:, 0] > 0.3)).all()
    for i, one in enumerate(x):
        alone = lx.explain(model, one[None], method, n_samples=300, target=range(2))
        assert alone.n_samples[0] == e.n_samples[i]
        for name in ("weights", "intercept", "standard_error", "loss"):
            torch.testing.assert_close(getattr(alone, name)[0], getattr(e, name)[i], rtol=1e-6, atol=1e-9)


def test_errors_and_stops_hold_where_f_has_kinks():
    """Over 40 instances: 95 % intervals by moved edges after the stop, and as few nodes as the tolerance lets."""
    truth = lx.explain(OneLayer("relu"), X, stopping(0.0), n_samples=8191).weights
    for tol, nodes in ((0.004, (100, 250)), (0.001, (350, 1000))):
        e = lx.explain(OneLayer("relu"), X, stopping(tol), n_samples=4095)
        inside = ((e.weights - truth).abs() <= 1.96 * e.standard_error).double().mean(1)
        spent = e.n_samples.double().mean()
        print(
            f"MUST-SHOW nested rule, kinks, tol = {tol}: mean nodes {spent:.0f}, within 1.96 errors {inside.mean():.3f}"
        )
        assert (e.standard_error <= tol * e.weights.abs().amax(1, keepdim=True)).all()
        assert nodes[0] < float(spent) < nodes[1]
        assert abs(float(inside.mean()) - 0.95) < 0.02 + 3 * float(inside.std()) / len(X) ** 0.5


def test_it_is_as_exact_as_gauss_legendre_at_kinks():
    """Mean distance at equal numbers of nodes, over 40 instances and several n, to within a tenth."""
    truth, ratios = lx.explain(OneLayer("relu"), X, stopping(0.0), n_samples=8191).weights, []
    gauss = lx.Method("", lx.Multiplicative(lx.GaussLegendre()), lx.GradientMatching())
    for n in (63, 95, 127, 191, 255, 383, 511):
        ours, theirs = (lx.explain(OneLayer("relu"), X, m, n_samples=n).weights for m in (stopping(0.0), gauss))
        ratios.append(float((ours - truth).abs().mean() / (theirs - truth).abs().mean()))
    print("MUST-SHOW error of the nested rule over Gauss–Legendre's:", np.round(ratios, 2))
    assert np.mean(ratios) < 1.1


def test_it_stops_at_the_round_off_of_single_precision_and_where_f_is_flat():
    net = (
        torch.nn.Sequential(torch.nn.Linear(14, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).requires_grad_(False).eval()
    )
    e = lx.explain(net, X.float(), lx.integrated_gradients())
    assert int(e.n_samples.max()) <= 59
    flat = lx.explain(lambda x: 0 * x.sum(1) + 1, X, lx.integrated_gradients())
    assert (flat.n_samples == 29).all()
    assert (flat.standard_error == 0).all()


def test_tol_must_be_a_number():
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"^tol must be a number ≥ 0"):
            lx.Fejer(tol=wrong)

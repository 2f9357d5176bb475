"""Sobol's points in independent copies: nets by counting, errors by brute force over the copies, how fast they fall."""

import math

import numpy as np
import pytest
import torch

import locapprox as lx
from locapprox.neighbourhoods.draws import block_size
from locapprox.neighbourhoods.sobol import COPIES, MOST, Copies

F64 = torch.float64
SOBOL = lx.Normal(0.5, sobol=True)
INSTANCES = torch.randn(3, 4, generator=torch.Generator().manual_seed(2), dtype=F64)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def wave(x):
    return torch.tanh(x).sum(1).square() + torch.relu(x @ torch.tensor([1.0, -2.0, 0.5, 1.0]).to(x))


def gradients(x, xi):
    at = (x[:, None] + xi).requires_grad_()
    return torch.autograd.grad(wave(at.flatten(0, 1)).sum(), at)[0]


@pytest.mark.parametrize("dtype", [torch.float32, F64, torch.bfloat16])
@pytest.mark.parametrize("d", [1, 7, 60])
def test_every_copy_is_a_net(d, dtype):
    """Of 2ᵏ points one is in each of 2ᵏ equal intervals, in every entry and copy; all are finite and differ."""
    z = Copies(d, rng()).normal(0, 32 * COPIES, dtype)
    assert z.dtype == dtype
    assert z.isfinite().all()
    if dtype == torch.bfloat16:
        return
    cell = (torch.special.ndtr(z.double()) * 32).floor().unflatten(0, (32, COPIES))
    assert torch.equal(cell.sort(0).values, torch.arange(32.0, dtype=F64)[:, None, None].expand_as(cell))
    assert len(z.unique(dim=0)) == len(z)


def test_the_least_and_the_largest_points_are_finite():
    copies = Copies(3, rng())
    for shift in (0, 2**30 - 1):
        copies.shifts.fill_(shift)
        for dtype in (torch.float32, F64):
            z = copies.normal(0, 16, dtype)
            assert z.abs().max() == pytest.approx(-float(torch.special.ndtri(torch.tensor(2.0**-25, dtype=F64))), 0.2)


def test_blocks_are_parts_of_one_sequence():
    d, n = 5000, 2000
    assert block_size(d) < n
    parts = list(SOBOL.blocks(d, n, rng(), F64))
    assert torch.equal(torch.cat([part.xi for part in parts]), SOBOL.draw(d, n, rng(), F64).xi)
    assert all(len(part.xi) % COPIES == 0 for part in parts[:-1])


def test_beyond_the_last_entry_with_direction_numbers_draws_are_independent():
    assert SOBOL.draw(MOST, 2, rng(), torch.float32).replicates == COPIES
    for d in (MOST + 1, 150_528):
        alone = lx.Normal(0.5).draw(d, 2, rng(), torch.float32)
        assert SOBOL.draw(d, 2, rng(), torch.float32).replicates == 0
        assert torch.equal(SOBOL.draw(d, 2, rng(), torch.float32).xi, alone.xi)


@pytest.mark.parametrize("n", [5, 16, 23, 100, 1500])
@pytest.mark.parametrize("batch_size", [None, 7])
def test_errors_of_a_mean_gradient_are_from_the_copies(n, batch_size):
    """√(R / (R − 1) Σ (G_r − W_r ḡ)²) / n of R copies, t with R − 1 degrees; of R = n as of independent rows."""
    e = lx.explain(wave, INSTANCES, lx.smoothgrad(0.5), n_samples=n, seed=4, batch_size=batch_size, progress=False)
    xi = e.points(0)[0].xi
    g = gradients(INSTANCES, xi)
    copies = min(COPIES, n)
    torch.testing.assert_close(e.weights, g.mean(1))
    off = torch.stack([(g[:, r::COPIES] - g.mean(1, keepdim=True)).sum(1) for r in range(copies)])
    expected = (copies / (copies - 1) * off.square().sum(0)).sqrt() / n
    known = ~e.standard_error.isnan()
    assert known.any()
    torch.testing.assert_close(e.standard_error[known], expected[known])
    assert (e.degrees_of_freedom == copies - 1).all()
    if n <= COPIES:
        torch.testing.assert_close(expected, g.std(1) / n**0.5)


@pytest.mark.parametrize("loss", [lx.SquaredError(), lx.SquaredError() + 0.5 * lx.GradientMatching()])
def test_errors_of_least_squares_are_from_leaving_out_copies(loss):
    """The delete-group jackknife, whose groups are the copies."""
    n = 330
    e = lx.explain(wave, INSTANCES, lx.Method("", lx.Additive(SOBOL), loss), n_samples=n, progress=False)
    xi, part = e.points(0)[0].xi, loss.gradient
    y, g = wave((INSTANCES[:, None] + xi).flatten(0, 1)).unflatten(0, (3, n)), gradients(INSTANCES, xi)
    X = torch.cat([xi, torch.ones(n, 1, dtype=F64)], 1)

    def fit(i, keep):
        gram, right = X[keep].mT @ X[keep], X[keep].mT @ y[i, keep]
        gram[range(4), range(4)] += part * len(keep)
        right[:4] += part * g[i, keep].sum(0)
        return torch.linalg.solve(gram, right)[:4]

    for i in range(3):
        torch.testing.assert_close(e.weights[i], fit(i, torch.arange(n)))
        left = torch.stack([fit(i, torch.arange(n)[torch.arange(n) % COPIES != r]) for r in range(COPIES)])
        expected = ((COPIES - 1) / COPIES * (left - left.mean(0)).square().sum(0)).sqrt()
        known = ~e.standard_error[i].isnan()
        assert known.sum() >= 3
        torch.testing.assert_close(e.standard_error[i][known], expected[known])


def test_logistic_errors_are_from_the_copies_too():
    where = lx.Method("", lx.Additive(SOBOL), lx.GradientMatching(), lx.Logistic())
    e = lx.explain(lambda a: wave(a).sigmoid(), INSTANCES, where, n_samples=200, progress=False)
    assert (e.degrees_of_freedom == COPIES - 1).all()


def test_the_error_on_a_smooth_function_falls_faster_than_of_independent_draws():
    """Mean squared errors over 20 seeds on a tanh: ∝ n⁻¹ of independent draws, below n⁻¹·⁴ of copies, and less."""
    sizes, slopes, last = (64, 256, 1024), {}, {}
    smooth = lambda a: torch.tanh(a).sum(1).square()  # noqa: E731
    truth = lx.explain(smooth, INSTANCES, lx.smoothgrad(0.5), n_samples=2**16, seed=99, progress=False).weights
    for sobol in (True, False):
        method, found = lx.smoothgrad(0.5, sobol=sobol), []
        for n in sizes:
            runs = [lx.explain(smooth, INSTANCES, method, n_samples=n, seed=s, progress=False) for s in range(20)]
            found.append(np.mean([float((e.weights - truth).square().mean()) for e in runs]))
        slopes[sobol], last[sobol] = np.polyfit(np.log(sizes), np.log(found), 1)[0], found[-1]
    print(f"MUST-SHOW SmoothGrad, squared error ∝ n^{slopes[True]:.2f}, independent n^{slopes[False]:.2f}")
    assert slopes[True] < -1.4
    assert abs(slopes[False] + 1) < 0.2
    assert last[True] < last[False] / 10


def test_what_does_not_go_together_is_refused():
    for antithetic in (True, None):
        with pytest.raises(ValueError, match="antithetic and sobol are two ways to draw"):
            lx.Normal(0.1, antithetic=antithetic, sobol=True)
    xi = torch.zeros(4, 2)
    for other in ({"unit_size": 2}, {"n_fixed": 2}):
        with pytest.raises(ValueError, match="a draw has units, or fixed rows, or replicates"):
            lx.Draw(xi, torch.ones(4), replicates=2, **other)

    class Interpolates:
        def draw(self, x, n, rng):
            xi = torch.randn(n, x.shape[1], generator=rng, dtype=x.dtype)
            return lx.Draw(xi, torch.where(xi[:, 0] > 0, math.inf, 1.0), replicates=4)

        def place(self, x, xi):
            return x[:, None] + xi

    with pytest.raises(ValueError, match="weight is inf for some rows of a draw with replicates"):
        lx.explain(wave, INSTANCES, lx.Method("", Interpolates(), lx.SquaredError()), n_samples=64, progress=False)

"""What is drawn: enumerations against itertools, rules on polynomials, moments within their standard error."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import locapprox as lx
from locapprox.neighbourhoods.distributions import Normal, described_distribution
from locapprox.neighbourhoods.draws import block_size
from locapprox.neighbourhoods.masks import ShapleyMasks, coalitions, shapley_size_weights

F64 = torch.float64


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(distribution, d, n, seed=0):
    return distribution.draw(d, n, rng(seed), F64)


def kernel(d, size):
    return (d - 1) / (math.comb(d, size) * size * (d - size))


# ---- Shapley masks


@pytest.mark.parametrize("d", [2, 3, 5, 8, 12])
def test_shapley_size_weights(d):
    expected = np.array([math.comb(d, k) * kernel(d, k) for k in range(1, d)])
    np.testing.assert_allclose(shapley_size_weights(d), expected / expected.sum(), rtol=1e-13)


def test_shapley_size_weights_do_not_overflow():
    weights = shapley_size_weights(5000)
    assert np.isfinite(weights).all()
    assert weights.sum() == pytest.approx(1)
    assert weights[0] / weights[2499] == pytest.approx(2500 * 2500 / 4999)


@pytest.mark.parametrize("extra", [0, 1, 1000])
@pytest.mark.parametrize("d", [2, 3, 4, 5, 8, 11])
def test_enough_masks_are_all_coalitions_with_the_kernel(d, extra):
    got = draw(ShapleyMasks(), d, 2**d + extra)
    assert got.n_fixed == 2**d == len(got.xi)
    masks = [tuple(m) for m in got.xi.int().tolist()]
    assert sorted(masks) == sorted(itertools.product([0, 1], repeat=d))
    sizes, ratio = got.xi.sum(1).int(), []
    for size, weight in zip(sizes.tolist(), got.weight.tolist(), strict=True):
        if size in (0, d):
            assert weight == math.inf
        else:
            ratio.append(weight / kernel(d, size))
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(d=st.integers(2, 14), n=st.integers(2, 400), seed=st.integers(0, 2**20))
def test_shapley_masks_in_general(d, n, seed):
    """Complementary pairs; sizes from the outside in are enumerated, then sampled; of a size of which much is drawn no
    mask comes twice, and that share of it is fixed; weights add up."""
    got = draw(ShapleyMasks(), d, n, seed)
    assert max(min(n - 1, 2**d), 2) <= len(got.xi) <= max(n, 2)
    assert bool(((got.xi == 0) | (got.xi == 1)).all())
    assert got.weight[:2].isinf().all()
    assert got.weight[2:].isfinite().all()
    pairs, fixed = got.xi[2:].unflatten(0, (-1, 2)), torch.arange(2, len(got.xi), 2) < got.n_fixed
    assert bool((pairs.sum(1) == 1).all())
    assert got.unit_size == (1 if bool(fixed.all()) else 2)
    assert got.n_fixed % 2 == 0
    if d == 1 or n < 4:
        return
    size, share = torch.minimum(pairs[:, 0].sum(1), pairs[:, 1].sum(1)).int(), shapley_size_weights(d)
    m = (n - 2) // 2
    expected = np.array([m * (2 if 2 * k < d else 1) * share[k - 1] for k in range(1, d // 2 + 1)])
    sampled = False
    for k in range(1, d // 2 + 1):
        here, total = size == k, math.comb(d, k) // (2 if 2 * k == d else 1)
        drawn, still = int(here.sum()), int((here & fixed).sum())
        sampled |= drawn < total or still < drawn
        if drawn >= total / 16:
            assert len(pairs[here].flatten(0, 1).unique(dim=0)) == 2 * drawn
        if not sampled:
            assert float(got.weight[2:][::2][here].sum() * 2) == pytest.approx(
                share[k - 1] * (2 if 2 * k < d else 1), rel=1e-10
            )
            m, expected[k - 1] = m - total, 0
        elif m < 2 * d:
            assert still == 0
        else:
            assert still <= drawn**2 / total
            assert still >= min(drawn**2 / total - 1, drawn - 8) * (drawn >= total / 16)
    assert float(got.weight[2:].sum()) == pytest.approx(1, rel=1e-10)


def test_sampled_sizes_have_their_weight_in_expectation():
    """Sizes of random pairs follow their share, as nearly as whole numbers can, and coalitions of a size are equally
    likely, drawn or fixed: chi squared."""
    from scipy.stats import chisquare

    d, n = 7, 36
    counts, masks = np.zeros(d + 1), {}
    for seed in range(700):
        got = draw(ShapleyMasks(), d, n, seed)
        rows = got.xi[got.n_fixed :].int().tolist()
        drawn = np.bincount([sum(mask) for mask in rows], minlength=d + 1)
        counts += drawn
        for mask in rows:
            masks[tuple(mask)] = masks.get(tuple(mask), 0) + 1
        expected = shapley_size_weights(d)[1] / shapley_size_weights(d)[1:5].sum() * len(rows)
        assert abs(drawn[2] - expected) < 1
    inner = np.flatnonzero(counts)
    assert inner.tolist() == [2, 3, 4, 5]
    share = shapley_size_weights(d)[inner - 1]
    np.testing.assert_allclose(counts[inner], counts.sum() * share / share.sum(), rtol=0.02)
    for size in (2, 3):
        of = [c for m, c in masks.items() if sum(m) == size]
        assert len(of) == math.comb(d, size)
        assert chisquare(of).pvalue > 1e-3


@pytest.mark.parametrize("d", [5, 6, 9])
def test_coalitions_of_all_ranks_are_all_coalitions(d):
    for k in range(1, d + 1):
        total = math.comb(d, k)
        got = coalitions(d, np.full(total, k), torch.arange(total), rng())
        assert sorted(map(tuple, got.int().tolist())) == sorted(
            mask for mask in itertools.product([0, 1], repeat=d) if sum(mask) == k
        )
        if 2 * k == d:
            assert bool((got[: total // 2, -1] == 0).all())


@pytest.mark.parametrize("n", [100, 400])
def test_errors_and_loss_are_those_of_a_draw_without_replacement(n):
    """9 features, of whose 512 masks a good part is drawn: the spread of the weights and the loss on all masks, over
    250 draws."""
    d, generator = 9, rng(1)
    a, b = (torch.randn(d, 6, generator=generator, dtype=F64) for _ in range(2))
    x = torch.randn(1, d, generator=generator, dtype=F64)

    def f(rows):
        return (torch.tanh(rows @ a) * torch.relu(rows @ b)).sum(1)

    whole = lx.explain(f, x, lx.kernel_shap(0.0), n_samples=2**d)
    weights, squares, losses = [], [], []
    for seed in range(250):
        e = lx.explain(f, x, lx.kernel_shap(0.0), n_samples=n, seed=seed, progress=False)
        weights.append(e.weights[0])
        squares.append(e.standard_error[0] ** 2)
        losses.append(float(e.loss))
    off = (torch.stack(weights) - whole.weights[0]).square().sum(1)
    expected = float(torch.stack(squares).sum(1).mean())
    assert abs(float(off.mean()) - expected) < 4 * float(off.std()) / 250**0.5
    assert abs(np.mean(losses) - float(whole.loss)) < 4 * np.std(losses) / 250**0.5


def test_enumeration_starts_when_sampling_would_draw_every_coalition():
    """d = 10, size 1 has share s₁ per side: enumerated from n − 2 ≥ 20 / (2 s₁)."""
    d = 10
    need = math.ceil(20 / (2 * shapley_size_weights(d)[0]) - 1e-9) + 2
    assert draw(ShapleyMasks(), d, need - 1).n_fixed < 22
    assert draw(ShapleyMasks(), d, need).n_fixed == 22


@pytest.mark.parametrize("d", [1, 2, 3])
def test_few_features(d):
    for n in range(1, 12):
        got = draw(ShapleyMasks(), d, n)
        assert len(got.xi) <= max(2, n)
        assert got.weight[:2].isinf().all()
    x = torch.tensor([[2.0, 3.0, 5.0][:d]], dtype=F64)

    def product(a):
        return a.prod(1) + a.sum(1)

    e = lx.explain(product, x, lx.kernel_shap(), n_samples=2**d)
    expected = x + x.prod() / d
    torch.testing.assert_close(e.weights, expected, rtol=0, atol=1e-12)
    e = lx.explain(product, x, lx.occlusion())
    torch.testing.assert_close(e.weights, x + x.prod(), rtol=0, atol=1e-12)
    for method in (lx.c_lime(), lx.smoothgrad(), lx.integrated_gradients(), lx.lime(width=9.0)):
        weights = lx.explain(lambda a: 4 * a.sum(1), x, method, n_samples=64).weights
        expected = torch.full_like(x, 4.0) if method.name in ("C-LIME", "SmoothGrad") else 4 * x
        torch.testing.assert_close(weights, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("n", [40, 600, 2500, 5000])
def test_the_blocks_are_the_draw(n):
    whole = draw(ShapleyMasks(), 12, n)
    parts = list(ShapleyMasks().blocks(12, n, rng(), F64))
    assert torch.equal(torch.cat([p.xi for p in parts]), whole.xi)
    assert torch.equal(torch.cat([p.weight for p in parts]), whole.weight)
    assert sum(p.n_fixed for p in parts) == whole.n_fixed
    assert len(parts) == 1 or max(len(p.xi) for p in parts) < 2.1 * block_size(12)
    seen_sampled = False
    for p in parts:  # fixed rows come first
        assert not (seen_sampled and p.n_fixed)
        seen_sampled |= p.n_fixed < len(p.xi)
        assert p.n_fixed == len(p.xi) or (len(p.xi) - p.n_fixed) % p.unit_size == 0


# ---- quadrature


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 20])
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.9, 1.0), (-2.0, 3.0)])
def test_gauss_legendre_is_exact_on_polynomials(n, low, high):
    got = draw(lx.GaussLegendre(low, high), 3, n)
    assert got.n_fixed == n
    assert bool((got.xi == got.xi[:, :1]).all())
    t = got.xi[:, 0]
    assert bool(((t > low) & (t < high)).all())
    for degree in range(2 * n):
        exact = (high ** (degree + 1) - low ** (degree + 1)) / (degree + 1) / (high - low)
        bound = max(abs(low), abs(high), 1.0) ** degree
        assert float((got.weight * t**degree).sum()) == pytest.approx(exact, abs=1e-13 * bound)
    degree = 2 * n  # and on no more
    exact = (high ** (degree + 1) - low ** (degree + 1)) / (degree + 1) / (high - low)
    if n < 5:
        assert float((got.weight * t**degree).sum()) != pytest.approx(exact, rel=1e-13)


@pytest.mark.parametrize("n", [2, 3, 7, 16, 51])
def test_the_coarse_rule_is_exact_on_its_degree(n):
    """It interpolates on ⌈n/2⌉ nodes, so it integrates degrees below that."""
    got = draw(lx.GaussLegendre(), 1, n)
    t, coarse = got.xi[:, 0], got.coarse_weight
    assert int((coarse != 0).sum()) == (n + 1) // 2
    for degree in range((n + 1) // 2):
        assert float((coarse * t**degree).sum()) == pytest.approx(1 / (degree + 1), abs=1e-12)


def test_many_nodes_come_in_panels():
    """∫₀¹ cos(ωt) dt, by both rules, to round-off; one rule of 20,000 nodes takes a minute and gigabytes."""
    got = draw(lx.GaussLegendre(), 1, 20_001)
    t, coarse = got.xi[:, 0], got.coarse_weight
    assert len(t) == 20_001
    assert bool((t.diff() > 0).all())
    for omega in (0.0, 1.0, 300.0, 3000.0):
        exact = np.sinc(omega / np.pi)
        assert float((got.weight * (omega * t).cos()).sum()) == pytest.approx(exact, abs=1e-12)
        assert float((coarse * (omega * t).cos()).sum()) == pytest.approx(exact, abs=1e-9)


# ---- moments


def within(value, expected, error, bound=4.5):
    z = (value - expected) / error
    assert float(z.abs().max()) < bound
    if z.numel() > 10:
        assert 0.5 < float(z.square().mean().sqrt()) < 1.6


def test_normal_moments():
    n, sigma = 40_000, torch.tensor([0.1, 1.0, 3.0, 0.5], dtype=F64)
    got = draw(Normal(sigma), 4, n)
    assert bool((got.weight == 1).all())
    z = got.xi / sigma
    within(z.mean(0), 0, n**-0.5)
    products = torch.einsum("ni,nj->nij", z, z)
    within(products.mean(0), torch.eye(4, dtype=F64), products.std(0) / n**0.5)
    within((z**4).mean(0), 3, (96 / n) ** 0.5)


def test_antithetic_pairs():
    got = draw(Normal(2.0, antithetic=True), 3, 1000)
    assert got.unit_size == 2
    assert torch.equal(got.xi[0::2], -got.xi[1::2])
    assert len(got.xi.unique(dim=0)) == 1000
    within(got.xi[::2].square().mean(0), 4, 4 * (2 / 500) ** 0.5)


def test_uniform_moments():
    got = draw(lx.Uniform(-1.0, 3.0), 5, 20_000)
    assert bool((got.xi == got.xi[:, :1]).all())
    t = got.xi[:, 0]
    assert float(t.min()) >= -1
    assert float(t.max()) <= 3
    within(t.mean(), 1.0, 4 / 12**0.5 / 20_000**0.5)
    within(t.var(), 16 / 12, (t - 1).square().std() / 20_000**0.5)


def test_fair_masks():
    got = draw(lx.FairMasks(), 4, 20_000)
    from scipy.stats import chisquare

    code = (got.xi @ torch.tensor([1.0, 2, 4, 8], dtype=F64)).int()
    assert chisquare(np.bincount(code.numpy(), minlength=16)).pvalue > 1e-3


# ---- enumerations and points


@pytest.mark.parametrize("d", [1, 2, 7])
def test_all_coalitions(d):
    got = draw(lx.AllCoalitions(), d, 3)
    assert sorted(map(tuple, got.xi.int().tolist())) == sorted(itertools.product([0, 1], repeat=d))
    assert bool((got.weight == 1).all())
    assert got.n_fixed == 2**d
    with pytest.raises(ValueError, match="2\\*\\*25"):
        draw(lx.AllCoalitions(), 25, 3)


@pytest.mark.parametrize("d", [1, 2, 7])
def test_leave_one_out(d):
    got = draw(lx.LeaveOneOut(), d, 3)
    assert got.n_fixed == d + 1
    finite = got.weight.isfinite()
    assert torch.equal(got.xi[finite], 1 - torch.eye(d, dtype=F64))
    assert torch.equal(got.xi[~finite], torch.ones(1, d, dtype=F64))


def test_point_mass():
    got = draw(lx.PointMass(0.25), 3, 100)
    assert torch.equal(got.xi, torch.full((1, 3), 0.25, dtype=F64))
    assert got.n_fixed == 1


# ---- blocks


@pytest.mark.parametrize("d", [1, 19, 784, 4096, 150_528, 10**8])
def test_block_size(d):
    """Even (pairs stay together), at most 1,024, about 2²² numbers."""
    size = block_size(d)
    assert size % 2 == 0
    assert 2 <= size <= 1024
    assert size == 1024 or size == 2 or 0.99 * 2**22 - 2 * d < size * d <= 2**22


def test_what_needs_its_whole_budget_says_so():
    whole = [lx.GaussLegendre(), lx.Fejer(), lx.PointMass(0.0), lx.LeaveOneOut(), lx.AllCoalitions()]
    for distribution in [Normal(1.0), lx.Uniform(), lx.FairMasks(), ShapleyMasks(), *whole]:
        assert distribution.draws_at_once == (distribution in whole), distribution


@pytest.mark.parametrize(("n", "sizes"), [(40, [40]), (1024, [1024]), (1025, [1024, 1]), (2500, [1024, 1024, 452])])
def test_other_blocks_are_draws_one_after_the_other(n, sizes):
    for distribution, unit in ((lx.FairMasks(), 1), (Normal(1.0), 1), (Normal(1.0, antithetic=True), 2)):
        blocks, one = list(distribution.blocks(7, n, rng(), F64)), rng()
        assert [len(block.xi) for block in blocks] == [size // unit * unit for size in sizes]
        for block, size in zip(blocks, sizes, strict=True):
            assert torch.equal(block.xi, distribution.draw(7, size, one, F64).xi)


def test_what_distributions_say_of_themselves():
    """Binary ones may remove what is missing in x; two hold rows of infinite weight; σ is the least spread."""
    every = [Normal(0.2), lx.CorrelatedNormal(torch.eye(3)), lx.Uniform(), lx.GaussLegendre(), lx.Fejer()]
    every += [lx.PointMass(0.0)]
    masks = [lx.FairMasks(), lx.AllCoalitions(), lx.LeaveOneOut(), ShapleyMasks()]
    assert [d.binary for d in (*every, *masks)] == [False] * 6 + [True] * 4
    for distribution in (*every, *masks):
        found = bool(draw(distribution, 3, 20).weight.isinf().any())
        assert distribution.interpolates is found, distribution
        assert distribution.kind == type(distribution).__name__
    assert [d.spread for d in every[1:]] == [None] * 5
    assert every[0].spread == 0.2
    assert Normal(torch.tensor([0.5, 0.25])).spread == 0.25


def test_of_a_class_with_draw_alone_nothing_else_is_read():
    class Mine:
        draws_at_once = binary = True
        interpolates, spread, kind = False, 3.0, "another"

        def draw(self, d, n, rng, dtype):
            xi = torch.randn(n, d, generator=rng, dtype=dtype)
            return lx.Draw(xi, torch.ones(n, dtype=F64))

        def blocks(self, d, n, rng, dtype):
            raise AssertionError

    mine = described_distribution(Mine())
    assert (mine.draws_at_once, mine.binary, mine.interpolates, mine.spread) == (False, False, None, None)
    assert mine.kind == Mine.__qualname__
    assert [len(block.xi) for block in mine.blocks(3, 2500, rng(), F64)] == [1024, 1024, 452]
    assert torch.equal(next(mine.blocks(3, 20, rng(), F64)).xi, draw(Mine(), 3, 20).xi)
    assert described_distribution(mine) is mine
    with pytest.raises(TypeError, match="distribution must have a method draw"):
        described_distribution(Mine)


@pytest.mark.parametrize("sigma", [0.0, -1.0, [0.1, 0.0]])
def test_sigma_must_be_positive(sigma):
    with pytest.raises(ValueError, match="sigma"):
        Normal(torch.tensor(sigma) if isinstance(sigma, list) else sigma)


def test_dtype_and_seed():
    for distribution in (Normal(1.0), lx.Uniform(), lx.FairMasks(), ShapleyMasks(), lx.GaussLegendre()):
        for dtype in (torch.float32, F64):
            a, b, c = (distribution.draw(9, 60, rng(s), dtype) for s in (1, 1, 2))
            assert a.xi.dtype == dtype
            assert a.weight.dtype == F64
            assert torch.equal(a.xi, b.xi)
            assert torch.equal(a.xi, c.xi) == (distribution == lx.GaussLegendre())


def test_a_correlated_normal_has_its_covariance():
    """Of n draws each entry has the error √((c_ii c_jj + c_ij²) / n) (Isserlis)."""
    factor, n = torch.tensor([[1.0, 0.0, 0.0], [2.0, 0.5, 0.0], [-1.0, 0.3, 0.2]], dtype=torch.float64), 20_000
    covariance = factor @ factor.mT
    xi = lx.CorrelatedNormal(covariance).draw(3, n, torch.Generator().manual_seed(0), torch.float64).xi
    size = covariance.diagonal()
    error = ((size[:, None] * size + covariance.square()) / n).sqrt()
    assert float(((xi.mT @ xi / n - covariance).abs() / error).max()) < 4

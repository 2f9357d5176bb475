"""Walsh: Shapley values by a Gaussian process on f's odd part, against enumeration and leaving out by hand."""

import math
import re

import pytest
import torch

import locapprox as lx
from locapprox._problem import Problem
from locapprox.fit import walsh
from locapprox.fit.length_scales import most_likely
from locapprox.fit.odd import Process
from locapprox.fit.pairs import Pairs, pairs
from locapprox.fit.sampling import samples

F64 = torch.float64


def network(d, seed=0, width=6):
    rng = torch.Generator().manual_seed(seed)
    a, b = torch.randn(d, width, generator=rng, dtype=F64), torch.randn(width, generator=rng, dtype=F64)
    return lambda x: torch.tanh(x @ a / math.sqrt(d) + 0.3) @ b


def inputs(b, d, seed=1):
    return torch.randn(b, d, generator=torch.Generator().manual_seed(seed), dtype=F64)


def method(surrogate):
    return lx.kernel_shap(0.0, surrogate=surrogate)


def explained(f, x, surrogate, n, **settings):
    return lx.explain(f, x, method(surrogate), n_samples=n, progress=False, **settings)


def sampled(f, x, n, seed=0):
    sample = next(samples(Problem(f, x, None), method(lx.Walsh()).neighbourhood, n, seed, "fit"))
    return sample, pairs(sample, list(sample.blocks()))


def all_signs(d):
    return 2 * lx.AllCoalitions().draw(d, 0, torch.Generator(), F64).xi - 1


def by_enumeration(values):
    """Shapley values of a game on all masks, in the order of `all_signs`: (2ᵈ, …) -> (d, …)."""
    d = int(math.log2(len(values)))
    mask = torch.arange(len(values))
    size = (mask[:, None] >> torch.arange(d) & 1).sum(1)
    out = []
    for i in range(d):
        without = mask[mask >> i & 1 == 0]
        weight = torch.tensor([1 / (d * math.comb(d - 1, int(k))) for k in size[without]], dtype=F64)
        out.append(torch.tensordot(weight, values[without | 1 << i] - values[without], 1))
    return torch.stack(out)


def process(d, theta=None):
    theta = 0.1 + 0.4 * torch.rand(d, generator=torch.Generator().manual_seed(2), dtype=F64) if theta is None else theta
    return Process(torch.as_tensor(theta, dtype=F64).expand(d), 3.0)


# ---- the process


@pytest.mark.parametrize("d", [2, 5, 8])
def test_shapley_values_of_the_kernel_are_those_by_enumeration(d):
    k, signs, some = process(d), all_signs(d), all_signs(d)[:: max(1, 2**d // 7)]
    torch.testing.assert_close(k.shapley(some), by_enumeration(k.kernel(signs, some)), rtol=1e-12, atol=1e-13)
    twice = by_enumeration(by_enumeration(k.kernel(signs, signs)).mT.contiguous())
    torch.testing.assert_close(k.shapley_variance(), twice.diagonal())


def test_the_kernel_is_the_odd_part_of_a_product():
    k, signs = process(4), all_signs(4)
    rho = torch.tanh(k.theta)
    product = (1 + rho * signs[:, None] * signs).prod(-1)
    odd = (product - product.flip(0)) / 2  # the complement of mask i is the i-th from the end
    odd = odd / odd[0, 0] + k.linear / 4 * signs @ signs.mT
    torch.testing.assert_close(k.kernel(signs, signs), odd)


def test_weights_are_the_shapley_values_of_the_interpolating_mean():
    d = 7
    _, drawn = sampled(network(d), inputs(2, d), 60)
    for k in (process(d), process(d, 0.2)):
        gram = k.kernel(drawn.chi, drawn.chi) + drawn.noise.diag()
        mean = k.kernel(all_signs(d), drawn.chi) @ torch.linalg.solve(gram, drawn.odd.mT)
        weights = walsh.shapley_values(k, drawn, torch.arange(2))[0]
        torch.testing.assert_close(weights, by_enumeration(mean).mT, rtol=1e-6, atol=1e-8)


def test_pairs_are_the_odd_and_even_parts_of_what_was_asked():
    d, f, x = 6, network(6), inputs(3, 6)
    _, drawn = sampled(f, x, 40)
    assert torch.equal(drawn.chi[0], torch.ones(d, dtype=F64))
    assert drawn.weight[0] == 0
    assert len(drawn.chi.unique(dim=0)) == len(drawn.chi)
    assert (drawn.chi @ drawn.chi.mT).min() > -d  # no pair twice
    here, there = (torch.stack([f(x * (1 + sign * chi) / 2) for chi in drawn.chi], 1) for sign in (1, -1))
    torch.testing.assert_close(drawn.odd, (here - there) / 2)
    torch.testing.assert_close(drawn.even, (here + there) / 2)
    assert float(drawn.weight[~drawn.fixed].sum()) == pytest.approx((40 - 2 - 2 * int(drawn.fixed[1:].sum())) // 2)


# ---- what is left out


def without(drawn: Pairs, t: int) -> Pairs:
    return drawn.at(torch.tensor([i for i in range(len(drawn.chi)) if i != t]))


@pytest.mark.parametrize("theta", [0.2, None])
def test_leaving_a_pair_out_is_a_fit_without_it(theta):
    d = 7
    _, drawn = sampled(network(d), inputs(2, d), 60)
    k, both = process(d, theta), torch.arange(2)
    left = k.fit(drawn.chi, drawn.noise, drawn.odd)
    for t in (1, 5, len(drawn.chi) - 1):
        rest = without(drawn, t)
        gram = k.kernel(rest.chi, rest.chi) + rest.noise.diag()
        predicted = torch.linalg.solve(gram, rest.odd.mT).mT @ k.kernel(rest.chi, drawn.chi[t][None])
        torch.testing.assert_close(left.residual[:, t], drawn.odd[:, t] - predicted[:, 0], rtol=1e-5, atol=1e-8)
        moved = k.fit(rest.chi, rest.noise, rest.odd).shapley
        change = left.residual[:, t, None] * left.influence[:, t]
        torch.testing.assert_close(left.shapley - moved, change, rtol=1e-4, atol=1e-8)
        cross = k.kernel(rest.chi, drawn.chi[t][None])[:, 0]
        prior = k.kernel(drawn.chi[t][None], drawn.chi[t][None])[0, 0] + drawn.noise[t]
        torch.testing.assert_close(
            1 / left.precision[t], prior - cross @ torch.linalg.solve(gram, cross), rtol=1e-5, atol=0
        )

    weights, _, loss, _ = walsh.shapley_values(k, drawn, both)
    by_hand = torch.zeros(2, dtype=F64)
    for t in range(1, len(drawn.chi)):
        w = weights if drawn.fixed[t] else walsh.shapley_values(k, without(drawn, t), both)[0]
        v = drawn.even[:, [t]] + drawn.odd[:, [t]] * torch.tensor([1.0, -1.0], dtype=F64)
        g = (drawn.even - drawn.odd)[:, :1] + torch.stack([w @ (1 + s * drawn.chi[t]) / 2 for s in (1, -1)], 1)
        by_hand += drawn.weight[t] * (v - g).square().mean(1)
    centred = Pairs(drawn.chi, drawn.odd, drawn.even - drawn.even[:, :1], drawn.weight, drawn.fixed)
    loss = walsh.shapley_values(k, centred, both)[2]
    torch.testing.assert_close(loss, by_hand / drawn.weight.sum(), rtol=1e-5, atol=1e-9)


def test_the_likelihood_has_its_derivative_and_a_mode():
    """The mode is no worse than its neighbours under a density written by hand."""
    d = 6
    _, drawn = sampled(network(d), inputs(1, d), 50)
    u, start = drawn.odd[0], process(d, 0.2)
    found = most_likely(drawn.chi, drawn.noise, u, start)

    def log_density(k):
        gram = k.kernel(drawn.chi, drawn.chi) + drawn.noise.diag()
        m, variance = len(u), u @ torch.linalg.solve(gram, u) / len(u)
        away = (k.theta / start.theta).log().square().sum() / 4 + math.log(k.linear / start.linear) ** 2 / 4
        return float(-m / 2 * variance.log() - torch.logdet(gram) / 2 - away / 2)

    best = log_density(found)
    assert best > log_density(start) + 1
    for i in range(d):
        for factor in (0.7, 1.4):
            theta = found.theta.clone()
            theta[i] *= factor
            assert log_density(Process(theta, found.linear)) < best


# ---- the surrogate


@pytest.mark.parametrize("surrogate", [lx.Walsh(), lx.Walsh(per_feature=False)], ids=repr)
def test_an_enumeration_is_exact(surrogate):
    d, f, x = 6, network(6), inputs(2, 6)
    e, linear = explained(f, x, surrogate, 2**d), explained(f, x, lx.Linear(), 2**d)
    v = torch.stack([f(x * (1 + chi) / 2) for chi in all_signs(d)])
    torch.testing.assert_close(e.weights, by_enumeration(v).mT, rtol=1e-10, atol=1e-12)
    assert bool((e.standard_error == 0).all())
    assert torch.equal(e.loss, linear.loss)


@pytest.mark.parametrize("surrogate", [lx.Walsh(), lx.Walsh(per_feature=False)], ids=repr)
def test_weights_sum_to_the_difference_and_the_empty_mask_is_met(surrogate):
    f, x = network(12), inputs(3, 12)
    e = explained(f, x, surrogate, 200)
    torch.testing.assert_close(e.weights.sum(1), f(x) - f(0 * x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(e.intercept, f(0 * x), rtol=1e-12, atol=1e-12)


def test_without_interactions_it_is_least_squares():
    """θ → 0, where the interactions that are there are noise: the weights and the loss of `Linear` on the same draw."""
    d, f, x = 30, network(30), inputs(2, 30)
    sample, drawn = sampled(f, x, 400)
    linear = lx.Linear().fit(sample, lx.SquaredError())
    noisy = Pairs(drawn.chi, drawn.odd, drawn.even - drawn.even[:, :1], drawn.weight, drawn.fixed)
    weights, _, loss, _ = walsh.shapley_values(Process(torch.full((d,), 1e-9, dtype=F64), 10.0), noisy, torch.arange(2))
    torch.testing.assert_close(weights, linear.weights[:, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss, linear.loss[:, 0], rtol=1e-5, atol=0)


def test_the_best_constants_loss_is_that_of_linear():
    f, x = network(12), inputs(3, 12)
    walsh_fit, linear = (explained(f, x, one, 200) for one in (lx.Walsh(False), lx.Linear()))
    torch.testing.assert_close(walsh_fit.loss / (1 - walsh_fit.r2), linear.loss / (1 - linear.r2))
    torch.testing.assert_close(walsh_fit.loss, linear.loss, rtol=0.1, atol=0)


@pytest.mark.parametrize("surrogate", [lx.Walsh(), lx.Walsh(per_feature=False)], ids=repr)
def test_an_instance_does_not_depend_on_the_others(surrogate):
    f, x = network(10), inputs(4, 10)
    whole, alone = explained(f, x, surrogate, 150), explained(f, x[2:3], surrogate, 150)
    torch.testing.assert_close(whole[2:3].weights, alone.weights, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(whole[2:3].standard_error, alone.standard_error, rtol=1e-4, atol=1e-9)


def test_several_outputs_are_as_one_by_one():
    f, g, x = network(10), network(10, seed=5), inputs(2, 10)
    both = explained(lambda a: torch.stack([f(a), g(a)], 1), x, lx.Walsh(), 150, target=range(2))
    for k, one in enumerate((f, g)):
        torch.testing.assert_close(both.weights[:, k], explained(one, x, lx.Walsh(), 150).weights, rtol=1e-6, atol=1e-9)


def test_a_null_player_has_no_weight_and_no_error():
    x = inputs(3, 12)
    x[1, 4] = 0
    e = explained(network(12), x, lx.Walsh(), 200)
    assert e.weights[1, 4] == 0
    assert e.standard_error[1, 4] == 0
    assert bool((e.weights[[0, 2]] != 0).all())


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_unit_of_the_output_is_none_of_its_business(scale):
    f, x = network(10), inputs(2, 10)
    e, scaled = explained(f, x, lx.Walsh(), 150), explained(lambda a: scale * f(a), x, lx.Walsh(), 150)
    for name, power in (("weights", 1), ("standard_error", 1), ("loss", 2)):
        torch.testing.assert_close(getattr(scaled, name) / scale**power, getattr(e, name), rtol=1e-4, atol=1e-9)


def test_it_needs_fewer_evaluations():
    """Less error than least squares on the same draw, and much less by θ of every feature where some matter little."""
    d, x = 16, inputs(4, 16)
    x[:, 8:] /= 10
    f = network(d)
    truth = explained(f, x, lx.Linear(), 2**d).weights

    def error(surrogate):
        return float((explained(f, x, surrogate, 400).weights - truth).norm())

    own, shared, linear = error(lx.Walsh()), error(lx.Walsh(per_feature=False)), error(lx.Linear())
    assert own < shared / 2
    assert shared < 0.8 * linear


def test_what_no_draw_moves_is_told_and_has_no_error():
    with pytest.warns(UserWarning, match="f is linear"):
        e = explained(lambda a: 3 * a[:, 0] - a[:, 1], inputs(2, 10), lx.Walsh(), 150)
    torch.testing.assert_close(e.weights[:, :2], inputs(2, 10)[:, :2] * torch.tensor([3.0, -1.0], dtype=F64))
    assert bool(e.standard_error.isnan().all())
    with pytest.warns(UserWarning, match="f is linear"):
        flat = explained(lambda a: 0 * a[:, 0] + 2, inputs(2, 10), lx.Walsh(), 150)
    assert bool((flat.weights == 0).all())


def test_too_few_pairs_have_no_errors():
    with pytest.warns(UserWarning, match="n_samples is small: .* Use n_samples ≥ 210"):
        e = explained(network(30), inputs(2, 30), lx.Walsh(per_feature=False), 50)
    assert bool(e.standard_error.isnan().all())
    assert bool((e.loss > 0).all())


def test_files_keep_its_name(tmp_path):
    e = explained(network(10), inputs(2, 10), lx.Walsh(per_feature=False), 100)
    loaded = lx.load(e.save(tmp_path / "e.npz"))
    assert repr(loaded.method.surrogate) == "Walsh(per_feature=False)"
    torch.testing.assert_close(loaded.predict(inputs(2, 10)), e.predict(inputs(2, 10)))


# ---- bad input


@pytest.mark.parametrize(
    "loss", [lx.GradientMatching(), lx.Huber(1.0), lx.CrossEntropy(), 2 * lx.SquaredError()], ids=repr
)
def test_other_losses_are_refused(loss):
    with pytest.raises(TypeError, match="Walsh minimises SquaredError"):
        lx.Method("m", lx.kernel_shap().neighbourhood, loss, lx.Walsh())


@pytest.mark.parametrize(
    "where",
    [
        lx.Multiplicative(lx.FairMasks()),
        lx.Additive(lx.Normal(0.1)),
        lx.Multiplicative(lx.ShapleyMasks(), kernel=lx.ExponentialKernel(1.0)),
        lx.occlusion().neighbourhood,
    ],
    ids=repr,
)
def test_other_neighbourhoods_are_refused(where):
    with pytest.raises(TypeError, match=re.escape("neighbourhood of kernel_shap()")):
        lx.Method("m", where, lx.SquaredError(), lx.Walsh())


# ---- how sure


@pytest.mark.slow
@pytest.mark.parametrize("per_feature", [False, True])
@pytest.mark.parametrize("n", [256, 512])
def test_intervals_cover(n, per_feature):
    """300 draws around four points of a network that is exact by enumeration; its weights' errors come together."""
    d, x = 12, inputs(4, 12)
    f = network(d)
    truth = explained(f, x, lx.Linear(), 2**d).weights
    cover = []
    for seed in range(300):
        lower, upper = explained(f, x, lx.Walsh(per_feature), n, seed=seed).interval(0.95)
        cover.append(((lower <= truth) & (truth <= upper)).double().mean())
    assert 0.93 - 0.008 < float(torch.stack(cover).mean()) < 0.97 + 0.008  # two standard errors

"""Recommendations: against brute force, against scipy, and what they say."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.ensemble import RandomForestRegressor
from torch import nn

import locapprox as lx
from locapprox.evaluation.intervals import paired
from locapprox.evaluation.recommend import DESIGNED

N = 200


def random_setting(seed):
    """A network, instances, a neighbourhood, a loss, and two to four of the eight methods."""
    rng = np.random.default_rng(seed)
    d, hidden = int(rng.integers(3, 7)), int(rng.integers(4, 12))
    x = torch.from_numpy(rng.normal(size=(16, d)))
    layers = [nn.Linear(d, hidden), [nn.Tanh(), nn.ReLU(), nn.Softplus()][seed % 3], nn.Linear(hidden, 1)]
    net = nn.Sequential(*layers, *([nn.Sigmoid()] if rng.random() < 0.3 else [])).double().eval()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.from_numpy(rng.normal(size=p.shape) * rng.uniform(0.3, 2) / p.shape[-1] ** 0.5))
    base = float(rng.normal())
    where = [
        lx.Additive(lx.Normal(float(rng.uniform(0.02, 1.5)))),
        lx.Multiplicative(lx.FairMasks(), base),
        lx.Multiplicative(lx.ShapleyMasks(), base),
        lx.Multiplicative(lx.FairMasks(), 0.0, kernel=lx.ExponentialKernel(float(rng.uniform(2, 4)))),
        lx.Multiplicative(lx.Uniform(float(rng.uniform(0, 0.9)), 1.0), base),
        lx.Additive(lx.CorrelatedNormal.of_data(torch.from_numpy(rng.normal(size=(50, d))), 0.4)),
    ][int(rng.integers(6))]
    path = isinstance(getattr(where, "distribution", None), lx.Uniform)
    loss = lx.GradientMatching() if path or rng.random() < 0.3 else lx.SquaredError()
    every = {**lx.paper_methods(), "LIME": lx.lime(4.0)}
    names = rng.choice(list(every), size=int(rng.integers(2, 5)), replace=False)
    return net, x, where, loss, {name: every[name] for name in names}


def confirmed(seed):
    """None without a winner; else whether fresh fits, measured on 100 times the draws, rank the winner first."""
    net, x, where, loss, methods = random_setting(seed)
    answer = lx.recommend(net, x, where, loss=loss, methods=methods, n_samples=N, seed=seed)
    if answer.winner is None:
        return None
    column, total = {"here": lx.Method("here", where, loss)}, 0.0
    for r in range(5):
        fitted = {name: lx.explain(net, x, m, n_samples=N, seed=seed + 1000 + r) for name, m in methods.items()}
        found = lx.faithfulness(net, x, fitted, column, n_samples=100 * N, seed=seed + 1000 + r)
        total = total + found.table.groupby("method")["error"].mean()
    return total.idxmin() == answer.winner


def share(seeds, wanted):
    """Of the first `wanted` settings with a winner, how many are confirmed; and how many settings were tried."""
    outcomes, tried = [], 0
    for seed in seeds:
        tried += 1
        outcome = confirmed(seed)
        outcomes += [] if outcome is None else [outcome]
        if len(outcomes) == wanted:
            break
    return np.mean(outcomes), len(outcomes), tried


def test_winners_are_confirmed_by_brute_force():
    part, settings, _ = share(range(20), 4)
    assert settings == 4
    assert part >= 3 / 4


@pytest.mark.slow
def test_200_winners_are_confirmed_by_brute_force():
    part, settings, tried = share(range(2000), 200)
    print(f"{part:.1%} of {settings} winners confirmed; {tried} settings tried")
    assert settings == 200
    assert part >= 0.95


def test_gaussian_noise_is_c_limes_and_smoothgrads_and_nobody_wins(tanh_net, x):
    """They estimate one thing (Stein) and differ by sampling error; on its own column nothing beats it by much."""
    answer = lx.recommend(tanh_net, x, lx.Additive(lx.Normal(0.1)))
    assert answer.winner in (None, "SmoothGrad")
    assert set(answer.table["method"].iloc[:3]) <= {"C-LIME", "SmoothGrad", DESIGNED, "Vanilla Gradients"}
    own, c_lime = (answer.table.set_index("method").loc[name, "error"] for name in (DESIGNED, "C-LIME"))
    assert own == pytest.approx(c_lime, rel=1e-10)


def test_the_designed_method_gains_what_the_table_says(tanh_net, x):
    where = lx.Additive(lx.Normal(1.0))
    x = x.repeat(4, 1) + 0.1 * torch.randn(20, 6, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    methods = {"at x": lx.vanilla_gradients(), "narrow": lx.c_lime(0.01)}
    answer = lx.recommend(tanh_net, x, where, methods=methods)
    table = answer.table.set_index("method")
    best = table.drop(DESIGNED)["error"].min()
    assert answer.table["method"].iloc[0] == DESIGNED
    gain, low, high = answer.gain
    assert gain == pytest.approx(1 - table.loc[DESIGNED, "error"] / best)
    assert low < gain < high
    assert f"errs less by {gain:.1%}" in answer.summary()
    own = lx.explain(tanh_net, x, lx.Method("own", where, lx.SquaredError()), n_samples=1000)
    assert torch.equal(answer.designed.weights, own.weights)


def test_on_a_linear_model_nothing_is_better_than_anything_additive(x):
    net = nn.Linear(6, 1).double().eval()
    answer = lx.recommend(net, x, lx.Additive(lx.Normal(0.3)), methods=[lx.c_lime(), lx.smoothgrad()])
    assert answer.winner is None
    assert "No winner" in answer.summary()
    assert "zero already" in answer.summary()


def test_a_forest_has_no_gradients_and_the_result_says_what_is_left_out(x):
    model = RandomForestRegressor(10, random_state=0).fit(x.numpy(), x.numpy()[:, 0])
    methods = {**lx.paper_methods(), "LIME": lx.lime(4.0)}
    answer = lx.recommend(model, x.numpy(), lx.Multiplicative(lx.FairMasks()), methods=methods, n_samples=N)
    gradients = {"Vanilla Gradients", "Gradient x Input", "SmoothGrad", "Integrated Gradients"}
    assert set(answer.left_out) == gradients
    assert set(answer.table["method"]) == {"LIME", "C-LIME", "KernelSHAP", "Occlusion", DESIGNED}
    assert "Left out: Vanilla Gradients" in str(answer)


def test_the_interval_of_one_source_is_the_paired_t_test():
    rng = np.random.default_rng(0)
    values = rng.normal(1, 2, size=7)
    rows = pd.MultiIndex.from_product([range(7), range(3)], names=["instance", "replicate"])
    mean, half = paired(pd.Series(np.repeat(values, 3), rows), 0.95)  # replicates agree
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean - half == pytest.approx(low)
    assert mean + half == pytest.approx(high)
    one = pd.Series(values, pd.MultiIndex.from_product([[0], range(7)], names=["instance", "replicate"]))
    assert paired(one, 0.95) == pytest.approx(((low + high) / 2, (high - low) / 2))


def test_intervals_cover_the_difference_for_new_instances_and_draws():
    """Two-way random effects, known mean; conservative where draws and instances interact."""
    rng, hits = np.random.default_rng(1), 0
    rows = pd.MultiIndex.from_product([range(10), range(5)], names=["instance", "replicate"])
    for _ in range(400):
        values = 1 + rng.normal(size=(10, 1)) + 0.5 * rng.normal(size=(1, 5)) + 0.3 * rng.normal(size=(10, 5))
        mean, half = paired(pd.Series(values.ravel(), rows), 0.95)
        hits += abs(mean - 1) < half
    assert 0.92 < hits / 400 <= 1


def test_it_prints_as_a_table_and_plots(tanh_net, x):
    answer = lx.recommend(tanh_net, x, lx.Multiplicative(lx.FairMasks()), methods=[lx.occlusion(), lx.c_lime()])
    for name in ("Occlusion", "C-LIME", DESIGNED, "behind", "low", "high"):
        assert name in str(answer)
    ax = answer.plot()
    height = {label.get_text(): label.get_position()[1] for label in ax.get_yticklabels()}
    assert sorted(height, key=height.get, reverse=True) == answer.table["method"].tolist()
    dots = dict(zip(answer.table["method"], answer.table["error"], strict=True))
    expected = sorted((error, height[name]) for name, error in dots.items())
    np.testing.assert_allclose(sorted(ax.collections[-1].get_offsets().tolist()), expected)


def test_bad_input_is_named(tanh_net, x):
    where = lx.Additive(lx.Normal(0.3))
    with pytest.raises(ValueError, match="replicates must be a whole number ≥ 2"):
        lx.recommend(tanh_net, x, where, replicates=1)
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        lx.recommend(tanh_net, x, where, level=95.0)
    with pytest.raises(ValueError, match="methods must not be called 'designed for it'"):
        lx.recommend(tanh_net, x, where, methods={DESIGNED: lx.c_lime()})
    with pytest.raises(ValueError, match="methods: none can explain this model"):
        lx.recommend(lambda rows: rows[:, 0], x.numpy(), where, methods=[lx.smoothgrad()])
    with pytest.raises(ValueError, match="methods has several of the name C-LIME"):
        lx.recommend(tanh_net, x, where, methods=[lx.c_lime(), lx.c_lime()])
    with pytest.raises(ValueError, match=r"method 'designed for it': .*sigma has 3 entries"):
        lx.recommend(tanh_net, x, lx.Additive(lx.Normal(torch.ones(3))))


def test_a_default_method_that_cannot_be_fitted_is_left_out_and_a_chosen_one_is_an_error(x):
    far = 100 * x  # a width of 1 gives every mask but one no weight
    answer = lx.recommend(lambda rows: rows.sum(1), far, lx.Additive(lx.Normal(0.5)), replicates=2, n_samples=100)
    assert "width=1 is too narrow" in answer.left_out["LIME"]
    assert "LIME" not in set(answer.table["method"])
    with pytest.raises(ValueError, match="width=1 is too narrow"):
        lx.recommend(lambda rows: rows.sum(1), far, lx.Additive(lx.Normal(0.5)), methods=[lx.lime(1.0)], n_samples=100)


def test_a_default_method_that_fails_in_a_later_replicate_is_left_out_of_all(tanh_net, x):
    """At the edge of what LIME's width of 1 can do, one draw is enough and another is not."""
    lx.explain(tanh_net, x, lx.lime(1.0), n_samples=60, seed=0)
    with pytest.raises(ValueError, match="width=1 is too narrow"):
        [lx.explain(tanh_net, x, lx.lime(1.0), n_samples=60, seed=seed) for seed in (1, 2)]
    answer = lx.recommend(tanh_net, x, lx.Additive(lx.Normal(0.5)), n_samples=60, replicates=3)
    assert list(answer.left_out) == ["LIME"]
    assert set(answer.table["method"]) == {*lx.paper_methods(), DESIGNED} - {"LIME"}
    others = {name: method for name, method in lx.paper_methods().items() if name != "LIME"}
    same = lx.recommend(tanh_net, x, lx.Additive(lx.Normal(0.5)), methods=others, n_samples=60, replicates=3)
    pd.testing.assert_frame_equal(answer.table, same.table)

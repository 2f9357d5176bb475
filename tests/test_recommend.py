"""Recommendations: against brute force, against scipy, what they say, what the default methods are, what they cost."""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from sklearn.ensemble import RandomForestRegressor
from torch import nn
from tqdm import tqdm

import locapprox as lx
from locapprox._parts import child_seeds
from locapprox._problem import Problem
from locapprox.evaluation import recommend as module
from locapprox.evaluation.inherited import distance
from locapprox.evaluation.intervals import typical
from locapprox.evaluation.ranking import DESIGNED
from locapprox.evaluation.recommend import stein

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
    """None without a winner; else whether no other usable method errs less on most instances, by fresh fits that are
    measured on 100 times the draws."""
    net, x, where, loss, methods = random_setting(seed)
    answer = lx.recommend(net, x, where, loss=loss, methods=methods, n_samples=N, seed=seed)
    if answer.winner is None:
        return None
    column, total = {"here": lx.Method("here", where, loss)}, 0.0
    for r in range(5):
        fitted = {name: lx.explain(net, x, m, n_samples=N, seed=seed + 1000 + r) for name, m in methods.items()}
        found = lx.faithfulness(net, x, fitted, column, n_samples=100 * N, seed=seed + 1000 + r)
        total = total + np.log(found.table.pivot(index="instance", columns="method", values="error").clip(lower=1e-12))
    usable = answer.table["method"][answer.table["usable"] & (answer.table["method"] != DESIGNED)]
    others = set(usable) - set(answer.confidence_set)
    return all((total[other] - total[answer.winner]).median() >= 0 for other in others)


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


def test_gaussian_noise_is_c_limes_and_smoothgrads_and_they_are_one_answer(tanh_net, x):
    """They estimate one thing (Stein) and differ by sampling error."""
    x = x.repeat(4, 1) + 0.1 * torch.randn(20, 6, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    where, pair = lx.Additive(lx.Normal(1.0)), [lx.c_lime(1.0, antithetic=False), lx.smoothgrad(1.0, sobol=False)]
    answer = lx.recommend(tanh_net, x, where, methods=pair)
    assert answer.winner is not None
    assert set(answer.table["group"][answer.table["method"] != DESIGNED]) == {answer.winner}
    own, c_lime = (answer.table.set_index("method").loc[name, "error"] for name in (DESIGNED, "C-LIME"))
    assert own == pytest.approx(c_lime, rel=1e-10)
    other = lx.recommend(tanh_net, x, where, methods=[lx.c_lime(1.0), lx.smoothgrad(0.3)])
    assert other.table["group"][other.table["method"] != DESIGNED].nunique() == 2


def test_whom_stein_makes_one():
    sigma, gradients = torch.tensor([0.1, 0.2], dtype=torch.float64), lx.GradientMatching()
    normal = lx.Additive(lx.Normal(sigma))
    values = lx.Method("values", normal, lx.SquaredError())
    same = lx.Additive(lx.Normal(np.array([0.1, 0.2])))
    assert stein(values, lx.Method("gradients", same, gradients))
    assert stein(lx.Method("gradients", same, gradients), values)
    for where in (lx.Additive(lx.Normal(0.1)), lx.Multiplicative(lx.Normal(sigma))):
        assert not stein(values, lx.Method("elsewhere", where, gradients))
    kernel = lx.Additive(lx.Normal(0.1), lx.ExponentialKernel(1.0))
    assert not stein(lx.Method("a", kernel, lx.SquaredError()), lx.Method("b", kernel, gradients))
    assert not stein(values, lx.Method("sparse", normal, gradients, lx.Sparse(1)))
    assert not stein(values, values)
    assert not stein(values, np.ones(2))


def test_the_designed_method_gains_what_the_table_says(tanh_net, x):
    where = lx.Additive(lx.Normal(1.0))
    x = x.repeat(4, 1) + 0.1 * torch.randn(20, 6, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    methods = {"at x": lx.vanilla_gradients(), "smooth": lx.c_lime(0.5)}
    answer = lx.recommend(tanh_net, x, where, methods=methods, n_samples=N)
    own = answer.table.set_index("method").loc[DESIGNED]
    assert answer.table["method"].iloc[0] == DESIGNED
    assert answer.winner == "smooth"
    gain, low, high = answer.gain
    assert (gain, low, high) == pytest.approx((1 - own["ratio"], 1 - own["high"], 1 - own["low"]))
    assert 0 < low < gain < high < 1
    parts, few = {**methods, DESIGNED: lx.Method(DESIGNED, where, lx.SquaredError())}, {"n_samples": N}
    frames = [
        lx.faithfulness(tanh_net, x, parts, {"here": where}, seed=seed, **few).table.assign(replicate=seed)
        for seed in child_seeds(0, 5)
    ]
    wide = pd.concat(frames).pivot(index=["instance", "replicate"], columns="method", values="error")
    ratio = np.log(wide[DESIGNED] / wide["smooth"])
    assert own["ratio"] == pytest.approx(np.exp(ratio.groupby("instance").mean().median()))
    assert own["error"] == pytest.approx(wide[DESIGNED].mean())
    assert np.log([own["low"], own["high"]]) == pytest.approx(typical(ratio, 0.95)[1:])
    assert f"errs {own['ratio']:.3g} times as much as smooth" in answer.summary()
    alone = lx.explain(tanh_net, x, lx.Method("own", where, lx.SquaredError()), **few)
    assert torch.equal(answer.designed.weights, alone.weights)


def test_on_a_linear_model_all_additive_methods_are_one_answer(x):
    net = nn.Linear(6, 1).double().eval()
    answer = lx.recommend(net, x, lx.Additive(lx.Normal(0.3)), methods=[lx.c_lime(), lx.vanilla_gradients()])
    assert answer.groups == [(("C-LIME", "Vanilla Gradients"), "they are the same surrogate here")]
    assert (answer.table["ratio"] == 1).all()
    assert "errs 1 times as much as C-LIME, too few instances for an interval" in answer.summary()


def test_where_nothing_is_usable_that_is_the_answer(tanh_net, x):
    """A slope at x says nothing about noise of 3; a constant model leaves nothing to explain."""
    where = lx.Additive(lx.Normal(3.0))
    x = x.repeat(4, 1) + 0.1 * torch.randn(20, 6, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    answer = lx.recommend(tanh_net, x, where, methods=[lx.vanilla_gradients()])
    assert (answer.winner, answer.confidence_set, answer.groups) == (None, [], [])
    own = answer.table.set_index("method").loc[DESIGNED]
    assert answer.gain.estimate == pytest.approx(own["explained"])
    summary = answer.summary()
    assert "of the existing methods none is usable" in summary
    assert f"explains {own['explained']:.0%} on the typical instance" in summary
    r2 = answer.table.set_index("method").loc["Vanilla Gradients", "r2"]
    assert r2 < 0
    assert f"No better than a constant: Vanilla Gradients (R² {r2:.2g}, worse on" in summary
    flat = lx.recommend(lambda rows: rows.sum(1) * 0 + 1, x, where, methods=[lx.c_lime()], n_samples=N)
    assert not flat.table["usable"].any()
    assert flat.summary().startswith("f does not vary on this neighbourhood")


def test_few_instances_are_told_how_many_are_needed(tanh_net, x):
    answer = lx.recommend(tanh_net, x, lx.Multiplicative(lx.FairMasks()), n_samples=N)
    assert answer.winner is None
    assert "5 instances cannot tell 8 methods apart, 8 are the least" in answer.summary()
    usable = answer.table[answer.table["usable"] & (answer.table["method"] != DESIGNED)]
    assert set(answer.confidence_set) == set(usable["method"])


def test_a_forest_has_no_gradients_and_the_result_says_what_is_left_out(x):
    model = RandomForestRegressor(10, random_state=0).fit(x.numpy(), x.numpy()[:, 0])
    methods = {**lx.paper_methods(), "LIME": lx.lime(4.0)}
    answer = lx.recommend(model, x.numpy(), lx.Multiplicative(lx.FairMasks()), methods=methods, n_samples=N)
    gradients = {"Vanilla Gradients", "Gradient x Input", "SmoothGrad", "Integrated Gradients"}
    assert set(answer.left_out) == gradients
    assert set(answer.table["method"]) == {"LIME", "C-LIME", "KernelSHAP", "Occlusion", DESIGNED}
    assert "Left out: Vanilla Gradients" in str(answer)


def test_it_prints_as_a_table_and_plots(tanh_net, x):
    x = x.repeat(4, 1) + 0.1 * torch.randn(20, 6, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    methods = [lx.occlusion(), lx.c_lime(0.7), lx.vanilla_gradients(), lx.kernel_shap(3.0)]
    answer = lx.recommend(tanh_net, x, lx.Additive(lx.Normal(0.7)), methods=methods, n_samples=N)
    for name in ("Occlusion", "C-LIME", DESIGNED, "explained", "worse_than_constant", "ratio", "low", "high", "in_set"):
        assert name in str(answer)
    ax, table = answer.plot(plt.figure().add_subplot()), answer.table
    assert ax.get_xscale() == "log"
    height = {label.get_text(): label.get_position()[1] for label in ax.get_yticklabels()}
    assert sorted(height, key=height.get, reverse=True) == table["method"].tolist()
    usable = table[table["usable"]]
    dots = np.concatenate([np.asarray(dots.get_offsets().data) for dots in ax.collections[1:]])
    expected = [(ratio, height[name]) for name, ratio in zip(usable["method"], usable["ratio"], strict=True)]
    np.testing.assert_allclose(sorted(dots[np.isfinite(dots).all(1)].tolist()), sorted(expected))
    notes = [text.get_text() for text in ax.texts]
    assert notes == [f"not usable, R² {r2:.2g}" for r2 in table["r2"][~table["usable"]]]
    assert notes


def test_bad_input_is_named(tanh_net, x):
    where = lx.Additive(lx.Normal(0.3))
    with pytest.raises(ValueError, match="replicates must be a whole number ≥ 2"):
        lx.recommend(tanh_net, x, where, replicates=1)
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        lx.recommend(tanh_net, x, where, level=95.0)
    with pytest.raises(ValueError, match="margin must be positive and finite"):
        lx.recommend(tanh_net, x, where, margin=0.0)
    with pytest.raises(ValueError, match="methods must not be called 'designed for it'"):
        lx.recommend(tanh_net, x, where, methods={DESIGNED: lx.c_lime()})
    with pytest.raises(ValueError, match="methods: none can explain this model"):
        lx.recommend(lambda rows: rows[:, 0], x.numpy(), where, methods=[lx.smoothgrad()])
    with pytest.raises(ValueError, match="methods has several of the name C-LIME"):
        lx.recommend(tanh_net, x, where, methods=[lx.c_lime(), lx.c_lime()])
    with pytest.raises(ValueError, match=r"method 'designed for it': .*sigma has 3 entries"):
        lx.recommend(tanh_net, x, lx.Additive(lx.Normal(torch.ones(3))))


# ---- the default methods


def test_default_methods_have_the_neighbourhoods_baseline_features_and_scale(three_outputs):
    """KernelSHAP on its own neighbourhood is the designed method, whatever its baseline and patches."""
    x = torch.rand(3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels, base = torch.tensor([0, 0, 1, 1, 2, 2]), torch.linspace(-1, 1, 6, dtype=torch.float64)
    where = lx.Multiplicative(lx.ShapleyMasks(), base, labels)
    answer = lx.recommend(three_outputs, x, where, target=0, n_samples=N, replicates=2)
    table = answer.table.set_index("method")
    assert table.loc["KernelSHAP", "error"] == pytest.approx(table.loc[DESIGNED, "error"])
    assert "it would fit 6 weights, one for each entry" in answer.left_out["C-LIME"]
    noise = lx.Additive(lx.Normal(torch.full((6,), 0.7, dtype=torch.float64), antithetic=None))  # as C-LIME draws
    table = lx.recommend(three_outputs, x, noise, target=0, n_samples=N, replicates=2).table.set_index("method")
    assert table.loc["C-LIME", "error"] == pytest.approx(table.loc[DESIGNED, "error"])


def test_default_methods_find_their_columns_by_name(tanh_net, x):
    names = list("abcdef")
    table, base = pd.DataFrame(x.numpy(), columns=names), pd.Series(np.arange(6.0), names)
    sigma = pd.Series(np.linspace(0.1, 1, 6), names)
    for place in (
        lambda part: lx.Multiplicative(lx.FairMasks(), part(base)),
        lambda part: lx.Additive(lx.Normal(part(sigma))),
    ):
        by_name, in_order = (
            lx.recommend(tanh_net, table, place(part), n_samples=N, replicates=2).table
            for part in (lambda one: one[::-1], lambda one: one.to_numpy())
        )
        pd.testing.assert_frame_equal(by_name, in_order)


def test_how_far_a_neighbourhood_goes(x):
    """Fair masks: |x − b| / √2, root mean square over instances; Gaussian noise: σ; never 0, and 0.1 where nothing
    moves."""
    problem, base = Problem(lambda rows: rows.sum(1), x), x[0].clone()
    base[1:] = 0.0
    problem.x[:, 0] = x[0, 0]  # at the baseline
    there = distance(problem, lx.Multiplicative(lx.FairMasks(), base), 0)
    expected = ((x - base).square().mean(0) / 2).sqrt()
    torch.testing.assert_close(there[1:], expected[1:], rtol=0.25, atol=0)  # three errors of 64 masks
    assert there[0] == pytest.approx(1e-3 * float(there.square().mean().sqrt()), rel=0.01)
    sigma = torch.linspace(0.5, 2, 6, dtype=torch.float64)
    noise = distance(problem, lx.Additive(lx.Normal(sigma)), 0)
    torch.testing.assert_close(noise, sigma, rtol=3 * (1 / (2 * 64)) ** 0.5, atol=0)
    far = distance(problem, lx.Multiplicative(lx.FairMasks(), lx.Background(x + 10)), 0)
    assert (far > 5).all()
    assert (distance(problem, lx.vanilla_gradients().neighbourhood, 0) == 0.1).all()


def test_a_default_method_that_cannot_be_fitted_is_left_out_and_a_chosen_one_is_an_error(x):
    where, few = lx.Additive(lx.Normal(0.5)), {"replicates": 2, "n_samples": 100}
    holes = x.clone()
    holes[0, 0] = torch.nan
    masks = lx.Multiplicative(lx.FairMasks())
    model = lambda rows: rows.nan_to_num().sum(1)  # noqa: E731
    answer = lx.recommend(model, holes, masks, **few)
    assert "x has NaN or infinite values" in answer.left_out["SmoothGrad"]
    assert "SmoothGrad" not in set(answer.table["method"])
    with pytest.raises(ValueError, match="x has NaN or infinite values"):
        lx.recommend(model, holes, masks, methods=[lx.smoothgrad()], **few)
    with pytest.raises(ValueError, match="width=1 is too narrow"):
        lx.recommend(lambda rows: rows.sum(1), 100 * x, where, methods=[lx.lime(1.0)], **few)


def test_a_default_method_that_fails_in_a_later_replicate_is_left_out_of_all(tanh_net, x, monkeypatch):
    """At the edge of what LIME's width of 1 can do, one draw is enough and another is not."""
    lx.explain(tanh_net, x, lx.lime(1.0), n_samples=60, seed=0)
    with pytest.raises(ValueError, match="width=1 is too narrow"):
        [lx.explain(tanh_net, x, lx.lime(1.0), n_samples=60, seed=seed) for seed in child_seeds(0, 4)]
    others = {method.name: method for method in (lx.c_lime(0.5), lx.smoothgrad(0.5), lx.occlusion())}
    monkeypatch.setattr(module, "inherited", lambda *_: ({"LIME": lx.lime(1.0), **others}, {}))
    settings = {"n_samples": 60, "replicates": 4}
    answer = lx.recommend(tanh_net, x, lx.Additive(lx.Normal(0.5)), **settings)
    assert list(answer.left_out) == ["LIME"]
    same = lx.recommend(tanh_net, x, lx.Additive(lx.Normal(0.5)), methods=others, **settings)
    pd.testing.assert_frame_equal(answer.table, same.table)


# ---- what it costs


def test_rows_of_the_model_are_those_of_a_fit_and_an_evaluation_per_replicate(tanh_net, x):
    """What no seed changes is fitted once: a point, a quadrature, each feature in turn."""
    rows = []

    def model(inputs):
        rows.append(len(inputs))
        return tanh_net(inputs)

    def spent(call):
        rows.clear()
        call()
        return sum(rows)

    where, settings = lx.Additive(lx.Normal(0.5)), {"n_samples": N, "progress": False}
    once = [lx.vanilla_gradients(), lx.integrated_gradients(), lx.occlusion(), lx.gradient_x_input()]
    anew = [lx.c_lime(0.3), lx.smoothgrad(0.3), lx.Method(DESIGNED, where, lx.SquaredError())]
    fits = [spent(lambda m=m: lx.explain(model, x, m, **settings)) for m in (*once, *anew)]
    needed = sum(fits[:4]) + 3 * (sum(fits[4:]) + N * len(x))
    used = spent(lambda: lx.recommend(model, x, where, methods=once + anew[:2], replicates=3, **settings))
    assert 0.9 * needed < used <= 1.05 * needed
    kept = [lx.explain(tanh_net, x, lx.c_lime(0.3), **settings), lx.kernel_shap()]  # all 2⁶ coalitions
    given = spent(lambda: lx.recommend(model, x, where, methods=kept, replicates=3, **settings))
    assert given <= 1.05 * (64 * len(x) + 3 * 2 * N * len(x))


def test_the_bar_ends_where_it_said(tanh_net, x, monkeypatch):
    """Fits and an evaluation per replicate, whatever is fitted once or left out."""
    bars = []

    class Bar(tqdm):
        def __init__(self, *args, **settings):
            super().__init__(*args, **settings)
            bars.append((self, settings["delay"]))

    monkeypatch.setattr(module, "tqdm", Bar)
    model = RandomForestRegressor(5, random_state=0).fit(x.numpy(), x.numpy()[:, 0])
    for one in (tanh_net, model):
        inputs = x if one is tanh_net else x.numpy()
        lx.recommend(one, inputs, lx.Multiplicative(lx.FairMasks()), n_samples=N, replicates=3)
        bar, delay = bars.pop()
        assert (bar.n, bar.total, delay) == (3 * (9 + 1), 3 * (9 + 1), 2)

"""Errors of surrogates on other neighbourhoods, against draws, placements and losses written out."""

import numpy as np
import pandas as pd
import pytest
import torch
from captum.metrics import infidelity
from matplotlib import pyplot as plt
from torch import nn

import locapprox as lx
from locapprox._parts import child_seeds
from locapprox.evaluation.faithfulness import MEASURES, percent
from locapprox.evaluation.intervals import STATES, typical

LABELS = [0, 0, 1, 2, 2, 3]
N = 400


def measured(*args, **more):
    return lx.faithfulness(*args, **more, progress=False).table


def methods():
    return {
        **lx.paper_methods(),
        "LIME": lx.lime(width=3.0),
        "grouped": lx.kernel_shap(baseline=0.3, features=LABELS),
    }


def linear(d=6):
    net = nn.Linear(d, 1).double().eval()
    with torch.no_grad():
        net.weight.copy_(torch.linspace(-1, 2, d)[None])
    return net


def written_out(model, x, e, column, draw, rule):
    """Error and violation from the surrogate as a function of the input, row by row."""
    error, violation = [], []
    for i in range(len(x)):
        here, xi = x[i : i + 1], draw.xi.clone().requires_grad_()
        weight = draw.weight if draw.weight.ndim == 1 else draw.weight[i]
        finite = torch.isfinite(weight)
        placed = column.neighbourhood.place(here, xi)
        f = model(placed.flatten(0, 1))[:, 0]
        g = e.predict(placed.expand(len(x), *placed.shape[1:]))[i]
        gap = (f - g).detach()
        mean = (weight * gap)[finite].sum() / weight[finite].sum() if bool(finite.all()) else gap[~finite].mean()
        shift = {"fitted": 0.0, "refitted": mean}
        shift["through_x"] = model(here)[0, 0].detach() - e.predict(x)[i]
        loss = column.loss.value * (gap - shift[rule]).square()
        if column.loss.gradient:
            slope = torch.autograd.grad((f - g).sum(), xi)[0]
            loss = loss + column.loss.gradient * slope.square().sum(1)
        error.append(float((weight * loss)[finite].sum() / weight[finite].sum()))
        off = (gap - shift[rule])[~finite].abs()
        violation.append(float(off.max()) if len(off) else 0.0)
    return np.array(error), np.array(violation)


@pytest.mark.parametrize("rule", ["refitted", "fitted", "through_x"])
def test_the_matrix_is_what_writing_it_out_gives(tanh_net, x, draw_of, rule):
    sobolev = lx.Method("Sobolev", lx.Additive(lx.Normal(0.5)), lx.SquaredError() + 0.3 * lx.GradientMatching())
    columns = {**methods(), "Sobolev": sobolev}
    table = measured(tanh_net, x, methods(), columns, n_samples=N, seed=3, intercept=rule)
    for name in ("LIME", "KernelSHAP", "C-LIME", "Integrated Gradients"):
        e = lx.explain(tanh_net, x, methods()[name], n_samples=N, seed=3)
        for where, column in columns.items():
            draw = draw_of(column.neighbourhood, x, N, seed=3, role="evaluate")
            one = table[(table["method"] == name) & (table["neighbourhood"] == where)]
            error, violation = written_out(tanh_net, x, e, column, draw, rule)
            np.testing.assert_allclose(one["error"], error, rtol=1e-8, atol=1e-14, err_msg=f"{name} on {where}")
            np.testing.assert_allclose(one["violation"], violation, rtol=1e-8, atol=1e-12)


def test_fitted_intercepts_on_the_own_neighbourhood_give_validate(tanh_net, x):
    exact = {name: methods()[name] for name in ("Occlusion", "Integrated Gradients", "Vanilla Gradients")}
    exact["all masks"] = lx.Method("all masks", lx.Multiplicative(lx.AllCoalitions()), lx.SquaredError())
    for name, method in exact.items():
        table = measured(tanh_net, x, {name: method}, {name: method}, n_samples=N, intercept="fitted")
        expected = lx.explain(tanh_net, x, method, n_samples=N).validate(N)
        np.testing.assert_allclose(table["error"], expected.numpy(), rtol=1e-8, atol=1e-14)
        np.testing.assert_allclose(table["regret"], 0, atol=1e-12)


def test_the_optimum_of_an_enumeration_is_least_squares(tanh_net, x, draw_of):
    where = lx.Multiplicative(lx.AllCoalitions(), baseline=0.2)
    table = measured(tanh_net, x, [lx.c_lime()], {"all": where}, n_samples=N)
    xi = draw_of(where, x, N).xi
    y = tanh_net(where.place(x, xi).flatten(0, 1)).reshape(len(x), -1).detach().mT
    X = torch.cat([xi, torch.ones(len(xi), 1)], 1)
    rest = y - X @ torch.linalg.lstsq(X, y).solution
    np.testing.assert_allclose(table["optimum"], rest.square().mean(0).numpy(), rtol=1e-8)
    np.testing.assert_allclose(table["r2"], 1 - table["error"] / y.var(0, correction=0).numpy(), rtol=1e-8)


def test_the_sampled_optimum_is_unbiased_where_its_halves_are_not(tanh_net, x):
    column = {"here": lx.Additive(lx.Normal(0.7))}
    exact = measured(tanh_net, x, [lx.c_lime()], column, n_samples=200_000, seed=9)["optimum"].mean()
    runs = [measured(tanh_net, x, [lx.c_lime()], column, n_samples=60, seed=s) for s in range(120)]
    means = np.array([run["optimum"].mean() for run in runs]) / exact
    assert abs(means.mean() - 1) < 4 * means.std() / len(means) ** 0.5
    assert 4 * means.std() / len(means) ** 0.5 < 7 / 60  # p / n, the bias of either half, would be seen


def test_on_a_linear_model_additive_methods_have_no_regret_anywhere(x):
    model = linear()
    table = measured(model, x, methods(), methods(), n_samples=N)
    additive = table[table["method"].isin(["C-LIME", "SmoothGrad", "Vanilla Gradients"])]
    assert len(additive) == 3 * len(methods()) * len(x)
    assert additive["regret"].abs().max() < 1e-12
    assert (1 - additive["r2"]).max() < 1e-12
    assert additive["violation"].max() < 1e-12


def test_through_x_is_captums_infidelity(tanh_net, x, draw_of):
    column, method = lx.Additive(lx.Normal(0.4)), lx.smoothgrad(0.2)
    table = measured(tanh_net, x, [method], {"near": column}, n_samples=N, seed=1, intercept="through_x")
    xi = draw_of(column, x, N, seed=1, role="evaluate").xi
    attributions = lx.explain(tanh_net, x, method, n_samples=N, seed=1).weights

    def perturb(inputs):
        rows = xi.repeat(len(inputs) // len(xi), 1)
        return -rows, inputs + rows

    theirs = infidelity(lambda rows: tanh_net(rows)[:, 0], perturb, x, attributions, n_perturb_samples=len(xi))
    np.testing.assert_allclose(table["error"], theirs.detach().numpy(), rtol=1e-6)


def test_images_groups_and_a_background_sample_carry_over(draw_of):
    x = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.2
    labels = torch.arange(16).reshape(1, 4, 4) // 4
    background = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.Tanh(), nn.Linear(5, 1)).double().eval()
    method, where = lx.lime(2.0, features=labels), lx.Multiplicative(lx.FairMasks(), lx.Background(background), labels)
    table = measured(net, x, [method], {"background": where}, n_samples=N)
    xi = draw_of(where, x, N, role="evaluate").xi
    placed = where.place(x, xi)
    f = net(placed.flatten(0, 2)).reshape(3, N, 5).mean(2).detach()
    gap = f - lx.explain(net, x, method, n_samples=N).predict(placed.mean(2))
    np.testing.assert_allclose(table["error"], gap.var(1, correction=0).numpy(), rtol=1e-8)


def test_instances_with_different_numbers_of_features(tanh_net, x, draw_of):
    labels = torch.tensor([LABELS, LABELS, [0, 1, 2, 3, 4, 5], LABELS, [0, 0, 0, 1, 1, 1]])
    where = lx.Multiplicative(lx.AllCoalitions(), features=labels)
    table = measured(tanh_net, x, [lx.c_lime()], {"groups": where}, n_samples=N)
    e = lx.explain(tanh_net, x, lx.c_lime(), n_samples=N)
    for i in range(len(x)):
        own = lx.Multiplicative(lx.AllCoalitions(), features=labels[i])
        placed = own.place(x, draw_of(own, x, N).xi)
        gap = tanh_net(placed[i])[:, 0].detach() - e.predict(placed)[i]
        assert table["error"][i] == pytest.approx(float(gap.var(correction=0)), rel=1e-8)


def test_explanations_fitted_or_loaded_serve_as_methods(tanh_net, x, tmp_path):
    e = lx.explain(tanh_net, x, methods()["grouped"], n_samples=N)
    given = {"fitted": e, "loaded": lx.load(e.save(tmp_path / "e"))}
    table = measured(tanh_net, x, given, [lx.c_lime(0.5)], n_samples=N)
    wide = table.pivot_table(index="instance", columns="method", values="error")
    np.testing.assert_allclose(wide["fitted"], wide["loaded"], rtol=1e-10)


def test_the_frame_is_long_and_a_constant_model_has_no_r2(x):
    table = measured(lambda rows: 0 * rows[:, 0] + 2, x, [lx.c_lime()], {"a": lx.c_lime(), "b": lx.smoothgrad()})
    numbers = "error optimum regret blind division nonlinear violation lost r2"
    assert list(table.columns) == ["method", "neighbourhood", "loss", "instance", *numbers.split()]
    assert len(table) == 2 * len(x)
    assert table["loss"].unique().tolist() == ["squared error", "gradient matching"]
    assert (table["error"] == 0).all()
    assert table["r2"].isna().all()
    assert (table["lost"] == 0).all()


def test_an_instance_at_the_baseline_has_error_zero_on_masks(tanh_net, x):
    at_base = torch.cat([x, torch.zeros(1, 6, dtype=x.dtype)])
    table = measured(tanh_net, at_base, [lx.c_lime()], {"masks": lx.Multiplicative(lx.FairMasks())})
    assert table["error"].iloc[-1] < 1e-30
    assert np.isnan(table["r2"].iloc[-1])


class Bent:
    def draw(self, x, n, rng):
        return lx.Draw(torch.randn(n, 6, generator=rng, dtype=x.dtype), torch.ones(n))

    def place(self, x, xi):
        return x[:, None] + xi.tanh()


def test_a_placement_that_is_not_affine_takes_its_own_method_only(tanh_net, x):
    bent = lx.Method("bent", Bent(), lx.SquaredError())
    table = measured(tanh_net, x, [bent], [bent], n_samples=N)
    assert (table["regret"].abs() < 0.2 * table["optimum"]).all()
    with pytest.raises(ValueError, match="neighbourhood 'bent': place is not affine"):
        measured(tanh_net, x, [lx.c_lime()], [bent], n_samples=N)


def test_bad_input_is_named(tanh_net, three_outputs, x):
    ok = [lx.c_lime()]
    with pytest.raises(ValueError, match="methods has several of the name C-LIME"):
        lx.faithfulness(tanh_net, x, [lx.c_lime(), lx.c_lime(0.2)], ok)
    with pytest.raises(TypeError, match="neighbourhoods: 'a' must be a neighbourhood"):
        lx.faithfulness(tanh_net, x, ok, {"a": 3})
    words = "neighbourhoods must be a neighbourhood, a Method, a list of Methods or a dict of names"
    for bad in ([lx.Additive(lx.Normal(0.1))], [lx.explain(tanh_net, x, lx.c_lime())], ["C-LIME"]):
        with pytest.raises(TypeError, match=words):
            lx.faithfulness(tanh_net, x, ok, bad)
    with pytest.raises(TypeError, match=r"method 'a': methods must be Methods, .*, got Normal\(0.1\)"):
        lx.faithfulness(tanh_net, x, {"a": lx.Normal(0.1)}, ok)
    with pytest.raises(TypeError, match=r"methods must be a Method, .*, a list of them or a dict of names; got Normal"):
        lx.faithfulness(tanh_net, x, [lx.Normal(0.1)], ok)
    with pytest.raises(ValueError, match="neighbourhoods is empty"):
        lx.faithfulness(tanh_net, x, ok, [])
    with pytest.raises(ValueError, match="neighbourhood 'short': features"):
        lx.faithfulness(tanh_net, x, ok, {"short": lx.Multiplicative(lx.FairMasks(), features=[0, 1])})
    with pytest.raises(ValueError, match=r"method 'wide': .*baseline"):
        lx.faithfulness(tanh_net, x, {"wide": lx.lime(baseline=torch.zeros(9))}, ok)
    with pytest.raises(ValueError, match="x is empty"):
        lx.faithfulness(tanh_net, x[:0], ok, ok)
    with pytest.raises(ValueError, match="one score"):
        lx.faithfulness(three_outputs, x, ok, ok, target=range(3))
    with pytest.raises(ValueError, match="one score"):
        lx.faithfulness(three_outputs, x, {"array": x}, ok, target=range(3), like=lx.smoothgrad())
    with pytest.raises(ValueError, match="one score of each of the instances"):
        lx.faithfulness(tanh_net, x[:2], {"other": lx.explain(tanh_net, x, lx.c_lime())}, ok)
    logistic = lx.Method("logistic", lx.Additive(lx.Normal(0.1)), lx.SquaredError(), lx.Logistic())
    with pytest.raises(ValueError, match="'logistic' has a logistic surrogate"):
        lx.faithfulness(lambda rows: torch.sigmoid(rows[:, 0]), x, [logistic], ok)
    with pytest.raises(TypeError, match="method 'SmoothGrad': gradient matching needs"):
        lx.faithfulness(lambda rows: rows[:, 0], x.numpy(), [lx.smoothgrad()], ok)


def test_results_depend_on_neither_the_batch_size_nor_the_kind_of_table(tanh_net, x):
    a = measured(tanh_net, x, methods(), methods(), n_samples=N)
    b = measured(tanh_net, pd.DataFrame(x.numpy()), methods(), methods(), n_samples=N, batch_size=7)
    pd.testing.assert_frame_equal(a, b, rtol=1e-6, atol=1e-14)


def test_missing_values_stay_with_their_own_placement(x):
    holes = x.clone()
    holes[0, 2] = torch.nan
    model = lambda rows: rows.nan_to_num(3.0).square().sum(1)  # noqa: E731
    kernel = lx.ExponentialKernel(3.0, measured_in="xi")
    method = lx.Method("masks", lx.Multiplicative(lx.FairMasks(), kernel=kernel), lx.SquaredError())
    own = measured(model, holes, [method], {"all": lx.Multiplicative(lx.AllCoalitions())})
    assert own["error"].max() == 0  # a sum over features is linear in masks
    with pytest.raises(ValueError, match="neighbourhood 'other': x has missing values"):
        measured(model, holes, [method], {"other": lx.Multiplicative(lx.AllCoalitions(), baseline=1.0)})


# ---- what comes back


def few(tanh_net, x, **more):
    chosen = {name: methods()[name] for name in ("C-LIME", "KernelSHAP", "Vanilla Gradients")}
    columns = {"noise": lx.Additive(lx.Normal(0.4)), **chosen}
    return lx.faithfulness(tanh_net, x, chosen, columns, **more, progress=False)


def test_replicates_are_fits_and_draws_of_child_seeds(tanh_net, x):
    found = few(tanh_net, x, n_samples=60, seed=3, replicates=3).table
    single = [few(tanh_net, x, n_samples=60, seed=s).table.assign(replicate=r) for r, s in enumerate(child_seeds(3, 3))]
    pd.testing.assert_frame_equal(found, pd.concat(single, ignore_index=True))
    assert "replicate" not in single[0].drop(columns="replicate")


def test_neighbouring_seeds_share_no_replicate():
    runs = [child_seeds(seed, 50) for seed in range(40)]
    assert [run[0] for run in runs] == list(range(40))
    assert len({seed for run in runs for seed in run}) == 40 * 50
    assert child_seeds(7, 3) == child_seeds(7, 50)[:3]


def test_numbers_of_draws_by_name(tanh_net, x):
    n = {"C-LIME": 40, "KernelSHAP": 30, "Vanilla Gradients": 1, "noise": 50, "unused": 9}
    found = few(tanh_net, x, n_samples=n).table
    fits = {name: lx.explain(tanh_net, x, methods()[name], n_samples=n[name]) for name in list(n)[:3]}
    for where, column in {"noise": lx.Additive(lx.Normal(0.4)), "KernelSHAP": lx.kernel_shap()}.items():
        own = measured(tanh_net, x, fits, {where: column}, n_samples=n[where])
        pd.testing.assert_frame_equal(found[found["neighbourhood"] == where].reset_index(drop=True), own)
    with pytest.raises(ValueError, match="n_samples has no number for 'Vanilla Gradients', 'noise'"):
        few(tanh_net, x, n_samples={"C-LIME": 40, "KernelSHAP": 30})
    with pytest.raises(ValueError, match=r"n_samples\['noise'\] must be a whole number ≥ 1, got 0"):
        few(tanh_net, x, n_samples=n | {"noise": 0})


@pytest.mark.parametrize("value", MEASURES)
def test_the_matrix_has_the_means(tanh_net, x, value):
    found = few(tanh_net, x, n_samples=60, replicates=2)
    wide = found.matrix(value)
    assert list(wide.index) == ["C-LIME", "KernelSHAP", "Vanilla Gradients"]
    assert list(wide.columns) == ["noise", "C-LIME", "KernelSHAP", "Vanilla Gradients"]
    for (method, where), part in found.table.groupby(["method", "neighbourhood"]):
        assert wide.loc[method, where] == pytest.approx(part[value].mean(), nan_ok=True)
    with pytest.raises(ValueError, match=r"value must be one of lost, state, error, .*, r2; got 'loss'"):
        found.matrix("loss")


def many(x, n=20):
    """Instances enough for intervals at a level that is corrected over four neighbourhoods."""
    noise = torch.randn(n, 6, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    return x.repeat(n // len(x), 1) + 0.3 * noise


def test_what_is_lost_is_the_larger_of_regret_and_missed_rows(tanh_net, x):
    table = few(tanh_net, x, n_samples=60).table
    constant = (
        (table["error"] / (1 - table["r2"])).groupby([table["neighbourhood"], table["instance"]]).transform("max")
    )
    larger = np.maximum(table["regret"], table["violation"] ** 2)
    expected = larger.where(table["violation"] > 0, table["regret"]) / constant
    np.testing.assert_allclose(table["lost"], expected, rtol=1e-9, atol=1e-14)
    assert (table["violation"] ** 2 > table["regret"]).any()
    assert (table["violation"] ** 2 < table["regret"]).any()


def test_the_summary_judges_the_typical_instance(tanh_net, x):
    """Medians with intervals of order statistics; the state at a level corrected over the four neighbourhoods."""
    found = few(tanh_net, many(x), n_samples=60, replicates=3)
    summary, margin = found.summary(), 0.01
    assert len(summary) == 3 * 4
    assert set(summary["state"]) == set(STATES), "a test of three states needs them all"
    for _, row in summary.iterrows():
        part = found.table.query("method == @row.method and neighbourhood == @row.neighbourhood")
        for name in ("error", "optimum", "regret", "violation"):
            assert row[name] == pytest.approx(part[name].mean())
        lost = part.set_index(["instance", "replicate"])["lost"]
        assert row["lost"] == pytest.approx(lost.groupby("instance").mean().median())
        assert (row["lost"], row["low"], row["high"]) == pytest.approx(typical(lost, 0.95))
        _, low, high = typical(lost, 1 - 0.05 / 4)
        state = "worse" if low > margin else "equivalent" if -margin < low and high < margin else "undecided"
        assert row["state"] == state
        assert np.isnan(row["needed"]) == (state != "undecided")
    for bad in (0.0, 1.0, 95.0):
        for name in ("level", "margin"):
            with pytest.raises(ValueError, match=f"{name} must be between 0 and 1"):
                few(tanh_net, x, n_samples=60, **{name: bad})


def of_losses(lost, **settings):
    """A result by hand: what one method loses, (instances, replicates) by neighbourhood."""
    rows = [
        {"method": "a", "neighbourhood": w, "loss": "l", "instance": i, "replicate": r, "lost": float(v)}
        for w, values in lost.items()
        for (i, r), v in np.ndenumerate(np.asarray(values))
    ]
    frame = pd.DataFrame(rows).assign(violation=0.0, constant=1.0, optimum=0.0, r2=0.0)
    frame["regret"] = frame["error"] = frame["lost"]
    return lx.Faithfulness(frame, **{"level": 0.95, "margin": 0.01} | settings)


def test_a_mean_that_one_instance_carries_decides_nothing():
    """LIME on WHO C lost 115 to 160 times the constant's loss and was called best: not rejected is not equivalent, and
    one instance of thirty is neither the typical one nor forgotten."""
    rng = np.random.default_rng(0)
    lost = {"tails": np.exp(rng.normal(-1, 1, size=(30, 5))), "home": 1e-4 * rng.random((30, 5))}
    lost["tails"][0] = 4000.0
    found = of_losses(lost)
    cell = found.summary().set_index("neighbourhood").loc["tails"]
    assert cell["regret"] > 100  # as means go
    assert cell["state"] == "worse"
    assert 0.1 < cell["low"] < cell["lost"] < cell["high"] < 1
    assert cell["worse_than_constant"] > 1 / 30
    assert found.matrix("state").loc["a"].tolist() == ["worse", "equivalent"]


def test_the_margin_is_what_equivalent_means():
    lost = {"w": 0.02 + 0.001 * np.random.default_rng(0).normal(size=(40, 3))}
    states = [of_losses(lost, margin=margin).summary()["state"][0] for margin in (0.01, 0.03, 0.02)]
    assert states == ["worse", "equivalent", "undecided"]
    assert of_losses({"w": -0.02 + 0 * lost["w"]}).summary()["state"][0] == "undecided"  # below the optimum, somehow


def test_as_many_instances_as_are_needed_decide():
    rng, decided = np.random.default_rng(1), []
    for _ in range(50):
        values = np.exp(rng.normal(-4.0, 1.0, size=4000))  # the median is .018
        few_of_them = of_losses({"w": values[:30, None]}).summary().iloc[0]
        if few_of_them["state"] == "undecided":
            more = min(4000, 2 * int(few_of_them["needed"]))  # at just as many, every second time
            decided.append(of_losses({"w": values[:more, None]}).summary()["state"][0] == "worse" or more == 4000)
    assert len(decided) > 10
    assert np.mean(decided) > 0.5


def test_the_verdict_counts_states_and_the_worst_is_the_largest_estimate():
    """Not the column whose lower bound is largest: that one was never the worst in 178 of 280 rows."""
    rng = np.random.default_rng(0)
    lost = {
        "sure": 0.1 + 0.001 * rng.random((12, 2)),
        "wide": 0.01 + np.exp(rng.normal(-1.5, 2.5, size=(12, 2))),
        "home": 1e-5 * rng.random((12, 2)),
    }
    found = of_losses(lost)
    summary = found.summary().set_index("neighbourhood")
    assert summary["low"].idxmax() == "sure"
    (one,) = found.verdict().to_dict("records")
    cell = summary.loc["wide"]
    assert one == {
        "method": "a",
        "columns": 3,
        "worse": 1,
        "equivalent": 1,
        "undecided": 1,
        "worst_in": "wide",
        "lost": cell["lost"],
        "low": cell["low"],
        "high": cell["high"],
    }


def test_no_method_is_equivalent_everywhere_on_a_curved_model(tanh_net, x):
    verdict = few(tanh_net, many(x), n_samples=400, replicates=2).verdict()
    assert (verdict["columns"] == verdict[list(STATES)].sum(axis=1)).all()
    assert (verdict["worse"] > 0).all()
    assert (verdict.set_index("method")["equivalent"].drop("KernelSHAP") > 0).all()
    assert (verdict["worst_in"] != verdict["method"]).all()


def test_it_prints_its_matrix_and_plots_it(tanh_net, x):
    found = few(tanh_net, x, n_samples=60)
    words = ("typical instance", "C-LIME", "KernelSHAP", "noise", percent(found.matrix().iloc[0, 0]))
    for text in (repr(found), found._repr_html_()):
        assert all(word in text for word in words)
    figure, ax = plt.subplots()
    assert found.plot("error", ax=ax) is ax
    wide = found.matrix("error")
    shown = {tuple(map(int, text.get_position())): text.get_text() for text in ax.texts}
    assert shown == {(j, i): f"{wide.iloc[i, j]:.2g}" for i in range(3) for j in range(4)}
    assert [label.get_text() for label in ax.get_yticklabels()] == list(wide.index)
    assert [label.get_text() for label in ax.get_xticklabels()] == list(wide.columns)
    shades = ax.images[0].get_array()
    np.testing.assert_allclose(shades.max(axis=0), 1)  # every column on its own scale
    np.testing.assert_array_equal(shades.argmax(axis=0), wide.to_numpy().argmax(axis=0))
    plt.close(figure)
    flat = lx.faithfulness(lambda rows: 0 * rows[:, 0], x, lx.c_lime(), lx.c_lime(), n_samples=60)
    for value in ("lost", "regret", "r2"):  # all zero, all NaN
        plt.close(flat.plot(value, ax=plt.figure().add_subplot()).figure)


def test_what_is_lost_is_drawn_on_one_scale_with_its_state():
    found = of_losses({"w": np.full((12, 1), 0.25), "v": np.full((12, 1), 3e-4), "u": np.full((12, 1), 50.0)})
    ax = found.plot(ax=plt.figure().add_subplot())
    assert [text.get_text() for text in ax.texts] == ["25", "0.03 =", "≫"]
    np.testing.assert_allclose(ax.images[0].get_array()[0], np.sqrt([0.25, 3e-4, 1]))
    plt.close(ax.figure)


def test_one_instance_and_one_draw_prove_nothing(tanh_net, x):
    """No spread over instances or draws: no interval, and nothing is shown."""
    found = lx.faithfulness(tanh_net, x[:1], [lx.c_lime(0.4), lx.smoothgrad(0.4)], lx.c_lime(0.4), n_samples=50)
    assert found.summary()[["low", "high"]].isna().all(axis=None)
    assert (found.summary()["state"] == "undecided").all()
    assert (found.summary()["needed"] == 6).all()


def test_explanations_of_other_instances_are_refused(tanh_net, x):
    e = lx.explain(tanh_net, x, lx.c_lime(0.4), n_samples=60)
    with pytest.raises(ValueError, match="'C-LIME' explains other instances than x"):
        lx.faithfulness(tanh_net, x[:2], e[3:], lx.c_lime(0.4), n_samples=60)
    with pytest.raises(ValueError, match="'C-LIME' explains other instances than x"):
        lx.perturbation_test(tanh_net, x[:2], e[3:])


def test_explanations_of_other_outputs_are_refused(three_outputs, x, tmp_path):
    """By column or by a function; one and the same output under another name is none."""
    e = lx.explain(three_outputs, x, lx.occlusion(), target=1)
    loaded = lx.load(e.save(tmp_path / "e"))
    on, kept = {"masks": lx.occlusion().neighbourhood}, []
    for given, target in [(e, 1), (loaded, 1), (e, [1] * 5), (e, lambda out: out[:, 1]), (e.weights, 1)]:
        table = lx.faithfulness(three_outputs, x, {"e": given}, on, target=target, like=lx.occlusion()).table
        kept.append(table["error"])
        np.testing.assert_allclose(kept[-1], kept[0], atol=1e-12)
    for given, target in [(e, 0), (loaded, 2), (e, [1, 1, 1, 1, 0]), (e, lambda out: out[:, 0])]:
        with pytest.raises(ValueError, match=r"^methods: 'e' explains another output: its target is 1, not"):
            lx.faithfulness(three_outputs, x, {"e": given}, on, target=target)
        with pytest.raises(ValueError, match=r"^methods: 'e' explains another output: its target is 1, not"):
            lx.recommend(three_outputs, x, on["masks"], methods={"e": given}, target=target, replicates=2)

"""Errors of surrogates on other neighbourhoods, against draws, placements and losses written out."""

import numpy as np
import pandas as pd
import pytest
import torch
from captum.metrics import infidelity
from torch import nn

import locapprox as lx

LABELS = [0, 0, 1, 2, 2, 3]
N = 400


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
        shift = {"fitted": 0.0, "refitted": (weight * gap)[finite].sum() / weight[finite].sum()}
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
    table = lx.faithfulness(tanh_net, x, methods(), columns, n_samples=N, seed=3, intercept=rule)
    for name in ("LIME", "KernelSHAP", "C-LIME", "Integrated Gradients"):
        e = lx.explain(tanh_net, x, methods()[name], N, seed=3)
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
        table = lx.faithfulness(tanh_net, x, {name: method}, {name: method}, n_samples=N, intercept="fitted")
        expected = lx.explain(tanh_net, x, method, N).validate(N)
        np.testing.assert_allclose(table["error"], expected.numpy(), rtol=1e-8, atol=1e-14)
        np.testing.assert_allclose(table["regret"], 0, atol=1e-12)


def test_the_optimum_of_an_enumeration_is_least_squares(tanh_net, x, draw_of):
    where = lx.Multiplicative(lx.AllCoalitions(), baseline=0.2)
    table = lx.faithfulness(tanh_net, x, [lx.c_lime()], {"all": where}, n_samples=N)
    xi = draw_of(where, x, N).xi
    y = tanh_net(where.place(x, xi).flatten(0, 1)).reshape(len(x), -1).detach().mT
    X = torch.cat([xi, torch.ones(len(xi), 1)], 1)
    rest = y - X @ torch.linalg.lstsq(X, y).solution
    np.testing.assert_allclose(table["optimum"], rest.square().mean(0).numpy(), rtol=1e-8)
    np.testing.assert_allclose(table["r2"], 1 - table["error"] / y.var(0, correction=0).numpy(), rtol=1e-8)


def test_the_sampled_optimum_is_unbiased_where_its_halves_are_not(tanh_net, x):
    column = {"here": lx.Additive(lx.Normal(0.7))}
    exact = lx.faithfulness(tanh_net, x, [lx.c_lime()], column, n_samples=200_000, seed=9)["optimum"].mean()
    runs = [lx.faithfulness(tanh_net, x, [lx.c_lime()], column, n_samples=60, seed=s) for s in range(120)]
    means = np.array([run["optimum"].mean() for run in runs]) / exact
    assert abs(means.mean() - 1) < 4 * means.std() / len(means) ** 0.5
    assert 4 * means.std() / len(means) ** 0.5 < 7 / 60  # p / n, the bias of either half, would be seen


def test_on_a_linear_model_additive_methods_have_no_regret_anywhere(x):
    model = linear()
    table = lx.faithfulness(model, x, methods(), methods(), n_samples=N)
    additive = table[table["method"].isin(["C-LIME", "SmoothGrad", "Vanilla Gradients"])]
    assert len(additive) == 3 * len(methods()) * len(x)
    assert additive["regret"].abs().max() < 1e-12
    assert (1 - additive["r2"]).max() < 1e-12
    assert additive["violation"].max() < 1e-12


def test_through_x_is_captums_infidelity(tanh_net, x, draw_of):
    column, method = lx.Additive(lx.Normal(0.4)), lx.smoothgrad(0.2)
    table = lx.faithfulness(tanh_net, x, [method], {"near": column}, n_samples=N, seed=1, intercept="through_x")
    xi = draw_of(column, x, N, seed=1, role="evaluate").xi
    attributions = lx.explain(tanh_net, x, method, N, seed=1).weights

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
    method, where = lx.lime(2.0, features=labels), lx.Multiplicative(lx.FairMasks(), background, labels)
    table = lx.faithfulness(net, x, [method], {"background": where}, n_samples=N)
    xi = draw_of(where, x, N, role="evaluate").xi
    placed = where.place(x, xi)
    f = net(placed.flatten(0, 2)).reshape(3, N, 5).mean(2).detach()
    gap = f - lx.explain(net, x, method, N).predict(placed.mean(2))
    np.testing.assert_allclose(table["error"], gap.var(1, correction=0).numpy(), rtol=1e-8)


def test_instances_with_different_numbers_of_features(tanh_net, x, draw_of):
    labels = torch.tensor([LABELS, LABELS, [0, 1, 2, 3, 4, 5], LABELS, [0, 0, 0, 1, 1, 1]])
    where = lx.Multiplicative(lx.AllCoalitions(), features=labels)
    table = lx.faithfulness(tanh_net, x, [lx.c_lime()], {"groups": where}, n_samples=N)
    e = lx.explain(tanh_net, x, lx.c_lime(), N)
    for i in range(len(x)):
        own = lx.Multiplicative(lx.AllCoalitions(), features=labels[i])
        placed = own.place(x, draw_of(own, x, N).xi)
        gap = tanh_net(placed[i])[:, 0].detach() - e.predict(placed)[i]
        assert table["error"][i] == pytest.approx(float(gap.var(correction=0)), rel=1e-8)


def test_explanations_fitted_or_loaded_serve_as_methods(tanh_net, x, tmp_path):
    e = lx.explain(tanh_net, x, methods()["grouped"], N)
    given = {"fitted": e, "loaded": lx.load(e.save(tmp_path / "e"))}
    table = lx.faithfulness(tanh_net, x, given, [lx.c_lime(0.5)], n_samples=N)
    wide = table.pivot_table(index="instance", columns="method", values="error")
    np.testing.assert_allclose(wide["fitted"], wide["loaded"], rtol=1e-10)


def test_the_frame_is_long_and_a_constant_model_has_no_r2(x):
    table = lx.faithfulness(lambda rows: 0 * rows[:, 0] + 2, x, [lx.c_lime()], {"a": lx.c_lime(), "b": lx.smoothgrad()})
    names = ["method", "neighbourhood", "loss", "instance", "error", "optimum", "regret", "violation", "r2"]
    assert list(table.columns) == names
    assert len(table) == 2 * len(x)
    assert table["loss"].unique().tolist() == ["squared error", "gradient matching"]
    assert (table["error"] == 0).all()
    assert table["r2"].isna().all()


def test_an_instance_at_the_baseline_has_error_zero_on_masks(tanh_net, x):
    at_base = torch.cat([x, torch.zeros(1, 6, dtype=x.dtype)])
    table = lx.faithfulness(tanh_net, at_base, [lx.c_lime()], {"masks": lx.Multiplicative(lx.FairMasks())})
    assert table["error"].iloc[-1] < 1e-30
    assert np.isnan(table["r2"].iloc[-1])


class Bent:
    def draw(self, x, n, rng):
        return lx.Draw(torch.randn(n, 6, generator=rng, dtype=x.dtype), torch.ones(n))

    def place(self, x, xi):
        return x[:, None] + xi.tanh()


def test_a_placement_that_is_not_affine_takes_its_own_method_only(tanh_net, x):
    bent = lx.Method("bent", Bent(), lx.SquaredError())
    table = lx.faithfulness(tanh_net, x, [bent], [bent], n_samples=N)
    assert (table["regret"].abs() < 0.2 * table["optimum"]).all()
    with pytest.raises(ValueError, match="neighbourhood 'bent': place is not affine"):
        lx.faithfulness(tanh_net, x, [lx.c_lime()], [bent], n_samples=N)


def test_bad_input_is_named(tanh_net, three_outputs, x):
    ok = [lx.c_lime()]
    with pytest.raises(ValueError, match="methods has several of the name C-LIME"):
        lx.faithfulness(tanh_net, x, [lx.c_lime(), lx.c_lime(0.2)], ok)
    with pytest.raises(TypeError, match="neighbourhoods: 'a' must be a neighbourhood"):
        lx.faithfulness(tanh_net, x, ok, {"a": 3})
    with pytest.raises(TypeError, match="methods: 'a' must be a Method"):
        lx.faithfulness(tanh_net, x, {"a": lx.Normal(0.1)}, ok)
    with pytest.raises(TypeError, match="methods must be a dict of names"):
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
    with pytest.raises(ValueError, match="one score of each of the instances"):
        lx.faithfulness(tanh_net, x[:2], {"other": lx.explain(tanh_net, x, lx.c_lime())}, ok)
    logistic = lx.Method("logistic", lx.Additive(lx.Normal(0.1)), lx.SquaredError(), lx.Logistic())
    with pytest.raises(ValueError, match="'logistic' has a logistic surrogate"):
        lx.faithfulness(lambda rows: torch.sigmoid(rows[:, 0]), x, [logistic], ok)
    with pytest.raises(TypeError, match="method 'SmoothGrad': gradient matching needs"):
        lx.faithfulness(lambda rows: rows[:, 0], x.numpy(), [lx.smoothgrad()], ok)


def test_results_depend_on_neither_the_batch_size_nor_the_kind_of_table(tanh_net, x):
    a = lx.faithfulness(tanh_net, x, methods(), methods(), n_samples=N)
    b = lx.faithfulness(tanh_net, pd.DataFrame(x.numpy()), methods(), methods(), n_samples=N, batch_size=7)
    pd.testing.assert_frame_equal(a, b, rtol=1e-6, atol=1e-14)


def test_missing_values_stay_with_their_own_placement(x):
    holes = x.clone()
    holes[0, 2] = torch.nan
    model = lambda rows: rows.nan_to_num(3.0).square().sum(1)  # noqa: E731
    kernel = lx.ExponentialKernel(3.0, measured_in="xi")
    method = lx.Method("masks", lx.Multiplicative(lx.FairMasks(), kernel=kernel), lx.SquaredError())
    own = lx.faithfulness(model, holes, [method], {"all": lx.Multiplicative(lx.AllCoalitions())})
    assert own["error"].max() == 0  # a sum over features is linear in masks
    with pytest.raises(ValueError, match="neighbourhood 'other': x has missing values"):
        lx.faithfulness(model, holes, [method], {"other": lx.Multiplicative(lx.AllCoalitions(), baseline=1.0)})

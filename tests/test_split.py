"""Regret subject to exact rows, and its three parts, against least squares and gradients written out."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import locapprox as lx
from locapprox.evaluation.intervals import typical
from locapprox.neighbourhoods.base import described

F64 = torch.float64
PARTS = ["blind", "division", "nonlinear"]
LABELS = [0, 0, 1, 2, 2, 3]


def measured(*args, **more):
    return lx.faithfulness(*args, **more, progress=False).table


def near_zero(x):
    """One entry at the baseline, and others near it."""
    x = x.clone()
    x[0, 1] = 0.0
    x[1, :] = torch.tensor([0.0, 0.003, 0.8, -0.002, 0.0, 0.1])
    x[2, 3] = 1e-4
    return x


def linear(d=6):
    net = nn.Linear(d, 1).to(F64).eval()
    with torch.no_grad():
        net.weight.copy_(torch.linspace(-1, 2, d)[None])
    return net


# ---- rows to interpolate


def test_no_surrogate_that_meets_the_exact_rows_beats_the_optimum(authors):
    """HELOC, 10 groups, all 2¹⁰ coalitions: nothing is sampled, so a regret below zero was an error of the refit."""
    heloc = authors("heloc_ffnnA")
    x, model = heloc.x[:20].double(), heloc.model.double()
    features = torch.arange(x.shape[1]) % 10
    masks = {"baseline": 0.0, "features": features}
    methods = [lx.kernel_shap(**masks), lx.integrated_gradients(**masks), lx.lime(10.0, **masks), lx.occlusion(**masks)]
    table = measured(model, x, [*methods, lx.c_lime(0.3), lx.smoothgrad(0.3)], methods, n_samples=2**10)
    own = table.query("method == neighbourhood == 'KernelSHAP'")
    assert own["violation"].max() < 1e-12
    np.testing.assert_allclose(own["regret"], 0, atol=1e-12)
    shapley = table.query("neighbourhood == 'KernelSHAP'")
    path = shapley.query("method == 'Integrated Gradients'")
    assert path["violation"].max() < 1e-3  # completeness, to the quadrature's error on kinks
    assert path["regret"].min() > 0
    others = shapley.query("method in ['LIME', 'C-LIME', 'SmoothGrad']").groupby("method")
    assert (others["violation"].median() > 5e-3).all()  # these miss the rows
    meets = table.query("violation < 1e-12 and neighbourhood in ['KernelSHAP', 'Occlusion']")
    assert len(meets) > 100
    assert meets["regret"].min() > -1e-12


def test_the_refitted_intercept_is_the_limit_of_growing_weights(tanh_net, x, given):
    """Rows of infinite weight against the same rows of weight 10⁹."""
    xi = torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=F64)
    e = lx.explain(tanh_net, x, lx.c_lime(0.3), n_samples=100)
    weight = torch.ones(40, dtype=F64)
    exact, heavy = weight.clone(), weight.clone()
    exact[:2], heavy[:2] = torch.inf, 1e9
    table = measured(tanh_net, x, {"g": e}, {"exact": given(lx.Draw(xi, exact, n_fixed=40))}, n_samples=40)
    f = tanh_net((x[:, None] + xi).flatten(0, 1)).reshape(5, 40).detach()
    rest = f - e.weights @ xi.mT
    c = (heavy * rest).sum(1, keepdim=True) / heavy.sum()
    np.testing.assert_allclose(table["error"], (rest - c)[:, 2:].square().mean(1), rtol=1e-6)
    np.testing.assert_allclose(table["violation"], (rest - c)[:, :2].abs().amax(1), rtol=1e-6)
    assert (table["lost"] >= table["violation"] ** 2 * (1 - table["r2"]) / table["error"] * (1 - 1e-9)).all()


# ---- the three parts


def features_of(step, labels):
    """One displacement per feature, (f, entries)."""
    return np.stack([np.where(np.asarray(labels) == g, step, 0.0) for g in range(max(labels) + 1)])


def least(loss, X, y, gradients, directions, held):
    """The least mean loss over intercepts and weights held + directionsᵀ z."""
    Z = X @ directions.T
    A = [np.sqrt(loss.value / len(X)) * np.c_[Z, np.ones(len(X))]]
    b = [np.sqrt(loss.value / len(X)) * (y - X @ held)]
    for row in gradients if loss.gradient else ():
        A.append(np.sqrt(loss.gradient / len(X)) * np.c_[directions.T, np.zeros(X.shape[1])])
        b.append(np.sqrt(loss.gradient / len(X)) * (row - held))
    A, b = np.concatenate(A), np.concatenate(b)
    return float(np.square(b - A @ np.linalg.lstsq(A, b, rcond=None)[0]).sum())


def by_hand(model, x, e, loss, xi, base, labels):
    """blind and division of one instance on an additive column."""
    placed = (x + xi).requires_grad_()
    f = model(placed)[:, 0]
    gradients = torch.autograd.grad(f.sum(), placed)[0].numpy()
    X, y, f_count = xi.numpy(), f.detach().numpy(), max(labels) + 1
    made = features_of((x - base).numpy(), labels)
    square = np.square(made).sum(1)
    w = sum(float(e.weights[0, g]) * made[g] / square[g] for g in range(f_count) if square[g] > 0)
    slopes = np.array([made[g] / square[g] if square[g] else 0 * made[g] for g in range(f_count)])
    nothing, everything = np.zeros((0, len(w))), np.eye(len(w))
    constant = least(loss, X, y, gradients, nothing, 0 * w)
    alone = np.square(e.standard_error[0].numpy()) * [
        loss.value * np.var(X @ s) + loss.gradient * np.square(s).sum() for s in slopes
    ]
    undetermined = (square > 0) & (alone > 0.01 * constant)
    held = made[(square > 0) & ~undetermined]
    _, s, vh = np.linalg.svd(held) if len(held) else (0, np.zeros(0), everything)
    error, chosen, bound, best = (
        least(loss, X, y, gradients, free, w)
        for free in (nothing, slopes[undetermined], vh[int((s > 1e-12).sum()) :], everything)
    )
    return [chosen - best - (bound - best), error - chosen], int(undetermined.sum())


LOSSES = [lx.SquaredError(), lx.GradientMatching(), lx.SquaredError() + 0.3 * lx.GradientMatching()]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
@pytest.mark.parametrize(
    ("method", "base", "labels"),
    [
        (lx.lime(3.0), 0.0, range(6)),
        (lx.lime(3.0, features=LABELS), 0.0, LABELS),
        (lx.occlusion(baseline=0.25), 0.25, range(6)),
        (lx.lime(3.0, baseline=lx.Background(torch.tensor([[0.5] * 6, [0.0] * 6]))), 0.25, range(6)),
    ],
    ids=["LIME", "groups", "Occlusion", "background"],
)
def test_the_parts_are_what_least_squares_gives(tanh_net, x, draw_of, loss, method, base, labels):
    x, column = near_zero(x), lx.Method("column", lx.Additive(lx.Normal(0.3)), loss)
    e = lx.explain(tanh_net, x, method, n_samples=40)
    table = measured(tanh_net, x, {"e": e}, {"column": column}, n_samples=100)
    xi, counts = draw_of(column.neighbourhood, x, 100, role="evaluate").xi, []
    for i in range(len(x)):
        expected, count = by_hand(tanh_net, x[i], e[i], loss, xi, base, list(labels))
        np.testing.assert_allclose(table.loc[i, ["blind", "division"]].astype(float), expected, rtol=1e-6, atol=1e-10)
        counts.append(count)
    assert (sum(counts) > 0) == (method.name != "Occlusion")


def test_parts_add_up_and_are_not_negative(tanh_net, x):
    methods = lx.paper_methods() | {"LIME": lx.lime(3.0), "groups": lx.kernel_shap(baseline=0.3, features=LABELS)}
    table = measured(tanh_net, near_zero(x), methods, methods, n_samples=200)
    np.testing.assert_allclose(table[PARTS].sum(axis=1), table["regret"], rtol=1e-12, atol=1e-15)
    meets = table[table["violation"] < 1e-9]
    assert (meets[["blind", "division"]] > -1e-10).all(axis=None)
    additive = ["C-LIME", "SmoothGrad", "Vanilla Gradients"]
    assert (table[table["method"].isin(additive)][["blind", "division"]] == 0).all(axis=None)
    elsewhere = table[table["neighbourhood"].isin(additive) & ~table["method"].isin(additive)]
    assert (elsewhere.groupby("method")["blind"].max() > 0.01).all()
    same = table["method"].isin(["LIME", "KernelSHAP", "Occlusion"]) & table["neighbourhood"].isin(
        ["LIME", "Occlusion"]
    )
    assert (table[same][["blind", "division"]] == 0).all(axis=None)


def test_of_a_linear_model_masks_and_paths_lose_at_the_baseline_only(x):
    """Σ w_j² over the entries with x_j = b, in gradients, and σ² of it in values (the population's)."""
    model, x = linear(), near_zero(x)
    w = model.weight[0].detach()
    expected = (w.square() * (x == 0)).sum(1)
    masks = [m for m in lx.paper_methods().values() if isinstance(m.neighbourhood, lx.Multiplicative)]
    masks = [lx.lime(3.0) if m.name == "LIME" else m for m in masks]
    assert len(masks) == 5
    table = measured(model, x, masks, {"gradients": lx.smoothgrad(0.3), "values": lx.c_lime(0.3)}, n_samples=4000)
    assert table["nonlinear"].abs().max() < 1e-12
    assert table["division"].abs().max() < 1e-12
    for name, size in (("gradients", 1.0), ("values", 0.09)):
        blind = table[table["neighbourhood"] == name]["blind"].to_numpy().reshape(5, -1)
        np.testing.assert_allclose(blind, size * expected.expand(5, -1), rtol=1e-9 if size == 1 else 0.15, atol=1e-12)


def test_division_is_sampling_error_and_goes_with_it(tanh_net):
    """A weight with x − b = .001: divided, its sampling error is 1,000 times as large. Nothing of that is left when all
    masks are drawn, and what is not linear is about the same with few masks and with all."""
    x = torch.tensor([[0.9, -0.7, 0.5, 1e-3, 0.8, -0.6]], dtype=F64)
    every = lx.Multiplicative(lx.AllCoalitions(), kernel=lx.ExponentialKernel(3.0))
    methods = {"some": lx.lime(3.0), "all": lx.Method("all", every, lx.SquaredError())}
    table = measured(tanh_net, x, methods, {"noise": lx.c_lime(0.1)}, n_samples=63).set_index("method")
    constant = table["error"] / (1 - table["r2"])
    assert table["division"]["some"] > 10 * constant["some"]
    assert table["division"]["all"] == 0
    assert (table["blind"] == 0).all()
    assert table["nonlinear"]["some"] == pytest.approx(table["nonlinear"]["all"], rel=0.2)


def test_division_is_unknown_where_standard_errors_are(tanh_net, x, tmp_path):
    x = near_zero(x)
    e = lx.explain(tanh_net, x, lx.kernel_shap(), n_samples=40)
    given = {"array": lx.as_explanation(e.weights, x, like=lx.kernel_shap()), "file": lx.load(e.save(tmp_path / "e"))}
    table = measured(tanh_net, x, {"fit": e, **given}, lx.smoothgrad(0.3)).set_index("method")
    assert table.loc["array", ["division", "nonlinear"]].isna().all(axis=None)
    assert table.loc["array", "blind"].notna().all()
    assert table.loc["file", PARTS].isna().all(axis=None)  # a file does not keep the placement
    slopes = measured(tanh_net, x, {"array": x}, lx.smoothgrad(0.3), like=lx.smoothgrad())
    assert (slopes["nonlinear"] == slopes["regret"]).all()


def test_the_nonlinear_part_is_the_regret_on_features_that_have_a_slope(tanh_net, x):
    """Beside least squares on noise that leaves features at the baseline where they are: equal but for O(σ²)."""
    x, sigma = x.clone(), 0.05
    x[:, ::3] = 0
    methods = [lx.occlusion(), lx.integrated_gradients()]
    table = measured(tanh_net, x, methods, lx.c_lime(sigma), n_samples=4000)
    for method in methods:
        parts = table.query("method == @method.name").set_index("instance")
        w = lx.explain(tanh_net, x, method, progress=False).weights
        for i, (point, weights) in enumerate(zip(x, w, strict=True)):
            some = point != 0
            z = torch.zeros(20_000, 6, dtype=F64)
            z[:, some] = sigma * torch.randn(20_000, 4, dtype=F64, generator=torch.Generator().manual_seed(i))
            y, z = (part - part.mean(0) for part in (tanh_net(point + z).detach()[:, 0], z[:, some]))
            best = y - z @ torch.linalg.lstsq(z, y[:, None]).solution[:, 0]
            regret = (y - z @ (weights / point)[some]).square().mean() - best.square().mean()
            assert parts.loc[i, "nonlinear"] == pytest.approx(float(regret), rel=0.1)
            assert parts.loc[i, "blind"] > 0


def test_shares_of_the_parts_add_up_to_what_is_lost(tanh_net, x):
    """Means do; of medians only the non-linear one is judged, on its own."""
    methods = {"LIME": lx.lime(3.0), "KernelSHAP": lx.kernel_shap(), "SmoothGrad": lx.smoothgrad(0.3)}
    x = torch.cat([near_zero(x), x + 0.1, x - 0.1])
    found = lx.faithfulness(tanh_net, x, methods, methods, n_samples=200, replicates=2, progress=False)
    table, parts = found.table, found.parts().set_index(["method", "neighbourhood"])
    means = table.groupby(["method", "neighbourhood"], sort=False)["lost"].mean()
    total = parts[[f"mean_{name}" for name in PARTS]].sum(axis=1)
    np.testing.assert_allclose(total, means[parts.index], rtol=1e-9, atol=1e-12)
    one = table.query("method == 'LIME' and neighbourhood == 'SmoothGrad'")
    constant = one["error"] / (1 - one["r2"])
    for name in ("blind", "division"):
        share = (one[name] / constant).groupby(one["instance"]).mean().median()
        assert parts.loc[("LIME", "SmoothGrad"), name] == pytest.approx(share, rel=1e-6, abs=1e-12)
    share = one.assign(share=one["lost"] - (one["blind"] + one["division"]) / constant)
    low, high = typical(share.set_index(["instance", "replicate"])["share"], 0.95)[1:]
    bounds = parts.loc[("LIME", "SmoothGrad"), ["nonlinear_low", "nonlinear_high"]]
    assert tuple(bounds) == pytest.approx((low, high), rel=1e-4)
    assert (parts.loc[("LIME", "LIME"), ["blind", "division"]] == 0).all()


# ---- features that are groups, and columns of groups


def test_many_entries_stay_cheap():
    """12,288 pixels: patches say one number for each of 192 directions, and pixels all but the black ones."""
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) + 0.1
    x[:, :, :8] = 0.0
    patches = lx.patches(x.shape, size=8)
    slope = torch.randn(x[0].numel(), generator=torch.Generator().manual_seed(1))
    model = lambda images: images.flatten(1) @ slope  # noqa: E731
    methods = [lx.occlusion(features=patches), lx.gradient_x_input()]
    table = measured(model, x, methods, [lx.smoothgrad(0.1)], n_samples=4)
    gap, g, labels = x.flatten(1).double(), slope.double().expand(2, -1), patches.expand(3, 64, 64).flatten()
    along = torch.zeros(2, 64, dtype=F64).index_add(1, labels, gap * g).square()
    square = torch.zeros(2, 64, dtype=F64).index_add(1, labels, gap.square())
    seen = torch.where(square > 0, along / square, 0.0).sum(1)
    pixels = (g.square() * (gap == 0)).sum(1)
    np.testing.assert_allclose(table["blind"], torch.cat([g.square().sum(1) - seen, pixels]), rtol=1e-4)
    assert table["nonlinear"].abs().max() < 1e-3 * table["blind"].min()


def test_pixels_on_patches_have_no_blind_spots_unless_the_baseline_differs(tanh_net, x):
    x = near_zero(x)
    where = {b: lx.Multiplicative(lx.AllCoalitions(), baseline=b, features=LABELS) for b in (0.0, 0.5)}
    columns = {"same": where[0.0], "other": where[0.5]}
    table = measured(tanh_net, x, [lx.gradient_x_input()], columns).set_index(["neighbourhood", "instance"])
    assert (table.loc["same", ["blind", "division"]].abs() < 1e-12).all(axis=None)
    assert table.loc[("other", 0), "blind"] > 1e-4  # entry 1 moves there, and the method knows nothing of it
    assert table.loc[("other", 3), "blind"] == 0


def test_patches_on_pixels_say_their_sums(tanh_net, x):
    """On a path column of single entries a group's weight is the sum of its entries': R holds that sum alone."""
    method, column = lx.kernel_shap(features=LABELS), lx.gradient_x_input()
    e = lx.explain(tanh_net, x, method, n_samples=64)
    table = measured(tanh_net, x, {"e": e}, {"path": column})
    theirs = lx.explain(tanh_net, x, column).weights
    sums = torch.zeros(5, 4, dtype=F64).index_add(1, torch.tensor(LABELS), theirs)
    counts = torch.bincount(torch.tensor(LABELS))
    expected = ((e.weights - sums).square() / counts).sum(1)
    np.testing.assert_allclose(table["nonlinear"], expected, rtol=1e-8)


# ---- what a placement says of itself


class Scaled:
    def draw(self, x, n, rng):
        return lx.Draw(torch.rand(n, 6, generator=rng, dtype=x.dtype), torch.ones(n))

    def place(self, x, xi):
        return 0.3 + (x[:, None] - 0.3) * xi


class Mixed(Scaled):
    def place(self, x, xi):
        return x[:, None] + xi + 0.1 * xi.roll(1, -1)


def test_a_placement_is_its_origin_and_its_steps(x):
    labels = torch.tensor([LABELS, LABELS, [0, 1, 2, 3, 4, 5], LABELS, [0, 0, 0, 1, 1, 1]])
    placements = [
        (lx.Additive(lx.Normal(0.1)), 6),
        (lx.Multiplicative(lx.FairMasks(), baseline=0.3), 6),
        (lx.Multiplicative(lx.FairMasks(), baseline=x.flip(0), features=LABELS), 4),
        (lx.Multiplicative(lx.FairMasks(), lx.Background(x[:3]), features=LABELS), 4),
        (lx.Multiplicative(lx.FairMasks(), features=labels), 6),
        (described(Scaled()), 6),
    ]
    for where, d in placements:
        step, label = where.steps(x, d)
        xi = torch.randn(5, 7, d, generator=torch.Generator().manual_seed(2), dtype=F64)
        origin, placed = (where.placed(x, points) for points in (0 * xi, xi))
        origin, placed = (points.mean(2) if points.ndim == 4 else points for points in (origin, placed))
        expected = origin + step[:, None] * xi.gather(2, label[:, None].expand(-1, 7, -1))
        torch.testing.assert_close(placed, expected, rtol=0, atol=1e-12)
    assert described(Mixed()).steps(x, 6) is None
    assert described(Scaled()).steps(x, 4) is None


def test_a_users_placement_is_split_as_the_librarys(tanh_net, x):
    x = near_zero(x)
    own = lx.explain(tanh_net, x, lx.Method("own", Scaled(), lx.SquaredError()), n_samples=60)
    e = {"own": own, "library": replace(own, method=lx.lime(3.0, baseline=0.3))}
    table = measured(tanh_net, x, e, lx.smoothgrad(0.3)).set_index("method")
    np.testing.assert_allclose(table.loc["own", PARTS], table.loc["library", PARTS], rtol=1e-6, atol=1e-10)
    mixed = lx.Method("mixed", Mixed(), lx.SquaredError())
    assert measured(tanh_net, x, [mixed], lx.smoothgrad(0.3))[PARTS].isna().all(axis=None)
    assert (measured(tanh_net, x, [mixed], [mixed])[["blind", "division"]] == 0).all(axis=None)


@pytest.mark.parametrize("rows", [2, 3, 7])
def test_a_constant_column_of_a_background_is_a_blind_spot(rows):
    """The mean of equal numbers is rounded: x − mean is 1e-17, and still no step."""
    rng = torch.Generator().manual_seed(0)
    x, base = (torch.randn(n, 4, generator=rng, dtype=F64) for n in (6, rows))
    x[:, 0] = base[:, 0] = 0.1
    model = lambda a: torch.tanh(a[:, 0] * 2 + a.sum(1))  # noqa: E731
    where = {"noise": lx.smoothgrad(0.1)}
    table = lx.faithfulness(model, x, lx.kernel_shap(lx.Background(base)), where, n_samples=200, progress=False).table
    assert (table["blind"] > 1e-3).all()  # 0 of 3 rows and of 7, where a mean that is rounded was a step

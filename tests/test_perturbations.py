"""Experiment 3: the two layouts, the effects of the cross by hand, and its verdict on constructed cases."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from experiments import changes, correspondence, networks, perturbations
from experiments.data import load

METHODS = ("C-LIME", "SmoothGrad", "Vanilla Gradients", "LIME", "KernelSHAP", "Occlusion")


@pytest.fixture(scope="module")
def tanh(tmp_path_factory):
    table = load("diabetes")
    net = networks.trained(table, networks.recipe("diabetes", "mlp"), tmp_path_factory.mktemp("networks")).network
    return correspondence.problem(
        correspondence.Config("diabetes", "mlp", points=5, n_samples=300, width=3.2), table, net
    )


def test_both_layouts_say_the_same_about_the_model(tanh):
    found = perturbations.layouts(tanh, 300, 0)
    assert len(found) == 16
    x = tanh.x.double()
    for method in ("LIME", "SmoothGrad", "Gradient x Input"):
        torch.testing.assert_close(found[method, "w*x"], found[method, "w"] * x)
    torch.testing.assert_close(found["Gradient x Input", "w"], found["Vanilla Gradients", "w"], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(
        found["Gradient x Input", "w*x"], found["Vanilla Gradients", "w*x"], atol=1e-6, rtol=1e-5
    )
    at_baseline = correspondence.problem(
        correspondence.Config("diabetes", "mlp", points=2), load("diabetes"), tanh.model
    )
    at_baseline.x[:, 3] = 0
    slopes = perturbations.layouts(at_baseline, 300, 0)
    assert slopes["LIME", "w"][:, 3].isnan().all()
    assert not slopes["C-LIME", "w"].isnan().any()


def areas(value, seeds=1, instances=3, kinds=("bottom",)):
    """A table of AUCs; `value(additive, layout, instance, seed)` says them."""
    rows = [
        {
            "training_seed": seed,
            "features": "determined",
            "kind": kind,
            "replace": "noise",
            "method": method,
            "ranked_by": layout,
            "native": (layout == "w") == (method in perturbations.ADDITIVE),
            "instance": i,
            "auc": value(method in perturbations.ADDITIVE, layout, i, seed) + 0.01 * METHODS.index(method),
        }
        for seed, kind, method, layout, i in itertools.product(
            range(seeds), kinds, METHODS, ("w", "w*x"), range(instances)
        )
    ]
    return pd.DataFrame(rows).assign(auc11=lambda f: f["auc"])


def test_effects_and_intervals_by_hand():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(4, 20))  # seeds × instances

    def value(additive, layout, i, seed):
        return 10 * (layout == "w") * (1 + noise[seed, i]) + 3 * additive + (2 if additive and layout == "w" else 0)

    frame = areas(value, seeds=4, instances=20)
    table = perturbations.cross(frame).set_index(["effect", "training_seed"])
    gap = 0.01 * (1 - 4)  # of the methods' own offsets: means of 0, 1, 2 and of 3, 4, 5
    for seed in range(4):
        assert table.loc[("scaling", seed), "value"] == pytest.approx(10 * (1 + noise[seed].mean()) + 1)
        assert table.loc[("neighbourhood", seed), "value"] == pytest.approx(3 + 1 + gap)
        assert table.loc[("interaction", seed), "value"] == pytest.approx(2)
        assert table.loc[("additive w", seed), "value"] == pytest.approx(15.01 + 10 * noise[seed].mean())
        assert table.loc[("additive w*x", seed), "value"] == pytest.approx(3.01)
        assert table.loc[("multiplicative w", seed), "value"] == pytest.approx(10.04 + 10 * noise[seed].mean())
        assert table.loc[("multiplicative w*x", seed), "value"] == pytest.approx(0.04)
    whole = table.loc[("scaling", perturbations.AVERAGE)]
    by_instance, by_seed = 11 + 10 * noise.mean(0), 11 + 10 * noise.mean(1)
    for (low, high), values in (
        ((whole["low"], whole["high"]), by_instance),
        ((whole["seeds_low"], whole["seeds_high"]), by_seed),
    ):
        expected = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
        assert (low, high) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "layout", "within", "family", "family_within"),
    [
        (lambda a, layout, i, s: float(layout == "w"), *["w*x"] * 2, "", ""),
        (lambda a, layout, i, s: float(layout != "w"), *["w"] * 2, "", "additive"),  # by the methods' own offsets
        (lambda a, layout, i, s: float(a), "", "", *["multiplicative"] * 2),
        (lambda a, layout, i, s: 2 * a + float(layout == "w"), "", "w*x", *["multiplicative"] * 2),
        (lambda a, layout, i, s: 2 * float(layout == "w") + a, "w*x", "w*x", "", "multiplicative"),
        (lambda a, layout, i, s: float(a and layout == "w"), "", "", "", ""),
        (lambda a, layout, i, s: 50 + float(layout == "w"), *["w*x"] * 2, *["cannot say"] * 2),
        (lambda a, layout, i, s: 50 - float(a and layout == "w"), "", "", *["cannot say"] * 2),
    ],
    ids=["products", "slopes", "families", "families first", "layout first", "both", "lines", "half a line"],
)
def test_the_verdict_on_constructed_cases(value, layout, within, family, family_within):
    """Both factors by the same two criteria, whatever the other factor and within each of its levels."""
    (one,) = perturbations.verdict(areas(value)).to_dict("records")
    expected = {"layout": layout, "layout_within": within, "neighbourhood": family}
    if layout != "w*x" or family_within:  # of pure layouts offsets decide within
        expected["neighbourhood_within"] = family_within
    assert {name: one[name] for name in expected} == expected
    (other,) = perturbations.verdict(areas(lambda *a: 100 - value(*a), kinds=("top",))).to_dict("records")
    assert other["layout"] == layout  # of top features the larger change wins


def test_the_run_writes_what_it_says(tmp_path):
    config = perturbations.Config("diabetes", "linear", points=30, n_samples=100, width=3.2, draws=10, seeds=2)
    folder = perturbations.main(config, tmp_path)
    tables = {path.stem: pd.read_csv(path) for path in folder.glob("*.csv")}
    assert set(tables) == {"curves", "auc", "cross", "verdict"}
    assert len(tables["curves"]) == 2 * 4 * 16 * 10
    assert len(tables["auc"]) == 2 * 2 * 4 * 16 * 30
    assert len(tables["cross"]) == 2 * 4 * 7 * 3
    tables["auc"] = tables["auc"][tables["auc"]["features"] == "all"]
    curve = tables["curves"].groupby(["training_seed", "kind", "replace", "method", "ranked_by"])["mean"].mean()
    auc = tables["auc"].groupby(["training_seed", "kind", "replace", "method", "ranked_by"])["auc"].mean()
    np.testing.assert_allclose(curve, auc)
    # A linear f changes by Σ w_j x_j when features go to 0, so |w ⊙ x| orders them best; by noise |w| does.
    verdict = tables["verdict"]
    assert (verdict["layout"] == np.where(verdict["replace"] == "baseline", "w*x", "w")).all()
    assert (verdict["neighbourhood"] == "cannot say").all()


def test_a_neighbourhood_is_no_matter_on_a_linear_model_but_for_slopes_that_are_not_determined(tmp_path):
    """Of a linear f all have one slope per feature; defined as 0 where x = 0 it looks like a neighbourhood."""
    table = load("diabetes")
    p = correspondence.problem(
        correspondence.Config("diabetes", "linear", points=20, width=3.2),
        table,
        networks.trained(table, networks.recipe("diabetes", "linear"), tmp_path).network,
    )
    config = perturbations.Config("diabetes", "linear", points=20, n_samples=300, width=3.2, draws=5)

    def effects(p):
        frame = pd.concat(list(perturbations.changes(p, config))).assign(training_seed=0, native=True)
        rows = perturbations.cross(perturbations.areas(frame)).query("training_seed == 0")
        return rows.set_index([*perturbations.BY, "effect"])["value"].sort_index()

    whole = effects(p)
    pd.testing.assert_series_equal(whole["determined"], whole["all"], atol=1e-6, rtol=1e-4)
    p.x[:, ::3] = 0
    cut = effects(p)
    named = cut.xs("neighbourhood", level="effect"), cut.xs("scaling", level="effect")
    assert (named[0]["determined"].abs() < 1e-3 * named[1]["determined"].abs()).all()
    assert named[0]["all", "bottom", "noise"] < 0.2 * named[1]["all", "bottom", "noise"] < 0


def test_the_authors_loss_is_the_unweighted_one(tanh):
    row = next(iter(changes.kernels(tanh)))
    assert row["authors"] == pytest.approx(1, abs=1e-12)
    assert abs(row["ours"] - 1) > 0.01


def test_stored_explanations_are_nearer_to_the_unweighted_fit(authors, monkeypatch):
    authors("heloc_ffnnA")  # skips where they are not
    monkeypatch.setattr(changes, "MANY", 4000)
    rows = list(changes.stored(changes.Config("heloc", "ffnnA"), load("heloc")))
    assert len(rows) == 2
    assert rows[0]["authors"] < 0.5 * rows[0]["ours"]  # LIME
    assert rows[1]["authors"] < 0.8 * rows[1]["ours"]  # KernelSHAP


def test_their_training_loop_finds_a_line(monkeypatch):
    monkeypatch.setattr(changes, "GRID", {"learning rate": (0.5,), "factor": (0.1,), "milestones": ([30, 40],)})
    masks = torch.randint(0, 2, (1000, 4), generator=torch.Generator().manual_seed(0)).float()
    w = torch.tensor([1.0, -2.0, 0.5, 0.0])
    torch.testing.assert_close(changes.adam(masks, masks @ w + 3), w.double(), atol=1e-2, rtol=0)


def test_every_change_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(changes, "MANY", 2000)
    config = changes.Config("diabetes", "mlp", points=6, n_samples=300, width=3.2, draws=2)
    frame = pd.read_csv(changes.main(config, tmp_path) / "changes.csv")
    assert set(frame["change"]) == {"kernels", "descent", "limits", "k", "scaling", "checkpoint"}
    assert frame[["authors", "ours"]].notna().all(axis=None)
    limits = frame[frame["change"] == "limits"].set_index("quantity")["authors"]
    assert (limits > 0).all()
    assert (limits < 20).all()  # per cent, on a smooth network

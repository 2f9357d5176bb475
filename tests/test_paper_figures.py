"""Figures show the numbers of the result files, and read nothing else."""

import json

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from paper_figures import correspondence, no_free_lunch, perturbations, recovery
from paper_figures.__main__ import main
from paper_figures.page import CHANGES
from paper_figures.results import coincide, matrix, nearest, published, read
from paper_figures.style import METHODS, number

LOCAL = ("Vanilla Gradients", "SmoothGrad", "C-LIME")


def far(existing: str, engine: str) -> float:
    """A distance with everything distinct, own instances nearest but for LIME and KernelSHAP."""
    if existing == engine:
        return {"LIME": 0.5, "KernelSHAP": 0.9}.get(existing, 0.0)
    if {existing, engine} == {"LIME", "KernelSHAP"}:
        return 0.4
    return 1 + METHODS.index(existing) + METHODS.index(engine) / 10


def table(folder, experiment, data, model, **tables):
    """A finished run of one experiment."""
    run = folder / experiment / f"{data}-{model}"
    run.mkdir(parents=True)
    for name, rows in tables.items():
        frame = pd.DataFrame(rows)
        frame.insert(0, "data", data)
        frame.insert(1, "model", model)
        frame.to_csv(run / f"{name}.csv", index=False)
    command = f"python -m experiments.{experiment} --data {data}"
    manifest = {
        "config": {"data": data, "model": model},
        "metrics": [{"mse": 0.0123}, {"mse": 0.02}],
        "command": command,
        "files": {f"{name}.csv": "its sha256" for name in tables},
    }
    (run / "mine.csv").write_text("a user's, and no result\n")
    (run / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    for data, model in (("who", "linear"), ("heloc", "ffnnA")):
        distances = [
            {"existing": a, "engine": b, "metric": m, "instance": i, "value": v * (0.5 + i), "training_seed": seed}
            for a in METHODS
            for b in METHODS
            for m in ("L1", "cosine")
            for i in range(2)
            for seed, v in ((0, far(a, b)), (1, float(a != b)))
        ]
        repeats = [
            {"method": m, "side": s, "metric": k, "instance": 0, "value": 0.2}
            for m in ("LIME", "KernelSHAP", "SmoothGrad", "C-LIME")
            for s in ("existing", "engine")
            for k in ("L1", "cosine")
        ]
        limits = [
            {"limit": limit, "parameter": p, "metric": m, "instance": i, "value": abs(p - end) * (0.5 + i)}
            for limit, end, series in (("SmoothGrad", 0, (0.3, 0.1, 0.0)), ("Gradient x Input", 1, (0.0, 0.8, 1.0)))
            for p in series
            for m in ("L1", "cosine")
            for i in range(2)
        ]
        convergence = [{"n": n, "instance": 0, "value": 1 / n} for n in (4, 40, 400)]
        table(
            folder,
            "correspondence",
            data,
            model,
            distances=distances,
            repeats=repeats,
            limits=limits,
            ig_convergence=convergence,
        )
        layouts = [
            (t, k, r, m, w) for t in (0, 1) for k in KINDS for r in REPLACE for m in METHODS for w in ("w", "w*x")
        ]
        keys = [
            {
                "training_seed": t,
                "features": f,
                "kind": k,
                "replace": r,
                "method": m,
                "ranked_by": w,
                "native": (w == "w") == (m in LOCAL),
            }
            for f in ("determined", "all")
            for t, k, r, m, w in layouts
        ]
        curves = [
            {**key, "k": k, "mean": height(key) * k, "low": 0, "high": 9}
            for key in keys
            if key["features"] == "all"
            for k in (1, 2, 3)
        ]
        auc = [{**key, "instance": i, "auc": height(key) + i, "auc11": height(key)} for key in keys for i in (0, 1)]
        cross = [
            {
                "features": f,
                "kind": k,
                "replace": r,
                "effect": e,
                "training_seed": t,
                "value": v,
                "low": v - 1,
                "high": v + 1,
                "seeds_low": v - 2,
                "seeds_high": v + 2,
            }
            for f in ("determined", "all")
            for k in KINDS
            for r in REPLACE
            for e, v in (("scaling", 3.0), ("neighbourhood", -1.0), ("interaction", 1.0 + (f == "all")), *CELLS.items())
            for t in (-1, 0)
        ]
        verdict = [
            {
                "features": f,
                "kind": k,
                "replace": r,
                "training_seed": t,
                "native_split": True,
                "layout": "w",
                "layout_within": "w",
                "neighbourhood": "cannot say" if t else "",
                "neighbourhood_within": "cannot say" if t else "additive",
            }
            for f in ("determined", "all")
            for k in KINDS
            for r in REPLACE
            for t in (0, 1)
        ]
        table(folder, "perturbations", data, model, curves=curves, auc=auc, cross=cross, verdict=verdict)
    recovery = [
        {
            "training_seed": 0,
            "version": v,
            "method": m,
            "compared_with": w,
            "metric": k,
            "instance": i,
            "value": i + len(m),
        }
        for v in ("existing", "framework")
        for m in METHODS
        for w in ("w", "w*x")
        for k in ("L1", "cosine")
        for i in range(3)
    ]
    table(folder, "recovery", "who", "linear", recovery=recovery)
    changes = [
        {"change": c, "quantity": f"what {c} does", "authors": 0.0777, "ours": 0.1, "unit": "u", "note": "n"}
        for c in CHANGES
    ]
    table(folder, "changes", "heloc", "ffnnA", changes=changes)
    matrix = [
        {"training_seed": 0, "method": a, "neighbourhood": b, "nonlinear": 0.0 if a == b else 0.25, "blind": 0.0}
        | {"division": 300.0 * (a == "LIME" and b == "C-LIME"), "nonlinear_state": "equivalent" if a == b else "worse"}
        for a in METHODS
        for b in METHODS
    ]
    matrix = [
        row
        | {
            f"{part}{end}": row[part] + shift
            for part in no_free_lunch.PARTS
            for end, shift in (("_low", -0.3), ("_high", 1))
        }
        for row in matrix
    ]
    verdict = [
        {"training_seed": t, "method": m, "worse": 3 * t, "worst_in": "LIME", "lost": 0.1 * t}
        for m in METHODS
        for t in (0, 1)
    ]
    table(folder, "no_free_lunch", "heloc", "ffnnA", matrix=matrix, verdict=verdict)
    theory = folder / "theory"
    (theory / "figures").mkdir(parents=True)
    claims = {
        "file": "stein",
        "claim": "a gap closes",
        "number": 0.01,
        "relation": "<=",
        "bound": 0.02,
        "verdict": "holds",
    }
    pd.DataFrame([claims]).to_csv(theory / "claims.csv", index=False)
    figure, _ = plt.subplots(figsize=(2, 1))
    figure.savefig(theory / "figures" / "stein.png")
    figure.savefig(theory / "figures" / "stein.pdf")
    (theory / "figures.json").write_text(json.dumps({"stein": "The gap."}))
    plt.close("all")
    return folder


CELLS = {"additive w": 5.0, "additive w*x": 4.0, "multiplicative w": 3.0, "multiplicative w*x": 1.0}
KINDS, REPLACE = ("bottom", "top"), ("baseline", "noise")


def height(key):
    """Of the curve of a method, and its AUC: distinct everywhere."""
    return 1 + METHODS.index(key["method"]) + 10 * (key["ranked_by"] == "w") + 0.5 * key["training_seed"]


@pytest.fixture
def drawn(monkeypatch):
    """The matplotlib figures instead of files."""
    figures = []

    def keep(figure, path):
        figures.append(figure)
        return path

    for module in (correspondence, recovery, perturbations, no_free_lunch):
        monkeypatch.setattr(module, "save", keep)
    return figures


def test_heat_maps_show_the_means_of_the_file(results, drawn, tmp_path):
    correspondence.heat_maps(read(results), "heloc", "ffnnA", tmp_path)
    for ax in drawn[0].axes[:2]:
        shown = [text.get_text() for text in ax.texts]
        assert shown == [number(far(a, b)) for a in METHODS for b in METHODS]


def test_limit_plots_show_the_means_of_the_file_and_the_published_ones(results, drawn, tmp_path):
    correspondence.limit_of(read(results), "who", "linear", "SmoothGrad", tmp_path)
    correspondence.limit_of(read(results), "heloc", "ffnnA", "Gradient x Input", tmp_path)
    left, right = (figure.axes[0] for figure in drawn)
    assert boxes_of(left) == pytest.approx([0.3, 0.1, 0])
    assert boxes_of(right) == pytest.approx([1, 0.2, 0])
    assert [t.get_text() for t in left.get_xticklabels()] == ["0.3", "0.1", "0"]
    theirs = dict(zip(*right.lines[-2].get_data(), strict=True))
    assert theirs[0] == pytest.approx(0.7184, abs=5e-5)  # a = 0
    assert theirs[1] == pytest.approx(0.3455, abs=5e-5)  # a = 0.8
    cosine = drawn[1].axes[1]
    assert boxes_of(cosine) == pytest.approx([1, 0.2, 0])
    assert cosine.lines[-2].get_ydata()[-1] < 0.1  # a = 0.95
    assert [len(figure.legends) for figure in drawn] == [1, 1]


def boxes_of(ax):
    """The medians."""
    return [line.get_ydata()[0] for line in ax.lines if line.get_color() == "black" and len(line.get_ydata()) == 2]


def test_no_legend_where_there_is_nothing_to_compare_with(results, drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(correspondence, "published", lambda *names: published("limits", "digits", "cnn"))
    picture = correspondence.limit_of(read(results), "who", "linear", "SmoothGrad", tmp_path)
    assert drawn[0].legends == []
    assert picture.published is None
    assert picture.caption.endswith("blue: their mean.")


def test_convergence_shows_every_model(results, drawn, tmp_path):
    correspondence.ig_convergence(read(results), tmp_path)
    (ax,) = drawn[0].axes
    assert ax.lines[0].get_xdata() == pytest.approx([4, 40, 400])
    assert ax.lines[0].get_ydata() == pytest.approx([1 / 4, 1 / 40, 1 / 400])
    assert len(ax.lines) == 3


def test_boxes_stand_at_the_medians_of_the_file(results, drawn, tmp_path):
    picture = recovery.boxes(read(results, "recovery"), "who", "linear", "w", "L1", tmp_path)
    (ax,) = drawn[0].axes
    medians = sorted(
        line.get_ydata()[0] for line in ax.lines if len(set(line.get_ydata())) == 1 and len(line.get_ydata()) == 2
    )
    for method in METHODS:
        assert medians.count(1 + len(method)) >= 2  # the middle one of i + len(method), twice
    theirs = picture.published.set_index("method")
    assert theirs.loc["LIME", "existing"] == pytest.approx(1.33576)


def test_perturbation_curves_are_the_native_means_over_networks(results, drawn, tmp_path):
    picture = perturbations.curves(read(results, "perturbations"), "heloc", "ffnnA", "bottom", tmp_path)
    for ax in drawn[0].axes[:2]:
        for line, method in zip(ax.lines, METHODS, strict=True):
            own = 1.25 + METHODS.index(method) + 10 * (method in LOCAL)  # the mean of two networks
            assert line.get_ydata() == pytest.approx([own, 2 * own, 3 * own])
    assert picture.numbers.set_index("method").loc["LIME", "noise"] == pytest.approx(1.25)
    assert picture.published.set_index("method").loc["LIME", "bottom baseline"] == pytest.approx(0.0231, abs=5e-5)


def test_the_cross_shows_effects_as_shares_of_the_mean_area(results, drawn, tmp_path):
    picture = perturbations.cross(read(results, "perturbations"), "determined", tmp_path)
    perturbations.cross(read(results, "perturbations"), "all", tmp_path)
    mean = 0.5 + 1 + 3.5 + 5 + 0.25
    for figure, interaction in zip(drawn, (1, 2), strict=True):
        marks = [line for line in figure.axes[0].lines if line.get_marker() in ("o", "s", "D")]
        shown = [mark.get_xdata()[0] for mark in marks]
        assert shown == pytest.approx([300 / mean, -100 / mean, 100 * interaction / mean] * 2)
        assert [mark.get_mfc() == "w" for mark in marks] == [False, True, False] * 2  # as large as the neighbourhood's
    assert "no statement (for the layout in 0 of 8)" in picture.caption
    assert "layout 29 %, neighbourhood 9.8 %, interaction 9.8 %" in picture.caption
    assert "Of 16 tests" in picture.caption
    assert "16 separate methods" in picture.caption
    assert "in 16 (in each family alone: 16)" in picture.caption
    assert "in 0 (under each layout alone: 8) of the 8 where it can: in the other 8" in picture.caption


def test_the_cells_of_the_cross(results, drawn, tmp_path):
    perturbations.cells(read(results, "perturbations"), "determined", tmp_path)
    mean = 0.5 + 1 + 3.5 + 5 + 0.25
    lines = {line.get_label(): line for line in drawn[0].axes[0].lines}
    assert lines["additive"].get_ydata() == pytest.approx([500 / mean, 400 / mean])
    assert lines["multiplicative"].get_ydata() == pytest.approx([300 / mean, 100 / mean])
    assert lines["additive"].get_linestyle() != lines["multiplicative"].get_linestyle()


def test_no_free_lunch_counts_networks(results, drawn, tmp_path):
    picture = no_free_lunch.draw(read(results, "no_free_lunch"), tmp_path)
    row = picture.numbers.iloc[0]
    assert (row["networks"], row["nowhere_worse"], row["largest_lost"]) == (2, 1, pytest.approx(0.1))
    shown = {tuple(text.get_position()): text.get_text() for text in drawn[0].axes[0].texts}
    assert all(shown[j, i] == ("=" if i == j else "25") for i in range(8) for j in range(8))
    assert shown[11, METHODS.index("LIME")] == "3e4"  # behind the eight columns and the one of blind spots
    assert sorted(shown.values()) == sorted([*["25"] * 56, *["="] * 8, "3e4", *no_free_lunch.PARTS.values()])
    image = drawn[0].axes[0].images[0].get_array()
    assert image.shape == (8, 4 * 8)
    assert image.mask[:, ::4].all()  # lower ends of intervals are below zero: in a colour of their own
    assert not image.mask[:, 1:4].any()
    np.testing.assert_allclose(image[0, 1:8], [1e-4, 1e-4, 1, np.nan, 0.25, 0.25, 1.25])


@pytest.mark.parametrize(
    ("share", "text"), [(0.004, ""), (-0.03, "−3"), (0.256, "26"), (3.1, "310"), (312.4, "3e4"), (np.nan, "–")]
)
def test_shares_are_in_per_cent_and_never_without_a_number(share, text):
    assert no_free_lunch.percent(share) == text


def test_figures_are_drawn_by_name_and_unknown_names_are_listed(results, tmp_path):
    folder = main(("recovery-who-linear-w-L1", "*-convergence"), results)
    assert (folder / "recovery-who-linear-w-L1.png").is_file()
    assert (folder / "correspondence-convergence.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(ValueError, match="'figure7' is none of the figures:\n  correspondence-heloc-ffnnA-heatmap"):
        main(("figure7",), results)
    with pytest.raises(FileNotFoundError, match="no finished results"):
        main((), tmp_path)


def test_nearest_tells_sampling_error_from_disagreement(results):
    table = nearest(read(results)).set_index(["data", "method"])
    assert table.loc[("heloc", "Occlusion"), "verdict"] == "nearest"
    assert table.loc[("heloc", "LIME"), "verdict"] == "within sampling error"
    assert table.loc[("heloc", "LIME"), ["own", "next_distance", "noise"]].tolist() == pytest.approx([0.5, 0.4, 0.2])
    assert table.loc[("heloc", "KernelSHAP"), "verdict"] == "no"
    assert table.loc[("heloc", "KernelSHAP"), "next"] == "LIME"
    assert table.loc[("heloc", "KernelSHAP"), "networks"] == "1 of 2"  # the second network has 0 on its diagonal
    assert table.loc[("heloc", "LIME"), "networks"] == "2 of 2"
    assert (table.loc["who", "verdict"] == "nearest").all()


def test_methods_that_coincide_in_theory():
    assert coincide("ffnnA", "SmoothGrad", "C-LIME")
    assert not coincide("ffnnA", "LIME", "KernelSHAP")
    assert coincide("linear", "LIME", "Gradient x Input")
    assert not coincide("linear", "LIME", "Vanilla Gradients")


def test_matrix_is_in_the_order_of_the_methods(results):
    means = matrix(read(results).of("distances", "who", "linear"), "cosine")
    assert tuple(means.index) == tuple(means.columns) == METHODS


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (2.3e-7, "2e-7"), (0.0123, "0.012"), (0.456, "0.46"), (3.14, "3.1"), (25.2, "25")]
)
def test_numbers_fit_a_cell(value, text):
    assert number(value) == text


def test_nothing_finished_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished run"):
        read(tmp_path)

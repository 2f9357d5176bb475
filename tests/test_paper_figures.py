"""Figures show the numbers of the result files, and read nothing else."""

import ast
import json
from pathlib import Path

import pandas as pd
import pytest

import paper_figures
from paper_figures import experiment1
from paper_figures.__main__ import main
from paper_figures.results import coincide, matrix, nearest, read, short_table
from paper_figures.style import METHODS, number

LOCAL = ("Vanilla Gradients", "SmoothGrad", "C-LIME")


def far(existing: str, engine: str) -> float:
    """A distance with everything distinct, own instances nearest but for LIME and KernelSHAP."""
    if existing == engine:
        return {"LIME": 0.5, "KernelSHAP": 0.9}.get(existing, 0.0)
    if {existing, engine} == {"LIME", "KernelSHAP"}:
        return 0.4
    return 1 + METHODS.index(existing) + METHODS.index(engine) / 10


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    for data, model in (("who", "linear"), ("heloc", "ffnnA")):
        run = folder / "experiment1" / f"{data}-{model}"
        run.mkdir(parents=True)
        own = {"data": data, "model": model}
        distances = [
            {**own, "existing": a, "engine": b, "metric": m, "instance": i, "value": far(a, b) * (0.5 + i)}
            for a in METHODS
            for b in METHODS
            for m in ("L1", "cosine")
            for i in range(2)
        ]
        repeats = [
            {**own, "method": m, "side": s, "metric": k, "instance": 0, "value": 0.2}
            for m in ("LIME", "KernelSHAP", "SmoothGrad", "C-LIME")
            for s in ("existing", "engine")
            for k in ("L1", "cosine")
        ]
        limits = [
            {**own, "limit": limit, "parameter": p, "metric": m, "instance": i, "value": abs(p - end) * (0.5 + i)}
            for limit, end, series in (("SmoothGrad", 0, (0.3, 0.1, 0.0)), ("Gradient x Input", 1, (0.0, 0.8, 1.0)))
            for p in series
            for m in ("L1", "cosine")
            for i in range(2)
        ]
        convergence = [{**own, "n": n, "instance": 0, "value": 1 / n} for n in (4, 40, 400)]
        tables = {"distances": distances, "repeats": repeats, "limits": limits, "ig_convergence": convergence}
        for name, rows in tables.items():
            pd.DataFrame(rows).to_csv(run / f"{name}.csv", index=False)
        manifest = {"config": own, "metrics": {"mse": 0.0123}, "command": f"python -m it --data {data}"}
        (run / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """The matplotlib figures instead of files."""
    figures = []

    def keep(figure, path):
        figures.append(figure)
        return path

    monkeypatch.setattr(experiment1, "save", keep)
    return figures


def test_heat_maps_show_the_means_of_the_file(results, drawn, tmp_path):
    experiment1.heat_maps(read(results), "heloc", "ffnnA", tmp_path)
    for ax in drawn[0].axes[:2]:
        shown = [text.get_text() for text in ax.texts]
        assert shown == [number(far(a, b)) for a in METHODS for b in METHODS]


def test_limit_plots_show_the_means_of_the_file(results, drawn, tmp_path):
    experiment1.limits(read(results), "who", "linear", tmp_path)
    left, right = drawn[0].axes
    assert left.lines[0].get_ydata() == pytest.approx([0.3, 0.1, 0])
    assert right.lines[0].get_ydata() == pytest.approx([1, 0.2, 0])
    assert [t.get_text() for t in left.get_xticklabels()] == ["0.3", "0.1", "0"]


def test_convergence_shows_every_model(results, drawn, tmp_path):
    experiment1.ig_convergence(read(results), tmp_path)
    (ax,) = drawn[0].axes
    assert ax.lines[0].get_xdata() == pytest.approx([4, 40, 400])
    assert ax.lines[0].get_ydata() == pytest.approx([1 / 4, 1 / 40, 1 / 400])
    assert len(ax.lines) == 3


def test_nearest_tells_sampling_error_from_disagreement(results):
    table = nearest(read(results)).set_index(["data", "method"])
    assert table.loc[("heloc", "Occlusion"), "verdict"] == "nearest"
    assert table.loc[("heloc", "LIME"), "verdict"] == "within sampling error"
    assert table.loc[("heloc", "LIME"), ["own", "next_distance", "noise"]].tolist() == pytest.approx([0.5, 0.4, 0.2])
    assert table.loc[("heloc", "KernelSHAP"), "verdict"] == "no"
    assert table.loc[("heloc", "KernelSHAP"), "next"] == "LIME"
    assert (table.loc["who", "verdict"] == "nearest").all()
    short = short_table(nearest(read(results)))
    assert short.loc[("heloc", "ffnnA"), "KernelSHAP"] == "0.9 / 0.4 ✗"


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


def test_the_page_holds_everything(results):
    page = main(results)
    text = page.read_text()
    assert text.count("data:image/png;base64,") == 5
    assert 'src="http' not in text
    assert "0.0123" in text
    assert "python -m it --data heloc" in text
    for name in ("who-linear-distances", "heloc-ffnnA-limits", "ig_convergence"):
        assert (page.parent / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert (page.parent / f"{name}.png").is_file()


def test_nothing_finished_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished run"):
        read(tmp_path)


def test_figures_never_import_a_model():
    for path in Path(paper_figures.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text())
        names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        names |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        assert not {n.split(".")[0] for n in names} & {"torch", "locapprox", "experiments", "captum"}, path

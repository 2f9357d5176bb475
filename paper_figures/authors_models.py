"""The authors' own checkpoints: stored explanations against ours, and the perturbation curves of both."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.lines import Line2D

from paper_figures.results import Runs
from paper_figures.style import COLOURS, MARKERS, METHODS, WIDTH, Picture, save, short, title

TESTS = [(kind, replace) for kind in ("bottom", "top") for replace in ("baseline", "noise")]


def figures(runs: Runs) -> dict[str, Callable[[Path], Picture]]:
    """One per table of data."""
    return {f"authors-models-{data}": partial(curves, runs, data) for data in dict(runs.runs)}


def equality(runs: Runs) -> pd.DataFrame:
    """Model × method: the relative difference of what captum does not sample, "rms z (share within 1.96)" of the rest.

    Where f is linear over every draw sampling makes no error, and the difference is shown as well.
    """
    frame = runs.tables["explanations"].query("version == 'existing'")
    wide = frame.pivot_table(index=["data", "model", "method"], columns="quantity", values="value", sort=False)
    z = wide["rms z"].map("z {:.2f}".format) + wide["within 1.96"].map(" ({:.3f})".format)
    shown = z.where(wide["rms z"].notna(), wide["relative difference"].map("{:.1e}".format)).unstack("method")
    shown.insert(0, "network", [title(data, model) for data, model in shown.index])
    columns = ["network", *(name for name in METHODS if name in shown)]
    return shown.loc[runs.runs][columns]


def gaps(runs: Runs) -> pd.DataFrame:
    """Model × test: the largest distance of two curves of the same stored weights, theirs and ours."""
    frame = runs.tables["curves"]
    test = "largest difference, " + frame["replace"] + ", " + frame["kind"]
    frame = frame.assign(test=test, gap=(frame["tested"] - frame["theirs"]).abs())
    wide = frame.pivot_table(index=["data", "model"], columns="test", values="gap", aggfunc="max").loc[runs.runs]
    wide.insert(0, "network", [title(data, model) for data, model in wide.index])
    return wide


def curves(runs: Runs, data: str, path: Path) -> Picture:
    frame = runs.tables["curves"].query("data == @data")
    parts = dict(iter(frame.groupby(["model", "kind", "replace"])))
    models = [model for of, model in runs.runs if of == data]
    figure, axes = plt.subplots(len(models), 4, figsize=(1.35 * WIDTH, 1.5 * len(models) + 0.6), squeeze=False)
    for row, model in zip(axes, models, strict=True):
        for ax, test in zip(row, TESTS, strict=True):
            part = parts[model, *test]
            for method in (name for name in METHODS if name in set(part["method"])):
                one = part[part["method"] == method]
                ax.plot(one["k"], one["theirs"], lw=0.8, color=COLOURS[method])
                ax.plot(one["k"], one["ours"], MARKERS[method], ms=3, mew=0.6, color=COLOURS[method], mfc="none")
            ax.set_ylim(0, 1.08 * max(part["theirs"].max(), part["ours"].max()))
            ax.set_xticks([1, 4, 7, 11])
        row[0].set_ylabel(title(data, model), fontsize=7)
    for ax, (kind, replace) in zip(axes[0], TESTS, strict=True):
        ax.set_title(f"{kind}-k, {replace}", fontsize=8)
    for ax in axes[-1]:
        ax.set_xlabel("k")
    shown = [name for name in METHODS if name in set(frame["method"])]
    keys = [
        Line2D([], [], color=COLOURS[name], marker=MARKERS[name], ms=3, mfc="none", lw=0.8, label=short([name])[0])
        for name in shown
    ]
    figure.legend(handles=keys, ncols=4, loc="outside lower center", frameon=False)
    numbers = frame.groupby(["model", "kind", "replace", "method"], sort=False)[["theirs", "tested", "ours"]].mean()
    return Picture(
        save(figure, path),
        "Perturbation tests on the authors' networks and points, mean absolute change of the prediction after k "
        "features: lines are their stored explanations by their procedure, marks our explanations by ours (noise of "
        "its own; features of one weight in the order that sorting leaves). LIME and KernelSHAP part where the least "
        "weights go first: captum fits those of features at the baseline, which no mask moves; here they are 0.",
        numbers.reset_index(),
    )

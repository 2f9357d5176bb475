"""Experiment 4, images: attributions, perturbation curves, no free lunch, and what patch size and baseline change."""

import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from paper_figures import no_free_lunch
from paper_figures.results import Runs
from paper_figures.style import COLOURS, MARKERS, METHODS, WIDTH, Picture, save, short, title

TESTS = {
    "bottom": ("bottom-k: least |weight| removed", "change of the prediction"),
    "top": ("top-k: largest |weight| removed", "change of the prediction"),
    "deletion": ("deletion: largest weight first", "prediction"),
    "insertion": ("insertion: largest weight first", "prediction"),
}


def figures(runs: Runs) -> dict[str, Callable[[Path], Picture]]:
    """Three per network, and the matrices of all."""
    draw = {"pictures": pictures, "curves": curves, "study": study}
    found: dict[str, Callable[[Path], Picture]] = {
        f"image-models-{data}-{model}-{name}": partial(one, runs, data, model)
        for data, model in runs.runs
        for name, one in draw.items()
    }
    return {**found, "image-models-no-free-lunch": partial(no_free_lunch.draw, runs)}


def pictures(runs: Runs, data: str, model: str, path: Path) -> Picture:
    """Rows images, columns methods."""
    from locapprox.images.pictures import pictures as grid  # draws arrays, and knows no model

    frame = runs.of("maps", data, model)
    shape = [int(frame[axis].max()) + 1 for axis in ("instance", "channel", "row", "column")]
    layers = {name: part["value"].to_numpy() for name, part in frame.groupby("map", sort=False)}
    images = layers.pop("image").reshape(shape)
    names = frame[frame["map"] == "image"].groupby("instance")["predicted"].first().astype(str)
    maps = {
        "\n".join(textwrap.wrap(short([name])[0], 10)): layers[name].reshape(shape[0], *shape[2:]) for name in METHODS
    }
    figure = grid(images, maps, shared=False, names=list(names))
    figure.set_size_inches(WIDTH * 1.25, WIDTH * 1.25 / 10.2 * shape[0] + 0.5)
    caption = (
        f"{title(data, model)}: the class that is predicted, and what each method says speaks for it (red) and against "
        "it (blue). Every picture has its own scale, which ends where weights up to it make up 98 % of the total."
    )
    largest = frame[frame["map"] != "image"].groupby(["map", "instance"], sort=False)["value"]
    numbers = largest.agg(least="min", largest="max", total="sum").reset_index()
    return Picture(save(figure, path), caption, numbers)


def curves(runs: Runs, data: str, model: str, path: Path) -> Picture:
    """The four tests, methods as they report themselves; bands: 95 % over images."""
    frame, areas = (runs.of(table, data, model) for table in ("curves", "areas"))
    native = frame[frame["ranked_by"] == "native"]
    figure, axes = plt.subplots(2, 2, figsize=(WIDTH, 4.9), sharex=True)
    for ax, (kind, (heading, label)) in zip(axes.flat, TESTS.items(), strict=True):
        for method in METHODS:
            part = native[(native["kind"] == kind) & (native["method"] == method)].sort_values("k")
            every = max(1, len(part) // 8)
            line = {"marker": MARKERS[method], "ms": 3, "lw": 1, "color": COLOURS[method], "markevery": every}
            ax.plot(part["k"], part["mean"], label=short([method])[0], **line)
            ax.fill_between(part["k"], part["low"], part["high"], color=COLOURS[method], alpha=0.12, lw=0)
        ax.set(title=heading, ylabel=label)
        ax.set_ylim(0, None)
    for ax in axes[1]:
        ax.set_xlabel("patches")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), ncols=4, loc="outside lower center", frameon=False)
    figure.suptitle(title(data, model), fontsize=9)
    caption = (
        f"{title(data, model)}: patches in each method's order, set to the baseline (insertion: put back). "
        "Low is good for bottom-k and deletion, high for top-k and insertion. Bands: 95 % over images. Table: areas "
        "under the curves, also of slopes times the input (w*x)."
    )
    text = areas["mean"].map("{:.3f}".format) + " ± " + ((areas["high"] - areas["low"]) / 2).map("{:.3f}".format)
    table = areas.assign(area=text).pivot_table(
        index=["method", "ranked_by"], columns="kind", values="area", aggfunc="first", sort=False
    )
    return Picture(save(figure, path), caption, table[list(TESTS)].reset_index())


def study(runs: Runs, data: str, model: str, path: Path) -> Picture:
    """Other patch sizes and baselines: insertion minus deletion, and what a method loses where it loses most."""
    frame = runs.of("study", data, model)
    main = frame.iloc[0]
    settings = sorted(frame[frame["baseline"] == main["baseline"]]["patch"].unique())
    columns = [(patch, main["baseline"]) for patch in settings]
    columns += [(main["patch"], b) for b in frame["baseline"].unique() if b != main["baseline"]]
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.3))
    for method in METHODS:
        part = frame[frame["method"] == method].set_index(["patch", "baseline"])
        here = [i for i, column in enumerate(columns) if column in part.index]
        part = part.loc[[columns[i] for i in here]]
        style = {"marker": MARKERS[method], "ms": 4, "lw": 1, "color": COLOURS[method], "label": short([method])[0]}
        breaks = len(settings)
        for ax, values in ((axes[0], part["insertion"] - part["deletion"]), (axes[1], 100 * part["worst_lost"])):
            for some in ([i for i in here if i < breaks], [i for i in here if i >= breaks]):
                ax.plot(some, [values.iloc[here.index(i)] for i in some], **style)
                style = {**style, "label": None}
            style["label"] = short([method])[0]
    for ax in axes:
        ax.set_xticks(range(len(columns)), [f"{p} px\n{b}" for p, b in columns], fontsize=6)
        ax.axvline(len(settings) - 0.5, color="0.7", lw=0.7)
    axes[0].set(ylabel="difference of areas", title="insertion − deletion (high is good)")
    axes[1].set(ylabel="% of the best constant's loss", title="lost (median) where most is")
    axes[1].set_yscale("log")
    handles, labels = axes[0].get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(unique.values(), unique.keys(), ncols=4, loc="outside lower center", frameon=False)
    figure.suptitle(f"{title(data, model)}: patch size and baseline", fontsize=9)
    least = frame.groupby(["patch", "baseline"])["worst_lost"].min()
    caption = (
        f"{title(data, model)}: other patch sizes and baselines ({frame['images'].iloc[-1]} images; C-LIME depends on "
        "neither). Left: insertion minus deletion area. Right: what each method loses in the median over images on the "
        f"neighbourhood where that is most: in every setting at least {100 * np.nanmin(least):.0f} %."
    )
    return Picture(save(figure, path), caption, frame.drop(columns=["data", "model"]).reset_index(drop=True))


def summary(runs: Runs) -> pd.DataFrame:
    """Which methods win where: the least mean error in each column of the matrix, among methods of other columns."""
    rows = []
    for data, model in runs.runs:
        matrix = runs.of("matrix", data, model)
        for where, part in matrix.groupby("neighbourhood", sort=False):
            others = part[part["method"] != where].sort_values("error", kind="stable")
            rows.append((title(data, model), where, others["method"].iloc[0], others["lost"].iloc[0]))
    return pd.DataFrame(rows, columns=["model", "neighbourhood", "best other method", "what it loses (median share)"])

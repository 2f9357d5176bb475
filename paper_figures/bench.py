"""The page of the benchmarks: times over the floor, peers, memory, and evaluations for an accuracy."""

import html
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from experiments import files
from experiments.bench import samples, times
from paper_figures.page import PAGE_STYLE, image, table
from paper_figures.style import WIDTH, Picture, save, style

FLOORS = {"over evaluations": "evaluations alone", "over evaluations and placing": "evaluations and placing"}
WORDS = """Process seconds of one thread, medians over the rounds of one process in which everything is computed in
turns. The floor is the model's evaluations at the very inputs that a method asks about. Peers that loop over instances
were timed on a few of them, which is multiplied. Cases marked * were unsteady: a quarter of the floor's times were 30 %
from another quarter."""


def page(folder: Path) -> Path:
    """OUT/index.html from the tables that are there."""
    with style():
        pictures = [picture for draw in (floors, peers, memory, accuracy) if (picture := draw(folder)) is not None]
    body = "\n".join(image(p.image, p.caption) + "</figure>" + table(p.numbers) for p in pictures)
    text = PAGE.format(style=PAGE_STYLE, words=html.escape(WORDS), body=body)
    files.write(folder / "index.html", lambda part: part.write_text(text, encoding="utf-8"))
    return folder / "index.html"


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>locapprox: benchmarks</title><link rel="icon" href="data:,"><style>{style}</style></head><body>
<h1>How long, how much memory, how many evaluations</h1><p>{words}</p>
{body}
</body></html>
"""


def ratios(folder: Path) -> pd.DataFrame:
    """Of all cases that were timed."""
    found = [pd.read_csv(path) for path in sorted(folder.glob("*.csv")) if path.stem not in ("memory", "samples")]
    return times.ratios(pd.concat(found)) if found else pd.DataFrame()


def floors(folder: Path) -> Picture | None:
    """The engine over its floors, a panel a case."""
    found = ratios(folder)
    if found.empty:
        return None
    kinds = [kind for kind in FLOORS if kind in found]
    long = found.melt(["case", "method"], kinds, "floor", "ratio").dropna()
    long["floor"] = long["floor"].map(FLOORS)
    cases = list(dict.fromkeys(long["case"]))
    rows = [cases[i : i + 2] for i in range(0, len(cases), 2)]
    bars = [max(long.loc[long["case"] == case, "method"].nunique() for case in row) + 1 for row in rows]
    size = (1.5 * WIDTH, 0.22 * sum(bars) + 0.4 * len(rows))
    figure, axes = plt.subplots(len(rows), 2, figsize=size, squeeze=False, gridspec_kw={"height_ratios": bars})
    limits = (min(0.9, 0.95 * long["ratio"].min()), 1.1 * long["ratio"].max())
    for ax, case in zip(axes.flat, cases, strict=False):
        part = long[long["case"] == case]
        sns.stripplot(part, x="ratio", y="method", hue="floor", jitter=False, size=4, ax=ax, legend=False)
        ax.axvline(1, color="0.6", lw=0.8)
        mark = "*" if found.loc[found["case"] == case, "unsteady"].any() else ""
        ax.set(xscale="log", xlabel="", ylabel="", title=case + mark, xlim=limits)
        _plain(ax)
    for ax in list(axes.flat)[len(cases) :]:
        ax.set_axis_off()
    colours = dict(zip(kinds, sns.color_palette(), strict=False))
    handles = [Line2D([], [], marker="o", ls="", ms=4, color=colours[k], label=FLOORS[k]) for k in kinds]
    figure.legend(handles=handles, ncols=2, loc="outside upper center", frameon=False)
    figure.supxlabel("time over the floor: errors, loss and everything else included", fontsize=8)
    columns = ["case", "method", "instances", "n", "milliseconds", *kinds, "ms beyond evaluations", "unsteady"]
    return Picture(save(figure, folder / "floors"), "The engine over its floors.", found[columns])


def peers(folder: Path) -> Picture | None:
    """Peers over the engine."""
    found = ratios(folder)
    kinds = [] if found.empty else [column for column in map(str, found) if column.endswith(" / locapprox")]
    if not kinds:
        return None
    long = found.melt(["case", "method"], kinds, "peer", "ratio").dropna()
    long["what"] = long["case"] + ": " + long["method"]
    long["peer"] = long["peer"].str.removesuffix(" / locapprox")
    figure, ax = plt.subplots(figsize=(WIDTH * 1.3, 0.17 * long["what"].nunique() + 0.9))
    sns.stripplot(long, x="ratio", y="what", hue="peer", jitter=False, size=4, palette="colorblind", ax=ax)
    ax.axvline(1, color="0.6", lw=0.8)
    ax.set(xscale="log", xlabel="peer's time over the engine's, with as many evaluations", ylabel="")
    _plain(ax)
    ax.grid(axis="y", color="0.92", lw=0.6)
    ax.legend(title="", frameon=False, ncols=5, loc="lower center", bbox_to_anchor=(0.3, 1))
    caption = "Peers over the engine: right of the line the engine is faster."
    return Picture(save(figure, folder / "peers"), caption, found[["case", "method", *kinds]])


def memory(folder: Path) -> Picture | None:
    """Resident memory against the number of draws."""
    path = folder / "memory.csv"
    if not path.exists():
        return None
    found = pd.read_csv(path)
    figure, ax = plt.subplots(figsize=(WIDTH * 0.7, 2.4))
    sns.lineplot(found, x="n", y="added MiB", hue="method", marker="o", ax=ax)
    ax.set(xscale="log", xlabel="draws", ylabel="MiB that a call adds", ylim=(0, None))
    ax.legend(title="", frameon=False)
    caption = "Peak resident memory of 10 instances with 50 features, each run in a process of its own."
    return Picture(save(figure, folder / "memory"), caption, found)


def accuracy(folder: Path) -> Picture | None:
    """The error of Shapley values against evaluations, a panel a game."""
    path = folder / "samples.csv"
    if not path.exists():
        return None
    found = pd.read_csv(path)
    curves = samples.curves(found)
    names = list(dict.fromkeys(curves["game"]))
    down = -(-len(names) // 2)
    figure, axes = plt.subplots(down, 2, figsize=(WIDTH * 1.3, 2.1 * down), squeeze=False, sharey=True)
    who = list(dict.fromkeys(curves["estimator"]))
    colours = dict(zip(who, sns.color_palette("colorblind", len(who)), strict=True))
    for ax, name in zip(axes.flat, names, strict=False):
        for estimator, part in curves[curves["game"] == name].groupby("estimator", sort=False):
            ax.plot(part["evaluations"], part["error"].clip(1e-5), color=colours[estimator], lw=1, label=estimator)
        ax.axhline(0.01, color="0.6", lw=0.8)
        ax.set(xscale="log", yscale="log", title=name)
    for ax in list(axes.flat)[len(names) :]:
        ax.set_axis_off()
    lines = dict(zip(*axes.flat[0].get_legend_handles_labels()[::-1], strict=True))
    figure.legend(lines.values(), lines.keys(), ncols=3, loc="outside upper center", frameon=False)
    figure.supxlabel("evaluations", fontsize=8)
    figure.supylabel("relative error of Shapley values", fontsize=8)
    caption = "Relative error of Shapley values: root mean square over seeds, median over instances; the line is 1 %."
    return Picture(save(figure, folder / "accuracy"), caption, samples.needed(found))


def _plain(ax: Axes) -> None:
    """Numbers on a log axis that can be read: 1, 2, 5, 10."""
    low, high = ax.get_xlim()
    ticks = [m * 10.0**e for e in range(-3, 5) for m in ((1, 2, 5) if high / low < 50 else (1,))]
    shown = [tick for tick in ticks if low <= tick <= high]
    ax.set_xticks(shown, [f"{tick:g}" for tick in shown])
    ax.minorticks_off()
    if not np.isfinite([low, high]).all():
        ax.set_xscale("linear")

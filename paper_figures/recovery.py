"""Experiment 2: box plots of the distance between explanations and the model's w, or w ⊙ x."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import seaborn as sns
from matplotlib import pyplot as plt

from paper_figures.results import Runs, published
from paper_figures.style import METHODS, WIDTH, Picture, save, short, title

TRUTHS = {"w": "w", "w*x": "w ⊙ x"}
VERSIONS = ("existing", "framework", "framework, logistic")
COLOURS = dict(zip(VERSIONS, ("0.75", "#0173b2", "#de8f05"), strict=True))


def figures(runs: Runs) -> dict[str, Callable[[Path], Picture]]:
    """Four per model, as in the paper."""
    return {
        f"recovery-{data}-{model}-{truth.replace('*', '')}-{metric}": partial(boxes, runs, data, model, truth, metric)
        for data, model in runs.runs
        for truth in TRUTHS
        for metric in ("L1", "cosine")
    }


def boxes(runs: Runs, data: str, model: str, truth: str, metric: str, path: Path) -> Picture:
    frame = runs.of("recovery", data, model)
    part = frame[(frame["compared_with"] == truth) & (frame["metric"] == metric)]
    first = part[part["training_seed"] == 0]
    versions = [version for version in VERSIONS if version in set(part["version"])]
    figure, ax = plt.subplots(figsize=(WIDTH, 2.7))
    sns.boxplot(
        first,
        x="method",
        y="value",
        hue="version",
        order=METHODS,
        hue_order=versions,
        palette=COLOURS,
        ax=ax,
        linewidth=0.7,
        fliersize=1.5,
        whis=(5, 95),
    )
    ax.set_xticks(range(len(METHODS)), short(METHODS), rotation=25, ha="right", rotation_mode="anchor")
    ax.set(xlabel="", ylabel=f"{metric} distance to {TRUTHS[truth]}")
    ax.set_title(f"{title(data, model)}: distance of explanations to {TRUTHS[truth]}")
    ax.set_ylim(-0.02 * max(1e-3, float(first["value"].to_numpy().max())), None)
    ax.legend(frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.1))
    seeds = part.groupby(["method", "version", "training_seed"], sort=False)["value"].median()
    spread = seeds.groupby(["method", "version"], sort=False).agg(["min", "max"])
    medians = first.groupby(["method", "version"], sort=False)["value"].median().rename("median")
    numbers = spread.join(medians)[["median", "min", "max"]].rename(
        columns={"min": "least median of a network", "max": "largest"}
    )
    theirs = published("recovery", data, model, f"{metric} to {truth}")
    caption = (
        f"{title(data, model)}, {metric} distance to {TRUTHS[truth]} over {first['instance'].nunique()} inputs (first "
        "network; boxes: quartiles, whiskers: 5 and 95 %). Vanilla Gradients with a logistic surrogate is the limit of "
        "shrinking noise (value and gradient matched); Gradient × Input has none, at one point any line does."
    )
    table = theirs.pivot_table(index="method", columns="other", values="value", sort=False) if len(theirs) else None
    return Picture(save(figure, path), caption, numbers.reset_index(), None if table is None else table.reset_index())

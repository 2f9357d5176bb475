"""Experiment 1: heat maps of originals × engine instances, the two limits, convergence of Integrated Gradients."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle

from paper_figures.results import ROUNDING, Runs, matrix, published
from paper_figures.style import COLOURS, SEQUENTIAL, WIDTH, Picture, number, save, short, title

LEAST_HEIGHT = 1e-3  # a panel that holds rounding errors only is not scaled up
METRICS = {"L1": "L1 distance", "cosine": "cosine distance"}
LIMITS = {
    "SmoothGrad": ("SmoothGrad to Vanilla Gradients", "standard deviation σ of the noise", "smoothgrad"),
    "Gradient x Input": (
        "mean gradient on Uniform(a, 1) to Gradient × Input",
        "start a of the path",
        "gradient-x-input",
    ),
}


def figures(runs: Runs) -> dict[str, Callable[[Path], Picture]]:
    """Three per model, as in the paper, and one of our own."""
    found: dict[str, Callable[[Path], Picture]] = {}
    for data, model in runs.runs:
        found[f"correspondence-{data}-{model}-heatmap"] = partial(heat_maps, runs, data, model)
        for limit, (*_, name) in LIMITS.items():
            found[f"correspondence-{data}-{model}-{name}"] = partial(limit_of, runs, data, model, limit)
    return {**found, "correspondence-convergence": partial(ig_convergence, runs)}


def heat_maps(runs: Runs, data: str, model: str, path: Path) -> Picture:
    frame = runs.of("distances", data, model).query("training_seed == 0")
    figure, axes = plt.subplots(2, 1, figsize=(WIDTH, 7.2), sharex=True)
    for ax, (metric, label) in zip(axes, METRICS.items(), strict=True):
        means = matrix(frame, metric)
        sns.heatmap(
            means,
            ax=ax,
            cmap=SEQUENTIAL,
            vmin=0,
            annot=means.map(number).to_numpy(),
            fmt="",
            annot_kws={"size": 7, "in_layout": False},
            linewidths=0.5,
            cbar_kws={"pad": 0.02},
            xticklabels=short(means.columns),
            yticklabels=short(means.index),
        )
        smallest = means.to_numpy() <= means.to_numpy().min(axis=1, keepdims=True) + ROUNDING
        for row, column in zip(*smallest.nonzero(), strict=True):
            ax.add_patch(Rectangle((column + 0.04, row + 0.04), 0.92, 0.92, fill=False, edgecolor="#d62728", lw=1.5))
        ax.set(title=label, xlabel="", ylabel="original method")
        ax.tick_params(left=False, bottom=False)
    ax.set_xlabel("framework instance (engine)")
    plt.setp(ax.get_xticklabels(), rotation=40, ha="right", rotation_mode="anchor")
    points = frame["instance"].nunique()
    figure.suptitle(f"{title(data, model)}: mean over {points} explained inputs", fontsize=9)
    theirs = published("correspondence", data, model, "L1")
    return Picture(
        save(figure, path),
        f"{title(data, model)}: originals against framework instances; red: the least of its row.",
        matrix(frame, "L1").rename_axis("L1: original").reset_index(),
        theirs.pivot_table(index="method", columns="other", values="value", sort=False).reset_index()
        if len(theirs)
        else None,
    )


def limit_of(runs: Runs, data: str, model: str, limit: str, path: Path) -> Picture:
    """Boxes over the explained inputs, and the means of the authors' stored explanations."""
    name, parameter, _ = LIMITS[limit]
    frame = runs.of("limits", data, model)
    frame = frame[frame["limit"] == limit]
    theirs = published("limits", data, model)
    theirs = theirs[theirs["method"] == limit].astype({"other": float})
    order = sorted(frame["parameter"].unique(), reverse=limit == "SmoothGrad")
    place = {value: i for i, value in enumerate(order)}
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.7))
    for ax, (metric, label) in zip(axes, METRICS.items(), strict=True):
        one, means = frame[frame["metric"] == metric], theirs[theirs["quantity"] == metric]
        boxes = [one.loc[one["parameter"] == value, "value"] for value in order]
        ax.boxplot(
            boxes,
            positions=range(len(order)),
            widths=0.6,
            patch_artist=True,
            boxprops={"facecolor": COLOURS[limit], "alpha": 0.4, "lw": 0.6},
            medianprops={"color": "black"},
            whiskerprops={"lw": 0.6, "color": "0.4"},
            capprops={"lw": 0.6, "color": "0.4"},
            flierprops={"marker": ".", "ms": 2, "mec": "none", "mfc": "0.5"},
        )
        ax.plot(means["other"].map(place), means["value"], "x", color="#d62728", label="mean of the authors' stored")
        ax.plot(range(len(order)), [box.mean() for box in boxes], "_", color="#0b5394", ms=8, label="mean of ours")
        ax.set_xticks(range(len(order)), [f"{value:g}" for value in order])
        ax.set(xlabel=parameter, ylabel=label)
        top = max(one["value"].max(), means["value"].max() if len(means) else 0)
        ax.set_ylim(0, LEAST_HEIGHT if top < LEAST_HEIGHT else None)
    if len(theirs):
        figure.legend(*axes[0].get_legend_handles_labels(), ncols=2, loc="outside lower center", frameon=False)
    figure.suptitle(f"{title(data, model)}: {name}", fontsize=8)
    numbers = frame.pivot_table(index="parameter", columns="metric", values="value", aggfunc=["mean", "median"])
    numbers.columns = [" ".join(column) for column in numbers.columns]
    own = "Boxes: ours, over the explained inputs (whiskers: the last within 1.5 box lengths)"
    end = "; ×: that of the authors' stored explanations of their network." if len(theirs) else "."
    caption = f"{title(data, model)}: {name}; last: the exact limit. {own}; blue: their mean{end}"
    return Picture(
        save(figure, path),
        caption,
        numbers.loc[order].reset_index(),
        theirs.pivot_table(index="other", columns="quantity", values="value").reset_index() if len(theirs) else None,
    )


def ig_convergence(runs: Runs, path: Path) -> Picture:
    figure, ax = plt.subplots(figsize=(WIDTH, 3))
    palette = sns.color_palette("colorblind", len(runs.runs))
    table = {}
    for i, (data, model) in enumerate(runs.runs):
        means = runs.of("ig_convergence", data, model).groupby("n")["value"].mean().clip(lower=1e-17)
        ax.loglog(means.index, means, marker="os^DvPX*"[i % 8], ms=4, color=palette[i], label=title(data, model))
        table[title(data, model)] = means
    ax.plot(means.index, 1 / means.index, color="0.6", ls="--", label="1/n")
    ax.set(
        xlabel="nodes n of the Gauss–Legendre rule",
        ylabel="largest error of a weight,\nmean over inputs",
        title="Integrated Gradients against a fine midpoint rule, float64",
    )
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return Picture(
        save(figure, path),
        "Integrated Gradients: on linear, logistic and tanh models few nodes reach the reference's own error; "
        "on ReLU networks the error falls about like 1/n.",
        pd.DataFrame(table).rename_axis("n").reset_index(),
    )

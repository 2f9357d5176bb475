"""Experiment 1: heat maps of originals × engine instances, the two limits, convergence of Integrated Gradients."""

from dataclasses import dataclass
from pathlib import Path

import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle

from paper_figures.results import ROUNDING, Experiment1, matrix
from paper_figures.style import COLOURS, SEQUENTIAL, number, save, style, title

LEAST_HEIGHT = 1e-3  # a panel that holds rounding errors only is not scaled up
METRICS = {"L1": "L1 distance", "cosine": "cosine distance"}
LIMITS = {
    "SmoothGrad": ("SmoothGrad to Vanilla Gradients", "standard deviation σ of the noise"),
    "Gradient x Input": ("mean gradient on Uniform(a, 1) to Gradient x Input", "start a of the path"),
}


@dataclass(frozen=True)
class Figure:
    image: Path  # PNG; the PDF lies beside it
    caption: str


def draw(experiment: Experiment1, folder: Path) -> list[Figure]:
    """All figures of the experiment, as PDF and PNG."""
    figures = []
    with style():
        for data, model in experiment.runs:
            figures += [heat_maps(experiment, data, model, folder), limits(experiment, data, model, folder)]
        return [*figures, ig_convergence(experiment, folder)]


def heat_maps(experiment: Experiment1, data: str, model: str, folder: Path) -> Figure:
    frame = experiment.of("distances", data, model)
    figure, axes = plt.subplots(1, 2, figsize=(12, 5), sharey=True)
    for ax, (metric, label) in zip(axes, METRICS.items(), strict=True):
        means = matrix(frame, metric)
        sns.heatmap(
            means,
            ax=ax,
            cmap=SEQUENTIAL,
            vmin=0,
            annot=means.map(number).to_numpy(),
            fmt="",
            annot_kws={"size": 8},
            linewidths=0.5,
            cbar_kws={"pad": 0.02},
        )
        smallest = means.to_numpy() <= means.to_numpy().min(axis=1, keepdims=True) + ROUNDING
        for row, column in zip(*smallest.nonzero(), strict=True):
            ax.add_patch(Rectangle((column + 0.04, row + 0.04), 0.92, 0.92, fill=False, edgecolor="#d62728", lw=1.8))
        ax.set(title=label, xlabel="framework instance (engine)", ylabel="original method" if metric == "L1" else "")
        ax.tick_params(left=False, bottom=False)
        ax.tick_params(axis="x", rotation=40)
        plt.setp(ax.get_xticklabels(), ha="right", rotation_mode="anchor")
    points = frame["instance"].nunique()
    figure.suptitle(f"{title(data, model)}: mean over {points} explained inputs")
    path = save(figure, folder / f"{data}-{model}-distances")
    return Figure(path, f"{title(data, model)}: originals against framework instances; red: the least of its row.")


def limits(experiment: Experiment1, data: str, model: str, folder: Path) -> Figure:
    frame = experiment.of("limits", data, model)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2))
    for ax, (limit, (name, parameter)) in zip(axes, LIMITS.items(), strict=True):
        one = frame[(frame["limit"] == limit) & (frame["metric"] == "L1")]
        order = sorted(one["parameter"].unique(), reverse=limit == "SmoothGrad")
        place = {value: i for i, value in enumerate(order)}
        sns.lineplot(
            x=one["parameter"].map(place),
            y=one["value"],
            ax=ax,
            errorbar=("ci", 95),
            seed=0,
            err_style="band",
            color=COLOURS[limit],
            marker="o",
        )
        ax.set_xticks(range(len(order)), [f"{value:g}" for value in order])
        ax.set(title=name, xlabel=f"{parameter} (last: the exact limit)", ylabel="mean L1 distance")
        ax.set_ylim(0, LEAST_HEIGHT if one["value"].max() < LEAST_HEIGHT else None)
    figure.suptitle(title(data, model))
    path = save(figure, folder / f"{data}-{model}-limits")
    return Figure(path, f"{title(data, model)}: the two limits, with 95 % intervals over explained inputs.")


def ig_convergence(experiment: Experiment1, folder: Path) -> Figure:
    figure, ax = plt.subplots(figsize=(7, 4))
    palette = sns.color_palette("colorblind", len(experiment.runs))
    markers = ["o", "s", "^", "D", "v", "P", "X", "*"]
    for i, (data, model) in enumerate(experiment.runs):
        means = experiment.of("ig_convergence", data, model).groupby("n")["value"].mean().clip(lower=1e-17)
        ax.loglog(means.index, means, marker=markers[i % 8], ms=4, color=palette[i], label=title(data, model))
    ax.plot(means.index, 1 / means.index, color="0.6", ls="--", label="1/n")
    ax.set(
        xlabel="nodes n of the Gauss–Legendre rule",
        ylabel="largest error of a weight, mean over inputs",
        title="Integrated Gradients against a fine midpoint rule, float64",
    )
    ax.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    path = save(figure, folder / "ig_convergence")
    return Figure(
        path,
        "Integrated Gradients: on linear, logistic and tanh models few nodes reach the reference's own error; "
        "on ReLU networks the error falls about like 1/n.",
    )

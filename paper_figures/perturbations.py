"""Experiment 3: perturbation tests as published, and the cross of layout and neighbourhood that takes them apart."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from scipy import stats

from paper_figures.results import Runs, published
from paper_figures.style import COLOURS, FAMILY_COLOURS, MARKERS, METHODS, WIDTH, Picture, save, short, title

REPLACE = {"baseline": "set to the baseline", "noise": "Gaussian noise added"}
WHICH = {"bottom": "least", "top": "most"}
TESTS = tuple((kind, replace) for kind in WHICH for replace in REPLACE)
EFFECTS = {
    "scaling": ("layout: w minus w ⊙ x", "o", "#0173b2"),
    "neighbourhood": ("neighbourhood: additive minus multiplicative", "s", "#d55e00"),
}


def figures(runs: Runs) -> dict[str, Callable[[Path], Picture]]:
    """Two per model, as in the paper; and the cross."""
    found: dict[str, Callable[[Path], Picture]] = {
        f"perturbations-{data}-{model}-{kind}": partial(curves, runs, data, model, kind)
        for data, model in runs.runs
        for kind in WHICH
    }
    return {**found, "perturbations-cross": partial(cross, runs), "perturbations-cells": partial(cells, runs)}


def curves(runs: Runs, data: str, model: str, kind: str, path: Path) -> Picture:
    """Mean over training seeds, bands of 95 % over them (over instances if there is one)."""
    frame = runs.of("curves", data, model)
    frame = frame[frame["native"] & (frame["kind"] == kind)]
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.9))
    for ax, (replace, words) in zip(axes, REPLACE.items(), strict=True):
        for method in METHODS:
            part = frame[(frame["replace"] == replace) & (frame["method"] == method)]
            wide = part.pivot_table(index="k", columns="training_seed", values="mean")
            mean, n = wide.mean(axis=1), wide.shape[1]
            if n > 1:
                half = stats.t.ppf(0.975, n - 1) * wide.std(axis=1) / n**0.5
                low, high = mean - half, mean + half
            else:
                low, high = (part.set_index("k")[side] for side in ("low", "high"))
            line = {"marker": MARKERS[method], "ms": 3, "lw": 1, "color": COLOURS[method]}
            ax.plot(mean.index, mean, label=short([method])[0], **line)
            ax.fill_between(mean.index, low, high, color=COLOURS[method], alpha=0.15, lw=0)
        ax.set(xlabel=f"k features said to matter {WHICH[kind]}", title=words)
        ax.set_ylim(0, None)
    axes[0].set_ylabel("mean change of the prediction")
    figure.legend(*axes[0].get_legend_handles_labels(), ncols=4, loc="outside lower center", frameon=False)
    figure.suptitle(f"{title(data, model)}: {kind}-k test", fontsize=9)
    networks = frame["training_seed"].nunique()
    areas = runs.of("auc", data, model)
    areas = areas[areas["native"] & (areas["kind"] == kind)]
    table = areas.pivot_table(index="method", columns="replace", values="auc11", sort=False).reset_index()
    theirs = published("perturbations", data, model)
    theirs = theirs[theirs["quantity"].str.startswith(kind)]
    caption = (
        f"{title(data, model)}: mean change when the k features said to matter {WHICH[kind]} are perturbed, methods "
        f"as they report themselves; mean of {networks} networks, bands: 95 % over "
        f"{'networks' if networks > 1 else 'inputs'}. Table: mean over k ≤ 11, as published."
    )
    beside = theirs.pivot_table(index="method", columns="quantity", values="value", sort=False).reset_index()
    return Picture(save(figure, path), caption, table, beside if len(theirs) else None)


def cross(runs: Runs, path: Path) -> Picture:
    """Both effects for every model and test, in per cent of the test's mean AUC."""
    figure, axes = plt.subplots(2, 2, figsize=(WIDTH, 0.36 * len(runs.runs) * 2 + 1.7), sharey=True)
    effects, rows = runs.tables["cross"], []
    scales = runs.tables["auc"].groupby(["data", "model", "kind", "replace"])["auc"].mean() / 100
    for ax, (kind, replace) in zip(axes.flat, TESTS, strict=True):
        for i, (data, model) in enumerate(runs.runs):
            scale = scales[data, model, kind, replace]
            for j, (effect, (label, marker, colour)) in enumerate(EFFECTS.items()):
                chosen = _is(effects, data, model, kind, replace) & (effects["effect"] == effect)
                one = effects[chosen & (effects["training_seed"] == -1)].iloc[0]
                y, values = i + 0.3 * j - 0.15, one[["value", "low", "high", "seeds_low", "seeds_high"]] / scale
                style = {"color": colour, "label": label if i == 0 else None}
                ax.plot([values["low"], values["high"]], [y, y], lw=4, alpha=0.35, color=colour, solid_capstyle="butt")
                ax.plot([values["seeds_low"], values["seeds_high"]], [y, y], lw=1, color=colour)
                ax.plot(values["value"], y, marker=marker, ms=3.5, ls="", **style)
                rows.append((title(data, model), f"{kind} {replace}", effect, *values))
        ax.axvline(0, color="0.5", lw=0.7)
        ax.set_yticks(range(len(runs.runs)), [title(*run) for run in runs.runs])
        better = "negative: w is better" if kind == "bottom" else "positive: w is better"
        ax.set_title(f"{kind}-k, {REPLACE[replace]}\n({better.replace('w is', 'w, additive')})", fontsize=8)
        if kind == "top":
            ax.set_xlabel("effect, % of the mean AUC")
    axes[0, 0].invert_yaxis()
    figure.legend(*axes[0, 0].get_legend_handles_labels(), ncols=2, loc="outside lower center", frameon=False)
    table = pd.DataFrame(
        rows, columns=["model", "test", "effect", "% of AUC", "low", "high", "low, networks", "high, networks"]
    )
    return Picture(save(figure, path), cross_caption(runs), table)


def cross_caption(runs: Runs) -> str:
    verdict = runs.tables["verdict"]
    by = verdict["crossed_split_by"].value_counts()
    whole = len(verdict)
    return (
        "What separates methods in the perturbation tests when every method is ranked by w and by w ⊙ x: the effect "
        "of the layout and of the neighbourhood, each averaged over the other. Thick: 95 % over inputs; thin: over "
        f"networks. Of {whole} tests (model × network × test), {int(verdict['native_split'].sum())} separate methods "
        "that report w from those that report w ⊙ x, as published; crossed, the layout alone separates all methods in "
        f"{by.get('layout', 0)}, the neighbourhood alone in {by.get('neighbourhood', 0)}, neither in "
        f"{by.get('neither', 0)}."
    )


def cells(runs: Runs, path: Path) -> Picture:
    """The 2 × 2 table itself: mean AUC by layout, a line per family."""
    auc = runs.tables["auc"].copy()
    auc["family"] = np.where(auc["method"].isin(("Vanilla Gradients", "SmoothGrad", "C-LIME")), "additive", "multipl.")
    keys = ["data", "model", "kind", "replace", "family", "ranked_by"]
    means = (
        auc.groupby([*keys, "training_seed"])["auc"].mean().groupby(keys).agg(["mean", "std", "count"]).reset_index()
    )
    means["half"] = stats.t.ppf(0.975, (means["count"] - 1).clip(lower=1)) * means["std"] / means["count"] ** 0.5
    figure, axes = plt.subplots(
        len(runs.runs), 4, figsize=(WIDTH, 1.05 * len(runs.runs) + 0.7), squeeze=False, sharex=True
    )
    colours = {"additive": FAMILY_COLOURS["local"], "multipl.": FAMILY_COLOURS["mask"]}
    for row, (data, model) in zip(axes, runs.runs, strict=True):
        for ax, (kind, replace) in zip(row, TESTS, strict=True):
            for family, colour in colours.items():
                part = means[_is(means, data, model, kind, replace) & (means["family"] == family)]
                part = part.set_index("ranked_by").loc[["w", "w*x"]]
                ax.errorbar(
                    [0, 1], part["mean"], part["half"].fillna(0), color=colour, marker="o", ms=3, lw=1, label=family
                )
            ax.set_xlim(-0.3, 1.3)
            ax.set_ylim(0, None)
            ax.set_xticks([0, 1], ["w", "w ⊙ x"])
            ax.tick_params(labelsize=6)
            if (data, model) == runs.runs[0]:
                ax.set_title(f"{kind}-k, {replace}", fontsize=8)
        row[0].set_ylabel(title(data, model).replace(", ", ",\n"), fontsize=7)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), ncols=2, loc="outside lower center", frameon=False)
    caption = (
        "The 2 × 2 table of the cross: mean AUC by layout and by family of neighbourhoods (95 % over networks). Steep, "
        "parallel lines: the layout decides; a gap between the lines: the neighbourhood does."
    )
    return Picture(save(figure, path), caption, means.drop(columns=["std", "count"]))


def _is(frame: pd.DataFrame, data: str, model: str, kind: str, replace: str) -> pd.Series:
    return (frame["data"] == data) & (frame["model"] == model) & (frame["kind"] == kind) & (frame["replace"] == replace)

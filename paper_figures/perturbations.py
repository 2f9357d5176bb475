"""Experiment 3: perturbation tests as published, and the cross of layout and neighbourhood that takes them apart."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from scipy import stats

from paper_figures.results import Runs, published
from paper_figures.style import (
    COLOURS,
    FAMILIES,
    FAMILY_COLOURS,
    MARKERS,
    METHODS,
    WIDTH,
    Picture,
    save,
    short,
    title,
)

REPLACE = {"baseline": "set to the baseline", "noise": "Gaussian noise added"}
WHICH = {"bottom": "least", "top": "most"}
TESTS = tuple((kind, replace) for kind in WHICH for replace in REPLACE)
EFFECTS = {
    "scaling": ("layout: w minus w ⊙ x", "o", "#0173b2"),
    "neighbourhood": ("neighbourhood: additive minus multiplicative", "s", "#d55e00"),
    "interaction": ("interaction: layout, additive minus multiplicative", "D", "#029e73"),
}
CELLS = {"additive": ("o", "-", FAMILY_COLOURS["local"]), "multiplicative": ("s", "--", FAMILY_COLOURS["mask"])}
DASHES = {
    method: style for methods in FAMILIES.values() for method, style in zip(methods, ("-", "--", ":"), strict=False)
}
WHERE = {
    "determined": "features with x ≠ b ranked and perturbed",
    "all": "all features, as published: slopes of masks and paths 0 where x = b",
}
KEYS = ["data", "model", "kind", "replace"]
VALUES = ["value", "low", "high", "seeds_low", "seeds_high"]
EVERY = 4  # k between a method's marks: other methods' stand between, so that equal curves can be told apart


def figures(runs: Runs) -> dict[str, Callable[[Path], Picture]]:
    """Two per model, as in the paper; and the cross, of the features with x ≠ b and of all."""
    found: dict[str, Callable[[Path], Picture]] = {
        f"perturbations-{data}-{model}-{kind}": partial(curves, runs, data, model, kind)
        for data, model in runs.runs
        for kind in WHICH
    }
    for features, end in (("determined", ""), ("all", "-all")):
        found[f"perturbations-cross{end}"] = partial(cross, runs, features)
        found[f"perturbations-cells{end}"] = partial(cells, runs, features)
    return found


def curves(runs: Runs, data: str, model: str, kind: str, path: Path) -> Picture:
    """Mean over training seeds, bands of 95 % over them (over instances if there is one)."""
    frame = runs.of("curves", data, model)
    frame = frame[frame["native"] & (frame["kind"] == kind)]
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.0))
    for ax, (replace, words) in zip(axes, REPLACE.items(), strict=True):
        for i, method in enumerate(METHODS):
            part = frame[(frame["replace"] == replace) & (frame["method"] == method)]
            wide = part.pivot_table(index="k", columns="training_seed", values="mean")
            mean, n = wide.mean(axis=1), wide.shape[1]
            if n > 1:
                half = stats.t.ppf(0.975, n - 1) * wide.std(axis=1) / n**0.5
                low, high = mean - half, mean + half
            else:
                low, high = (part.set_index("k")[side] for side in ("low", "high"))
            line = {"marker": MARKERS[method], "ms": 4, "lw": 1, "ls": DASHES[method], "color": COLOURS[method]}
            ax.plot(mean.index, mean, label=short([method])[0], markevery=(i % EVERY, EVERY), clip_on=False, **line)
            ax.fill_between(mean.index, low, high, color=COLOURS[method], alpha=0.15, lw=0)
        ax.set(xlabel=f"k features said to matter {WHICH[kind]}", title=words)
        ax.set_ylim(0, None)
        label(ax, frame[frame["replace"] == replace])
    axes[0].set_ylabel("mean change of the prediction")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=4, loc="outside lower center", frameon=False, handlelength=3)
    figure.suptitle(f"{title(data, model)}: {kind}-k test", fontsize=9)
    networks = frame["training_seed"].nunique()
    areas = runs.of("auc", data, model)
    areas = areas[areas["native"] & (areas["kind"] == kind) & (areas["features"] == "all")]
    table = areas.pivot_table(index="method", columns="replace", values="auc11", sort=False).reset_index()
    theirs = published("perturbations", data, model)
    theirs = theirs[theirs["quantity"].str.startswith(kind)]
    caption = (
        f"{title(data, model)}: mean change when the k features said to matter {WHICH[kind]} are perturbed, of all "
        f"features, methods as they report themselves; mean of {networks} networks, bands: 95 % over "
        f"{'networks' if networks > 1 else 'inputs'}. Table: mean over k ≤ 11, as published."
    )
    beside = theirs.pivot_table(index="method", columns="quantity", values="value", sort=False).reset_index()
    return Picture(save(figure, path), caption, table, beside if len(theirs) else None)


def label(ax: Axes, frame: pd.DataFrame) -> None:
    """What methods report, on their curves, beside where the two layouts lie farthest apart, not too near the ends."""
    means = frame.pivot_table(index="k", columns="ranked_by", values="mean")
    middle = means.iloc[len(means) // 4 : max(1, len(means) * 3 // 4)]
    k = int((middle["w"] - middle["w*x"]).abs().to_numpy().argmax()) + len(means) // 4
    step = max(1, len(means) // 8)
    for layout, place in zip(means, (max(0, k - step), min(len(means) - 1, k + step)), strict=True):
        box = {"fc": "w", "ec": "0.6", "lw": 0.5, "alpha": 0.85, "pad": 1.5}
        ax.text(
            means.index[place],
            means[layout].iloc[place],
            str(layout).replace("*", " ⊙ "),
            ha="center",
            va="center",
            fontsize=6,
            bbox=box,
        )


def shares(runs: Runs, features: str) -> pd.DataFrame:
    """Cells and effects, averaged over networks, in per cent of the test's mean AUC."""
    auc, effects = (_of(runs, name, features) for name in ("auc", "cross"))
    averaged = effects[effects["training_seed"] == -1].set_index([*KEYS, "effect"])
    scale = averaged[[]].join(auc.groupby(KEYS)["auc"].mean())["auc"]
    return averaged[VALUES].div(scale / 100, axis=0).sort_index()


def _of(runs: Runs, table: str, features: str) -> pd.DataFrame:
    frame = runs.tables[table]
    return frame[frame["features"] == features]


def mark(ax: Axes, x: float, y: float, values: pd.Series, vertical: bool = False, **style: Any) -> None:
    """A mark with its intervals, thick over inputs and thin over networks; hollow as its style says."""
    for low, high, width, alpha in (("low", "high", 4, 0.3), ("seeds_low", "seeds_high", 1, 1.0)):
        spans = [values[low], values[high]]
        at = ([x, x], spans) if vertical else (spans, [y, y])
        ax.plot(*at, color=style["color"], solid_capstyle="butt", lw=width, alpha=alpha)
    ax.plot(x, y, ms=3.5, ls="", clip_on=False, zorder=3, **style)


def cross(runs: Runs, features: str, path: Path) -> Picture:
    """The effects and their interaction for every model and test, in per cent of the test's mean AUC."""
    figure, axes = plt.subplots(2, 2, figsize=(1.2 * WIDTH, 0.42 * len(runs.runs) * 2 + 1.9), sharey=True)
    found = shares(runs, features)
    for ax, test in zip(axes.flat, TESTS, strict=True):
        for i, run in enumerate(runs.runs):
            part: Any = found.loc[(*run, *test), :]
            interaction = abs(part.loc["interaction", "value"])
            for j, (effect, (_, marker, colour)) in enumerate(EFFECTS.items()):
                values = part.loc[effect]
                hollow = effect != "interaction" and interaction >= abs(values["value"])
                style: dict[str, Any] = {"color": colour, "marker": marker, "mfc": "w" if hollow else colour}
                mark(ax, values["value"], i + 0.26 * (j - 1), values, **style)
        ax.axvline(0, color="0.5", lw=0.7, zorder=0)
        ax.set_yticks(range(len(runs.runs)), [title(*run) for run in runs.runs])
        better = "negative: w, additive better" if test[0] == "bottom" else "positive: w, additive better"
        ax.set_title(f"{test[0]}-k, {REPLACE[test[1]]}\n({better})", fontsize=8)
        if test[0] == "top":
            ax.set_xlabel("effect, % of the mean AUC")
    axes[0, 0].invert_yaxis()
    handles = [
        Line2D([], [], ls="", color=c, marker=marker, ms=3.5, label=words) for words, marker, c in EFFECTS.values()
    ]
    figure.legend(handles=handles, loc="outside lower center", frameon=False)
    figure.suptitle(WHERE[features], fontsize=8)
    table = found.loc[(*[slice(None)] * 4, list(EFFECTS)), :].reset_index()
    return Picture(save(figure, path), cross_caption(runs, features), table)


def cross_caption(runs: Runs, features: str) -> str:
    found = shares(runs, features)["value"].unstack("effect").abs()
    size = found.groupby("replace")[list(EFFECTS)].median()
    sizes = "; ".join(
        f"where {REPLACE[str(replace)].replace(' added', ' is added')} layout {row['scaling']:.0f} %, neighbourhood "
        f"{row['neighbourhood']:.1f} %, interaction {row['interaction']:.1f} %"
        for replace, row in size.iterrows()
    )
    large = int((found["interaction"] >= found["scaling"]).sum())
    verdict = _of(runs, "verdict", features).fillna("")
    silent = int((verdict["neighbourhood"] == "cannot say").sum())
    count = {
        name: int((~verdict[name].isin(("", "cannot say"))).sum())
        for name in ("layout", "neighbourhood", "layout_within", "neighbourhood_within")
    }
    return (
        f"Every method ranked by w and by w ⊙ x, {WHERE[features]}: effects of the layout and of the neighbourhood, "
        "each averaged over the other, and their interaction. Thick: 95 % over inputs; thin: over networks. Hollow: "
        "the interaction is as large as the effect, whose average is then no statement (for the layout in "
        f"{large} of {len(found)}). Median sizes: {sizes}. Of {len(verdict)} tests (model × network × test) "
        f"{int(verdict['native_split'].sum())} separate methods that report w from those that report w ⊙ x, as "
        "published. Crossed, the layout separates all methods, whatever their neighbourhood, in "
        f"{count['layout']} (in each family alone: {count['layout_within']}); the neighbourhood, whatever the layout, "
        f"in {count['neighbourhood']} (under each layout alone: {count['neighbourhood_within']}) of the "
        f"{len(verdict) - silent} where it can: in the other {silent} all methods have the same area under one layout, "
        "as on linear models."
    )


def cells(runs: Runs, features: str, path: Path) -> Picture:
    """The 2 × 2 table itself: mean AUC by layout, a line per family."""
    figure, axes = plt.subplots(
        len(runs.runs), 4, figsize=(1.2 * WIDTH, 1.05 * len(runs.runs) + 0.9), squeeze=False, sharex=True, sharey="col"
    )
    found = shares(runs, features)
    for row, run in zip(axes, runs.runs, strict=True):
        for ax, test in zip(row, TESTS, strict=True):
            part: Any = found.loc[(*run, *test), :]
            for j, (family, (marker, dashes, colour)) in enumerate(CELLS.items()):
                pair = part.loc[[f"{family} w", f"{family} w*x"]]
                places = [0.1 * j - 0.05, 1 + 0.1 * j - 0.05]  # beside each other, should they coincide
                ax.plot(places, pair["value"], color=colour, ls=dashes, lw=1, label=family)
                for x, (_, values) in zip(places, pair.iterrows(), strict=True):
                    mark(ax, x, values["value"], values, vertical=True, color=colour, marker=marker)
            ax.set_xlim(-0.3, 1.3)
            ax.margins(y=0.15)
            ax.set_xticks([0, 1], ["w", "w ⊙ x"])
            ax.tick_params(labelsize=6)
            if run == runs.runs[0]:
                ax.set_title(f"{test[0]}-k, {test[1]}", fontsize=8)
        row[0].set_ylabel(title(*run).replace(", ", ",\n"), fontsize=7)
    handles = [
        Line2D([], [], color=colour, ls=dashes, lw=1, marker=marker, ms=3.5, label=family)
        for family, (marker, dashes, colour) in CELLS.items()
    ]
    figure.legend(handles=handles, ncols=2, loc="outside lower center", frameon=False)
    figure.suptitle(f"mean AUC, % of the test's ({WHERE[features]})", fontsize=8)
    caption = (
        f"The 2 × 2 table of the cross, {WHERE[features]}: AUC by layout and by family of neighbourhoods in per cent "
        "of the test's mean (thick: 95 % over inputs; thin: over networks; axes do not begin at 0). A slope is the "
        "layout's effect, a gap the neighbourhood's; where the lines are not parallel each depends on the other."
    )
    table = found.loc[(*[slice(None)] * 4, [f"{family} {w}" for family in CELLS for w in ("w", "w*x")]), :]
    return Picture(save(figure, path), caption, table.reset_index())

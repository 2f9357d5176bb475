"""No free lunch: a heat map per model of what every method loses on every neighbourhood, and why."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.patches import Rectangle

from paper_figures.results import Runs
from paper_figures.style import SEQUENTIAL, WIDTH, Picture, save, short, title

LEAST, MOST = 1e-4, 1.0  # shares of the best constant's loss
NUMBERED = 0.01  # shares from which a cell is numbered, in per cent
COLUMNS = 2
NORM = LogNorm(LEAST, MOST, clip=True)
BELOW = "0.8"  # colour of what is below zero by more than LEAST
COLOURS = mpl.colormaps[SEQUENTIAL].with_extremes(bad=BELOW)
BANDS = ("_low", "", "", "_high")  # across a cell: the ends of the interval beside the estimate
PARTS = {"nonlinear": "f is not linear (features with x ≠ b)", "blind": "blind spots", "division": "division"}
MARKS = {"equivalent": "=", "undecided": "?", "worse": ""}


def figures(runs: Runs) -> dict[str, Callable[[Path], Picture]]:
    return {"no-free-lunch": partial(draw, runs)}


def draw(found: Runs, path: Path) -> Picture:
    """All models, two side by side."""
    across = min(COLUMNS, len(found.runs))
    down = -(-len(found.runs) // across)
    size = (1.5 * WIDTH, 2.4 * down + 1.2) if across > 1 else (WIDTH, 3.6)
    figure, grid = plt.subplots(down, across, figsize=size, squeeze=False, sharey="row")
    for ax in grid.flat[len(found.runs) :]:
        ax.set_visible(False)
    lost = found.tables["matrix"].query("training_seed == 0")
    divided = lost[lost[["blind", "division"]].max(axis=1) >= LEAST]["neighbourhood"]
    for i, (ax, run) in enumerate(zip(grid.flat, found.runs, strict=False)):
        matrix, verdict = (first(found, name, run) for name in ("matrix", "verdict"))
        panel(ax, matrix, set(divided), i + across >= len(found.runs))
        worse, curved = verdict["worse"] > 0, matrix[matrix["nonlinear_state"] == "worse"]["method"].nunique()
        ax.set_title(
            f"{title(*run)}\nworse than the optimum somewhere: {worse.sum()} of {len(verdict)}; "
            f"as f is not linear: {curved}",
            fontsize=7,
            pad=14,
        )
    bar = figure.colorbar(ScalarMappable(NORM, COLOURS), ax=grid, shrink=0.8, pad=0.01, extend="both", aspect=40)
    bar.set_label("lost ÷ loss of the best constant (median over inputs)")
    figure.suptitle(
        "What each explanation (row) loses on each neighbourhood (column), and why; red: its own", fontsize=8
    )
    caption = (
        "What the typical input loses on every neighbourhood, beyond the least possible (medians, between two stripes: "
        "the ends of their 95 % intervals; numbers: per cent of the best constant's loss; grey: below zero; =: shown "
        "to be within 1 %, ?: undecided; red: the method's own). Left what is lost since f is not linear, which the "
        "theorem is about: at features that the weights determine (x ≠ b), were the others chosen best. Then what "
        "masks and paths lose for other reasons: at features that are at the baseline already, of which they say "
        "nothing, and by dividing sampling errors by a small x − b. Shown to be worse than the optimum nowhere, first "
        "network: "
        f"{'; '.join(nowhere_worse(found, run) for run in found.runs)}."
    )
    return Picture(save(figure, path), caption, over_networks(found))


def first(found: Runs, table: str, run: tuple[str, str]) -> pd.DataFrame:
    """Of the first network."""
    return found.of(table, *run).query("training_seed == 0")


def over_networks(found: Runs) -> pd.DataFrame:
    """Per method: on how many networks it is shown worse nowhere, and the range of what it loses where it is worst."""
    groups = found.tables["verdict"].groupby(["data", "model", "method"], sort=False)
    return groups.agg(
        networks=("training_seed", "count"),
        nowhere_worse=("worse", lambda columns: int((columns == 0).sum())),
        worst_in=("worst_in", "first"),
        least_lost=("lost", "min"),
        largest_lost=("lost", "max"),
    ).reset_index()


def nowhere_worse(found: Runs, run: tuple[str, str]) -> str:
    """Which methods of a run are shown to be worse than the optimum in no column."""
    verdict = first(found, "verdict", run)
    those = verdict[verdict["worse"] == 0]["method"]
    names = "all" if len(those) == len(verdict) else ", ".join(those) or "none"
    return f"{names} ({title(*run)})"


def panel(ax: Axes, matrix: pd.DataFrame, divided: set[str], labelled: bool) -> None:
    """A block of columns for every part; the last two only where they are not 0."""
    methods, start = list(dict.fromkeys(matrix["method"])), 0
    every = list(dict.fromkeys(matrix["neighbourhood"]))
    labels: dict[int, str] = {}
    for part, name in PARTS.items():
        columns = every if part == "nonlinear" else [where for where in every if where in divided]
        if not columns:
            continue
        block(ax, matrix, part, methods, columns, start)
        ax.text(start + len(columns) / 2 - 0.5, -0.75, name, ha="center", va="bottom", fontsize=6)
        labels |= {start + j: where for j, where in enumerate(columns)}
        start += len(columns) + 1
    ax.set(xlim=(-0.5, start - 1.5), ylim=(len(methods) - 0.5, -0.5))
    ax.set_yticks(range(len(methods)), short(methods))
    ax.set_xticks(list(labels), short(labels.values()) if labelled else [""] * len(labels))
    plt.setp(ax.get_xticklabels(), rotation=45, ha="right", rotation_mode="anchor")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def block(ax: Axes, matrix: pd.DataFrame, part: str, methods: list[str], columns: list[str], start: int) -> None:
    """One part of what is lost, from column `start` of the axes."""
    cells = matrix.set_index(["method", "neighbourhood"])
    bands = [cells[f"{part}{end}"].unstack().loc[methods, columns].to_numpy(float) for end in BANDS]
    shades = np.stack(bands, axis=-1).reshape(len(methods), -1)
    extent = (start - 0.5, start + len(columns) - 0.5, len(methods) - 0.5, -0.5)
    below = np.ma.masked_where(shades < -LEAST, np.nan_to_num(shades))
    ax.imshow(below.clip(LEAST, None), norm=NORM, cmap=COLOURS, extent=extent, aspect="auto", interpolation="none")
    for (i, j), value in np.ndenumerate(bands[1]):
        cell = methods[i], columns[j]
        mark = MARKS[str(cells.loc[cell, "nonlinear_state"])] if part == "nonlinear" else ""
        dark = not value < -LEAST and NORM(np.nan_to_num(value)) < 0.6
        if text := percent(value) + mark:
            ax.text(
                start + j, i, text, ha="center", va="center", fontsize=4.5, color="w" if dark else "k", in_layout=False
            )
        if cell[0] == cell[1] and part == "nonlinear":
            ax.add_patch(Rectangle((j - 0.46, i - 0.46), 0.92, 0.92, fill=False, edgecolor="#d62728", lw=1.2))


def percent(share: float) -> str:
    """In per cent, at most four characters; "" where a share is too small to be worth one."""
    if np.isnan(share):
        return "–"
    if abs(share) < NUMBERED:
        return ""
    return (f"{100 * share:.0f}" if abs(share) < 100 else f"{100 * share:.0e}".replace("e+0", "e")).replace("-", "−")

"""No free lunch: a heat map per model of what every method loses on every neighbourhood, and why."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

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
PARTS = {"nonlinear": "f is not linear", "blind": "blind spots", "division": "division"}
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
    bar = figure.colorbar(ScalarMappable(NORM, SEQUENTIAL), ax=grid, shrink=0.8, pad=0.01, extend="both", aspect=40)
    bar.set_label("lost ÷ loss of the best constant (median over inputs)")
    figure.suptitle(
        "What each explanation (row) loses on each neighbourhood (column), and why; red: its own", fontsize=8
    )
    caption = (
        "What the typical input loses on every neighbourhood, beyond the least possible (medians; numbers: per cent of "
        "the best constant's loss, ≫: over 100; =: shown to be within 1 %, ?: undecided; red: the method's own). Left "
        "what is lost since f is not linear, which the theorem is about; then what masks and paths lose elsewhere for "
        "other reasons: at features that are at the baseline already, of which they say nothing, and by dividing "
        "sampling errors by a small x − b. Shown to be worse than the optimum nowhere, first network: "
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
    values = cells[part].unstack().loc[methods, columns].to_numpy(float)
    extent = (start - 0.5, start + len(columns) - 0.5, len(methods) - 0.5, -0.5)
    ax.imshow(np.clip(np.nan_to_num(values), LEAST, None), norm=NORM, cmap=SEQUENTIAL, extent=extent)
    for (i, j), value in np.ndenumerate(values):
        cell = methods[i], columns[j]
        mark = MARKS[str(cells.loc[cell, "nonlinear_state"])] if part == "nonlinear" else ""
        number = "–" if np.isnan(value) else "" if value < NUMBERED else "≫" if value > 1 else f"{100 * value:.0f}"
        colour = "w" if NORM(np.nan_to_num(value)) < 0.6 else "k"
        if number or mark:
            ax.text(start + j, i, number + mark, ha="center", va="center", fontsize=5, color=colour, in_layout=False)
        if cell[0] == cell[1] and part == "nonlinear":
            ax.add_patch(Rectangle((j - 0.46, i - 0.46), 0.92, 0.92, fill=False, edgecolor="#d62728", lw=1.2))

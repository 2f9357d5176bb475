"""No free lunch: a heat map per model of what every method loses on every neighbourhood."""

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


def figures(runs: Runs) -> dict[str, Callable[[Path], Picture]]:
    return {"no-free-lunch": partial(draw, runs)}


def draw(found: Runs, path: Path) -> Picture:
    """All models, two side by side."""
    across = min(COLUMNS, len(found.runs))
    down = -(-len(found.runs) // across)
    size = (WIDTH, 2.23 * down + 0.9) if across > 1 else (0.75 * WIDTH, 3.9)
    figure, grid = plt.subplots(down, across, figsize=size, squeeze=False, sharey="row")
    for ax in grid.flat[len(found.runs) :]:
        ax.set_visible(False)
    for i, (ax, run) in enumerate(zip(grid.flat, found.runs, strict=False)):
        panel(ax, first(found, "matrix", run), first(found, "verdict", run), title(*run), i + across >= len(found.runs))
    bar = figure.colorbar(ScalarMappable(NORM, SEQUENTIAL), ax=grid, shrink=0.8, pad=0.01, extend="both", aspect=40)
    bar.set_label("regret ÷ loss of the best constant")
    heading = ["What each explanation (row) loses on each neighbourhood (column);", "red: its own"]
    figure.suptitle((" " if across > 1 else "\n").join(heading), fontsize=8)
    caption = (
        "Regret on every neighbourhood (numbers: per cent of the best constant's loss, ≫: over 100; red: the method's "
        "own; dark also where it is negative, as for a surrogate that misses rows to be interpolated). Shown to be "
        f"beyond the optimum nowhere, first network: {'; '.join(nowhere_beyond(found, run) for run in found.runs)}."
    )
    return Picture(save(figure, path), caption, over_networks(found))


def first(found: Runs, table: str, run: tuple[str, str]) -> pd.DataFrame:
    """Of the first network."""
    return found.of(table, *run).query("training_seed == 0")


def over_networks(found: Runs) -> pd.DataFrame:
    """Per method: on how many networks it is shown beyond the optimum nowhere, and the range of what it loses."""
    groups = found.tables["verdict"].groupby(["data", "model", "method"], sort=False)
    return groups.agg(
        networks=("training_seed", "count"),
        nowhere_beyond=("beyond_optimum", lambda columns: int((columns == 0).sum())),
        clearest_in=("clearest_in", "first"),
        least_lost_low=("lost_low", "min"),
        largest_lost_low=("lost_low", "max"),
    ).reset_index()


def nowhere_beyond(found: Runs, run: tuple[str, str]) -> str:
    """Which methods of a run are shown to be beyond the optimum in no column."""
    verdict = first(found, "verdict", run)
    those = verdict[verdict["beyond_optimum"] == 0]["method"]
    names = "all" if len(those) == len(verdict) else ", ".join(those) or "none"
    return f"{names} ({title(*run)})"


def panel(ax: Axes, matrix: pd.DataFrame, verdict: pd.DataFrame, name: str, labelled: bool) -> None:
    wide = matrix.pivot_table(index="method", columns="neighbourhood", values="lost", sort=False, dropna=False)
    lost = wide.loc[list(dict.fromkeys(matrix["method"])), list(dict.fromkeys(matrix["neighbourhood"]))]
    values = lost.to_numpy(float)
    ax.imshow(np.clip(np.nan_to_num(values), LEAST, None), norm=NORM, cmap=SEQUENTIAL)
    for i, method in enumerate(lost.index):
        for j, where in enumerate(lost.columns):
            if values[i, j] >= NUMBERED:
                text = "≫" if values[i, j] > 1 else f"{100 * values[i, j]:.0f}"
                dark = NORM(values[i, j]) < 0.6
                ax.text(j, i, text, ha="center", va="center", fontsize=6, color="w" if dark else "k", in_layout=False)
            if method == where:
                ax.add_patch(Rectangle((j - 0.46, i - 0.46), 0.92, 0.92, fill=False, edgecolor="#d62728", lw=1.5))
    ax.set_yticks(range(len(lost.index)), short(lost.index))
    ax.set_xticks(range(len(lost.columns)), short(lost.columns) if labelled else [""] * len(lost.columns))
    plt.setp(ax.get_xticklabels(), rotation=45, ha="right", rotation_mode="anchor")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    nowhere = int((verdict["beyond_optimum"] == 0).sum())
    ax.set_title(f"{name}\nnowhere beyond: {nowhere} of {len(verdict)}")

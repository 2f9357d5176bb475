"""No free lunch: a heat map per model of what every method loses on every neighbourhood.

python -m paper_figures.no_free_lunch --results results/paper
"""

from pathlib import Path

import numpy as np
import pandas as pd
import tyro
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.patches import Rectangle

from paper_figures.experiment1 import Figure
from paper_figures.results import NoFreeLunch, read_no_free_lunch
from paper_figures.style import SEQUENTIAL, save, style, title

LEAST, MOST = 1e-4, 1.0  # shares of the best constant's loss
NUMBERED = 0.01  # shares from which a cell is numbered, in per cent
COLUMNS = 4
NORM = LogNorm(LEAST, MOST, clip=True)


def draw(found: NoFreeLunch, folder: Path) -> Figure:
    """All models side by side, as PDF and PNG."""
    runs = len(found.runs)
    across = runs if runs < COLUMNS else min(COLUMNS, -(-runs // 2))
    down = -(-runs // across)
    with style():
        figure, grid = plt.subplots(
            down, across, figsize=(3.1 * across + 1.6, 3.1 * down + 0.9), squeeze=False, sharey="row"
        )
        for ax in grid.flat[len(found.runs) :]:
            ax.set_visible(False)
        for i, (ax, run) in enumerate(zip(grid.flat, found.runs, strict=False)):
            panel(ax, found.of("matrix", *run), found.of("verdict", *run), title(*run), i + across >= len(found.runs))
        bar = figure.colorbar(ScalarMappable(NORM, SEQUENTIAL), ax=grid, shrink=0.8, pad=0.01, extend="both")
        bar.set_label("regret, as a share of the best constant's loss")
        figure.suptitle("What each explanation (row) loses on each neighbourhood (column); red: its own")
        path = save(figure, folder / "no_free_lunch")
    caption = (
        "Regret on every neighbourhood (numbers: per cent of the best constant's loss; red: the method's own; dark "
    )
    caption += "also where it is negative, as for a surrogate that misses rows to be interpolated). At the optimum "
    return Figure(path, f"{caption}everywhere: {'; '.join(everywhere(found, run) for run in found.runs)}.")


def everywhere(found: NoFreeLunch, run: tuple[str, str]) -> str:
    """Which methods of a run are at the optimum everywhere."""
    verdict = found.of("verdict", *run)
    best = verdict[verdict["best_everywhere"]]["method"]
    names = "all" if len(best) == len(verdict) else ", ".join(best) or "none"
    return f"{names} ({title(*run)})"


def panel(ax: Axes, matrix: pd.DataFrame, verdict: pd.DataFrame, name: str, labelled: bool) -> None:
    wide = matrix.pivot_table(index="method", columns="neighbourhood", values="lost", sort=False, dropna=False)
    lost = wide.loc[list(dict.fromkeys(matrix["method"])), list(dict.fromkeys(matrix["neighbourhood"]))]
    values = lost.to_numpy(float)
    ax.imshow(np.clip(np.nan_to_num(values), LEAST, None), norm=NORM, cmap=SEQUENTIAL)
    for i, method in enumerate(lost.index):
        for j, where in enumerate(lost.columns):
            if values[i, j] >= NUMBERED:
                text = ">100" if values[i, j] > 1 else f"{100 * values[i, j]:.0f}"
                dark = NORM(values[i, j]) < 0.6
                ax.text(j, i, text, ha="center", va="center", fontsize=6, color="w" if dark else "k")
            if method == where:
                ax.add_patch(Rectangle((j - 0.46, i - 0.46), 0.92, 0.92, fill=False, edgecolor="#d62728", lw=1.5))
    ax.set_yticks(range(len(lost.index)), lost.index)
    ax.set_xticks(range(len(lost.columns)), lost.columns if labelled else [""] * len(lost.columns))
    plt.setp(ax.get_xticklabels(), rotation=45, ha="right", rotation_mode="anchor")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_title(f"{name}\nbest everywhere: {int(verdict['best_everywhere'].sum())} of {len(verdict)}")


def main(results: Path = Path("results/paper")) -> Path:
    """Draw results/figures/no_free_lunch.pdf and .png; returns the PNG."""
    return draw(read_no_free_lunch(results), results / "figures").image


if __name__ == "__main__":
    print(tyro.cli(main))

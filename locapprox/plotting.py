"""Statistical plots. matplotlib is imported when the first one is drawn."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Axes
else:
    Axes = Any

NEGATIVE, POSITIVE = "#2166ac", "#b2182b"  # as in images: blue and red


def axes(ax: Axes | None) -> Axes:
    """The given axes, or the current ones."""
    from matplotlib import pyplot as plt

    return plt.gca() if ax is None else ax


def as_text(text: object) -> str:
    """Text as it is: of a name, $ is no formula."""
    return str(text).replace("$", r"\$")


def draw_image(values: np.ndarray, title: str, ax: Axes | None = None) -> Axes:
    """(height, width) on a diverging scale about 0."""
    ax = axes(ax)
    limit = np.abs(values).max() or 1.0
    ax.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit)
    ax.set_axis_off()
    ax.set_title(title)
    return ax


def draw_bars(
    names: Sequence[str], weights: np.ndarray, half: np.ndarray, top: int, title: str, ax: Axes | None = None
) -> Axes:
    """The largest weights with half the width of their intervals."""
    ax = axes(ax)
    order = np.argsort(np.abs(np.nan_to_num(weights)))[-top:]
    colours = np.where(weights[order] < 0, NEGATIVE, POSITIVE).tolist()
    ax.barh([as_text(names[i]) for i in order], weights[order], xerr=half[order], color=colours, ecolor="0.3")
    ax.axvline(0, color="0.3", linewidth=0.8)
    ax.set_xlabel("weight (95 % interval)")
    ax.set_title(title)
    return ax


def draw_points(
    placed: np.ndarray,
    weight: np.ndarray,
    x: np.ndarray,
    names: Sequence[str],
    features: tuple[int, int],
    title: str,
    ax: Axes | None = None,
) -> Axes:
    """Rows (n, entries) in two of their entries, coloured by weight; those to interpolate as squares; x as a star."""
    ax = axes(ax)
    (i, j), finite = features, np.isfinite(weight)
    dots = ax.scatter(placed[finite, i], placed[finite, j], c=weight[finite], s=8, cmap="viridis", alpha=0.6)
    ax.figure.colorbar(dots, ax=ax, label="weight")
    ax.scatter(*placed[~finite][:, [i, j]].T, marker="s", facecolor="none", edgecolor="k", label="interpolated")
    ax.scatter(x[i], x[j], marker="*", s=120, color="k", label="the instance")
    ax.set(xlabel=as_text(names[i]), ylabel=as_text(names[j]), title=title)
    ax.legend(loc="best", fontsize="small")
    return ax


def draw_profile(
    widths: np.ndarray,
    weights: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    r2: np.ndarray,
    names: Sequence[str],
    top: int,
    title: str,
) -> tuple[Axes, Axes]:
    """The weights (widths, features) that are largest anywhere, with bands, above R² (widths,); both against width."""
    from matplotlib import pyplot as plt

    upper, lower = plt.figure(layout="constrained").subplots(2, 1, sharex=True, height_ratios=(3, 1))
    largest = np.nan_to_num(np.abs(weights)).max(0)
    for j in np.argsort(-largest, kind="stable")[:top]:
        (line,) = upper.plot(widths, weights[:, j], marker="o", markersize=3, label=as_text(names[j]))
        upper.fill_between(widths, low[:, j], high[:, j], color=line.get_color(), alpha=0.15, linewidth=0)
    upper.axhline(0, color="0.3", linewidth=0.8)
    upper.set(ylabel="weight", title=as_text(title), xscale="log")
    upper.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    lower.plot(widths, r2, marker="o", markersize=3, color="0.2")
    shown = widths[:: -(-len(widths) // 8)]
    lower.set_xticks(shown, [f"{width:.3g}" for width in shown])
    lower.minorticks_off()
    lower.set(xlabel="width of the neighbourhood", ylabel="$R^2$", xlim=(widths[0] / 1.1, widths[-1] * 1.1))
    return upper, lower


def draw_ranking(
    names: Sequence[str],
    numbers: np.ndarray,
    kinds: np.ndarray,
    notes: Sequence[str],
    label: str,
    title: str,
    ax: Axes | None = None,
) -> Axes:
    """Ratios with intervals, rows (ratio, low, high), on a log scale, the first on top; a note where the ratio is NaN.

    Kinds: 0 a hollow dot, 1 a filled one, 2 a filled one in another colour.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator

    ax = axes(ax)
    rows, known = np.arange(len(names))[::-1], np.isfinite(numbers).all(1)
    ax.hlines(rows[known], numbers[known, 1], numbers[known, 2], color="0.4")
    colours = [("white", "0.2"), ("0.2", "0.2"), ("tab:orange", "tab:orange")]
    for (face, edge), kind in zip(colours, range(3), strict=True):
        some = kinds == kind
        ax.scatter(numbers[some, 0], rows[some], facecolor=face, edgecolor=edge, zorder=3)
    ax.axvline(1, color="0.3", linewidth=0.8)
    ax.set_xscale("log")
    span = np.nanmax(numbers, initial=1.0) / np.nanmin(numbers, initial=1.0)
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if span < 100 else (1,)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.minorticks_off()
    for row, note in zip(rows[np.isnan(numbers[:, 0])], np.array(notes)[np.isnan(numbers[:, 0])], strict=True):
        ax.annotate(note, (0.5, row), xycoords=("axes fraction", "data"), ha="center", va="center", color="0.4")
    ax.set_yticks(rows, [as_text(name) for name in names])
    ax.set_ylim(-0.5, len(names) - 0.5)
    ax.set_xlabel(as_text(label))
    ax.set_title(as_text(title))
    return ax


def draw_matrix(
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    ax: Axes | None = None,
    texts: np.ndarray | None = None,
) -> Axes:
    """A heat map with its numbers, every column on a scale of its own, since columns differ in units; or shares of 1,
    on one scale, with these texts."""
    ax = axes(ax)
    size = np.abs(values)
    most = np.nanmax(size, axis=0, keepdims=True, initial=0.0) if texts is None else np.ones_like(size)
    shade = np.sqrt(np.divide(size, most, out=np.zeros_like(size), where=most > 0))
    ax.imshow(np.ma.masked_invalid(shade), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for i, j in np.ndindex(*values.shape):
        colour = "white" if shade[i, j] > 0.7 else "black"
        text = f"{values[i, j]:.2g}" if texts is None else str(texts[i, j])
        ax.text(j, i, text, ha="center", va="center", color=colour, fontsize="small")
    ax.set_xticks(range(len(columns)), [as_text(name) for name in columns], rotation=35, ha="right")
    ax.set_yticks(range(len(rows)), [as_text(name) for name in rows])
    ax.set(xlabel="neighbourhood", ylabel="method", title=title)
    return ax

"""Attributions on the pixel grid: one picture, or a figure with a row per image and a column per method."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from locapprox._explain import N_SAMPLES
from locapprox._explainer import as_maps, named
from locapprox._explanation import Explanation
from locapprox._parts import positive
from locapprox._problem import Problem
from locapprox.models.inputs import floating
from locapprox.models.scores import Target
from locapprox.plotting import Axes, axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:
    Figure = Any

SIGNS = ("all", "positive", "negative", "absolute_value")  # as in captum's visualize_image_attr
COLOURS = "coolwarm"  # diverging, designed to be perceptually uniform (Moreland 2009)
GREYS = "gray"


def picture(
    weights: Any,
    image: Any = None,
    *,
    sign: str = "all",
    outliers: float = 2.0,
    limit: float | None = None,
    alpha: float = 0.7,
    ax: Axes | None = None,
) -> Axes:
    """The weights of one image (height, width) or (channels, height, width), summed over channels.

    Main arguments:
        image: shown in grey below, the weights over it with opacity `alpha`; None: the weights alone.
        sign: which weights to show, as in captum.
        outliers: the colour scale ends at the least weight such that those up to it in size make up 100 − `outliers`
            per cent of Σ|w| (captum's `outlier_perc`); larger ones are clipped. `limit` sets the end itself.
    """
    values = signed(weights, sign)
    end = scale(values, outliers) if limit is None else positive(limit, "limit")
    below = None if image is None else grey(image)
    if below is not None and below.shape != values.shape:
        raise ValueError(f"image is {below.shape}, the weights are {values.shape}: they must have one height and width")
    ax = axes(ax)
    if below is not None:
        ax.imshow(below, cmap=GREYS)
    ax.imshow(values, cmap=COLOURS, vmin=-end, vmax=end, alpha=None if below is None else alpha)
    ax.set_xticks([])
    ax.set_yticks([])
    return ax


def pictures(
    images: Any,
    attributions: Any,
    *,
    sign: str = "all",
    outliers: float = 2.0,
    overlay: bool = False,
    shared: bool = True,
    names: Sequence[str] | None = None,
    model: Any = None,
    target: Target = None,
    n_samples: int = N_SAMPLES,
) -> Figure:
    """A row per image, a column per method, and the images first.

    `attributions` are Explanations, arrays (b, height, width) or (b, channels, height, width), or, with `model` and
    `target`, Methods (fitted with n_samples) and Explainers: one, a list or a dict of names.

    One symmetric scale per method, shared by its images, ends as in `picture`: methods differ in units (a gradient per
    unit of x, a contribution in units of f), images of one method do not. shared=False gives every picture its own:
    where a probability is near 1 its gradient is small, and would not be seen beside others.

    The figure is pyplot's, which keeps it open until it is shown or closed: `plt.close(figure)`.
    """
    from matplotlib import pyplot as plt
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    parts = as_maps(
        named(attributions, "attributions"), None if model is None else Problem(model, images, target), n_samples
    )
    images, columns = floating(images, "images"), {}
    if images.ndim not in (3, 4) or images.numel() == 0:
        raise ValueError(f"images must be (b, channels, height, width), got shape {tuple(images.shape)}")
    if names is not None and len(names) != len(images):
        raise ValueError(f"names has {len(names)}, there are {len(images)} images")
    for name, given in parts.items():
        maps = given.on_input() if isinstance(given, Explanation) else floating(given, f"attributions: {name!r}")
        if maps.ndim < 3 or len(maps) != len(images) or maps.shape[-2:] != images.shape[-2:]:
            raise ValueError(
                f"attributions: {name!r} is {tuple(maps.shape)}, the images are {tuple(images.shape)}; they must have "
                "one map of the same height and width per image"
            )
        columns[name] = np.stack([signed(one, sign) for one in maps])
    size = (1.25 * (len(columns) + 1) + 0.7, 1.25 * len(images) + 0.45)
    figure, grid = plt.subplots(len(images), len(columns) + 1, figsize=size, squeeze=False, layout="constrained")
    for i, row in enumerate(grid):
        picture_of(row[0], images[i])
        if names is not None:
            row[0].set_ylabel(names[i], fontsize=8)
        for ax, values in zip(row[1:], columns.values(), strict=True):
            end = scale(values if shared else values[i], outliers)
            picture(values[i], images[i] if overlay else None, limit=end, ax=ax)
    for ax, name in zip(grid[0], ["image", *columns], strict=True):
        ax.set_title(name, fontsize=8)
    bar = figure.colorbar(ScalarMappable(Normalize(-1, 1), COLOURS), ax=grid, fraction=0.03, pad=0.01, extend="both")
    whose = "its method's scale" if shared else "its scale"
    bar.set_label(f"weight ÷ end of {whose} ({100 - outliers:g} % of Σ|w|)", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure


def signed(weights: Any, sign: str = "all") -> np.ndarray:
    """(height, width): the sum over channels, and of it the part that `sign` asks for."""
    if sign not in SIGNS:
        raise ValueError(f"sign must be one of {', '.join(SIGNS)}; got {sign!r}")
    if isinstance(weights, Explanation):
        raise TypeError("weights must be one map, such as e.on_input()[0]; `lx.pictures` takes Explanations")
    values = floating(weights, "weights").cpu().double()
    if values.ndim not in (2, 3) or values.numel() == 0:
        raise ValueError(f"weights must be (height, width) or (channels, height, width), got {tuple(values.shape)}")
    values = values if values.ndim == 2 else values.sum(0)
    part = {"all": values, "positive": values.clamp_min(0), "negative": values.clamp_max(0)}
    return part.get(sign, values.abs()).numpy()


def scale(values: np.ndarray, outliers: float = 2.0) -> float:
    """The least |v| such that those up to it make up 100 − `outliers` per cent of Σ|v|; 1 if all are 0."""
    if not isinstance(outliers, int | float | np.number) or not 0 <= outliers < 100:
        raise ValueError(f"outliers must be a percentage from 0 to below 100, got {outliers!r}")
    size = np.sort(np.abs(np.nan_to_num(values)), axis=None)
    total = np.cumsum(size)
    end = size[min(int(np.searchsorted(total, total[-1] * (1 - outliers / 100))), len(size) - 1)]
    return float(end) or 1.0


def picture_of(ax: Axes, image: Any) -> None:
    """The image itself: in colour if it has three channels, scaled to its own range."""
    values = floating(image, "image").cpu().double()
    if values.ndim == 3 and len(values) == 3:
        low, high = values.min(), values.max()
        ax.imshow(((values - low) / (high - low).clamp_min(1e-12)).permute(1, 2, 0).numpy())
    else:
        ax.imshow(grey(image), cmap=GREYS)
    ax.set_xticks([])
    ax.set_yticks([])


def grey(image: Any) -> np.ndarray:
    values = floating(image, "image").cpu().double()
    if values.ndim not in (2, 3):
        raise ValueError(f"image must be (height, width) or (channels, height, width), got {tuple(values.shape)}")
    return (values if values.ndim == 2 else values.mean(0)).numpy()

"""Units: whether a number that was not chosen for a table can be right for its columns."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

ENOUGH = 10  # instances, to know a column by
SCALED = 10.0  # standardised columns, and those between 0 and 1, lie within, and spread less
FAR = 1000.0  # between a σ and a column's standard deviation


class Unsaid(float):
    """A default that nobody chose."""


ZERO, SIGMA = Unsaid(0.0), Unsaid(0.1)


def zero_outside(x: Tensor, names: Sequence[str] | None) -> str | None:
    """A sentence if 0 is far from all values in columns of a table.

    Far: all values are on one side of 0, their median by more than the interquartile range, in columns that are not
    scaled, nor in units (pixels, counts) in which a quarter of the columns reach both 0 and that median.
    """
    if not _known(x):
        return None
    ordered = x.sort(0).values
    low, middle, high = (ordered[round(q * (len(x) - 1))] for q in (0.25, 0.5, 0.75))
    one_sided = (x > 0).all(0) | (x < 0).all(0)
    reached = x.abs().amax(0)[(x == 0).any(0)].sort().values
    alike = len(reached) - torch.searchsorted(reached, middle.abs().contiguous())
    found = one_sided & (middle.abs() > (high - low).clamp_min(SCALED)) & (4 * alike < x.shape[1])
    if not bool(found.any()):
        return None
    return (
        f"the baseline is 0, which was not chosen, and no instance is near 0 in {_columns(found, names)}: give "
        "baseline= one input, such as the mean of the data, or lx.Background(rows); baseline=0.0 says that 0 is meant"
    )


def unlike(sigma: float, x: Tensor, names: Sequence[str] | None, chosen: bool) -> str | None:
    """A sentence if one σ is far below the standard deviation of columns that are not scaled, or, not chosen, far above
    that of all columns."""
    if not _known(x):
        return None
    spread = x.std(0)
    below, above = spread > max(FAR * sigma, SCALED), not chosen and 0 < float(spread.max()) < sigma / FAR
    if not above and not bool(below.any()):
        return None
    how, found = ("more than a thousand times", spread > 0) if above else ("less than a thousandth of", below)
    return (
        f"sigma={sigma:g} is one number for all columns, and {how} the standard deviation of "
        f"{_columns(found, names)}: scale x, or give one for each (sigma=0.1 * x.std(0))"
    )


def _known(x: Tensor) -> bool:
    return x.ndim == 2 and len(x) >= ENOUGH and bool(x.isfinite().all())


def _columns(found: Bool[Tensor, " d"], names: Sequence[str] | None) -> str:
    places: list[int] = found.nonzero().flatten().tolist()
    columns = [str(j) if names is None else names[j] for j in places]
    more = f" … ({len(columns)} columns)" if len(columns) > 5 else ""
    return f"column{'s' * (len(columns) > 1)} {', '.join(columns[:5])}{more}"

"""What is known of the typical instance: medians with intervals that need no assumption about tails, and three states.

Regrets and errors have tails so heavy that one instance in thirty carries most of a mean (a masked weight divided by a
tiny x − b), and no interval of such a mean covers. The median's needs only that instances are independent.
"""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

FEWEST_FOR_A_MEAN = 15  # areas under perturbation curves: t intervals of 6 cover .87 to .96, of 15 .92 to .97
WORSE, EQUIVALENT, UNDECIDED = STATES = ("worse", "equivalent", "undecided")


class Interval(NamedTuple):
    """An estimate and the bounds of its interval; NaN where too few values know nothing of it."""

    estimate: float
    low: float
    high: float

    def state(self, margin: float) -> str:
        """`worse`: shown to be above the margin; `equivalent`: shown to be within ± margin, by two one-sided tests."""
        if self.low > margin:
            return WORSE
        return EQUIVALENT if -margin < self.low and self.high < margin else UNDECIDED


def median(values: np.ndarray, level: float) -> Interval:
    """Of independent values of any distribution: order statistics, interpolated.

    [x₍ₖ₎, x₍ₙ₊₁₋ₖ₎] covers the median with probability 1 − 2 P(Binomial(n, ½) < k); between the two k whose
    probabilities enclose the level by Hettmansperger and Sheather (1986). Fewer than 6 values have no bounds at 95 %.
    """
    from scipy.special import bdtr

    x = np.sort(np.asarray(values, float))
    n = len(x)
    if n == 0 or np.isnan(x).any():
        return Interval(math.nan, math.nan, math.nan)
    covers = 1 - 2 * bdtr(np.arange(max(1, n // 2)), n, 0.5)  # by k = 1 … n / 2
    k = int((covers >= level).sum())
    if k == 0:
        return Interval(float(np.median(x)), math.nan, math.nan)
    inner = covers[k] if k < len(covers) else 0.0
    step = (covers[k - 1] - level) / (covers[k - 1] - inner)
    share = (n - k) * step / (k + (n - 2 * k) * step)
    low, high = (float(_between(side[k - 1], side[min(k, n - 1)], share)) for side in (x, x[::-1]))
    return Interval(float(np.median(x)), low, high)


def _between(a: float, b: float, share: float) -> float:
    return a if a == b else (1 - share) * a + share * b  # of two infinities


def typical(values: pd.Series, level: float) -> Interval:
    """The median over instances of the mean over replicate draws, for other instances and other draws: see
    `typical_of`. `values` are indexed by instance and replicate."""
    return typical_of(values.unstack("replicate").to_numpy(), level)


def typical_of(values: np.ndarray, level: float) -> Interval:
    """The same of values (instances, replicates).

    Instances share a draw, so its error moves all of them: to the squared half widths of `median` comes the variance of
    the replicates' own medians / replicates, with Welch and Satterthwaite's degrees. Without replicates nothing is
    known of other draws; one instance speaks for itself only.
    """
    from scipy.special import ndtri, stdtrit

    (instances, replicates), z = values.shape, ndtri((1 + level) / 2)
    center = median(values.mean(1), level)
    if replicates < 2:
        return center if instances > 1 else Interval(center.estimate, math.nan, math.nan)
    of_draws = float(np.median(values, axis=0).var(ddof=1)) / replicates
    ends = []
    for end, sign in ((center.low, -1), (center.high, 1)):
        of_instances = ((end - center.estimate) / z) ** 2 if instances > 1 else 0.0
        variance = of_instances + of_draws
        degrees = variance**2 * (replicates - 1) / of_draws**2 if of_draws > 0 else math.inf
        quantile = stdtrit(degrees, (1 + level) / 2) if math.isfinite(degrees) else z
        ends.append(float(center.estimate + sign * quantile * variance**0.5))
    return Interval(center.estimate, *ends)


def fewest(level: float) -> int:
    """How many values bound their median at all: the least and the largest do, with probability 1 − 2^(1 − n)."""
    return math.ceil(1 - math.log2(1 - level))


def needed(interval: Interval, margin: float, instances: int, level: float) -> float:
    """How many instances (and replicates in proportion) would decide on an undecided interval, were its estimate true:
    widths fall as n^−½."""
    estimate, low, high = interval
    if not (math.isfinite(low) and math.isfinite(high)):
        return float(max(fewest(level), instances + 1))
    edges = [edge for edge in (-margin, margin) if low <= edge <= high]
    widths = [((high if estimate < edge else low) - estimate, edge - estimate) for edge in edges]
    factors = [(end / gap) ** 2 if gap else math.inf for end, gap in widths]
    return float(max(fewest(level), np.ceil(instances * max(factors, default=math.inf))))


def t_intervals(frame: pd.DataFrame, by: list[str], value: str, level: float) -> pd.DataFrame:
    """Mean of each group with its t interval; NaN below `FEWEST_FOR_A_MEAN` values."""
    from scipy.special import stdtrit

    table = frame.groupby(by, sort=False)[value].agg(["mean", "sem", "count"]).reset_index()
    half = table.pop("sem") * stdtrit(table["count"] - 1, (1 + level) / 2)
    half = half.where(table.pop("count") >= FEWEST_FOR_A_MEAN)
    return table.assign(low=table["mean"] - half, high=table["mean"] + half)

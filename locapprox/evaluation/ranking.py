"""Who may be best: methods compared by their errors on the same instances and draws, whatever the tails."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from locapprox.evaluation.intervals import EQUIVALENT, Interval, fewest, typical_of

DESIGNED = "designed for it"
SAME = 1e-9  # of the best constant's loss: errors that differ by less differ by rounding

Predicted = Callable[[str, str], str]


class Group(NamedTuple):
    """Methods that are one answer, and why ("" for a method alone)."""

    methods: tuple[str, ...]
    why: str


@dataclass(frozen=True, eq=False)
class Errors:
    """Of methods on the same instances and draws, each (instances, replicates).

    Over draws errors are averaged on the log scale, over instances by the median: a typical draw, a typical instance.
    Differences below 1e-9 of the constant's loss (its own, or the median one if that is more) are none.
    """

    error: Mapping[str, np.ndarray]
    constant: np.ndarray  # loss of the best constant surrogate

    @cached_property
    def rounding(self) -> np.ndarray:
        least: np.ndarray = np.maximum(SAME * np.maximum(self.constant, np.median(self.constant)), 1e-300)
        return least

    @cached_property
    def log_share(self) -> dict[str, np.ndarray]:
        """log of error / constant's loss."""
        constant = np.log(np.maximum(self.constant, self.rounding))
        return {name: np.log(np.maximum(error, self.rounding)) - constant for name, error in self.error.items()}

    def log_ratio(self, name: str, other: str) -> np.ndarray:
        """log of one error / the other; 0 where they differ by rounding."""
        differ = np.abs(self.error[name] - self.error[other]) > self.rounding
        return np.where(differ, self.log_share[name] - self.log_share[other], 0.0)

    def gap(self, name: str, other: str) -> np.ndarray:
        """|error − other error| as a share of the constant's loss."""
        gap = np.abs(self.error[name] - self.error[other])
        share: np.ndarray = np.where(gap > self.rounding, gap, 0.0) / np.maximum(self.constant, self.rounding)
        return share

    def row(self, name: str) -> dict[str, Any]:
        """What is known of one method alone. Usable: better than the best constant, typically and in the mean."""
        shares = self.log_share[name].mean(1)
        error, constant = float(self.error[name].mean()), float(self.constant.mean())
        r2 = 1 - error / constant if constant > 0 else np.nan
        explained, worse = 1 - float(np.exp(np.median(shares))), float((shares >= 0).mean())
        head = {"method": name, "error": error, "r2": r2, "explained": explained, "worse_than_constant": worse}
        return {**head, "usable": explained > 0 and r2 > 0}


@dataclass(frozen=True, eq=False)
class Ranking:
    """`table` as `Recommendation` describes it; the confidence set in groups; the designed method's gain."""

    table: pd.DataFrame
    groups: list[Group]
    gain: Interval


def ranked(errors: Errors, level: float, margin: float, predicted: Predicted) -> Ranking:
    """Existing methods against each other, and the designed one against the best of those that may be best.

    `predicted(a, b)` says why theory makes two methods one answer, "" if it does not.
    """
    rows = sorted(map(errors.row, errors.error), key=_usable_and_best_first)
    existing = [row for row in rows if row["method"] != DESIGNED]
    usable = [str(row["method"]) for row in existing if row["usable"]]
    chosen = confidence_set(errors, usable, level, len(existing) - 1)
    groups = grouped(errors, sorted(usable, key=lambda name: name not in chosen), level, margin, predicted)
    first = {name: next(iter(group)) for group in groups for name in group}
    for row in rows:
        name = str(row["method"])
        against = errors.log_ratio(name, chosen[0]) if chosen else errors.log_share[name]
        ratio = Interval(*map(float, np.exp(typical_of(against, level))))
        row |= {"ratio": ratio.estimate, "low": ratio.low, "high": ratio.high}
        row |= {"in_set": name in chosen, "group": first.get(name, "")}
    own = next(row for row in rows if row["method"] == DESIGNED)
    gain = Interval(1 - own["ratio"], 1 - own["high"], 1 - own["low"])
    within = [{name: why for name, why in group.items() if name in chosen} for group in groups]
    answers = [Group(tuple(group), "; ".join(dict.fromkeys([*group.values()][1:]))) for group in within if group]
    return Ranking(pd.DataFrame(rows), answers, gain)


def _usable_and_best_first(row: dict[str, Any]) -> tuple[bool, float, float]:
    explained = row["explained"]
    return not row["usable"], np.inf if np.isnan(explained) else -explained, row["error"]


def confidence_set(errors: Errors, usable: Sequence[str], level: float, comparisons: int) -> list[str]:
    """Those that are not shown to err more than another on most instances.

    Each of a method's comparisons is one-sided at (1 − level) / comparisons, so one that errs less than every other on
    most instances is removed with probability 1 − level at most (of eight equals at 95 %: .03 to .05; .06 where five
    replicates' draws are all that is not known). If each is shown worse than another (a cycle), all.
    """
    worse: set[str] = set()
    for a, b in combinations(usable, 2):
        ratio = typical_of(errors.log_ratio(a, b), corrected(level, comparisons))
        worse |= {a} if ratio.low > 0 else {b} if ratio.high < 0 else set()
    return [name for name in usable if name not in worse] or list(usable)


def corrected(level: float, comparisons: int) -> float:
    """Of two-sided intervals, of which one side each is used."""
    return max(0.5, 1 - 2 * (1 - level) / max(1, comparisons))


def least_instances(level: float, comparisons: int) -> int:
    """With fewer, no method can be removed from the set."""
    return fewest(corrected(level, comparisons))


def grouped(
    errors: Errors, names: Sequence[str], level: float, margin: float, predicted: Predicted
) -> list[dict[str, str]]:
    """Every method joins the first group whose first method it ties with: per group its methods, and why each ties."""
    groups: list[dict[str, str]] = []
    for name in names:
        for group in groups:
            first = next(iter(group))
            if why := predicted(first, name) or tied(errors, first, name, level, margin):
                group[name] = why
                break
        else:
            groups.append({name: ""})
    return groups


def tied(errors: Errors, a: str, b: str, level: float, margin: float) -> str:
    """Why two methods are one answer as far as their errors show, or ""."""
    gap = errors.gap(a, b)
    if bool((gap == 0).all()):
        return "they are the same surrogate here"
    if typical_of(gap, level).state(margin) != EQUIVALENT:
        return ""
    return f"on most instances their errors agree within {100 * margin:g} % of the best constant's loss"

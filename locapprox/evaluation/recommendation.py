"""What `recommend` answers, as a table, in sentences and as a figure."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from locapprox._explanation import Explanation
from locapprox.evaluation.intervals import Interval
from locapprox.evaluation.ranking import DESIGNED, Group, least_instances
from locapprox.plotting import Axes, draw_ranking


@dataclass(frozen=True, eq=False, repr=False)
class Recommendation:
    """Which existing methods may be best on one neighbourhood, and what the method designed for it would gain.

    `table`, a row per method, usable ones first: error (mean over instances and draws); r2 = 1 − mean error / mean loss
    of the best constant; explained = 1 − error / the constant's loss on the typical instance (median over instances of
    the geometric mean over draws); worse_than_constant, the share of instances where it errs as much as the constant;
    usable, whether explained and r2 are above zero; ratio, the median of its error / that of the first of the set (of
    the constant's loss, if the set is empty), with its interval low … high; in_set; group, the first of its ties.

    `confidence_set`: the usable existing methods that are not shown to err more than another on most instances.
    `groups`: the set, with ties as one answer and the reason for each. `gain`: the share of the error of the first of
    the set (of the constant) that the designed method saves on the typical instance, 1 − its ratio, with its interval.
    """

    table: pd.DataFrame
    groups: list[Group]
    gain: Interval
    designed: Explanation
    left_out: dict[str, str]
    loss: str
    level: float
    instances: int

    @property
    def confidence_set(self) -> list[str]:
        return [str(name) for name in self.table["method"][self.table["in_set"]]]

    @property
    def winner(self) -> str | None:
        """The first of the set if the set is one method, or one group of ties."""
        return self.groups[0].methods[0] if len(self.groups) == 1 else None

    def __str__(self) -> str:
        with pd.option_context("display.width", 120, "display.max_columns", None):
            return f"{self.table.to_string(index=False, float_format='{:.3g}'.format)}\n{self.summary()}"

    __repr__ = __str__

    def summary(self) -> str:
        """The answer, in a few sentences."""
        return said(self)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Typical errors as multiples of that of the first of the set, with their intervals, on a log scale.

        Filled dots may be best; what is not usable has its R² in place of a dot.
        """
        to = self.confidence_set[0] if self.confidence_set else "the best constant"
        label = f"{self.loss} / that of {to}\n(typical instance, {self.level:.0%} interval)"
        title = f"choose {self.winner}" if self.winner else "no winner" if self.confidence_set else "none is usable"
        filled = np.where(self.table["method"] == DESIGNED, 2, self.table["in_set"])
        notes = [f"not usable, R² {r2:.2g}" for r2 in self.table["r2"]]
        ratios = self.table[["ratio", "low", "high"]].where(self.table["usable"]).to_numpy(float)
        return draw_ranking(list(self.table["method"]), ratios, filled, notes, label, title, ax)


def said(answer: Recommendation) -> str:
    """What a recommendation shows, in sentences with numbers."""
    rows = answer.table.set_index("method")
    if rows["r2"].isna().all() and (rows["error"] == 0).all():
        return "f does not vary on this neighbourhood, and every explanation says so: there is nothing to choose by."
    sentences = [_choice(answer, rows), _designed(answer, rows)]
    lost = rows[~rows["usable"] & (rows.index != DESIGNED)]
    if len(lost):
        each = (f"{n} (R² {r['r2']:.2g}, worse on {r['worse_than_constant']:.0%})" for n, r in lost.iterrows())
        sentences.append(f"No better than a constant: {', '.join(each)}.")
    if answer.left_out:
        sentences.append(f"(Left out: {', '.join(answer.left_out)}; `left_out` says why.)")
    return " ".join(sentences)


def _choice(answer: Recommendation, rows: pd.DataFrame) -> str:
    chosen, comparisons = answer.confidence_set, len(rows) - 2
    if not chosen:
        return "No winner: of the existing methods none is usable here, each errs as much as the best constant."
    best = rows.loc[chosen[0]]
    explains = f"{chosen[0]} explains {best['explained']:.0%} on the typical instance, R² {best['r2']:.2g}"
    if comparisons == 0:
        return f"Of the existing methods only one was asked about: {explains}."
    ties = "".join(f" {' and '.join(tie.methods)} are one answer: {tie.why}." for tie in answer.groups if tie.why)
    if answer.winner is not None:
        first = (
            f"Of the existing methods choose {' or '.join(chosen)}: of those usable {'they' if ties else 'it'} alone"
        )
        first += f" {'are' if ties else 'is'} not shown to err more than another on most instances"
        first += f" ({answer.level:.0%} confidence); {explains}."
        return first + ties + _against_the_mean(chosen, rows)
    first = f"No winner: {len(chosen)} existing methods may be best, {', '.join(chosen)}; {explains}."
    least = least_instances(answer.level, comparisons)
    if 1 < answer.instances < least:
        first += f" {answer.instances} instances cannot tell {len(rows) - 1} methods apart, {least} are the least."
    return first + ties + _against_the_mean(chosen, rows)


def _against_the_mean(chosen: list[str], rows: pd.DataFrame) -> str:
    """Says so if a method outside the set errs less in the mean."""
    others = rows[rows["usable"] & ~rows["in_set"] & (rows.index != DESIGNED)]["error"]
    least = rows.loc[chosen, "error"].min()
    if not len(others) or others.min() >= least:
        return ""
    errs = f"{others.idxmin()} errs less, {others.min():.3g} against {least:.3g}"
    return f" In the mean {errs}, which few instances decide."


def _designed(answer: Recommendation, rows: pd.DataFrame) -> str:
    own, chosen = rows.loc[DESIGNED], answer.confidence_set
    explains = f"explains {own['explained']:.0%} on the typical instance"
    if not bool(own["usable"]):
        return f"Nor is the method designed for this neighbourhood: no linear surrogate fits here (it {explains})."
    gain, low, high = answer.gain
    if not chosen:
        bounds = "" if np.isnan(low) else f" ({low:.0%} to {high:.0%})"
        return f"The method designed for this neighbourhood {explains}{bounds}."
    here, ratio = (
        f"The method designed for this neighbourhood {explains}",
        f"{own['ratio']:.3g} times as much as {chosen[0]}",
    )
    if np.isnan(low):
        return f"{here}: it errs {ratio}, too few instances for an interval."
    ratio += f" ({own['low']:.3g} to {own['high']:.3g})"
    if low > 0:
        return f"{here}: it errs {ratio}, {gain:.1%} less."
    return f"{here} and is not shown to be better: it errs {ratio}."

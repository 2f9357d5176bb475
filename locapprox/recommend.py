"""Which explanation should I choose? The one that fits best on the neighbourhood you care about, if any does."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from scipy import stats

from locapprox.explain import explain
from locapprox.explanation import Explanation
from locapprox.faithfulness import Methods, explained, loss_name, measured, named
from locapprox.losses import Loss, SquaredError
from locapprox.method import Method
from locapprox.methods import paper_methods
from locapprox.models import Array, Target, whole_number
from locapprox.neighbourhoods import Neighbourhood

DESIGNED = "designed for it"
SAME = 1e-9  # of the best constant's loss: errors that differ by less differ by rounding


@dataclass(frozen=True, eq=False, repr=False)
class Recommendation:
    """A ranking of methods by their mean error on one neighbourhood.

    `table`: one row per method, best first: error (mean over instances and replicate draws), r2, and the paired
    difference to the best existing method with its interval (behind, low, high). `gain` is the share of the best
    existing method's error that the method designed for the neighbourhood saves, with its interval.
    """

    table: pd.DataFrame
    winner: str | None  # None if another existing method may be as good
    designed: Explanation
    gain: tuple[float, float, float]
    left_out: dict[str, str]
    loss: str
    level: float

    def __str__(self) -> str:
        with pd.option_context("display.width", 120, "display.max_columns", None):
            return f"{self.table.to_string(index=False, float_format='{:.3g}'.format)}\n{self.summary()}"

    __repr__ = __str__

    def summary(self) -> str:
        """The answer, in two sentences."""
        existing = self.table[self.table["method"] != DESIGNED]
        best = existing.iloc[0]
        if self.winner is not None:
            first = f"Of the existing methods choose {self.winner}: its {self.loss} of {best['error']:.3g} here is the "
            first += f"lowest, at {self.level:.0%} confidence."
        else:
            rivals = ", ".join(existing[existing["low"] <= 0]["method"])
            first = f"No winner: the intervals of {rivals} overlap here ({self.loss} from {best['error']:.3g})."
        gain, low, high = self.gain
        if not np.isfinite(gain):
            second = "The method designed for this neighbourhood cannot do better: the error is zero already."
        elif low > 0:
            second = f"The method designed for this neighbourhood errs less by {gain:.1%} ({low:.1%} to {high:.1%})."
        else:
            second = "The method designed for this neighbourhood is not measurably better"
            second += f" (it errs less by {gain:.1%}, {low:.1%} to {high:.1%})."
        left_out = f" (Left out: {', '.join(self.left_out)}; `left_out` says why.)" if self.left_out else ""
        return f"{first} {second}{left_out}"

    def plot(self, ax: Axes | None = None) -> Axes:
        """Mean errors; bars are intervals of the paired difference to the best existing method."""
        ax = plt.gca() if ax is None else ax
        table = self.table.iloc[::-1]
        half = (table["high"] - table["low"]).to_numpy() / 2
        colours = ["#b2182b" if name == DESIGNED else "#2166ac" for name in table["method"]]
        ax.errorbar(table["error"], range(len(table)), xerr=half, fmt="none", ecolor="0.4", capsize=2)
        ax.scatter(table["error"], range(len(table)), c=colours, zorder=3)
        ax.set_yticks(range(len(table)), table["method"])
        ax.set_xlabel(f"{self.loss} ({self.level:.0%} interval of the difference to the best)")
        ax.set_title(f"winner: {self.winner}" if self.winner else "no winner")
        return ax


def recommend(
    model: Any,
    x: Array,
    neighbourhood: Neighbourhood,
    *,
    loss: Loss = SquaredError(),  # noqa: B008 (frozen)
    methods: Methods | None = None,
    target: Target = None,
    seed: int = 0,
    n_samples: int = 1000,
    replicates: int = 5,
    level: float = 0.95,
    batch_size: int | None = None,
) -> Recommendation:
    """Rank methods by their error on a neighbourhood, and against the method designed for it (fitted there).

    Main arguments:
        neighbourhood: where the explanation should hold.
        methods: existing methods to choose from; by default those of the paper's eight that can explain the model:
            without gradients some cannot, on unscaled data LIME's width of 1 is too narrow. `left_out` says why.

    Other arguments:
        n_samples: draws per fit and per evaluation, made anew for each of `replicates` seeds.

    A winner is named if its error is below that of every other existing method at the given level (paired t, two-sided;
    all comparisons must hold, so none needs a correction). The variance of a mean difference is that over instances
    / instances plus that over replicate draws / replicates, its degrees of freedom by Welch and Satterthwaite: the
    interval holds for other instances of the kind and for other draws. One instance speaks for itself only.
    Differences below 1e-9 of the best constant's loss are rounding and no difference.
    """
    replicates, seed = whole_number(replicates, "replicates", least=2), whole_number(seed, "seed", least=0)
    if isinstance(neighbourhood, Method):
        raise TypeError("neighbourhood must have draw and place; of a Method pass method.neighbourhood and method.loss")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    designed = Method(DESIGNED, neighbourhood, loss)
    chosen, left_out = runnable(model, x, named(paper_methods() if methods is None else methods, "methods"), target)
    if DESIGNED in chosen:
        raise ValueError(f"methods must not be called {DESIGNED!r}")
    if not chosen:
        raise ValueError(f"methods: none can explain this model; {'; '.join(left_out.values())}")
    frames: list[pd.DataFrame] = []
    first: dict[str, Explanation] = {}
    for name, method in {**chosen, DESIGNED: designed}.items():
        try:
            first |= explained(model, x, {name: method}, target, n_samples, seed, batch_size)
        except ValueError as error:  # LIME's default width on unscaled data, say
            if methods is not None or name == DESIGNED:
                raise
            left_out[name] = str(error)
    chosen = {name: method for name, method in chosen.items() if name in first}
    for r in range(replicates):
        again = {**chosen, DESIGNED: designed}
        fitted = explained(model, x, again, target, n_samples, seed + r, batch_size) if r else first
        column = {"here": designed}
        frame = measured(model, x, fitted, column, target, n_samples, seed + r, batch_size=batch_size)
        frames.append(frame.assign(replicate=r))
    table, gain = ranked(pd.concat(frames), level)
    best = table[table["method"] != DESIGNED]
    winner = None if bool((best["low"].iloc[1:] <= 0).any()) else str(best["method"].iloc[0])
    return Recommendation(table, winner, first[DESIGNED], gain, left_out, loss_name(loss), level)


def ranked(frame: pd.DataFrame, level: float) -> tuple[pd.DataFrame, tuple[float, float, float]]:
    """Mean errors with paired intervals to the best existing method, and the designed method's gain on that one."""
    errors = frame.pivot_table(index=["instance", "replicate"], columns="method", values="error", sort=False)
    means, constant = errors.mean(), float(frame["constant"].mean())
    best = str(means.drop(DESIGNED).idxmin())
    rows = []
    for name in errors:
        behind, half = paired(errors[name] - errors[best], level)
        if name != best and abs(behind) + half < SAME * constant:
            half = SAME * constant
        r2 = 1 - float(means[str(name)]) / constant if constant > 0 else np.nan
        rows.append((name, float(means[str(name)]), r2, behind, behind - half, behind + half))
    table = pd.DataFrame(rows, columns=["method", "error", "r2", "behind", "low", "high"])
    table = table.sort_values("error", kind="stable", ignore_index=True)
    own = table[table["method"] == DESIGNED]
    if means[best] <= SAME * constant:
        return table, (np.nan, np.nan, np.nan)
    gain, low, high = (-float(own[key].iloc[0]) / float(means[best]) for key in ("behind", "high", "low"))
    return table, (gain, low, high)


def paired(difference: pd.Series, level: float) -> tuple[float, float]:
    """Mean over (instance, replicate) and half its t interval for other instances and other draws."""
    wide = difference.unstack("replicate")
    parts = [by.var() / len(by) for by in (wide.mean(axis=1), wide.mean(axis=0)) if len(by) > 1]
    variance = sum(parts)
    sizes = [len(by) for by in (wide.index, wide.columns) if len(by) > 1]
    spread = sum(part**2 / (size - 1) for part, size in zip(parts, sizes, strict=True))
    if variance == 0:
        return float(wide.to_numpy().mean()), 0.0
    quantile = stats.t.ppf((1 + level) / 2, variance**2 / spread)
    return float(wide.to_numpy().mean()), float(quantile * variance**0.5)


def runnable(model: Any, x: Array, methods: dict[str, Any], target: Target) -> tuple[dict[str, Any], dict[str, str]]:
    """The methods that can explain the model, and why the others cannot."""
    left_out = {}
    for name, method in methods.items():
        if isinstance(method, Method) and method.loss.gradient > 0:
            try:
                explain(model, x, method, 2, target, progress=False)
            except TypeError as error:
                left_out[name] = str(error)
    return {name: method for name, method in methods.items() if name not in left_out}, left_out

"""Which explanation should I choose? The one that fits best on the neighbourhood you care about, if any does."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from locapprox._explain import N_SAMPLES
from locapprox._explainer import named
from locapprox._explanation import Explanation
from locapprox._method import Method
from locapprox._methods import paper_methods
from locapprox._parts import child_seeds, share, whole_number
from locapprox._problem import Problem
from locapprox.evaluation.columns import Matrix, columns_of
from locapprox.evaluation.intervals import paired
from locapprox.fit.losses import Loss, SquaredError
from locapprox.models.inputs import Array
from locapprox.models.scores import NoGradientError, Target
from locapprox.neighbourhoods.base import Neighbourhood
from locapprox.plotting import Axes, draw_ranking

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
        half = (self.table["high"] - self.table["low"]).to_numpy() / 2
        label = f"{self.loss} ({self.level:.0%} interval of the difference to the best)"
        title = f"winner: {self.winner}" if self.winner else "no winner"
        names, errors = list(self.table["method"]), self.table["error"].to_numpy()
        return draw_ranking(names, errors, half, DESIGNED, label, title, ax)


def recommend(
    model: Any,
    x: Array,
    neighbourhood: Neighbourhood,
    *,
    loss: Loss = SquaredError(),  # noqa: B008 (frozen)
    methods: Any = None,
    target: Target = None,
    seed: int = 0,
    n_samples: int = N_SAMPLES,
    replicates: int = 5,
    level: float = 0.95,
    like: Method | None = None,
    batch_size: int | None = None,
    progress: bool = True,
) -> Recommendation:
    """Rank methods by their error on a neighbourhood, and against the method designed for it (fitted there).

    Main arguments:
        neighbourhood: where the explanation should hold.
        methods: existing ones to choose from (Methods, Explanations, Explainers or arrays, as in `faithfulness`); by
            default those of the paper's eight that can explain the model: without gradients some cannot, on unscaled
            data LIME's width of 1 is too narrow. `left_out` says why.

    Other arguments:
        n_samples: draws per fit and per evaluation, made anew for each of `replicates` seeds.
        like: the Method whose units arrays, and Explainers that do not say, have (see `as_explanation`).

    A winner is named if its error is below that of every other existing method at the given level (paired t, two-sided;
    all comparisons must hold, so none needs a correction). Intervals hold for other instances of the kind and for other
    draws. One instance speaks for itself only.
    Differences below 1e-9 of the best constant's loss are rounding and no difference.
    """
    replicates, seed = whole_number(replicates, "replicates", least=2), whole_number(seed, "seed", least=0)
    if isinstance(neighbourhood, Method):
        raise TypeError("neighbourhood must have draw and place; of a Method pass method.neighbourhood and method.loss")
    level = share(level, "level")
    designed = Method(DESIGNED, neighbourhood, loss)
    chosen = named(paper_methods() if methods is None else methods, "methods")
    if DESIGNED in chosen:
        raise ValueError(f"methods must not be called {DESIGNED!r}")
    n_samples, problem = whole_number(n_samples, "n_samples"), Problem(model, x, target, batch_size)
    matrix = Matrix(problem, chosen, list(columns_of({"here": designed})), n_samples, like=like)
    frames: list[pd.DataFrame] = []
    own: list[Explanation] = []  # of the designed method, by replicate
    left_out: dict[str, str] = {}
    seeds = child_seeds(seed, replicates)
    for r, one in enumerate(tqdm(seeds, "recommend: replicates", delay=2, leave=False, disable=not progress)):
        own.append(matrix.explanation(DESIGNED, designed, one))
        fits: dict[str, Explanation] = {}
        for name in [name for name in chosen if name not in left_out]:
            try:
                fits[name] = matrix.explanation(name, chosen[name], one)
            except (NoGradientError, ValueError) as error:
                if methods is not None and not isinstance(error, NoGradientError):
                    raise
                left_out[name] = str(error)  # no gradients; of the default methods, LIME's width on unscaled data, say
        if not fits:
            raise ValueError(f"methods: none can explain this model; {'; '.join(left_out.values())}")
        frames.append(matrix.of_explanations({**fits, DESIGNED: own[-1]}, one).assign(replicate=r))
    whole = pd.concat(frames)
    table, gain = ranked(whole[~whole["method"].isin(left_out)], level)
    best = table[table["method"] != DESIGNED]
    winner = None if bool((best["low"].iloc[1:] <= 0).any()) else str(best["method"].iloc[0])
    return Recommendation(table, winner, own[0], gain, left_out, loss.name, level)


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

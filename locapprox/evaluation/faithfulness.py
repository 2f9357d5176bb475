"""Any surrogate on any neighbourhood: its error, the least error possible there, and what it misses (regret)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from locapprox._explainer import named
from locapprox._method import Method
from locapprox._parts import child_seeds, share, whole_number
from locapprox._problem import Problem
from locapprox.evaluation.columns import Intercept, Matrix, columns_of
from locapprox.evaluation.intervals import EQUIVALENT, STATES, UNDECIDED, WORSE, needed, typical
from locapprox.models.inputs import Array
from locapprox.models.scores import Target
from locapprox.neighbourhoods.base import Neighbourhood
from locapprox.plotting import Axes, draw_matrix

ROUNDED = 1e-9  # of the regret: a part that is smaller is rounding
MARGIN = 0.01  # of the best constant's loss
MEASURES = ("error", "optimum", "regret", "blind", "division", "nonlinear", "violation", "r2")
MARKS = {WORSE: "", EQUIVALENT: " =", UNDECIDED: " ?"}


@dataclass(frozen=True, eq=False, repr=False)
class Faithfulness:
    """Methods on neighbourhoods. `table` has a row per method, neighbourhood and instance (and replicate draw, if there
    are several), with the columns that `faithfulness` describes.

    A method is judged by what it loses on the typical instance: the median of `lost`, with an interval that holds for
    any distribution of it. Means are of the instances at hand, and one in thirty may carry most of them. A cell has
    one of three states, at the level corrected over the method's neighbourhoods (Bonferroni): *worse*, shown to lose
    more than `margin` (a share of the best constant's loss); *equivalent*, shown to be within it; or *undecided*.
    """

    _measured: pd.DataFrame
    level: float
    margin: float

    @property
    def table(self) -> pd.DataFrame:
        replicates = self._measured["replicate"].nunique()
        return self._measured.drop(columns=["constant", *(["replicate"] if replicates == 1 else [])])

    def matrix(self, value: str = "lost") -> pd.DataFrame:
        """A row per method, a column per neighbourhood: medians of what is `lost`, the `state`, or means of a measure
        over instances and replicates."""
        if value not in (choices := ("lost", "state", *MEASURES)):
            raise ValueError(f"value must be one of {', '.join(choices)}; got {value!r}")
        if value in MEASURES:
            return self._measured.pivot_table(
                index="method", columns="neighbourhood", values=value, sort=False, dropna=False
            )
        return self._wide(self.summary(), value)

    def summary(self) -> pd.DataFrame:
        """Per method and neighbourhood: means over instances and replicates; `lost`, the median over instances, with
        its interval for other instances and other draws (low, high); the share of instances on which the method is
        worse than the best constant; the state, and how many instances (with replicates in proportion) an undecided
        one would need.

        Instances share a draw, whose error moves them together: without replicates the interval knows of other
        instances alone. One instance speaks for itself only.
        """
        rows, corrected = [], self._corrected
        for (method, where, loss), part in self._measured.groupby(["method", "neighbourhood", "loss"], sort=False):
            lost = part.set_index(["instance", "replicate"])["lost"]
            own, strict = typical(lost, self.level), typical(lost, corrected)
            instances, state = part["instance"].nunique(), strict.state(self.margin)
            useless = part.groupby("instance")[["error", "constant"]].mean()
            more = needed(strict, self.margin, instances, corrected) if state == UNDECIDED else np.nan
            rows.append(
                {
                    "method": method,
                    "neighbourhood": where,
                    "loss": loss,
                    "instances": instances,
                    **part[["error", "optimum", "regret", "violation", "constant"]].mean(),
                    "lost": own.estimate,
                    "low": own.low,
                    "high": own.high,
                    "worse_than_constant": float((useless["error"] >= useless["constant"]).mean()),
                    "state": state,
                    "needed": more,
                }
            )
        return pd.DataFrame(rows)

    def verdict(self) -> pd.DataFrame:
        """Per method: in how many neighbourhoods it is shown to be worse, shown to be equivalent, and undecided; and
        where it loses most (`worst_in`, the largest estimate), with the estimate and its interval there."""
        rows = []
        for method, part in self.summary().groupby("method", sort=False):
            counts = {state: int((part["state"] == state).sum()) for state in STATES}
            worst = part.reset_index(drop=True).iloc[int(np.argmax(part["lost"].fillna(-np.inf)))]
            where = {"worst_in": worst["neighbourhood"], **worst[["lost", "low", "high"]]}
            rows.append({"method": method, "columns": len(part), **counts, **where})
        return pd.DataFrame(rows)

    def parts(self) -> pd.DataFrame:
        """Why: per method and neighbourhood, three parts of `lost` (see `faithfulness`; what a missed row costs counts
        as non-linear): medians over instances with their intervals, means, and the state of the non-linear one.

        Means add up to the mean of `lost`; medians need not. NaN where a part of an instance is unknown.
        """
        rows, measured = [], self._measured.set_index(["instance", "replicate"])
        for (method, where), part in measured.groupby(["method", "neighbourhood"], sort=False):
            exact = part["regret"].abs() * ROUNDED
            shares = {
                name: (part[name] / part["constant"]).where(part[name].abs() > exact, 0 * part[name])
                for name in ("blind", "division", "nonlinear")
            }
            rest = part["lost"] - shares["blind"] - shares["division"]
            shares["nonlinear"] = rest.where(np.isfinite(part["lost"]), shares["nonlinear"])  # of a flat f, ∞ − ∞
            medians = {name: typical(share, self.level) for name, share in shares.items()}
            strict = typical(shares["nonlinear"], self._corrected)
            rows.append(
                {
                    "method": method,
                    "neighbourhood": where,
                    **{name: median.estimate for name, median in medians.items()},
                    **{f"mean_{name}": share.mean(skipna=False) for name, share in shares.items()},
                    **{f"{name}_low": median.low for name, median in medians.items()},
                    **{f"{name}_high": median.high for name, median in medians.items()},
                    "nonlinear_state": strict.state(self.margin),
                }
            )
        return pd.DataFrame(rows)

    def plot(self, value: str = "lost", ax: Axes | None = None) -> Axes:
        """The matrix as a heat map: what is lost in per cent, with its state, or a measure, every column on a scale of
        its own, since columns differ in units."""
        if value not in ("lost", "state"):
            wide = self.matrix(value)
            title = f"mean {value} (shades: square root, each column on its own scale)"
            return draw_matrix(wide.to_numpy(float), list(wide.index), list(wide.columns), title, ax)
        summary = self.summary()
        wide, texts = self._wide(summary, "lost"), self._texts(summary)
        title = f"lost on the typical instance, % of the best constant's loss\n{self._legend}"
        shares = wide.to_numpy(float).clip(0, 1)
        return draw_matrix(shares, list(wide.index), list(wide.columns), title, ax, texts.to_numpy())

    def _texts(self, summary: pd.DataFrame) -> pd.DataFrame:
        """What is lost, in per cent, with the mark of its state."""
        shown = [percent(lost) + MARKS[state] for lost, state in zip(summary["lost"], summary["state"], strict=True)]
        return self._wide(summary.assign(shown=shown), "shown")

    def _wide(self, summary: pd.DataFrame, value: str) -> pd.DataFrame:
        """In the order of methods and neighbourhoods."""
        wide = summary.pivot_table(
            index="method", columns="neighbourhood", values=value, sort=False, dropna=False, aggfunc="first"
        )
        return wide.reindex(index=summary["method"].unique(), columns=summary["neighbourhood"].unique())

    @property
    def _corrected(self) -> float:
        """The level at which each of a method's neighbourhoods is judged, so that `level` holds for all of them."""
        return 1 - (1 - self.level) / self._measured["neighbourhood"].nunique()

    @property
    def _legend(self) -> str:
        return f"=: shown within {100 * self.margin:g} %, ?: undecided"

    def __repr__(self) -> str:
        head = f"Faithfulness: lost on the typical instance, % of the best constant's loss ({self._legend})"
        with pd.option_context("display.width", 160, "display.max_columns", None):
            return f"{head}\n{self._texts(self.summary()).to_string()}"

    def _repr_html_(self) -> str:
        return f"<p>lost on the typical instance, % of the best constant's loss ({self._legend})</p>" + (
            self._texts(self.summary()).to_html()
        )


def percent(share: float) -> str:
    """Two digits, and no more than is worth reading."""
    if np.isnan(share):
        return "–"
    if share >= 10 or 0 < abs(share) < 1e-6:
        return "≫" if share >= 10 else "<1e-4"
    return f"{100 * share:.0f}" if share >= 0.1 else f"{100 * share:.2g}"


def faithfulness(
    model: Any,
    x: Array,
    methods: Any,
    neighbourhoods: Method | Neighbourhood | Mapping[str, Any] | Sequence[Any],
    *,
    target: Target = None,
    n_samples: int | Mapping[str, int] = 2000,
    seed: int = 0,
    replicates: int = 1,
    level: float = 0.95,
    margin: float = MARGIN,
    intercept: Intercept = "refitted",
    like: Method | None = None,
    batch_size: int | None = None,
    progress: bool = True,
) -> Faithfulness:
    """The error of every method's surrogates on every neighbourhood.

    Main arguments:
        methods: Methods (fitted with n_samples), Explanations, Explainers or arrays laid out like x: one, a list, or a
            dict of names.
        neighbourhoods: neighbourhoods (measured by squared error) or Methods (their neighbourhood and loss): one, a
            list of Methods, or a dict of names.

    Other arguments:
        n_samples: draws for each fit, and as many others for each column: all methods share a column's draw, and no
            model call is spent on a method beyond its fit. One number for all, or a dict with one for every
            Method and neighbourhood.
        replicates: fits and measures again with seeds spawned from `seed`, for intervals that hold for other
            draws, too.
        level, margin: of the intervals and states of the result, see `Faithfulness`.
        intercept: "refitted", the weighted mean of f(x_ξ) − w · ξ over the column's rows (over those to interpolate,
            if it has such: their weight is infinite), since an explanation is its weights; "fitted", as it came;
            "through_x", with g(x₀) = f(x₀), as in the infidelity of Yeh et al. 2019.
        like: the Method whose units arrays, and Explainers that do not say, have (see `as_explanation`).

    Columns of the result's `table`: error, the mean loss over the rows of finite weight; optimum, the least error of a
    linear g that meets the exact rows (the in-sample loss of the best fit is too low and its leave-one-out loss too
    high by about p / n of it, so their mean; exact for enumerations and quadratures); regret = error − optimum, below
    zero only by sampling error or for a g that misses exact rows; blind, division and nonlinear, three parts of it (see
    below); violation, the largest |g(ξ) − f(x_ξ)| over exact rows; lost, the regret, or violation² if that is larger,
    as a share of the best constant's loss (a row to be interpolated has infinite weight: a surrogate that misses it has
    lost there, whatever its regret; 0 where nothing is lost, infinite where f is constant and g is not); r2 = 1 − error
    / loss of the best constant (NaN where f is constant).

    Regret = blind + division + nonlinear. A weight of masks or paths is no slope where x = b, and elsewhere its
    sampling error is divided by x − b: *blind* is lost where the surrogate says nothing, *division* by weights whose
    standard error alone loses over 1 % of the best constant's loss, *nonlinear* is the rest. The first two are 0 for a
    surrogate with the column's placement or with x₀ + ξ, NaN where a placement is not x_ξ = o + step ⊙ ξ (see
    `BaseNeighbourhood.steps`); division and nonlinear also where a standard error is unknown.

    A feature that no mask moves (x at the baseline) is not in a draw of masks: what a surrogate says of it counts
    nowhere there. A surrogate goes to a column with the same placement as it is; to any other through the input space,
    where it is affine (see `Explanation.predict`).

    Raises ValueError or TypeError naming the argument, the method or the neighbourhood that does not fit.
    """
    if intercept not in get_args(Intercept):
        raise ValueError(f"intercept must be one of {', '.join(get_args(Intercept))}; got {intercept!r}")
    seed, replicates = whole_number(seed, "seed", least=0), whole_number(replicates, "replicates")
    level, margin, parts = share(level, "level"), share(margin, "margin"), named(methods, "methods")
    columns = list(columns_of(_named_columns(neighbourhoods)))
    fitted = [name for name, part in parts.items() if isinstance(part, Method)]
    n_samples = _numbers(n_samples, [*fitted, *(column.name for column in columns)])
    matrix = Matrix(Problem(model, x, target, batch_size), parts, columns, n_samples, intercept, like)
    total = replicates * (len(parts) + len(columns))
    with tqdm(total=total, desc="faithfulness", delay=2, leave=False, disable=not progress) as bar:
        seeds = child_seeds(seed, replicates)
        frames = [matrix.measured(one, bar).assign(replicate=r) for r, one in enumerate(seeds)]
    return Faithfulness(pd.concat(frames, ignore_index=True), level, margin)


def _numbers(n_samples: Any, names: list[str]) -> int | dict[str, int]:
    if not isinstance(n_samples, Mapping):
        return whole_number(n_samples, "n_samples")
    missing = [name for name in names if name not in n_samples]
    if missing:
        raise ValueError(f"n_samples has no number for {', '.join(map(repr, missing))}")
    return {name: whole_number(n_samples[name], f"n_samples[{name!r}]") for name in names}


def _named_columns(neighbourhoods: Any) -> Mapping[str, Any]:
    single = not isinstance(neighbourhoods, Mapping | Sequence)
    if single and isinstance(neighbourhoods, Neighbourhood):
        return {type(neighbourhoods).__name__: neighbourhoods}
    for part in [neighbourhoods] if single else () if isinstance(neighbourhoods, Mapping) else neighbourhoods:
        if not isinstance(part, Method):
            raise TypeError(
                "neighbourhoods must be a neighbourhood, a Method, a list of Methods or a dict of names (of a list of "
                f"neighbourhoods, which have none); got {part!r}"
            )
    return named(neighbourhoods, "neighbourhoods")

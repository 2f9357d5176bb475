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
from locapprox.evaluation.intervals import paired
from locapprox.models.inputs import Array
from locapprox.models.scores import Target
from locapprox.neighbourhoods.base import Neighbourhood
from locapprox.plotting import Axes, draw_matrix

AT_OPTIMUM = 1e-6  # of the best constant's loss: less is rounding (of float32 models, squared)
MEASURES = ("error", "optimum", "regret", "violation", "r2")


@dataclass(frozen=True, eq=False, repr=False)
class Faithfulness:
    """Methods on neighbourhoods. `table` has a row per method, neighbourhood and instance (and replicate draw, if there
    are several), with the columns that `faithfulness` describes."""

    _measured: pd.DataFrame
    level: float

    @property
    def table(self) -> pd.DataFrame:
        replicates = self._measured["replicate"].nunique()
        return self._measured.drop(columns=["constant", *(["replicate"] if replicates == 1 else [])])

    def matrix(self, value: str = "regret") -> pd.DataFrame:
        """Means over instances and replicates: a row per method, a column per neighbourhood."""
        if value not in MEASURES:
            raise ValueError(f"value must be one of {', '.join(MEASURES)}; got {value!r}")
        return self._measured.pivot_table(
            index="method", columns="neighbourhood", values=value, sort=False, dropna=False
        )

    def summary(self) -> pd.DataFrame:
        """Per method and neighbourhood: means over instances and replicates, and the regret's interval for other
        instances and other draws (low, high). `lost` is the regret as a share of the best constant's loss.

        Errors of instances that share a draw move together: without replicates the interval knows of instances only.
        """
        rows = []
        for (method, where, loss), part in self._measured.groupby(["method", "neighbourhood", "loss"], sort=False):
            regret, half = paired(part.set_index(["instance", "replicate"])["regret"], self.level)
            means = part[["error", "optimum", "violation", "constant"]].mean()
            lost = regret / means["constant"] if means["constant"] > 0 else np.nan
            interval = {"regret": regret, "low": regret - half, "high": regret + half, "lost": lost}
            rows.append({"method": method, "neighbourhood": where, "loss": loss, **means, **interval})
        return pd.DataFrame(rows)

    def verdict(self) -> pd.DataFrame:
        """Per method: in how many columns its regret is shown to be above zero (`beyond_optimum`: the interval's lower
        end is above round-off), and the column where that is clearest, with the share of the best constant's loss that
        is lost there.

        A method that is beyond the optimum in no column is not thereby shown to be at it.
        """
        rows = []
        for method, part in self.summary().groupby("method", sort=False):
            least = (part["low"] / part["constant"]).fillna(0.0).reset_index(drop=True)
            worst = part.iloc[int(least.argmax())]
            rows.append(
                {
                    "method": method,
                    "columns": len(part),
                    "beyond_optimum": int((least > AT_OPTIMUM).sum()),
                    "clearest_in": worst["neighbourhood"],
                    "lost": worst["lost"],
                    "lost_low": least.max(),
                }
            )
        return pd.DataFrame(rows)

    def plot(self, value: str = "regret", ax: Axes | None = None) -> Axes:
        """The matrix as a heat map; columns differ in units, so every one has a scale of its own."""
        wide = self.matrix(value)
        title = f"mean {value} (shades: square root, each column on its own scale)"
        return draw_matrix(wide.to_numpy(float), list(wide.index), list(wide.columns), title, ax)

    def __repr__(self) -> str:
        with pd.option_context("display.width", 120, "display.max_columns", None):
            return f"Faithfulness, mean regret:\n{self.matrix().to_string(float_format='{:.3g}'.format)}"

    def _repr_html_(self) -> str:
        return f"<p>mean regret</p>{self.matrix().to_html(float_format='{:.3g}'.format)}"


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
        level: of the intervals of `summary` and `verdict`.
        intercept: "refitted", the weighted mean of f(x_ξ) − w · ξ over the column's rows of finite weight, since an
            explanation is its weights; "fitted", as it came; "through_x", with g(x₀) = f(x₀), as in the infidelity of
            Yeh et al. 2019.
        like: the Method whose units arrays, and Explainers that do not say, have (see `as_explanation`).

    Columns of the result's `table`: error, the mean loss over the rows of finite weight; optimum, the least error of a
    linear g that meets the exact rows (the in-sample loss of the best fit is too low and its leave-one-out loss too
    high by about p / n of it, so their mean; exact for enumerations and quadratures); regret = error − optimum, may be
    negative by sampling error and for a g that breaks exact rows; violation, the largest |g(ξ) − f(x_ξ)| over exact
    rows; r2 = 1 − error / loss of the best constant (NaN where f is constant).

    A surrogate goes to a column with the same placement as it is; to any other through the input space, where it is
    affine (see `Explanation.predict`).

    Raises ValueError or TypeError naming the argument, the method or the neighbourhood that does not fit.
    """
    if intercept not in get_args(Intercept):
        raise ValueError(f"intercept must be one of {', '.join(get_args(Intercept))}; got {intercept!r}")
    seed, replicates = whole_number(seed, "seed", least=0), whole_number(replicates, "replicates")
    level, parts = share(level, "level"), named(methods, "methods")
    columns = list(columns_of(_named_columns(neighbourhoods)))
    fitted = [name for name, part in parts.items() if isinstance(part, Method)]
    n_samples = _numbers(n_samples, [*fitted, *(column.name for column in columns)])
    matrix = Matrix(Problem(model, x, target, batch_size), parts, columns, n_samples, intercept, like)
    total = replicates * (len(parts) + len(columns))
    with tqdm(total=total, desc="faithfulness", delay=2, leave=False, disable=not progress) as bar:
        seeds = child_seeds(seed, replicates)
        frames = [matrix.measured(one, bar).assign(replicate=r) for r, one in enumerate(seeds)]
    return Faithfulness(pd.concat(frames, ignore_index=True), level)


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

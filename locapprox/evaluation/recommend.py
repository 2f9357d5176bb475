"""Which explanation should I choose? The one that fits best on the neighbourhood you care about, if any does."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor
from tqdm.auto import tqdm

from locapprox._explain import N_SAMPLES
from locapprox._explainer import named, naming
from locapprox._explanation import Explanation
from locapprox._method import Method
from locapprox._parts import alike, child_seeds, positive, share, whole_number
from locapprox._problem import Problem
from locapprox.evaluation.columns import Matrix, columns_of
from locapprox.evaluation.faithfulness import MARGIN
from locapprox.evaluation.inherited import inherited
from locapprox.evaluation.ranking import DESIGNED, Errors, ranked
from locapprox.evaluation.recommendation import Recommendation
from locapprox.fit.blocks import Bar
from locapprox.fit.losses import GradientMatching, RowLoss, SquaredError
from locapprox.fit.seeds import generator
from locapprox.fit.surrogates import Linear
from locapprox.models.inputs import Array
from locapprox.models.scores import NoGradientError, Target
from locapprox.neighbourhoods.base import Neighbourhood, described
from locapprox.neighbourhoods.distributions import CorrelatedNormal, Normal
from locapprox.neighbourhoods.placements import Additive, Multiplicative

STEIN = "at one σ they estimate the same weights (Stein)"


def recommend(
    model: Any,
    x: Array,
    neighbourhood: Neighbourhood,
    *,
    loss: RowLoss = SquaredError(),  # noqa: B008 (frozen)
    methods: Any = None,
    target: Target = None,
    seed: int = 0,
    n_samples: int = N_SAMPLES,
    replicates: int = 5,
    level: float = 0.95,
    margin: float = MARGIN,
    like: Method | None = None,
    batch_size: int | None = None,
    progress: bool = True,
) -> Recommendation:
    """Which of the existing methods may be best on a neighbourhood, and what the method designed for it would gain.

    Main arguments:
        neighbourhood: where the explanation should hold.
        methods: existing ones to choose from (Methods, Explanations, Explainers or arrays, as in `faithfulness`); by
            default those of the paper's eight that can explain the model, with the neighbourhood's baseline, features
            and σ (where it has none, the root mean square of x_ξ − x in each entry of an input). `left_out` says which
            cannot, and why.

    Other arguments:
        n_samples: draws per fit and per evaluation, made anew for each of `replicates` seeds (what is not random is
            fitted once).
        level: of the confidence set, and of each interval by itself.
        margin: methods whose errors are shown to differ by less are one answer; a share of the best constant's loss.
        like: the Method whose units arrays, and Explainers that do not say, have (see `as_explanation`).

    A method is better than another if it errs less on most instances: no means are compared, so no tail is too heavy.
    One that is better than every other stays in the set with probability `level` at least, if it is usable and the
    instances are independent draws of the kind that is spoken of. Every comparison inverts a sign test, at a level
    corrected for their number, and is widened by the replicates' spread, so that it holds for other draws, too (see
    `intervals.typical`). Few instances remove nothing; one instance speaks for itself only, by replicates. Unusable,
    neither in the set nor a rival, is what is not better than the best constant here, typically and in the mean.
    """
    replicates, seed = whole_number(replicates, "replicates", least=2), whole_number(seed, "seed", least=0)
    if isinstance(neighbourhood, Method):
        raise TypeError("neighbourhood must have draw and place; of a Method pass method.neighbourhood and method.loss")
    level, margin, n_samples = share(level, "level"), positive(margin, "margin"), whole_number(n_samples, "n_samples")
    designed, problem = Method(DESIGNED, neighbourhood, loss), Problem(model, x, target, batch_size)
    chosen, left_out = _chosen(problem, designed, methods, n_samples, seed)
    if DESIGNED in chosen:
        raise ValueError(f"methods must not be called {DESIGNED!r}")
    matrix = Matrix(problem, {DESIGNED: designed, **chosen}, list(columns_of({"here": designed})), n_samples, like=like)
    steps = replicates * (len(matrix.parts) + 1)
    with tqdm(total=steps, desc="recommend", delay=2, leave=False, disable=not progress) as bar:
        fits, made, frames = Fits(matrix, methods is None, left_out, bar), [], []
        for r, one in enumerate(child_seeds(seed, replicates)):
            made.append(fits.at(one))
            frames.append(matrix.of_explanations(made[-1], one, bar).assign(replicate=r))
    whole = pd.concat(frames)
    measured = {str(name): part for name, part in whole.groupby("method", sort=False) if name not in left_out}
    errors = Errors(
        {name: _wide(part, "error") for name, part in measured.items()}, _wide(measured[DESIGNED], "constant")
    )
    ranking = ranked(errors, level, margin, lambda a, b: STEIN if stein(chosen[a], chosen[b]) else "")
    told = left_out, loss.name, level, len(problem.x)
    return Recommendation(ranking.table, ranking.groups, ranking.gain, made[0][DESIGNED], *told)


def _wide(frame: pd.DataFrame, value: str) -> np.ndarray:
    """(instances, replicates)."""
    return frame.pivot_table(index="instance", columns="replicate", values=value, dropna=False).to_numpy(float)


def _chosen(
    problem: Problem, designed: Method, methods: Any, n_samples: int, seed: int
) -> tuple[dict[str, Any], dict[str, str]]:
    """The methods to choose from, and which of the default ones are left out."""
    if methods is not None:
        return named(methods, "methods"), {}
    with naming("method", DESIGNED):
        where = problem.check(described(designed.neighbourhood), n_samples)
    return inherited(problem, where, seed)


@dataclass(eq=False)
class Fits:
    """The parts of a matrix fitted for one seed after the other; those that no seed changes are fitted once."""

    matrix: Matrix
    lenient: bool  # whether a part that cannot be fitted is left out; one without gradients always is
    left_out: dict[str, str]
    bar: Bar
    once: dict[str, Explanation] = field(default_factory=dict)

    def at(self, seed: int) -> dict[str, Explanation]:
        """The fits of a seed; ValueError if none is left but the designed method's."""
        fits = {}
        for name, part in self.matrix.parts.items():
            if name not in self.left_out and (one := self._one(name, part, seed)) is not None:
                fits[name] = one
            self.bar.update(1)
        if list(fits) == [DESIGNED]:
            raise ValueError(f"methods: none can explain this model; {'; '.join(self.left_out.values())}")
        return fits

    def _one(self, name: str, part: Any, seed: int) -> Explanation | None:
        if name in self.once:
            return self.once[name]
        try:
            found = self.matrix.explanation(name, part, seed)
        except (NoGradientError, ValueError) as error:
            if name == DESIGNED or not (self.lenient or isinstance(error, NoGradientError)):
                raise
            self.left_out[name] = str(error)
            return None
        if not changes(part, found):
            self.once[name] = found
        return found


def changes(part: Any, found: Explanation) -> bool:
    """Whether another seed would change the explanation of a part: not of numbers, nor where all of a draw is fixed."""
    if not isinstance(part, Method):
        return not isinstance(part, Explanation | Tensor | np.ndarray)
    x, n, where = found.x, found.settings["n_samples"], described(found.method.neighbourhood)
    for batch in where.batches(x):
        one = where.at(x, batch[:1])
        draws = one.drawn(x[batch[:1]], n, generator(0, one, "fit", x))
        if any(draw.n_fixed < draw.weight.shape[-1] for draw in draws):
            return True
    return False


def stein(a: Any, b: Any) -> bool:
    """Whether two are linear fits of values and of gradients in the same Gaussian noise: E ∇f = Cov⁻¹ Cov(ξ, f)."""
    if not (isinstance(a, Method) and isinstance(b, Method)):
        return False
    where = a.neighbourhood
    if not isinstance(where, Additive | Multiplicative) or where.kernel is not None:
        return False
    gaussian = isinstance(where.distribution, Normal | CorrelatedNormal)
    linear = all(isinstance(one.surrogate, Linear) and one.surrogate.intercept for one in (a, b))
    losses = {a.loss, b.loss} == {SquaredError(), GradientMatching()}
    return gaussian and linear and losses and alike(where, b.neighbourhood)

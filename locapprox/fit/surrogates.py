"""Surrogate classes G, each with the fit that minimises the stated loss over it."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from locapprox._parts import Concise, whole_number
from locapprox.fit.constrained import ConstrainedSolver
from locapprox.fit.lasso_path import last_with
from locapprox.fit.levels import by_levels
from locapprox.fit.links import IDENTITY, LOGISTIC, Link
from locapprox.fit.losses import CrossEntropy, GradientMatching, Loss, OnGradients, RowLoss, SquaredError
from locapprox.fit.minimise import at_a_point, minimise
from locapprox.fit.newton import fit_rows
from locapprox.fit.quadratic import Exact, Quadratic, Solution
from locapprox.fit.result import Fit
from locapprox.fit.sampling import Sample
from locapprox.fit.solve import binary, to_unit_diagonal
from locapprox.neighbourhoods.base import BaseNeighbourhood


@runtime_checkable
class Surrogate(Protocol):
    """A class of functions g(ξ) = link(w · ξ + intercept), and how to fit one to a sample under a loss.

    Users write `fit`. What a class may say besides is declared by `BaseSurrogate`.
    """

    def fit(self, sample: Sample, loss: Loss) -> Fit:
        """`sample.blocks()` iterates over the draw; `sample.values(block)`, `sample.gradients(block)` ask the model."""
        ...


class BaseSurrogate(ABC):
    """A surrogate that says more of itself than `fit`: derive from it and override what differs."""

    link: Link = IDENTITY  # η = w · ξ + intercept to g
    keeps_gradients: bool = False  # whether `fit` holds the gradients of all rows: fewer instances then fit into memory
    convex: bool = False  # whether the mean of two fits, parameter by parameter, is in the class: draws may be pooled
    nulls_leave: bool = False  # whether `fit` may be given a draw without the null players: its features are all alike

    @property
    def any_origin(self) -> bool:
        """Whether the weights stay what they are if ξ has another origin, for which the intercept makes up."""
        return False

    @property
    def kind(self) -> str:
        """The name of the class."""
        return type(self).__qualname__

    def check_loss(self, loss: RowLoss) -> None:
        """Raise TypeError for a loss that `fit` does not minimise: by default all but `Loss`, which is quadratic."""
        if not isinstance(loss, Loss):
            raise TypeError(
                f"surrogate {self.kind} minimises squared errors and gradient matching, not the {loss.name}: use "
                "Linear() or Logistic()"
            )

    def check_limit(self, loss: RowLoss) -> None:
        """Raise TypeError where the minimisers' limit on a shrinking neighbourhood (`Limit`) is not known."""
        raise TypeError(f"Limit is for the surrogates Linear() and Logistic(), not {self.kind}")

    def check_neighbourhood(self, neighbourhood: BaseNeighbourhood) -> None:
        """Raise TypeError for draws that `fit` is not for: by default none."""
        return

    @abstractmethod
    def fit(self, sample: Sample, loss: Any) -> Fit:
        """See `Surrogate`."""


@dataclass(frozen=True, eq=False, repr=False)
class DescribedSurrogate(BaseSurrogate):
    """A class of a user's with the defaults of `BaseSurrogate`; only its `fit` is read."""

    own: Surrogate

    @property
    def kind(self) -> str:
        return type(self.own).__qualname__

    def fit(self, sample: Sample, loss: Any) -> Any:  # `fitted` looks at it
        return self.own.fit(sample, loss)


def described_surrogate(surrogate: Any) -> BaseSurrogate:
    """The surrogate itself if it derives from `BaseSurrogate`, else one that wraps it."""
    if isinstance(surrogate, BaseSurrogate):
        return surrogate
    if isinstance(surrogate, type) or not callable(getattr(surrogate, "fit", None)):
        raise TypeError(f"surrogate must have a method fit, like Linear(); got {surrogate!r}")
    return DescribedSurrogate(surrogate)


@dataclass(frozen=True, repr=False)
class Linear(Concise, BaseSurrogate):
    """g(ξ) = w · ξ + intercept, or w · ξ.

    Standard errors: with values, every unit of the draw is left out in closed form (half-way between HC2 and HC3;
    beside enumerated rows the jackknife); for a mean gradient, the spread of its units; where neither can be had (both
    kinds of rows, gradients with rows to interpolate, more outputs than are kept) 20 delete-group solutions. For a
    quadrature, the distance to other rules on the same nodes. Zero where the draw is an enumeration or a point; NaN,
    with a warning, where too few units tell of it (`fit/evidence`).
    Losses that are not quadratic (Huber, Quantile, your own ρ) are minimised on rows that are kept, by reweighted least
    squares and Newton steps; errors and loss by one more step for every unit left out.
    """

    intercept: bool = True

    convex = True
    nulls_leave = True

    @property
    def any_origin(self) -> bool:
        return self.intercept

    def check_loss(self, loss: RowLoss) -> None:
        if isinstance(loss, CrossEntropy):
            raise TypeError("cross-entropy is of probabilities: use it with the surrogate Logistic()")

    def check_limit(self, loss: RowLoss) -> None:
        """It exists under every loss."""

    def fit(self, sample: Sample, loss: RowLoss) -> Fit:
        loss = in_the_limit(sample, loss)
        if isinstance(loss, Loss) and loss.value == 0:
            if sample.neighbourhood.tol is not None:
                return by_levels(sample, loss, self.intercept)
            if sample.is_a_point:
                return at_a_point(sample, loss, self.intercept)
        if isinstance(loss, Loss):
            return minimise(sample, loss, self.intercept, matrices=False).fit
        return fit_rows(sample, loss, IDENTITY, self.intercept)


@dataclass(frozen=True, repr=False)
class Sparse(Concise, BaseSurrogate):
    """g(ξ) = w · ξ + intercept with at most k non-zero weights.

    With values, features enter along the lasso path (LARS, Efron et al. 2004) until there are k, and the stated loss is
    then minimised over those (least squares, rows to interpolate included). With gradient matching alone the minimiser
    keeps the k largest mean gradients. Errors are conditional on the features chosen.
    """

    k: int
    intercept: bool = True

    nulls_leave = True

    def __post_init__(self) -> None:
        whole_number(self.k, "k")

    def fit(self, sample: Sample, loss: Loss) -> Fit:
        if self.k >= sample.d:
            return Linear(self.intercept).fit(sample, loss)
        chosen: list[Tensor] = []  # once, on all rows; kept when groups are left out

        def solve(problem: Quadratic, exact: Exact) -> Solution:
            if not chosen:
                chosen.append(self._choose(problem))
            return problem.solve_on(chosen[0], exact)

        return minimise(sample, loss, self.intercept, solve, most=self.k).fit

    def _choose(self, problem: Quadratic) -> Tensor:
        """Which features enter, (b, k scores, d)."""
        if problem.gradients_only:
            weights = problem.mean_gradient
            order = weights.abs().argsort(-1, descending=True)[..., : self.k]
            return torch.zeros_like(weights, dtype=torch.bool).scatter(-1, order, True)
        gram, rhs = problem.system()
        if self.intercept:  # profiled out
            column = gram[:, :-1, -1:] / gram[:, -1:, -1:]
            rhs = rhs[..., :-1] - rhs[..., -1:] * column.mT
            gram = gram[:, :-1, :-1] - column @ gram[:, -1:, :-1]
        scale = to_unit_diagonal(gram)
        gram, rhs = gram * scale[:, :, None] * scale[:, None, :], rhs * scale[:, None]
        rhs = rhs / binary(rhs.abs().amax(-1, keepdim=True)) * 2**10  # the path ends where the largest is 1e-7
        chosen: Tensor = last_with(gram, rhs.flatten(0, 1), self.k).unflatten(0, rhs.shape[:2])
        return chosen


@dataclass(frozen=True, eq=False, repr=False)
class Constrained(Concise, BaseSurrogate):
    """g(ξ) = w · ξ + intercept under convex constraints, by cvxpy.

    `constraints` gets cvxpy expressions, the weights (d,) and the intercept, and returns a list of cvxpy constraints:
    `Constrained(lambda w, intercept: [w >= 0])`. Errors are from delete-group solutions; next to an active constraint
    their intervals are only indicative.
    """

    constraints: Callable[[Any, Any], list[Any]]
    intercept: bool = True

    convex = True

    def fit(self, sample: Sample, loss: Loss) -> Fit:
        return minimise(sample, loss, self.intercept, ConstrainedSolver(self.constraints), by_groups=True).fit


@dataclass(frozen=True, repr=False)
class Logistic(Concise, BaseSurrogate):
    """g(ξ) = 1 / (1 + exp(−w · ξ − intercept)), for outputs between 0 and 1.

    The *stated* loss is minimised, by damped Gauss–Newton and Newton steps. Maximum likelihood minimises another loss,
    `CrossEntropy()`, and gives other weights than squared error. Standard errors and loss are by leaving every unit
    out, as of `Linear`, by one Newton step with the exact Hessian; errors of a fit that does not converge are NaN.
    """

    intercept: bool = True

    convex = True
    keeps_gradients = True
    nulls_leave = True
    link = LOGISTIC

    def check_loss(self, loss: RowLoss) -> None:
        if isinstance(loss, OnGradients):
            raise TypeError(f"surrogate Logistic does not minimise the {loss.name}: use Linear() or GradientMatching()")

    def check_limit(self, loss: RowLoss) -> None:
        if isinstance(loss, Loss) and loss.value == 0:
            raise TypeError(
                "under gradient matching alone the limit of a logistic surrogate is about f's curvature (see "
                "lx.Limit): match values, with SquaredError()"
            )

    def fit(self, sample: Sample, loss: RowLoss) -> Fit:
        return fit_rows(sample, in_the_limit(sample, loss), LOGISTIC, self.intercept)


def in_the_limit(sample: Sample, loss: RowLoss) -> RowLoss:
    """The loss; where the neighbourhood shrinks to a point, one whose minimiser there is the limit of minimisers."""
    return SquaredError() + GradientMatching() if sample.neighbourhood.shrinks else loss

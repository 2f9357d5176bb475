"""Surrogate classes G, each with the fit that minimises the stated loss over it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import cvxpy as cp
import numpy as np
import torch
from sklearn.linear_model import lars_path_gram
from torch import Tensor

from locapprox.equations import NormalEquations, Solved
from locapprox.logistic import GaussNewton
from locapprox.losses import Loss
from locapprox.models import whole_number
from locapprox.sampling import Sample
from locapprox.solve import particular
from locapprox.streaming import Fit, StreamedFit


@runtime_checkable
class Surrogate(Protocol):
    """A class of functions g(ξ) = link(w · ξ + intercept) and how to fit one to a sample under a loss.

    Optional: `link = "logistic"` (else the identity), and `keeps_gradients = True` if `fit` holds all gradients.
    """

    def fit(self, sample: Sample, loss: Loss) -> Fit: ...


@dataclass(frozen=True)
class Linear:
    """g(ξ) = w · ξ + intercept, or w · ξ.

    Standard errors: with values, every unit of the draw is left out in closed form (HC3; for pairs and enumerated
    designs the jackknife); for a mean gradient, the spread of its units; where neither can be had (both kinds of rows,
    gradients with rows to interpolate, more outputs than are kept) 20 delete-group solutions. For a quadrature, the
    distance to the coarser rule on the same nodes. Zero where the draw is an enumeration or a point; NaN, with a
    warning, where a weight rests on a single unit.
    """

    intercept: bool = True

    def fit(self, sample: Sample, loss: Loss) -> Fit:
        return StreamedFit(sample, loss, self.intercept).run()


@dataclass(frozen=True)
class Sparse:
    """g(ξ) = w · ξ + intercept with at most k non-zero weights.

    With values, features enter along the lasso path (LARS, Efron et al. 2004) until there are k, and the stated loss is
    then minimised over those (least squares, rows to interpolate included). With gradient matching alone the minimiser
    keeps the k largest mean gradients. Errors are conditional on the features chosen.
    """

    k: int
    intercept: bool = True

    def __post_init__(self) -> None:
        whole_number(self.k, "k")

    def fit(self, sample: Sample, loss: Loss) -> Fit:
        if self.k >= sample.d:
            return Linear(self.intercept).fit(sample, loss)
        chosen: list[Tensor] = []  # once, on all rows; kept when groups are left out

        def solve(equations: NormalEquations, mix: Tensor, exact: Tensor, target: Tensor) -> Solved:
            if not chosen:
                chosen.append(self._choose(equations, mix))
            return equations.solve_on(chosen[0], mix, exact, target)

        return StreamedFit(sample, loss, self.intercept, solve, most=self.k).run()

    def _choose(self, equations: NormalEquations, mix: Tensor) -> Tensor:
        """Which features enter, (b, k scores, d)."""
        if equations.loss.value == 0:
            weights = equations.mean_gradient(mix)
            order = weights.abs().argsort(-1, descending=True)[..., : self.k]
            return torch.zeros_like(weights, dtype=torch.bool).scatter(-1, order, True)
        gram, rhs = equations.system(mix)
        if self.intercept:  # profiled out
            column = gram[:, :-1, -1:] / gram[:, -1:, -1:]
            rhs = rhs[..., :-1] - rhs[..., -1:] * column.mT
            gram = gram[:, :-1, :-1] - column @ gram[:, -1:, :-1]
        chosen = np.zeros(rhs.shape, bool)
        for i, j in np.ndindex(*rhs.shape[:2]):
            one = gram[i % len(gram)].cpu().numpy()
            scale = np.sqrt(np.maximum(np.diagonal(one), 1e-300))
            pull, steps = rhs[i, j].cpu().numpy() / scale, 8 * len(one)
            path = lars_path_gram(pull, one / np.outer(scale, scale), n_samples=1, method="lasso", max_iter=steps)[2]
            support = (path != 0).sum(0)
            chosen[i, j] = path[:, np.flatnonzero(support <= self.k)[-1]] != 0
        return torch.from_numpy(chosen).to(mix.device)


@dataclass(frozen=True, eq=False)
class Constrained:
    """g(ξ) = w · ξ + intercept under convex constraints, by cvxpy.

    `constraints` gets cvxpy expressions, the weights (d,) and the intercept, and returns a list of cvxpy constraints:
    `Constrained(lambda w, intercept: [w >= 0])`. Errors are from delete-group solutions; next to an active constraint
    their intervals are only indicative.
    """

    constraints: Callable[[Any, Any], list[Any]]
    intercept: bool = True

    def fit(self, sample: Sample, loss: Loss) -> Fit:
        return StreamedFit(sample, loss, self.intercept, self._solve, by_groups=True).run()

    def _solve(self, equations: NormalEquations, mix: Tensor, exact: Tensor, target: Tensor) -> Solved:
        gram, rhs = equations.system(mix)
        p = gram.shape[-1]
        if self.intercept:
            rhs = rhs + equations.shift[..., None] * gram[:, None, -1]  # about y = 0, where the constraints are stated
        start, null = particular(exact, target)  # rows to interpolate are eliminated, so they hold exactly
        basis, q = null.cpu().numpy(), null.shape[1]
        free, offset, root, pull = cp.Variable(q), cp.Parameter(p), cp.Parameter((q, q)), cp.Parameter(q)
        theta = offset + basis @ free
        rules = self.constraints(*((theta[:-1], theta[-1]) if self.intercept else (theta, cp.Constant(0.0))))
        problem = cp.Problem(cp.Minimize(cp.sum_squares(root @ free) - 2 * pull @ free), rules)
        reduced, right = null.mT @ gram @ null, (rhs - start @ gram) @ null
        out = torch.zeros_like(rhs)
        for i, j in np.ndindex(*rhs.shape[:2]):
            values, vectors = torch.linalg.eigh(reduced[i % len(gram)])
            root.value = ((values / values[-1]).clamp_min(0).sqrt() * vectors).mT.cpu().numpy()
            pull.value, offset.value = (right[i, j] / values[-1]).cpu().numpy(), start[i, j].cpu().numpy()
            problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
            if free.value is None:
                raise ValueError(f"the constraints and the rows to interpolate cannot all be met ({problem.status})")
            out[i, j] = torch.from_numpy(theta.value).to(out)
        return out, None


@dataclass(frozen=True)
class Logistic:
    """g(ξ) = 1 / (1 + exp(−w · ξ − intercept)), for outputs between 0 and 1.

    The *stated* loss is minimised, by damped Gauss–Newton (repeated weighted least squares). Maximum likelihood
    (IRLS) minimises another loss and gives other weights.
    """

    intercept: bool = True
    link = "logistic"
    keeps_gradients = True

    def fit(self, sample: Sample, loss: Loss) -> Fit:
        return GaussNewton(sample, loss, self.intercept).run()

"""A quadratic loss under a user's convex constraints, by cvxpy.

Whatever the units of f and of the features, the solver sees numbers of order 1: θ = offset + basis u with y about y₀ as
in `quadratic`, the basis one of the changes that keep the exact rows, scaled to a unit diagonal of A and to the size of
the right side. The constraints are stated on θ.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from locapprox.fit.quadratic import Exact, Quadratic, Solution
from locapprox.fit.solve import particular, to_unit_diagonal

ACCURATE = {"tol_gap_abs": 1e-11, "tol_gap_rel": 1e-11, "tol_feas": 1e-11}
ACCURATE |= {f"reduced_{name}": 1e-8 for name in ACCURATE}  # or it is no solution
Rules = Callable[[Any, Any], Any]


class ConstrainedSolver:
    """The minimum under `constraints(weights, intercept)`. Gradient matching leaves the intercept free: it is then the
    one they allow that is nearest to E f(x_ξ) − w · E ξ.

    Raises TypeError where the constraints are none, ValueError where they cannot be met, or not accurately.
    """

    def __init__(self, constraints: Rules) -> None:
        self.programme = cache(partial(Programme, constraints))  # one for all problems of a fit

    def __call__(self, problem: Quadratic, exact: Exact) -> Solution:
        gram, rhs = problem.system()
        start, basis = particular(*problem.about_y0(exact), exact.size)
        null = basis.matrix
        if null.shape[1] == 0:
            raise ValueError("the rows to interpolate determine all weights; there is none to constrain: use Linear()")
        A, b = null.mT @ gram @ null, (rhs - start @ gram) @ null
        scale, start = to_unit_diagonal(A), problem.uncentred(start)
        programme, theta = self.programme(*null.shape, problem.intercept), torch.zeros_like(rhs)
        for i, j in np.ndindex(*rhs.shape[:2]):
            s = scale[i % len(gram)]
            theta[i, j] = programme.minimum(A[i % len(gram)] * s * s[:, None], b[i, j] * s, start[i, j], null * s)
        if problem.gradients_only and problem.intercept and len(exact.rows) == 0:
            self._set_intercept(theta, problem.with_mean_intercept(theta[..., :-1]))
        return Solution(theta, None)

    def _set_intercept(self, theta: Float[Tensor, "b k p"], wanted: Float[Tensor, "b k p"]) -> None:
        p = theta.shape[-1]
        programme, last = self.programme(p, 1, True), torch.eye(p, dtype=theta.dtype, device=theta.device)[:, -1:]
        one, tiny = theta.new_ones(1, 1), torch.finfo(theta.dtype).tiny
        for i, j in np.ndindex(*theta.shape[:2]):
            size = wanted[i, j].abs().amax().clamp_min(tiny)
            theta[i, j] = programme.minimum(one, 0 * one[0], wanted[i, j], last * size)


class Programme:
    """min ½ uᵀAu − uᵀb with the constraints on θ = offset + basis u: compiled once, for all numbers."""

    def __init__(self, constraints: Rules, p: int, q: int, intercept: bool) -> None:
        import cvxpy as cp

        self.u, self.basis, self.offset = cp.Variable(q), cp.Parameter((p, q)), cp.Parameter(p)
        self.root, self.score = cp.Parameter((q, q)), cp.Parameter(q)
        self.theta = self.offset + self.basis @ self.u
        given = constraints(*((self.theta[:-1], self.theta[-1]) if intercept else (self.theta, cp.Constant(0.0))))
        rules = list(given) if isinstance(given, list | tuple) else []
        if not rules or not all(isinstance(rule, cp.Constraint) for rule in rules):
            raise TypeError(
                f"constraints must return a list of cvxpy constraints, such as [w >= 0], got {given!r}; without any, "
                "use Linear()"
            )
        objective = cp.sum_squares(self.root @ self.u) - 2 * self.score @ self.u  # type: ignore[attr-defined]
        self.programme = cp.Problem(cp.Minimize(objective), rules)
        if not self.programme.is_dcp():
            raise ValueError(f"constraints must be convex by cvxpy's rules (DCP), got {rules}")

    def minimum(
        self, A: Float[Tensor, "q q"], b: Float[Tensor, " q"], offset: Float[Tensor, " p"], basis: Float[Tensor, "p q"]
    ) -> Tensor:
        """θ."""
        import cvxpy as cp
        from scipy import sparse

        values, vectors = torch.linalg.eigh(A)
        self.root.value = ((values / values[-1]).clamp_min(0).sqrt() * vectors).mT.cpu().numpy()
        self.score.value = (b / values[-1]).cpu().numpy()
        self.offset.value, self.basis.value = offset.cpu().numpy(), basis.cpu().numpy()
        chain: Any
        data, chain, inverse = self.programme.get_problem_data(cp.CLARABEL, solver_opts=ACCURATE)
        # Cones are cones in any unit: u, slacks and constants are in that of f's right side, and each cone of order 1
        unit = float(np.abs(self.score.value).max(initial=0.0)) or 1.0
        data["b"], data["c"] = data["b"] / unit, data["c"] / unit
        cones = data["dims"]
        sizes = [*[1] * (cones.zero + cones.nonneg), *cones.soc, *(n * (n + 1) // 2 for n in cones.psd)]
        sizes += [3] * ((len(data["b"]) - sum(sizes)) // 3)
        largest = np.maximum(abs(data["A"]).max(axis=1).toarray().ravel(), np.abs(data["b"]))
        largest = np.maximum.reduceat(largest, np.cumsum([0, *sizes[:-1]])).repeat(sizes)
        size = np.where(largest > 0, largest, 1.0)
        data["A"], data["b"] = (sparse.diags_array(1 / size) @ data["A"]).tocsc(), data["b"] / size
        solution = chain.invert(chain.solve_via_data(self.programme, data, solver_opts=ACCURATE), inverse)
        if solution.status in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE):  # to 1e-8 at least
            return offset + unit * (basis @ torch.from_numpy(solution.primal_vars[self.u.id]).to(b))
        if solution.status in (cp.INFEASIBLE, cp.INFEASIBLE_INACCURATE):
            raise ValueError("the constraints and the rows to interpolate cannot all be met (infeasible)")
        raise ValueError(
            f"the constraints could not be solved for to 1e-8 ({solution.status}): state them in the units of f, "
            "or draw more (n_samples)"
        )

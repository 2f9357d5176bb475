"""A quadratic loss under a user's convex constraints, which cvxpy reads.

Whatever the units of f and of the features, a solver sees numbers of order 1: θ = offset + basis u with y about y₀ as
in `quadratic`, the basis one of the changes that keep the exact rows, scaled to a unit diagonal of A, and u in units of
the right side. The constraints are stated on θ, so cvxpy compiles them once. Linear ones are met by `active_sets`;
what it leaves, and other cones, are solved by Clarabel, one programme after the other.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from locapprox.fit import active_sets
from locapprox.fit.quadratic import Exact, Quadratic, Solution
from locapprox.fit.solve import particular, to_unit_diagonal

ACCURACIES = (
    1e-12,
    1e-11,
    1e-10,
    1e-9,
    1e-8,
)  # what Clarabel is asked for in turn: where it gets stuck it has gone too far
TOLERANCES = "tol_gap_abs", "tol_gap_rel", "tol_feas"
ENOUGH = 1e-8  # or it is no solution
ROUND_OFF = 1e-13  # of the numbers a difference is of
AT_ONCE = 2**22  # entries of linear systems
Rules = Callable[[Any, Any], Any]


class ConstrainedSolver:
    """The minimum under `constraints(weights, intercept)`. Gradient matching leaves the intercept free: it is then the
    one they allow that is nearest to E f(x_ξ) − w · E ξ.

    Raises TypeError where the constraints are none, ValueError where they cannot be met, or not accurately.
    """

    def __init__(self, constraints: Rules) -> None:
        self.programme = cache(partial(Programme, constraints))  # for all problems of a fit

    def __call__(self, problem: Quadratic, exact: Exact) -> Solution:
        gram, rhs = problem.system()
        start, changes = particular(*problem.about_y0(exact), exact.size)
        null = changes.matrix
        if null.shape[1] == 0:
            raise ValueError("the rows to interpolate determine all weights; there is none to constrain: use Linear()")
        A, b = null.mT @ gram @ null, (rhs - start @ gram) @ null
        scale = to_unit_diagonal(A)
        A, b, basis = A * scale[:, :, None] * scale[:, None, :], b * scale[:, None], null * scale[:, None]
        theta = self.programme(*null.shape, problem.intercept).minima(A, b, problem.uncentred(start), basis)
        if problem.gradients_only and problem.intercept and len(exact.rows) == 0:
            theta = self._with_intercept(problem.with_mean_intercept(theta[..., :-1]))
        return Solution(theta, None)

    def _with_intercept(self, wanted: Float[Tensor, "b k p"]) -> Float[Tensor, "b k p"]:
        wanted_of, p = wanted.flatten(0, 1)[:, None], wanted.shape[-1]
        size = wanted_of.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(wanted.dtype).tiny)
        last = size * torch.eye(p, dtype=wanted.dtype, device=wanted.device)[:, -1:]
        one = torch.ones_like(size[:1])
        return self.programme(p, 1, True).minima(one.expand_as(size), 0 * size, wanted_of, last).reshape(wanted.shape)


class Programme:
    """min ½ uᵀAu − uᵀb with the constraints on θ = offset + basis u: compiled once, for all numbers."""

    def __init__(self, constraints: Rules, p: int, q: int, intercept: bool) -> None:
        import cvxpy as cp

        theta = cp.Variable(p)
        given = constraints(*((theta[:-1], theta[-1]) if intercept else (theta, cp.Constant(0.0))))
        rules = list(given) if isinstance(given, list | tuple) else []
        if not rules or not all(isinstance(rule, cp.Constraint) for rule in rules):
            raise TypeError(
                f"constraints must return a list of cvxpy constraints, such as [w >= 0], got {given!r}; without any, "
                "use Linear()"
            )
        self.problem = cp.Problem(cp.Minimize(cp.sum_squares(theta)), rules)  # type: ignore[attr-defined]
        if not self.problem.is_dcp():
            raise ValueError(f"constraints must be convex by cvxpy's rules (DCP), got {rules}")
        self.chain: Any
        self.data, self.chain, _ = self.problem.get_problem_data(cp.CLARABEL)
        cones, rows = self.data["dims"], torch.from_numpy(self.data["A"].toarray())
        of_theta = torch.from_numpy(self.data["P"].diagonal() != 0)  # others are cvxpy's own, or the user's
        self.G, self.others, self.h = rows[:, of_theta], rows[:, ~of_theta], torch.from_numpy(self.data["b"])
        linear = cones.zero + cones.nonneg
        self.equal, self.linear = torch.arange(len(rows)) < cones.zero, linear == len(rows)
        sizes = [*[1] * linear, *cones.soc, *(n * (n + 1) // 2 for n in cones.psd)]
        sizes += [3] * ((len(rows) - sum(sizes)) // 3)
        self.cone = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes, dtype=torch.long))  # of every row
        self.active = torch.zeros(0, len(rows), dtype=torch.bool)  # at the last minima, which others may be near

    def minima(
        self,
        A: Float[Tensor, "g q q"],
        b: Float[Tensor, "b k q"],
        offset: Float[Tensor, "b k p"],
        basis: Float[Tensor, "g p q"],
    ) -> Float[Tensor, "b k p"]:
        """θ."""
        k, B = b.shape[1], b[..., 0].numel()
        if len(self.active) != B:
            self.active = self.equal.to(b.device).repeat(B, 1)
        b, offset, theta = b.flatten(0, 1), offset.flatten(0, 1), torch.empty_like(offset)
        unknowns = b.shape[1] + self.others.shape[1] + len(self.h)
        for some in torch.arange(B, device=b.device).split(max(1, AT_ONCE // unknowns**2)):
            own = some // k % len(A)
            theta.flatten(0, 1)[some] = self._minima(A[own], b[some], offset[some], basis[own], some)
        return theta

    def _minima(
        self,
        A: Float[Tensor, "B q q"],
        b: Float[Tensor, "B q"],
        offset: Float[Tensor, "B p"],
        basis: Float[Tensor, "B p q"],
        some: Tensor,
    ) -> Float[Tensor, "B p"]:
        rows, others, h = (part.to(b) for part in (self.G, self.others, self.h))
        # What rows to interpolate already say is left as round-off, which is no constraint
        G, of_G = rows @ basis, rows.abs() @ basis.abs()
        h, of_h = h - offset @ rows.mT, h.abs() + offset.abs() @ rows.abs().mT
        G, h = (torch.where(part.abs() > ROUND_OFF * of, part, 0.0) for part, of in ((G, of_G), (h, of_h)))
        # Cones are cones in any unit: u, slacks and constants are in that of b, and each cone of order 1
        unit = b.abs().amax(-1, keepdim=True)
        unit = torch.where(unit > 0, unit, 1.0)
        G = torch.cat([G, others.expand(len(b), -1, -1)], -1)
        h, cone = h / unit, self.cone.to(b.device)
        largest = torch.maximum(G.abs().amax(-1), h.abs())
        size = torch.zeros_like(h).scatter_reduce(1, cone.expand_as(h), largest, "amax")[:, cone]
        size = torch.where(size > 0, size, 1.0)
        G, h, more = G / size[..., None], h / size, (0, others.shape[1])
        P, c = torch.nn.functional.pad(A, more * 2), torch.nn.functional.pad(b / unit, more)
        u, solved = torch.zeros_like(c), c.new_zeros(len(c), dtype=torch.bool)
        if self.linear:
            u, self.active[some], solved = active_sets.solve(P, c, G, h, self.equal.to(b.device), self.active[some])
        for i in (~solved).nonzero()[:, 0].tolist():
            u[i], self.active[some[i]] = self._by_clarabel(P[i], c[i], G[i], h[i])
        return offset + unit * (basis @ u[:, : b.shape[1], None])[..., 0]

    def _by_clarabel(
        self, P: Float[Tensor, "n n"], c: Float[Tensor, " n"], G: Float[Tensor, "m n"], h: Float[Tensor, " m"]
    ) -> tuple[Tensor, Tensor]:
        """u of one programme, and which rows bind."""
        import cvxpy as cp
        from scipy import sparse

        matrices = {"P": sparse.csc_array(P.cpu().numpy()), "A": sparse.csc_array(G.cpu().numpy())}
        data = {**self.data, **matrices, "c": -c.cpu().numpy(), "b": h.cpu().numpy()}
        status = ""
        for accuracy in ACCURACIES:
            options = dict.fromkeys(TOLERANCES, accuracy) | {f"reduced_{name}": ENOUGH for name in TOLERANCES}
            solution = self.chain.solve_via_data(self.problem, data, solver_opts=options)
            status = self.chain.solver.STATUS_MAP.get(str(solution.status), str(solution.status))
            if status in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE):
                return torch.tensor(solution.x).to(c), torch.tensor(solution.z).to(c) > torch.tensor(solution.s).to(c)
            if status == cp.INFEASIBLE:
                break
        if status in (cp.INFEASIBLE, cp.INFEASIBLE_INACCURATE):
            raise ValueError("the constraints and the rows to interpolate cannot all be met (infeasible)")
        raise ValueError(
            f"the constraints could not be solved for to 1e-8 ({status}): state them in the units of f, "
            "or draw more (n_samples)"
        )

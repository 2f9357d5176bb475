"""The linear fit where every instance has weights of its own: some instances after the others, and no matrix stays."""

from collections.abc import Iterator
from functools import reduce

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from locapprox.fit.conjugate import Conjugate
from locapprox.fit.errors import LeaveOut, Pass, Solver
from locapprox.fit.evidence import Estimate
from locapprox.fit.quadratic import Exact, Quadratic, Solution
from locapprox.fit.solve import round_off, weighted_gram

MATRICES = 2**18  # numbers in the Gram matrices of the instances that are solved together
OUTPUTS = 2**18  # of the instances whose gradients are conjugate together
LEAST = 16  # unknowns from which conjugate gradients are faster

Solved = tuple[Int[Tensor, " c"], Float[Tensor, "c k p"], Estimate]


def solved_in_turn(done: Pass, solve: Solver, exact: Exact, problem: Quadratic) -> tuple[Solution, Estimate]:
    """As `solve` of a problem without a Gram matrix, and then `LeaveOut`: by conjugate gradients where weights are
    nearly even, else by the matrices of some instances at a time."""
    theta, left = torch.empty_like(problem.xy), torch.arange(len(problem.y), device=problem.y.device)
    error, loss, carry = torch.empty_like(theta), torch.empty_like(problem.y), theta[..., :1].clone()
    parts: list[Solved] = []
    if solve is Quadratic.solve and _suits(done, exact, problem):
        parts = list(_conjugate(done, exact, problem))
        left = left[~torch.isin(left, torch.cat([i for i, _, _ in parts]))]
    parts += _direct(done, solve, exact, problem, left)
    for i, some, estimate in parts:
        assert estimate.carriers is not None
        theta[i], error[i], loss[i], carry[i] = some, estimate.standard_error, estimate.loss, estimate.carriers
    return Solution(theta, None), parts[0][2]._replace(standard_error=error, loss=loss, carriers=carry)


def _suits(done: Pass, exact: Exact, problem: Quadratic) -> bool:
    """Whether conjugate gradients know what to do: single random rows, which are held, and many unknowns."""
    b, p = len(problem.y), problem.x.shape[1]
    alone = done.all_random and done.unit_size == 1 and len(exact.rows) == 0
    return alone and len(problem.w) == b and p >= LEAST and done.sample.keeps_draw


def _conjugate(done: Pass, exact: Exact, problem: Quadratic) -> Iterator[Solved]:
    """Of the instances whose weights are nearly even."""
    blocks = list(done.sample.blocks())
    rows = Conjugate(torch.cat([done.sample.design(block, problem.intercept) for block in blocks]))
    n, k = len(rows.X), done.sample.k
    for i in torch.arange(len(problem.y), device=rows.X.device).split(max(1, OUTPUTS // (n * k))):
        weight = torch.cat([block.weight[i] for block in blocks], dim=1).mul_(n / problem.w[i, None])
        leverage, near = rows.leverages(weight)
        i, weight, leverage = _some(near, i, weight, leverage)
        part, unit = problem.of(i, None), problem.w[i, None] / n
        theta, found = rows.solve(weight, part.xy / unit[..., None], part.yy / unit)
        i, weight, leverage, unit, theta = _some(found, i, weight, leverage, unit, theta)
        part = problem.of(i, None)
        theta = part.uncentred(theta)
        residual = (-theta @ rows.X.mT).add_(torch.cat([y[i] for y in done.outputs], dim=-1))
        sums = rows.leave_out(weight, leverage, residual)
        sums = sums._replace(loss=sums.loss * unit)
        yield i, theta, LeaveOut().of_sums(sums, False, done, exact, part, theta, round_off(theta, rows.X))


def _some(which: Bool[Tensor, " c"], *parts: Tensor) -> tuple[Tensor, ...]:
    return parts if bool(which.all()) else tuple(part[which] for part in parts)


def _direct(done: Pass, solve: Solver, exact: Exact, problem: Quadratic, left: Int[Tensor, " c"]) -> Iterator[Solved]:
    """By a Gram matrix of each, or of all where they share weights."""
    size = len(problem.y) if len(problem.w) == 1 else max(1, MATRICES // problem.x.shape[1] ** 2)
    for i in left.split(size) if len(left) else ():
        own = done if len(i) == len(problem.y) else done.of(i)  # which copies their outputs
        designs = ((own.sample.design(block, problem.intercept), block.weight) for block in own.sample.blocks())
        gram = reduce(torch.add, (weighted_gram(X, weight) for X, weight in designs))
        part, there = problem.of(i, gram), Exact(exact.rows, exact.y[i])
        solution = solve(part, there)
        yield i, solution.theta, LeaveOut().estimate(own, solve, there, part, solution)

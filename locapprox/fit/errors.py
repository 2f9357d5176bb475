"""How sure: estimators of standard errors and of the loss on fresh draws, one for each kind of sample and loss.

An estimator is chosen from the sample's plan before the pass over the draw. It may ask for more weightings of the rows
than the fit needs, or for the outputs to be kept, and then sees the minimum.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from locapprox.fit.blocks import Block
from locapprox.fit.evidence import Estimate, carriers, needed, needed_of_each, resolved
from locapprox.fit.jackknife import Inverse, Jackknife, jackknife
from locapprox.fit.kept import remembered
from locapprox.fit.losses import Loss
from locapprox.fit.quadratic import Exact, Quadratic, Solution
from locapprox.fit.quadrature import moved_edges, on_a_line, rule_error
from locapprox.fit.ridge import Shrunk
from locapprox.fit.sampling import Sample
from locapprox.fit.solve import part_of, round_off
from locapprox.fit.sums import Totals

AT_ONCE = 2**20  # outputs in one step of a pass over them, which bounds what is held besides
GROUPS = 20  # delete-group solutions where rows cannot be left out one by one

Solver = Callable[[Quadratic, Exact], Solution]


@dataclass(eq=False)
class Pass:
    """What a pass over the draw leaves."""

    sample: Sample
    totals: Totals
    rows: int = 0  # to fit
    units: int = 0  # independent ones among them
    unit_size: int = 0
    exact: list[Exact] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)  # block by block, if they are kept
    precision: torch.dtype = torch.float64  # of the model
    _room: Tensor | None = None

    def keep(self, block: Block, y: Float[Tensor, "b k n"]) -> None:
        """Outputs of the next block, in one place for all: kept as they come they would lie above memory that is freed,
        which then cannot go back to the system."""
        start, end = self.rows, self.rows + y.shape[-1]
        if self._room is None and end + len(block.exact) < self.sample.plan.rows:
            self._room = y.new_empty(*y.shape[:2], self.sample.plan.rows)
        if self._room is not None and end <= self._room.shape[-1]:
            self._room[..., start:end] = y
            y = self._room[..., start:end]
        self.outputs.append(y)

    @property
    def all_random(self) -> bool:
        return self.units * self.unit_size == self.rows

    def of(self, i: Tensor) -> "Pass":
        """Of some instances, with their draw and outputs; the sums are still those of all."""
        return replace(self, sample=self.sample.of(i), outputs=[y[i] for y in self.outputs])

    def degrees(self, unknowns: int = 1) -> float:
        """Units − unknowns where all rows are random, else units − 1; infinite if nothing is.

        The rows of a unit may all tell the same: of ±ξ only the difference knows of w.
        """
        if self.units == 0:
            return torch.inf
        return float(max(1, self.units - (unknowns if self.all_random else 1)))


@remembered
def as_weighting(weight: Float[Tensor, "g n"]) -> Float[Tensor, "g 1 n"]:
    return weight[:, None]


@remembered
def rows_from(X: Float[Tensor, "n p"], first: int) -> Float[Tensor, "m p"]:
    return X[first:]


@remembered
def weights_from(weight: Float[Tensor, "g n"], first: int) -> Float[Tensor, "g m"]:
    return weight[:, first:]


class ErrorEstimator(ABC):
    keeps_outputs = False
    may_shrink = True

    def weightings(self, block: Block, units: int) -> Float[Tensor, "g s n"]:
        """Of the block's rows, the fit's own first; `units` came before."""
        return as_weighting(block.weight)

    @abstractmethod
    def estimate(self, done: Pass, solve: Solver, exact: Exact, problem: Quadratic, solution: Solution) -> Estimate:
        """At the minimum `solution` of `problem`."""


class CoarserRule(ErrorEstimator):
    """For a quadrature: the distance to rules on the same nodes, a coarser one and, on a line, those of moved edges."""

    def weightings(self, block: Block, units: int) -> Float[Tensor, "g s n"]:
        weight = block.weight[:, None]
        assert block.coarse_weight is not None
        rules = [weight, block.coarse_weight[-1:, None].to(weight)]
        return torch.cat([*rules, moved_edges(block.weight)] if on_a_line(block.xi) else rules, dim=1)

    def estimate(self, done: Pass, solve: Solver, exact: Exact, problem: Quadratic, solution: Solution) -> Estimate:
        theta, rules = solution.theta, done.totals.weightings
        gaps = torch.stack([theta - solve(done.totals.problem(rule), exact).theta for rule in range(1, rules)])
        if rules == 2:
            return Estimate(gaps[0].abs(), problem.loss_of(theta), torch.inf)
        error = resolved(*rule_error(gaps[0], gaps[1:]), done.rows, done.sample)
        return Estimate(error, problem.loss_of(theta), torch.inf)


class SpreadOfGradients(ErrorEstimator):
    """For a mean gradient: the variance of a weighted mean over the independent units of the draw, or its replicates.

    What carries an error is seen row by row in either case.
    """

    def estimate(self, done: Pass, solve: Solver, exact: Exact, problem: Quadratic, solution: Solution) -> Estimate:
        assert done.totals.spread is not None
        theta = solution.theta
        spread, sets = done.totals.spread, done.totals.replicates
        units = spread if sets is None else sets.spread()
        held = (theta[..., : problem.d] == 0) & (problem.mean_gradient != 0)
        variance = torch.where(held, 0.0, units.variance(problem))
        loss = problem.loss_of(theta) + 2 * problem.loss.gradient * variance.sum(-1)
        carry = spread.carriers(problem, done.precision)
        return Estimate(variance.sqrt(), loss, units.degrees, carry, needed_of_each(done.units))


class DeleteGroups(ErrorEstimator):
    """Where rows cannot be left out one by one: the jackknife over 20 groups of units, or over the draw's
    replicates, from their sums alone."""

    may_shrink = False

    def weightings(self, block: Block, units: int) -> Float[Tensor, "g s n"]:
        """All rows, the fixed ones, and every group of units."""
        weight = block.weight[:, None]
        row = torch.arange(len(block.xi), device=weight.device)
        unit = units + (row - block.n_fixed).div(block.unit_size, rounding_mode="floor")
        groups = block.replicates or GROUPS
        group = torch.where(row < block.n_fixed, 0, 1 + unit % groups)
        members = group == torch.arange(groups + 1, device=weight.device)[:, None]
        return torch.cat([weight, weight * members], dim=1)

    def estimate(self, done: Pass, solve: Solver, exact: Exact, problem: Quadratic, solution: Solution) -> Estimate:
        theta, loss = solution.theta, problem.loss_of(solution.theta)
        problems = list(without_groups(done.totals))
        if len(problems) < 2:
            unknown = torch.nan if done.units else 0.0
            return Estimate(torch.full_like(theta, unknown), loss + unknown, torch.inf)
        steps = torch.stack([solve(part, exact).theta for part in problems])
        steps = steps - steps.mean(0)
        scale = (len(problems) - 1) / len(problems)
        extra = sum((problem.curvature(step) for step in steps), start=torch.zeros_like(loss))
        error = (scale * steps.square().sum(0)).sqrt()
        resolved = (problem.loss_of(theta) > 0)[..., None]
        carry = carriers(steps.square().sum(0), steps.square().amax(0) * resolved)
        return Estimate(error, loss + 2 * (scale * extra), len(problems) - 1.0, carry, 2.0)


def without_groups(totals: Totals) -> Iterator[Quadratic]:
    """The problem without each group that has weight, the others scaled up to make up for it."""
    assert totals.values is not None
    weight = totals.values.w  # (g, 2 + groups): all, fixed, groups
    sampled = weight[:, 0] - weight[:, 1]
    for j in range(2, totals.weightings):
        if bool((weight[:, j] > 0).all()):
            scale = sampled / (sampled - weight[:, j])
            factors = torch.zeros_like(weight)
            factors[:, 0], factors[:, 1], factors[:, j] = scale, 1 - scale, -scale
            yield totals.mixed(factors)


class LeaveOut(ErrorEstimator):
    """Every unit of the draw is left out in turn, in closed form, on outputs that were kept: between HC2 and HC3."""

    keeps_outputs = True

    def estimate(self, done: Pass, solve: Solver, exact: Exact, problem: Quadratic, solution: Solution) -> Estimate:
        theta, inverse, sample = solution.theta, solution.inverse, done.sample
        assert inverse is not None
        floor = torch.zeros_like(theta[..., 0])

        def pieces() -> Iterator[Piece]:
            for block, y in zip(sample.blocks(), done.outputs, strict=True):
                X, n_fixed = sample.design(block, problem.intercept), block.n_fixed
                torch.maximum(floor, round_off(theta, X), out=floor)
                random = rows_from(X, n_fixed) if n_fixed else X
                for i in _batches(y):
                    residual = (-theta[i] @ X.mT).add_(y[i])
                    yield Piece(i, random, part_of(block.weight, i, len(y)), residual, n_fixed, block.unit_size)

        return self.of_sums(*left_out(pieces(), theta, inverse), done, exact, problem, theta, floor)

    def of_sums(
        self,
        sums: Jackknife,
        has_fixed: bool,
        done: Pass,
        exact: Exact,
        problem: Quadratic,
        theta: Float[Tensor, "b k p"],
        floor: Float[Tensor, "b k"],
    ) -> Estimate:
        """`floor` is the round-off of a residual."""
        weight = problem.w[:, None]
        mean = torch.where(sums.loss <= weight * floor.square(), 0.0, sums.loss / weight)
        error = jackknife_error(sums, done.units, has_fixed)
        scale = max(1.0, torch.finfo(done.precision).eps / torch.finfo(floor.dtype).eps / (4 * theta.shape[-1]))
        moved = sums.loss > weight * (scale * floor).square()  # floor holds 16 p units of rounding, of float64
        carry = torch.where(moved, sums.distance.square() / sums.distance_square, 0.0)[..., None]
        degrees = done.degrees(theta.shape[-1] - len(exact.rows))
        return Estimate(error, problem.loss.value * mean, degrees, carry, needed(done.units))


class Piece(NamedTuple):
    """Rows whose units are left out, of some instances; the first `n_fixed` are no units, and X has only the others."""

    instances: slice
    X: Float[Tensor, "m p"]
    weight: Float[Tensor, "g n"]
    residual: Float[Tensor, "c k n"]
    n_fixed: int
    unit_size: int


def left_out(pieces: Iterable[Piece], theta: Float[Tensor, "b k p"], inverse: Inverse) -> tuple[Jackknife, bool]:
    """The sums over all units of all pieces (the fixed rows add to the loss as they are); whether any row is fixed."""
    sums = Jackknife.of_none(theta)
    has_fixed = False
    for i, X, weight, residual, n_fixed, unit_size in pieces:
        has_fixed |= n_fixed > 0
        if n_fixed:
            sums.loss[i] += (weight[:, None, :n_fixed] * residual[..., :n_fixed].square()).sum(-1)
        if len(X):
            own = inverse.of(i, len(theta)) if isinstance(inverse, Shrunk) else part_of(inverse, i, len(theta))
            random = weights_from(weight, n_fixed) if n_fixed else weight
            parts = jackknife(X, random, own, residual[..., n_fixed:], unit_size)
            for whole, part in zip(sums, parts, strict=True):
                whole[i] += part
    return sums, has_fixed


def jackknife_error(sums: Jackknife, units: int, has_fixed: bool) -> Float[Tensor, "b k p"]:
    """√ of Σ δ² where all rows are random; beside fixed rows of the jackknife variance (U − 1)/U Σ (δ − δ̄)²."""
    second = sums.influence_square
    if has_fixed and units:  # of one unit nothing is known
        second = (second - sums.influence.square() / units) * ((units - 1) / units)
        second = second if units > 1 else torch.full_like(second, torch.nan)
    return second.clamp_min(0).sqrt()


def _batches(y: Float[Tensor, "b k n"]) -> Iterator[slice]:
    """Instances by as many as have `AT_ONCE` outputs together, or one by one."""
    size = max(1, AT_ONCE // max(1, y[0].numel()))
    yield from (slice(start, min(start + size, len(y))) for start in range(0, len(y), size))


def estimator(sample: Sample, loss: Loss, by_groups: bool) -> ErrorEstimator:
    """By kind of sample and loss; `by_groups` where the solver knows sums only."""
    if sample.plan.coarser:
        return CoarserRule()
    sums_alone = loss.value > 0 and (loss.gradient > 0 or not sample.keeps_outputs or sample.plan.replicates > 0)
    if by_groups or sums_alone or (loss.gradient > 0 and sample.interpolates):
        return DeleteGroups()
    return SpreadOfGradients() if loss.gradient else LeaveOut()

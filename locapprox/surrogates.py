"""Surrogate classes G, each with the fit that minimises the stated loss over it."""

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from locapprox.losses import Loss
from locapprox.sampling import Block, GradientSink, Sample
from locapprox.solve import NormalEquations, design, leave_out, residual, shifts

GROUPS = 20  # delete-group solutions where rows cannot be left out one by one


@dataclass(frozen=True, eq=False)
class Fit:
    """g(ξ) = w · ξ + intercept per instance and score, with its errors."""

    weights: Float[Tensor, "b k d"]
    intercept: Float[Tensor, "b k"]
    standard_error: Float[Tensor, "b k d"]
    loss: Float[Tensor, "b k"]
    constant_loss: Float[Tensor, "b k"]
    degrees: float  # of the t distribution of (w − its expectation) / standard error


class Surrogate(Protocol):
    """A class of functions g(ξ) and how to fit one to a sample under a loss."""

    def fit(self, sample: Sample, loss: Loss) -> Fit: ...


@dataclass(frozen=True)
class Linear:
    """g(ξ) = w · ξ + intercept, or w · ξ.

    Standard errors: with values, every unit of the draw is left out in closed form (HC3; for pairs and enumerated
    designs the jackknife); for a mean gradient, the spread of its units; where neither can be had (both kinds of rows,
    gradients with rows to interpolate, more outputs than are kept) 20 delete-group solutions. For a quadrature, the
    distance to the coarser rule on the same nodes. Zero where the draw is an enumeration or a point.
    """

    intercept: bool = True

    def fit(self, sample: Sample, loss: Loss) -> Fit:
        return _LinearFit(sample, loss, self.intercept).run()


class _LinearFit:
    """One pass of model calls into normal equations and, for errors by leaving rows out, one pass of draws."""

    def __init__(self, sample: Sample, loss: Loss, intercept: bool) -> None:
        self.sample, self.loss, self.intercept = sample, loss, intercept
        self.equations = NormalEquations(loss, intercept)
        self.outputs: list[Tensor] = []
        self.exact: list[Tensor] = []
        self.exact_y: list[Tensor] = []
        self.keep = loss.gradient == 0 and sample.keep_outputs
        self.by_groups = loss.value > 0 and not self.keep
        self.units = 0

    def run(self) -> Fit:
        nested = self.first_pass()
        exact, target = torch.cat(self.exact), torch.cat(self.exact_y, dim=-1)
        sets = self.equations.sums["weight"].shape[1]
        everything = torch.eye(sets, dtype=self.sample.dtype, device=exact.device)[:1]
        if not bool((self.equations.total("weight", everything) > 0).all()) and len(exact) == 0:
            raise ValueError("all weights of the draw are zero: widen the kernel or the neighbourhood")
        theta, inverse = self.equations.solve(everything, exact, target)
        degrees = torch.inf
        if nested:
            coarse = torch.eye(sets, dtype=self.sample.dtype, device=exact.device)[1:2]
            error = (theta - self.equations.solve(coarse, exact, target)[0]).abs()
            loss = self.equations.loss_of(theta, everything)
        elif self.by_groups:
            variance, extra, groups = self.delete_groups(theta, exact, target, everything)
            error, degrees = variance.sqrt(), groups - 1.0
            loss = self.equations.loss_of(theta, everything) + 2 * extra
        elif inverse is None:
            variance = self.equations.mean_gradient_variance(everything)
            error = variance.sqrt()
            loss = self.equations.loss_of(theta, everything) + 2 * self.loss.gradient * variance.sum(-1)
        else:
            error, loss = self.leave_out(theta, inverse)
        d = theta.shape[-1] - self.intercept
        intercept = theta[..., d] if self.intercept else torch.zeros_like(theta[..., 0])
        return Fit(theta[..., :d], intercept, error[..., :d], loss, self.equations.constant_loss(everything), degrees)

    def first_pass(self) -> bool:
        nested = False
        for block in self.sample.blocks():
            nested = block.coarse is not None
            if len(block.exact) and self.loss.gradient and not nested:
                self.by_groups = True
            X, weight = design(block.xi, self.intercept, self.sample.dtype), self.weightings(block)
            if self.loss.gradient:
                exact_y, y = self.sample.gradients(block, self.sink(block, weight))
            else:
                exact_y, y = self.sample.values(block)
            self.equations.add_values(X, weight, y.to(self.sample.dtype))
            self.exact.append(design(block.exact, self.intercept, self.sample.dtype))
            self.exact_y.append(exact_y.to(self.sample.dtype))
            if self.keep:
                self.outputs.append(y)
            self.units += (len(block.xi) - block.fixed) // block.unit
        return nested

    def sink(self, block: Block, weight: Tensor) -> GradientSink:
        def take(i: slice, rows: slice, gradient: Tensor) -> None:
            unit = None if rows.start < block.fixed else block.unit
            self.equations.add_gradients(len(self.sample.x), i, weight[..., rows], gradient, unit)

        return take

    def weightings(self, block: Block) -> Float[Tensor, "g s n"]:
        """All rows; then the coarser rule, or the fixed rows and every group of units."""
        weight = block.weight[:, None]
        if block.coarse is not None:
            return torch.cat([weight, block.coarse[:, None].to(weight)], dim=1)
        if not self.by_groups:
            return weight
        row = torch.arange(len(block.xi), device=weight.device)
        unit = self.units + (row - block.fixed).div(block.unit, rounding_mode="floor")
        group = torch.where(row < block.fixed, 0, 1 + unit % GROUPS)
        members = group == torch.arange(GROUPS + 1, device=weight.device)[:, None]
        return torch.cat([weight, weight * members], dim=1)

    def delete_groups(
        self, theta: Tensor, exact: Tensor, target: Tensor, everything: Tensor
    ) -> tuple[Tensor, Tensor, int]:
        """Jackknife over groups: variance of θ, what it adds to the loss of fresh draws, number of groups."""
        weight = self.equations.sums["weight"]  # (g, 2 + groups): all, fixed, groups
        sampled = weight[:, 0] - weight[:, 1]
        used = [j for j in range(2, 2 + GROUPS) if bool((weight[:, j] > 0).all())]
        if len(used) < 2:
            return torch.zeros_like(theta), torch.zeros_like(theta[..., 0]), 2
        solutions = []
        for j in used:
            factor = sampled / (sampled - weight[:, j])
            mix = torch.zeros_like(weight)
            mix[:, 0], mix[:, 1], mix[:, j] = factor, 1 - factor, -factor
            solutions.append(self.equations.solve(mix, exact, target)[0])
        steps = torch.stack(solutions)
        steps = steps - steps.mean(0)
        scale = (len(used) - 1) / len(used)
        extra = sum(
            (self.equations.curvature(step, everything) for step in steps), start=torch.zeros_like(theta[..., 0])
        )
        return scale * steps.square().sum(0), scale * extra, len(used)

    def leave_out(self, theta: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
        """Standard errors and the mean loss when every unit of the draw is left out in turn."""
        first, second = torch.zeros_like(theta), torch.zeros_like(theta)
        total, enumerated = torch.zeros_like(theta[..., 0]), False
        weights = total.new_zeros(1)
        for block, y in zip(self.sample.blocks(), self.outputs, strict=True):
            X = design(block.xi, self.intercept, self.sample.dtype)
            rest = residual(y.to(X.dtype), theta @ X.mT)
            weights = weights + block.weight.sum(-1)
            if block.fixed < len(X):
                rows = slice(block.fixed, None)
                e = leave_out(X[rows], block.weight[:, rows], inverse, rest[..., rows], block.unit)
                one, two = shifts(X[rows], block.weight[:, rows], inverse, e, block.unit)
                first, second = first + one, second + two
                rest = torch.cat([rest[..., : block.fixed], e], dim=-1)
            enumerated |= block.fixed > 0
            total += (block.weight[:, None] * rest.square()).sum(-1)
        if enumerated and self.units:
            second = (second - first.square() / self.units) * ((self.units - 1) / self.units)
        mean = torch.where(total > 0, total / weights[:, None], 0.0)
        return second.clamp_min(0).sqrt(), self.loss.value * mean

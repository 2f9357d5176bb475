"""A fit from normal equations that stream: one pass of model calls, and for errors one more pass of draws."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from locapprox.equations import NormalEquations, Solved
from locapprox.jackknife import jackknife
from locapprox.losses import Loss
from locapprox.notices import warn
from locapprox.sampling import Block, Sample
from locapprox.solve import Shrunk, design, part_of, rounding

AT_ONCE = 2**20  # outputs in one step of a pass over them, which bounds what is held besides
GROUPS = 20  # delete-group solutions where rows cannot be left out one by one

Solver = Callable[[NormalEquations, Tensor, Tensor, Tensor], Solved]  # of equations, mix, exact rows, their targets


@dataclass(frozen=True, eq=False)
class Fit:
    """g(ξ) = w · ξ + intercept (or its logistic function) per instance and score, with its errors."""

    weights: Float[Tensor, "b k d"]
    intercept: Float[Tensor, "b k"]
    standard_error: Float[Tensor, "b k d"]
    loss: Float[Tensor, "b k"]
    constant_loss: Float[Tensor, "b k"]
    degrees: float  # of the t distribution of (w − its expectation) / standard error


class StreamedFit:
    """Minimises a quadratic loss over θ = [w, intercept], as `solver` says, and estimates errors.

    `by_groups` asks for delete-group errors, which need no more than normal equations; `most` is the number of features
    that may enter.
    """

    def __init__(
        self,
        sample: Sample,
        loss: Loss,
        intercept: bool,
        solver: Solver = NormalEquations.solve,
        by_groups: bool = False,
        most: int | None = None,
    ) -> None:
        self.sample, self.loss, self.intercept, self.solver = sample, loss, intercept, solver
        self.equations = NormalEquations(loss, intercept)
        self.outputs: list[Tensor] = []
        self.exact: list[Tensor] = []
        self.exact_y: list[Tensor] = []
        self.keep = loss.gradient == 0 and sample.keep_outputs and not by_groups
        self.by_groups = by_groups or (loss.value > 0 and not self.keep)
        self.most = most
        self.nested = False
        self.units = self.unit = self.rows = 0
        self.last: tuple[Block, Tensor] | None = None
        self.precision = sample.x.dtype

    def run(self) -> Fit:
        self.first_pass()
        if self.rows + sum(map(len, self.exact)) == 0:
            raise ValueError(f"n_samples={self.sample.n} gives no draw here: use more")
        exact, target = torch.cat(self.exact), torch.cat(self.exact_y, dim=-1)
        sets = self.equations.sums["weight"].shape[1]
        everything = torch.eye(sets, dtype=self.sample.dtype, device=exact.device)[:1]
        self.check_weights(everything, len(exact))
        self.check_resolution(everything)
        inverse: Tensor | Shrunk | None
        if self.too_few(exact):
            theta, inverse = self.equations.shrink(everything, exact, target, self.rows / self.unit)
        else:
            theta, inverse = self.solver(self.equations, everything, exact, target)
        degrees = float(max(1, self.units - 1)) if self.units else torch.inf
        if self.nested:
            coarse = torch.eye(sets, dtype=self.sample.dtype, device=exact.device)[1:2]
            error = (theta - self.solver(self.equations, coarse, exact, target)[0]).abs()
            loss = self.equations.loss_of(theta, everything)
        elif self.by_groups:
            variance, extra, groups = self.delete_groups(theta, exact, target, everything)
            error, degrees = variance.sqrt(), groups - 1.0 if groups > 1 else torch.inf
            loss = self.equations.loss_of(theta, everything) + 2 * extra
        elif inverse is None:
            variance = self.equations.mean_gradient_variance(everything) * (theta[..., : self.sample.d] != 0)
            error = variance.sqrt()
            loss = self.equations.loss_of(theta, everything) + 2 * self.loss.gradient * variance.sum(-1)
        else:
            error, loss = self.leave_out(theta, inverse)
            if self.units * self.unit == self.rows:
                degrees = float(max(1, self.rows - theta.shape[-1]))
        d = theta.shape[-1] - self.intercept
        intercept = theta[..., d] if self.intercept else torch.zeros_like(theta[..., 0])
        return Fit(theta[..., :d], intercept, error[..., :d], loss, self.equations.constant_loss(everything), degrees)

    def first_pass(self) -> None:
        for block in self.sample.blocks():
            self.nested = block.coarse is not None
            if len(block.exact) and self.loss.gradient and not self.nested:
                self.by_groups = True
            X, weight = self.design(block), self.weightings(block)
            if self.loss.gradient and len(block.exact) and len(block.xi) == 0:
                raise ValueError("gradient matching has no rows here: this draw only has rows to interpolate")
            if self.loss.gradient:
                exact_y, y = self.sample.gradients(block, partial(self.take, block, weight))
            else:
                exact_y, y = self.sample.values(block)
            self.precision = y.dtype
            self.equations.add_values(X, weight, y)
            self.exact.append(design(block.exact, self.intercept, self.sample.dtype))
            self.exact_y.append(exact_y.to(self.sample.dtype))
            if self.keep:
                self.outputs.append(y)
            self.rows += len(block.xi)
            self.units += (len(block.xi) - block.fixed) // block.unit
            self.unit = max(self.unit, block.unit)

    def design(self, block: Block) -> Float[Tensor, "n p"]:
        """The block's rows; the same tensor if the draw is one block, for both passes."""
        if self.last is None or self.last[0] is not block:
            self.last = block, design(block.xi, self.intercept, self.sample.dtype)
        return self.last[1]

    def take(self, block: Block, weight: Tensor, i: slice, rows: slice, gradient: Tensor) -> None:
        unit = None if rows.start < block.fixed else block.unit
        self.equations.add_gradients(len(self.sample.x), i, weight[..., rows], gradient, unit)

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

    def check_weights(self, everything: Tensor, exact: int) -> None:
        """Refuse weights that leave too little to fit: all zero, or concentrated on fewer rows than unknowns."""
        weight = self.equations.total("weight", everything)
        unknowns = self.sample.d + self.intercept - exact
        empty, size = exact == 0 and bool((weight <= 0).any()), torch.inf
        if self.units * self.unit == self.rows >= unknowns and self.loss.gradient == 0:  # all rows are random
            squares = self.equations.total("weight_square", everything)
            size = float((weight.square() / squares.clamp_min(torch.finfo(squares.dtype).tiny)).min())
        if empty or size < unknowns:
            size = 0.0 if empty else size
            raise ValueError(
                f"the draw's weights leave an effective sample size of {size:.3g} for {unknowns} weights; "
                + self.sample.advice(2 * unknowns)
            )

    def check_resolution(self, everything: Tensor) -> None:
        """Warn if σ is why f varies over the draw by little more than its rounding (not where f is flat anyway)."""
        sigma = getattr(getattr(self.sample.neighbourhood, "distribution", None), "sigma", None)
        if sigma is None or self.loss.gradient:
            return
        size = float(self.sample.x.abs().amax())
        spread = self.equations.constant_loss(everything).clamp_min(0).sqrt()
        rounding = 1e3 * torch.finfo(self.precision).eps * (self.equations.shift.abs() + spread)
        small = float(torch.as_tensor(sigma).min())
        enough = small * float((rounding / spread).nanmedian())  # f's differences grow with σ
        enough = enough if enough <= size / 10 else 0.0
        least = max(1e3 * torch.finfo(self.sample.x.dtype).eps * size, enough)
        if small < least:
            warn(
                f"sigma={small:.3g} is so small that differences of f vanish in {self.precision}: use sigma ≥ "
                f"{2 * least:.1g}, a float64 model, or vanilla_gradients()"
            )

    def too_few(self, exact: Tensor) -> bool:
        """Warn below twice the rows that determine the weights: there, ridge by generalised cross-validation."""
        if self.loss.gradient or self.units == 0:
            return False
        unknowns = min(self.most or self.sample.d, self.sample.d) + self.intercept
        if self.rows >= 2 * self.unit * unknowns:
            return False
        needed = self.unit * (unknowns - (int(torch.linalg.matrix_rank(exact)) if len(exact) else 0))
        if self.rows >= 2 * needed or self.rows - self.units * self.unit >= needed:
            return False
        shrink = self.solver is NormalEquations.solve and not self.by_groups
        how = "The fit is shrunk (ridge by generalised cross-validation) and its standard errors are unknown: NaN. "
        enough = 3 * needed + len(exact)  # at twice, a weight may rest on one pair of masks
        warn(
            f"n_samples is small: {self.rows} rows for weights that {needed} would just determine. {how * shrink}Use "
            f"n_samples ≥ {enough}, or fewer features"
        )
        return shrink

    def delete_groups(
        self, theta: Tensor, exact: Tensor, target: Tensor, everything: Tensor
    ) -> tuple[Tensor, Tensor, int]:
        """Jackknife over groups: variance of θ, what it adds to the loss of fresh draws, number of groups."""
        weight = self.equations.sums["weight"]  # (g, 2 + groups): all, fixed, groups
        sampled = weight[:, 0] - weight[:, 1]
        used = [j for j in range(2, 2 + GROUPS) if bool((weight[:, j] > 0).all())]
        if len(used) < 2:
            unknown = torch.nan if self.units else 0.0
            return torch.full_like(theta, unknown), torch.full_like(theta[..., 0], unknown), 0
        solutions = []
        for j in used:
            factor = sampled / (sampled - weight[:, j])
            mix = torch.zeros_like(weight)
            mix[:, 0], mix[:, 1], mix[:, j] = factor, 1 - factor, -factor
            solutions.append(self.solver(self.equations, mix, exact, target)[0])
        steps = torch.stack(solutions)
        steps = steps - steps.mean(0)
        scale = (len(used) - 1) / len(used)
        extra = sum(
            (self.equations.curvature(step, everything) for step in steps), start=torch.zeros_like(theta[..., 0])
        )
        return scale * steps.square().sum(0), scale * extra, len(used)

    def leave_out(self, theta: Tensor, inverse: Tensor | Shrunk) -> tuple[Tensor, Tensor]:
        """Standard errors and the mean loss when every unit of the draw is left out in turn."""
        total, first, second = torch.zeros_like(theta[..., 0]), torch.zeros_like(theta), torch.zeros_like(theta)
        nothing, weights, enumerated = torch.zeros_like(total), total.new_zeros(1), False
        for block, y in zip(self.sample.blocks(), self.outputs, strict=True):
            X, fixed = self.design(block), block.fixed
            nothing = torch.maximum(nothing, rounding(theta, X))
            weights, enumerated = weights + block.weight.sum(-1), enumerated or fixed > 0
            random = X[fixed:] if fixed else X
            for i in _batches(y):
                weight = part_of(block.weight, i, len(y))
                rest = (-theta[i] @ X.mT).add_(y[i])
                if fixed:
                    total[i] += (weight[:, None, :fixed] * rest[..., :fixed].square()).sum(-1)
                if len(random):
                    own = inverse.of(i, len(y)) if isinstance(inverse, Shrunk) else part_of(inverse, i, len(y))
                    sums = jackknife(random, weight[:, fixed:], own, rest[..., fixed:], block.unit)
                    for whole, part in zip((total, first, second), sums, strict=True):
                        whole[i] += part
        if enumerated and self.units:  # of one unit nothing is known
            second = (second - first.square() / self.units) * ((self.units - 1) / self.units)
            second = second if self.units > 1 else torch.full_like(second, torch.nan)
        mean = torch.where(total <= weights[:, None] * nothing.square(), 0.0, total / weights[:, None])
        return second.clamp_min(0).sqrt(), self.loss.value * mean


def _batches(y: Float[Tensor, "b k n"]) -> Iterator[slice]:
    """Instances by as many as have `AT_ONCE` outputs together, or one by one."""
    size = max(1, AT_ONCE // max(1, y[0].numel()))
    yield from (slice(start, min(start + size, len(y))) for start in range(0, len(y), size))

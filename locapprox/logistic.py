"""Least squares with a logistic surrogate: damped Gauss–Newton on rows that are kept."""

import copy
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from torch.linalg import vector_norm

from locapprox.evaluate import LINKS
from locapprox.jackknife import jackknife
from locapprox.losses import Loss
from locapprox.notices import warn
from locapprox.sampling import Block, Sample
from locapprox.solve import design, eliminate, weighted_gram
from locapprox.streaming import Fit

MOST_STEPS = 200


class GaussNewton:
    """g(ξ) = s(η), η = w · ξ + intercept. One problem per instance and score, B = b k of them at once.

    The residual of a value row is y − s(η), that of its gradient rows ∇f − s′(η) w; their Jacobians in θ are s′ x and
    s′ e_j + w_j s″ x. Steps solve (JᵀJ + λ diag JᵀJ) δ = Jᵀr (Marquardt 1963). A row to interpolate fixes
    η = logit f(x_ξ), a linear condition, eliminated as for a linear surrogate.
    """

    def __init__(self, sample: Sample, loss: Loss, intercept: bool) -> None:
        self.sample, self.loss, self.intercept = sample, loss, intercept
        blocks: list[Block] = []
        exact: list[Tensor] = []
        y: list[Tensor] = []
        gradients: list[Tensor] = []
        for block in sample.blocks():
            held = block.xi.new_zeros(len(sample.x), sample.k, len(block.xi), sample.d) if loss.gradient else None
            at_exact, values = sample.values(block) if held is None else sample.gradients(block, partial(_hold, held))
            blocks.append(block)
            exact.append(at_exact)
            y.append(values)
            gradients += [] if held is None else [held]
        self.shape = (len(sample.x), sample.k)
        self.X = design(torch.cat([block.xi for block in blocks]), intercept, sample.dtype)
        self.exact = design(torch.cat([block.exact for block in blocks]), intercept, sample.dtype)
        self.y = self._problems(torch.cat(y, -1))
        self.at_exact = self._problems(torch.cat(exact, -1))
        self.G = self._problems(torch.cat(gradients, 2)) if gradients else None
        self.weight = self._weights(torch.cat([block.weight for block in blocks], -1))
        coarse = blocks[0].coarse
        self.coarse = None if coarse is None else self._weights(coarse.to(sample.dtype))
        self.fixed, self.unit = sum(block.fixed for block in blocks), blocks[-1].unit

    def run(self) -> Fit:
        theta = self.minimise(self.weight, self.start())
        inverse = eliminate(*self.normal(theta, self.weight), self.exact, self.no_change())[1]
        loss = self.objective(theta, self.weight)
        if self.coarse is not None:
            error = (theta - self.minimise(self.coarse, theta)).abs()
        elif self.fixed == len(self.X):
            error = torch.zeros_like(theta)
        elif self.G is None:
            error, loss = self.leave_out(theta, inverse)
        else:
            pulls = self.pulls(theta)[:, self.fixed :].unflatten(1, (-1, self.unit)).sum(2)
            steps = pulls @ inverse
            error = (steps.square().sum(1) * pulls.shape[1] / max(1, pulls.shape[1] - 1)).sqrt()
            loss = loss + 2 * (steps * pulls).sum((1, 2)) / self.weight.sum(-1)
        d = theta.shape[-1] - self.intercept
        intercept = theta[:, d] if self.intercept else torch.zeros_like(theta[:, 0])
        constant = self._constant_loss()
        back = [part.unflatten(0, self.shape) for part in (theta[:, :d], intercept, error[:, :d], loss, constant)]
        return Fit(back[0], back[1], back[2], back[3], back[4], torch.inf)

    def start(self) -> Float[Tensor, "B p"]:
        """Least squares on logit y, rows weighted by the slope there: exact if f is of the class."""
        y = self.y.clamp(1e-3, 1 - 1e-3)
        weight, eta = self.weight * (y * (1 - y)).square(), y.logit()
        if bool(((self.at_exact <= 0) | (self.at_exact >= 1)).any()):
            raise ValueError("a logistic surrogate cannot interpolate outputs outside (0, 1); explain a probability")
        rhs = (weight * eta) @ self.X
        gram = weighted_gram(self.X, weight)
        ridge = 1e-10 * gram.diagonal(dim1=-2, dim2=-1).amax(-1)[:, None, None] * torch.eye(gram.shape[-1]).to(gram)
        return eliminate(gram + ridge, rhs[:, None], self.exact, self.at_exact.logit()[:, None])[0][:, 0]

    def minimise(
        self,
        weight: Float[Tensor, "B n"],
        theta: Float[Tensor, "B p"],
        damping: Float[Tensor, "B 1 1"] | None = None,
        steps: int = MOST_STEPS,
    ) -> Float[Tensor, "B p"]:
        damping = torch.full_like(theta[:, :1, None], 1e-6) if damping is None else damping
        value, nothing = self.objective(theta, weight), self.no_change()
        moving = torch.ones_like(value, dtype=torch.bool)
        for step_number in range(steps):
            gram, pull = self.normal(theta, weight)
            diagonal = gram.diagonal(dim1=-2, dim2=-1)
            floor = 1e-12 * diagonal.amax(-1, keepdim=True) + torch.finfo(gram.dtype).tiny
            damped = gram + damping * torch.diag_embed(diagonal + floor)
            step = eliminate(damped, pull, self.exact, nothing)[0][:, 0]
            trial = self.objective(theta + step, weight)
            better = trial <= value
            small = step.abs().amax(-1) <= 1e-10 * (1 + theta.abs().amax(-1))
            done = small | (better & (value - trial <= 1e-15 * value)) | (damping[:, 0, 0] > 1e12)
            take = better & moving
            theta = torch.where(take[:, None], theta + step, theta)
            value = torch.where(take, trial, value)
            damping = torch.where(better[:, None, None], damping / 10, damping * 10).clamp_min(1e-15)
            moving &= ~done
            if not bool(moving.any()):
                return theta
            if 2 * int(moving.sum()) <= len(moving):  # the others wait no longer
                rest, left = moving.nonzero()[:, 0], steps - step_number - 1
                further = self.of(rest).minimise(weight[rest], theta[rest], damping[rest], left)
                return theta.index_copy(0, rest, further)
        warn(
            f"the logistic surrogate of {int(moving.sum())} problem(s) did not converge in {MOST_STEPS} steps (is the "
            "output close to a step function?); widen the neighbourhood or use Linear()",
        )
        return theta

    def of(self, problems: Tensor) -> "GaussNewton":
        """Some of the problems."""
        some = copy.copy(self)
        some.y, some.at_exact = self.y[problems], self.at_exact[problems]
        some.G = None if self.G is None else self.G[problems]
        return some

    def objective(self, theta: Float[Tensor, "B p"], weight: Float[Tensor, "B n"]) -> Float[Tensor, " B"]:
        s, slope = LINKS["logistic"](theta @ self.X.mT)
        total = self.loss.value * (weight * (self.y - s).square()).sum(-1)
        if self.G is not None:
            rest = torch.addcmul(self.G, slope[..., None], theta[:, None, : self.G.shape[-1]], value=-1)
            total = total + self.loss.gradient * (weight * vector_norm(rest, dim=-1).square()).sum(-1)
        return total / weight.sum(-1)

    def normal(
        self, theta: Float[Tensor, "B p"], weight: Float[Tensor, "B n"]
    ) -> tuple[Float[Tensor, "B p p"], Float[Tensor, "B 1 p"]]:
        """JᵀJ and Jᵀr with weights."""
        s, slope = LINKS["logistic"](theta @ self.X.mT)
        gram = self.loss.value * weighted_gram(self.X, weight * slope.square())
        pull = self.loss.value * (weight * slope * (self.y - s)) @ self.X
        if self.G is not None:
            d, bend = self.G.shape[-1], slope * (1 - 2 * s)  # s″
            w, weight = theta[:, :d], self.loss.gradient * weight
            gram[:, range(d), range(d)] += (weight * slope.square()).sum(-1)[:, None]
            cross = w[:, :, None] * ((weight * slope * bend) @ self.X)[:, None]  # w xᵀ, summed
            gram[:, :d] += cross
            gram[:, :, :d] += cross.mT
            gram += w.square().sum(-1)[:, None, None] * weighted_gram(self.X, weight * bend.square())
            rest = torch.addcmul(self.G, slope[..., None], w[:, None], value=-1)
            pull[:, :d] += ((weight * slope)[:, None] @ rest)[:, 0]
            pull += (weight * bend * (rest @ w[..., None]).squeeze(-1)) @ self.X
        return gram, pull[:, None]

    def pulls(self, theta: Float[Tensor, "B p"]) -> Float[Tensor, "B n p"]:
        """Jᵀr row by row."""
        s, slope = LINKS["logistic"](theta @ self.X.mT)
        rows = (self.loss.value * self.weight * slope * (self.y - s))[..., None] * self.X
        if self.G is not None:
            d, bend = self.G.shape[-1], slope * (1 - 2 * s)
            w, weight = theta[:, None, :d], self.loss.gradient * self.weight[..., None]
            rest = self.G - slope[..., None] * w
            rows[..., :d] += weight * slope[..., None] * rest
            rows += weight * bend[..., None] * (rest * w).sum(-1, keepdim=True) * self.X
        return rows

    def leave_out(self, theta: Tensor, inverse: Tensor) -> tuple[Float[Tensor, "B p"], Float[Tensor, " B"]]:
        """As for a linear surrogate, of the problem linearised at the minimum: rows s′x, residuals r."""
        s, slope = LINKS["logistic"](theta @ self.X.mT)
        slope = slope.clamp_min(1e-8)
        weight, rest = self.loss.value * self.weight * slope.square(), (self.y - s) / slope
        rows, units = slice(self.fixed, None), (len(self.X) - self.fixed) // self.unit
        total, first, second = jackknife(self.X[rows], weight[:, rows], inverse, rest[:, None, rows], self.unit)
        if self.fixed:
            second = (second - first.square() / units) * ((units - 1) / units)
        total = total[:, 0] + (weight * rest.square())[:, : self.fixed].sum(-1)
        return second[:, 0].clamp_min(0).sqrt(), total / self.weight.sum(-1)

    def no_change(self) -> Float[Tensor, "B 1 e"]:
        return torch.zeros_like(self.at_exact)[:, None]

    def _constant_loss(self) -> Float[Tensor, " B"]:
        total = self.weight.sum(-1)
        mean = (self.weight * self.y).sum(-1) / total
        loss = self.loss.value * (self.weight * (self.y - mean[:, None]).square()).sum(-1) / total
        if self.G is not None:
            loss = loss + self.loss.gradient * (self.weight * self.G.square().sum(-1)).sum(-1) / total
        return loss

    def _problems(self, part: Tensor) -> Tensor:
        return part.flatten(0, 1).to(self.sample.dtype)

    def _weights(self, weight: Float[Tensor, "g n"]) -> Float[Tensor, "B n"]:
        return weight.expand(self.shape[0], -1).repeat_interleave(self.shape[1], 0)


def _hold(held: Tensor, i: slice, rows: slice, gradient: Tensor) -> None:
    held[i, :, rows] = gradient

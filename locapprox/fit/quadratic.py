"""A quadratic loss in θ = [w, intercept]: what one weighting of the rows leaves to minimise, and its minimisers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from locapprox.fit.kept import remembered
from locapprox.fit.losses import Loss
from locapprox.fit.ridge import PairSums, Shrunk, ridge
from locapprox.fit.solve import eliminate, times


class Exact(NamedTuple):
    """Rows to interpolate, C θ = c."""

    rows: Float[Tensor, "e p"]
    y: Float[Tensor, "b k e"]

    @classmethod
    def of(cls, parts: "Sequence[Exact]") -> "Exact":
        if len(parts) == 1:
            return parts[0]
        return cls(torch.cat([part.rows for part in parts]), torch.cat([part.y for part in parts], dim=-1))

    @property
    def size(self) -> float:
        """The largest |c|."""
        return float(self.y.abs().max()) if self.y.numel() else 0.0

    def with_intercept(self, w: Float[Tensor, "b k d"]) -> Float[Tensor, "b k p"]:
        """The weights and the mean of c − w · ξ over the rows, to which a weighted mean tends as their weights grow."""
        c = (self.y - w @ self.rows[:, : w.shape[-1]].mT).mean(-1, keepdim=True)
        return torch.cat([w, c], dim=-1)


class Slopes(NamedTuple):
    """Sums over gradient rows about g₀: Σ w g and Σ w ‖g‖²."""

    g0: Float[Tensor, "b k d"]
    g: Float[Tensor, "b k d"]
    gg: Float[Tensor, "b k"]


class Solution(NamedTuple):
    """θ, and M = N(NᵀAN)⁻¹Nᵀ, whose columns span the changes of θ that keep the exact rows (None where not known)."""

    theta: Float[Tensor, "b k p"]
    inverse: Float[Tensor, "g p p"] | Shrunk | None


@dataclass(frozen=True, eq=False)
class Quadratic:
    """value · Σ w (y − x·θ)² + gradient · Σ w ‖g − θ_w‖² as a function of θ, from the sums over its rows.

    y enters about y₀ and g about g₀; `xx` is there if values have a part in the loss, `slopes` if gradients have.
    """

    loss: Loss
    intercept: bool
    y0: Float[Tensor, "b k"]
    w: Float[Tensor, " g"]
    x: Float[Tensor, "g p"]
    y: Float[Tensor, "b k"]
    yy: Float[Tensor, "b k"]
    xy: Float[Tensor, "b k p"]
    xx: Float[Tensor, "g p p"] | None
    slopes: Slopes | None

    @property
    def d(self) -> int:
        return self.x.shape[1] - self.intercept

    def of(self, i: Tensor, gram: Float[Tensor, "g p p"] | None) -> "Quadratic":
        """The problem of some instances, whose values are fitted, with this Gram matrix."""
        w, x = (self.w, self.x) if len(self.w) == 1 else (self.w[i], self.x[i])
        y0, y, yy, xy = (part[i] for part in (self.y0, self.y, self.yy, self.xy))
        return replace(self, y0=y0, w=w, x=x, y=y, yy=yy, xy=xy, xx=gram)

    @property
    def gram(self) -> Float[Tensor, "g p p"]:
        """Σ w x xᵀ."""
        assert self.xx is not None
        return self.xx

    @property
    def gradients(self) -> Slopes:
        assert self.slopes is not None
        return self.slopes

    @property
    def mean_gradient(self) -> Float[Tensor, "b k d"]:
        g0, g, _ = self.gradients
        return g0 + g / self.w[:, None, None]

    @property
    def gradients_only(self) -> bool:
        """Whether values have no part in the loss, so that a free minimum is the mean gradient."""
        return self.loss.value == 0

    def system(self) -> tuple[Float[Tensor, "g p p"], Float[Tensor, "b k p"]]:
        """A and Σ w x (y − y₀) with both kinds of rows, each times its weight in the loss."""
        loss = self.loss
        rhs = loss.value * self.xy
        p = rhs.shape[-1]
        gram = _scaled(self.gram, loss.value) if loss.value else self.w.new_zeros(len(self.w), p, p)
        if loss.gradient:
            of_gradients = torch.arange(p, device=gram.device) < self.d
            gram = gram + torch.diag_embed(loss.gradient * self.w[:, None] * of_gradients)
            rhs[..., : self.d] += loss.gradient * self.w[:, None, None] * self.mean_gradient
        return gram, rhs

    def solve(self, exact: Exact) -> Solution:
        """Least squares; for a mean gradient no M, since A is a multiple of the identity."""
        if self.gradients_only and len(exact.rows) == 0:
            return Solution(self.with_mean_intercept(self.mean_gradient), None)
        theta, inverse = eliminate(*self.system(), *self.about_y0(exact), exact.size)
        return Solution(self.uncentred(theta), inverse)

    def shrink(self, exact: Exact, rows: float, sums: PairSums | None = None) -> Solution:
        """As `solve`, with ridge on the weights in units of their feature's spread; see `ridge`."""
        gram, rhs = self.system()
        mean = self.x / self.w[:, None]
        spread = gram.diagonal(dim1=-2, dim2=-1) / self.w[:, None] - self.loss.value * mean.square()
        spread[:, self.d :] = 0  # the intercept is free
        square = self.loss.value * self.yy
        theta, inverse = ridge(gram, rhs, spread.clamp_min(0), square, *self.about_y0(exact), rows, exact.size, sums)
        return Solution(self.uncentred(theta), inverse)

    def solve_on(self, chosen: Bool[Tensor, "b k d"], exact: Exact) -> Solution:
        """As `solve` with the other weights held at 0."""
        if self.gradients_only and len(exact.rows) == 0:
            return Solution(self.with_mean_intercept(self.mean_gradient * chosen), None)
        gram, rhs = self.system()
        B, p = chosen[..., 0].numel(), rhs.shape[-1]
        held_in = torch.nn.functional.pad(chosen.flatten(0, 1), (0, p - self.d), value=True)
        size = max(1, int(held_in.sum(-1).amax()))
        place = held_in.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)[:, :size]
        used = held_in.gather(-1, place)  # fewer are filled up by 0
        own = (torch.arange(B, device=rhs.device) * len(gram) // B)[:, None, None]
        part = gram[own, place[:, :, None], place[:, None]] * (used[:, :, None] & used[:, None])
        part = part + torch.diag_embed((~used).to(part))
        right, target = rhs.flatten(0, 1).gather(-1, place) * used, self.about_y0(exact).y.flatten(0, 1)
        rows = exact.rows[:, place].movedim(1, 0) * used[:, None]
        found, inverse = torch.zeros_like(right), torch.zeros_like(part)
        kind = torch.nn.functional.pad(rows.flatten(1), (0, 1)).unique(dim=0, return_inverse=True)[1]  # of rows to meet
        for some in kind == torch.arange(int(kind.amax()) + 1, device=kind.device)[:, None]:
            solution = eliminate(part[some], right[some, None], rows[some][0], target[some, None], exact.size)
            found[some], inverse[some] = solution[0][:, 0], solution[1]
        inverse = inverse * (used[:, :, None] & used[:, None])
        theta, whole = torch.zeros_like(rhs), rhs.new_zeros(B, p, p)
        theta.flatten(0, 1).scatter_(-1, place, found * used)
        whole[torch.arange(B, device=rhs.device)[:, None, None], place[:, :, None], place[:, None]] = inverse
        return Solution(self.uncentred(theta), whole)

    def with_mean_intercept(self, w: Float[Tensor, "b k d"]) -> Float[Tensor, "b k p"]:
        """Gradient matching leaves the intercept free: E f(x_ξ) − w · E ξ."""
        if not self.intercept:
            return w
        x, y = self.x[:, : self.d] / self.w[:, None], self.y / self.w[:, None]
        return torch.cat([w, (y + self.y0 - (w * x[:, None]).sum(-1))[..., None]], dim=-1)

    def loss_of(self, theta: Float[Tensor, "b k p"]) -> Float[Tensor, "b k"]:
        """The mean in-sample loss of θ."""
        weight = self.w[:, None]
        loss = torch.zeros_like(theta[..., 0])
        if self.loss.value:
            about = theta.clone()
            if self.intercept:
                about[..., -1] -= self.y0
            quad = (times(about, self.gram) * about).sum(-1)
            residual = self.yy - 2 * (about * self.xy).sum(-1) + quad
            loss += self.loss.value * _resolved(residual, self.yy + quad) / weight
        if self.loss.gradient:
            g0, g, gg = self.gradients
            about = theta[..., : self.d] - g0
            cross = (about * g).sum(-1)
            square = weight * about.square().sum(-1)
            residual = gg - 2 * cross + square
            loss += self.loss.gradient * _resolved(residual, gg + square) / weight
        return torch.where(weight > 0, loss, 0.0)  # 0 of no rows

    def curvature(self, step: Float[Tensor, "b k p"]) -> Float[Tensor, "b k"]:
        """stepᵀ A step / Σ weight: what a step from the minimum adds to the mean loss."""
        added = torch.zeros_like(step[..., 0])
        if self.loss.value:
            added += self.loss.value * (times(step, self.gram) * step).sum(-1) / self.w[:, None]
        if self.loss.gradient:
            added += self.loss.gradient * step[..., : self.d].square().sum(-1)
        return added

    def constant_loss(self) -> Float[Tensor, "b k"]:
        """The mean loss of the best constant g: the weighted variance of f, and the mean square of its gradient."""
        weight = self.w[:, None]
        loss = torch.zeros_like(self.y)
        if self.loss.value:
            loss += self.loss.value * (self.yy / weight - (self.y / weight).square())
        if self.loss.gradient:
            g0, g, gg = self.gradients
            cross = (2 * g0 * g / weight[..., None]).sum(-1)
            loss += self.loss.gradient * (gg / weight + cross + g0.square().sum(-1))
        return torch.where(weight > 0, loss, 0.0)  # 0 of no rows

    def about_y0(self, exact: Exact) -> Exact:
        return Exact(exact.rows, exact.y - self.y0[..., None])

    def uncentred(self, theta: Float[Tensor, "b k p"]) -> Float[Tensor, "b k p"]:
        if self.intercept:
            theta[..., -1] += self.y0
        return theta


@remembered
def _scaled(gram: Float[Tensor, "g p p"], factor: float) -> Float[Tensor, "g p p"]:
    return factor * gram


def _resolved(residual: Tensor, terms: Tensor) -> Tensor:
    """A sum of squares found as a difference of larger terms; 0 where it is no more than their round-off."""
    return torch.where(residual > 64 * torch.finfo(residual.dtype).eps * terms, residual, 0.0)

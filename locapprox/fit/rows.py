"""The rows of a fit that keeps them: the whole draw and the model's answers, their loss and its normal equations."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.linalg import vector_norm

from locapprox.fit.blocks import Block
from locapprox.fit.links import IDENTITY, Link
from locapprox.fit.losses import Loss, RowLoss, Terms
from locapprox.fit.sampling import Sample
from locapprox.fit.solve import design, weighted_gram


class Normal(NamedTuple):
    """A step's matrix and right-hand side, and the diagonal that damps it."""

    gram: Float[Tensor, "B p p"]
    score: Float[Tensor, "B 1 p"]
    diagonal: Float[Tensor, "B p"]


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of a draw and the model's answers to them, for B problems that share the draw.

    The loss of g = link(X θ) is that of its value rows and `slopes` times the squared error of gradient rows G, if any.
    """

    link: Link
    loss: RowLoss
    slopes: float
    X: Float[Tensor, "n p"]
    weight: Float[Tensor, "B n"]
    y: Float[Tensor, "B n"]
    G: Float[Tensor, "B n d"] | None
    exact: Float[Tensor, "e p"]
    exact_y: Float[Tensor, "B e"]

    def of(self, problems: Tensor) -> "Rows":
        """Some of the problems."""
        G = None if self.G is None else self.G[problems]
        some = self.weight[problems], self.y[problems], G, self.exact_y[problems]
        return replace(self, weight=some[0], y=some[1], G=some[2], exact_y=some[3])

    def in_units(self, unit: float, d: int) -> "Rows":
        """ξ in this unit, so w in its inverse: tolerances on θ then mean the same for any ξ."""
        if unit == 1:
            return self
        size = self.X.new_ones(self.X.shape[1])
        size[:d] = unit
        G = None if self.G is None else self.G * unit
        return replace(self, slopes=self.slopes / unit**2, X=self.X / size, G=G, exact=self.exact / size)

    def about(self, middle: Float[Tensor, " B"]) -> "Rows":
        """Outputs measured from there."""
        return replace(self, y=self.y - middle[:, None], exact_y=self.exact_y - middle[:, None])

    def location(self, y: Float[Tensor, "B n"], weight: Float[Tensor, "B n"]) -> "Rows":
        """The problems of the best constant for other outputs."""
        one = self.X.new_ones(len(self.X), 1)
        return replace(self, X=one, y=y, weight=weight, G=None, exact=one[:0], exact_y=y[:, :0])

    @property
    def size(self) -> Float[Tensor, " B"]:
        """Of a change of η that matters: 1 of a logit, else that of the outputs."""
        return self.y.abs().amax(-1) if self.link == IDENTITY else torch.ones_like(self.weight[:, 0])

    @property
    def no_change(self) -> Float[Tensor, "B 1 e"]:
        """What a step may change at the exact rows."""
        return torch.zeros_like(self.exact_y)[:, None]

    def terms(self, eta: Float[Tensor, "B n"]) -> Terms:
        """Of the value rows."""
        return self.loss.terms(self.y, eta, self.link)

    def at(self, theta: Float[Tensor, "B p"]) -> "Point":
        eta = theta @ self.X.mT
        if self.G is None:
            return Point(self, theta, self.terms(eta), None)
        g, slope = self.link(eta)
        residual = torch.addcmul(self.G, slope[..., None], theta[:, None, : self.G.shape[-1]], value=-1)
        return Point(self, theta, self.terms(eta), Slopes(residual, slope, *self.link.bends(g, slope)))

    def objective(self, theta: Float[Tensor, "B p"]) -> Float[Tensor, " B"]:
        """The mean loss."""
        return self.at(theta).loss

    def reweighted(self, theta: Float[Tensor, "B p"]) -> Normal:
        """Of reweighted least squares on the value rows."""
        terms = self.terms(theta @ self.X.mT)
        gram = weighted_gram(self.X, self.weight * terms.bound)
        return Normal(gram, (terms.score(self.weight) @ self.X)[:, None], gram.diagonal(dim1=-2, dim2=-1))


class Slopes(NamedTuple):
    """Of gradient rows: G − s′ w, and the link's derivatives."""

    residual: Float[Tensor, "B n d"]
    slope: Float[Tensor, "B n"]
    curve: Float[Tensor, "B n"]
    third: Float[Tensor, "B n"]


@dataclass(frozen=True, eq=False)
class Point:
    """The rows at θ: what the loss there and the steps from there have in common."""

    rows: Rows
    theta: Float[Tensor, "B p"]
    terms: Terms
    slopes: Slopes | None

    @cached_property
    def loss(self) -> Float[Tensor, " B"]:
        """The mean loss."""
        rows = self.rows
        total = (rows.weight * self.terms.loss).sum(-1)
        if self.slopes is not None:
            total = total + rows.slopes * (rows.weight * vector_norm(self.slopes.residual, dim=-1).square()).sum(-1)
        return total / rows.weight.sum(-1)

    def normal(self, whole: bool = False) -> Normal:
        """JᵀJ and Jᵀr with weights, or the whole Hessian of half the summed loss, JᵀJ − Σ r ∇²g, and Jᵀr."""
        X, weight, terms = self.rows.X, self.rows.weight, self.terms
        of_x, score = weight * (terms.curvature if whole else terms.weight), terms.score(weight)
        if self.slopes is None:
            gram, score = weighted_gram(X, of_x), score @ X
        else:
            residual, slope, curve, third = self.slopes
            d, weight = residual.shape[-1], self.rows.slopes * weight
            w = self.theta[:, :d]
            along, bent = (residual @ w[..., None]).squeeze(-1), weight * curve
            of_x = of_x + w.square().sum(-1, keepdim=True) * bent * curve
            cross = w[:, :, None] * ((bent * slope) @ X)[:, None]  # w xᵀ, summed
            if whole:
                of_x = of_x - weight * third * along
                cross = cross - residual.mT @ (bent[..., None] * X)
            gram, score = weighted_gram(X, of_x), (score + bent * along) @ X
            gram[:, :d] += cross
            gram[:, :, :d] += cross.mT
            gram[:, range(d), range(d)] += (weight * slope.square()).sum(-1)[:, None]
            score[:, :d] += ((weight * slope)[:, None] @ residual)[:, 0]
        diagonal = gram.diagonal(dim1=-2, dim2=-1)
        if terms.bound is not terms.weight:
            diagonal = diagonal + (self.rows.weight * (terms.bound - terms.weight).clamp_min(0)) @ X.square()
        return Normal(gram, score[:, None], diagonal)

    def scores(self) -> Float[Tensor, "B n p"]:
        """Jᵀr row by row."""
        score, rows = self.terms.score(self.rows.weight), self.rows
        if self.slopes is None:
            return score[..., None] * rows.X
        residual, slope, curve, _ = self.slopes
        d, weight = residual.shape[-1], rows.slopes * rows.weight
        out = (score + weight * curve * (residual @ self.theta[:, :d, None]).squeeze(-1))[..., None] * rows.X
        out[..., :d] += (weight * slope)[..., None] * residual
        return out


@dataclass(frozen=True, eq=False)
class Kept:
    """Rows and how they were drawn."""

    sample: Sample
    rows: Rows
    units: int
    unit_size: int
    n_fixed: int
    coarse: Float[Tensor, "B n"] | None  # weights of the coarser rule
    intercept: bool
    replicates: int  # see `Draw`

    def of(self, problems: Tensor) -> "Kept":
        """Some of the problems."""
        coarse = None if self.coarse is None else self.coarse[problems]
        return replace(self, rows=self.rows.of(problems), coarse=coarse)


def kept_rows(sample: Sample, loss: RowLoss, link: Link, intercept: bool) -> Kept:
    """The whole draw and the model's answers to it."""
    blocks: list[Block] = []
    exact_y: list[Tensor] = []
    y: list[Tensor] = []
    gradients: list[Tensor] = []
    for block in sample.blocks():
        blocks.append(block)
        if loss.of_gradients:
            held = torch.empty(
                len(sample.x), sample.k, len(block.xi), sample.d, dtype=sample.dtype, device=block.xi.device
            )
            values = torch.empty(held.shape[:3], dtype=sample.dtype, device=held.device)
            for i, some, part, gradient in sample.gradients(block):
                values[i, :, some], held[i, :, some] = part.to(values.dtype), gradient
            gradients.append(held)
            exact_y.append(sample.exact_values(block))
        else:
            at_exact, values = sample.values(block)
            exact_y.append(at_exact)
        y.append(values)
    rows = Rows(
        link,
        loss,
        loss.gradient if isinstance(loss, Loss) else 0.0,
        X=design(torch.cat([block.xi for block in blocks]), intercept, sample.dtype),
        weight=for_problems(torch.cat([block.weight for block in blocks], -1), sample),
        y=loss.taken(torch.cat(y, -1).flatten(0, 1).to(sample.dtype)),
        G=(gradients[0] if len(gradients) == 1 else torch.cat(gradients, 2)).flatten(0, 1) if gradients else None,
        exact=design(torch.cat([block.exact for block in blocks]), intercept, sample.dtype),
        exact_y=torch.cat(exact_y, -1).flatten(0, 1).to(sample.dtype),
    )
    coarse = blocks[0].coarse_weight
    coarse = None if coarse is None else for_problems(coarse[-1:].to(sample.dtype), sample)
    units, fixed = sum(block.units for block in blocks), sum(block.n_fixed for block in blocks)
    return Kept(sample, rows, units, blocks[-1].unit_size, fixed, coarse, intercept, blocks[-1].replicates)


def for_problems(weight: Float[Tensor, "g n"], sample: Sample) -> Float[Tensor, "B n"]:
    return weight.expand(len(sample.x), -1).repeat_interleave(sample.k, 0)

"""The rows of a logistic fit: the whole draw and the model's answers, their loss and its normal equations."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.linalg import vector_norm

from locapprox.fit.links import LOGISTIC
from locapprox.fit.losses import Loss
from locapprox.fit.sampling import Block, Sample
from locapprox.fit.solve import design, weighted_gram


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of a draw and the model's answers to them, for B problems that share the draw."""

    loss: Loss
    X: Float[Tensor, "n p"]
    weight: Float[Tensor, "B n"]
    y: Float[Tensor, "B n"]
    G: Float[Tensor, "B n d"] | None  # gradients, where the loss looks at them
    exact: Float[Tensor, "e p"]
    exact_y: Float[Tensor, "B e"]

    def of(self, problems: Tensor) -> "Rows":
        """Some of the problems."""
        G = None if self.G is None else self.G[problems]
        some = self.weight[problems], self.y[problems], G, self.exact_y[problems]
        return replace(self, weight=some[0], y=some[1], G=some[2], exact_y=some[3])

    def in_units(self, unit: float, d: int) -> "Rows":
        """ξ in this unit, so w in its inverse: tolerances on θ then mean the same for any ξ."""
        size = self.X.new_ones(self.X.shape[1])
        size[:d] = unit
        loss = Loss(self.loss.value, self.loss.gradient / unit**2)
        G = None if self.G is None else self.G * unit
        return replace(self, loss=loss, X=self.X / size, G=G, exact=self.exact / size)

    @property
    def no_change(self) -> Float[Tensor, "B 1 e"]:
        """What a step may change at the exact rows."""
        return torch.zeros_like(self.exact_y)[:, None]

    def objective(self, theta: Float[Tensor, "B p"]) -> Float[Tensor, " B"]:
        """The mean loss."""
        s, slope = LOGISTIC(theta @ self.X.mT)
        total = self.loss.value * (self.weight * (self.y - s).square()).sum(-1)
        if self.G is not None:
            residual = torch.addcmul(self.G, slope[..., None], theta[:, None, : self.G.shape[-1]], value=-1)
            total = total + self.loss.gradient * (self.weight * vector_norm(residual, dim=-1).square()).sum(-1)
        return total / self.weight.sum(-1)

    def normal(self, theta: Float[Tensor, "B p"]) -> tuple[Float[Tensor, "B p p"], Float[Tensor, "B 1 p"]]:
        """JᵀJ and Jᵀr with weights."""
        s, slope = LOGISTIC(theta @ self.X.mT)
        weight = self.weight
        gram = self.loss.value * weighted_gram(self.X, weight * slope.square())
        score = self.loss.value * (weight * slope * (self.y - s)) @ self.X
        if self.G is not None:
            d, curve = self.G.shape[-1], slope * (1 - 2 * s)  # s″
            w, weight = theta[:, :d], self.loss.gradient * weight
            gram[:, range(d), range(d)] += (weight * slope.square()).sum(-1)[:, None]
            cross = w[:, :, None] * ((weight * slope * curve) @ self.X)[:, None]  # w xᵀ, summed
            gram[:, :d] += cross
            gram[:, :, :d] += cross.mT
            gram += w.square().sum(-1)[:, None, None] * weighted_gram(self.X, weight * curve.square())
            residual = torch.addcmul(self.G, slope[..., None], w[:, None], value=-1)
            score[:, :d] += ((weight * slope)[:, None] @ residual)[:, 0]
            score += (weight * curve * (residual @ w[..., None]).squeeze(-1)) @ self.X
        return gram, score[:, None]

    def scores(self, theta: Float[Tensor, "B p"]) -> Float[Tensor, "B n p"]:
        """Jᵀr row by row."""
        s, slope = LOGISTIC(theta @ self.X.mT)
        rows = (self.loss.value * self.weight * slope * (self.y - s))[..., None] * self.X
        if self.G is not None:
            d, curve = self.G.shape[-1], slope * (1 - 2 * s)
            w, weight = theta[:, None, :d], self.loss.gradient * self.weight[..., None]
            residual = self.G - slope[..., None] * w
            rows[..., :d] += weight * slope[..., None] * residual
            rows += weight * curve[..., None] * (residual * w).sum(-1, keepdim=True) * self.X
        return rows

    def constant_loss(self) -> Float[Tensor, " B"]:
        total = self.weight.sum(-1)
        mean = (self.weight * self.y).sum(-1) / total
        loss = self.loss.value * (self.weight * (self.y - mean[:, None]).square()).sum(-1) / total
        if self.G is not None:
            loss = loss + self.loss.gradient * (self.weight * self.G.square().sum(-1)).sum(-1) / total
        return loss


def kept_rows(sample: Sample, loss: Loss, intercept: bool) -> tuple[list[Block], Rows]:
    """The whole draw and the model's answers to it."""
    blocks: list[Block] = []
    exact_y: list[Tensor] = []
    y: list[Tensor] = []
    gradients: list[Tensor] = []
    for block in sample.blocks():
        blocks.append(block)
        if loss.gradient:
            held = block.xi.new_zeros(len(sample.x), sample.k, len(block.xi), sample.d)
            values = torch.empty(held.shape[:3], dtype=sample.dtype, device=held.device)
            for i, some, part, gradient in sample.gradients(block):
                values[i, :, some], held[i, :, some] = part.to(values.dtype), gradient
            gradients.append(held)
            exact_y.append(sample.exact_values(block))
        else:
            at_exact, values = sample.values(block)
            exact_y.append(at_exact)
        y.append(values)
    return blocks, Rows(
        loss,
        X=design(torch.cat([block.xi for block in blocks]), intercept, sample.dtype),
        weight=for_problems(torch.cat([block.weight for block in blocks], -1), sample),
        y=torch.cat(y, -1).flatten(0, 1).to(sample.dtype),
        G=torch.cat(gradients, 2).flatten(0, 1).to(sample.dtype) if gradients else None,
        exact=design(torch.cat([block.exact for block in blocks]), intercept, sample.dtype),
        exact_y=torch.cat(exact_y, -1).flatten(0, 1).to(sample.dtype),
    )


def for_problems(weight: Float[Tensor, "g n"], sample: Sample) -> Float[Tensor, "B n"]:
    return weight.expand(len(sample.x), -1).repeat_interleave(sample.k, 0)

"""The loss of a given surrogate on a sample, whatever it was fitted to."""

import torch
from jaxtyping import Float
from torch import Tensor

from locapprox.fit.links import Link
from locapprox.fit.losses import Loss, OnGradients, RowLoss
from locapprox.fit.sampling import Sample
from locapprox.fit.solve import round_off


def mean_loss(
    sample: Sample, weights: Float[Tensor, "b k d"], intercept: Float[Tensor, "b k"], loss: RowLoss, link: Link
) -> Float[Tensor, "b k"]:
    """The weighted mean loss of g(ξ) = link(w · ξ + intercept) over the rows of finite weight."""
    theta = torch.cat([weights, intercept[..., None]], dim=-1)
    total, floor = torch.zeros_like(intercept), torch.zeros_like(intercept)
    weight_sum = torch.zeros_like(intercept[:, :1])
    for block in sample.blocks():
        X = sample.design(block, True)
        eta = theta @ X.mT
        slope = link(eta)[1]
        if loss.of_gradients:
            y, of_slopes = torch.empty_like(eta), torch.zeros_like(intercept)
            for i, rows, values, gradient in sample.gradients(block):
                y[i, :, rows] = values.to(y.dtype)
                gap = gradient.to(slope.dtype) - slope[i, :, rows, None] * weights[i, :, None]
                weight = block.weight[i if len(block.weight) > 1 else slice(None), rows]
                of_slopes[i] += (weight[:, None] * loss_of_gradients(loss, gap)).sum(-1)
            total += of_slopes
        else:
            y = sample.values(block)[1].to(sample.dtype)
        if not isinstance(loss, OnGradients):
            total += (block.weight[:, None] * loss.terms(loss.taken(y), eta, link).loss).sum(-1)
        if isinstance(loss, Loss):
            floor = torch.maximum(floor, loss.value * round_off(theta, X).square())
        weight_sum += block.weight.sum(-1, keepdim=True)
    return torch.where(total > floor * weight_sum, total / weight_sum, 0.0)


def loss_of_gradients(loss: RowLoss, gap: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
    """Of gradient rows that differ from the surrogate's by so much."""
    if isinstance(loss, OnGradients):
        return loss.of.rho(gap)[0].sum(-1)
    assert isinstance(loss, Loss)
    return loss.gradient * gap.square().sum(-1)

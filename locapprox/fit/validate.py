"""The loss of a given surrogate on a sample, whatever it was fitted to."""

import torch
from jaxtyping import Float
from torch import Tensor

from locapprox.fit.links import Link
from locapprox.fit.losses import Loss
from locapprox.fit.sampling import Sample
from locapprox.fit.solve import round_off


def mean_loss(
    sample: Sample, weights: Float[Tensor, "b k d"], intercept: Float[Tensor, "b k"], loss: Loss, link: Link
) -> Float[Tensor, "b k"]:
    """The weighted mean loss of g(ξ) = link(w · ξ + intercept) over the rows of finite weight."""
    theta = torch.cat([weights, intercept[..., None]], dim=-1)
    total, floor = torch.zeros_like(intercept), torch.zeros_like(intercept)
    weight_sum = torch.zeros_like(intercept[:, :1])
    for block in sample.blocks():
        X = sample.design(block, True)
        g, slope = link(theta @ X.mT)
        if loss.gradient:
            y, squares = torch.empty_like(g), torch.zeros_like(intercept)
            for i, rows, values, gradient in sample.gradients(block):
                y[i, :, rows] = values.to(y.dtype)
                gap = gradient.to(slope.dtype) - slope[i, :, rows, None] * weights[i, :, None]
                weight = block.weight[i if len(block.weight) > 1 else slice(None), rows]
                squares[i] += (weight[:, None] * gap.square().sum(-1)).sum(-1)
            total += loss.gradient * squares
        else:
            y = sample.values(block)[1].to(sample.dtype)
        total += loss.value * (block.weight[:, None] * (y - g).square()).sum(-1)
        floor = torch.maximum(floor, loss.value * round_off(theta, X).square())
        weight_sum += block.weight.sum(-1, keepdim=True)
    return torch.where(total > floor * weight_sum, total / weight_sum, 0.0)

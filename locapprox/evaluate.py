"""The loss of a given surrogate on a sample, whatever it was fitted to."""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from locapprox.losses import Loss
from locapprox.sampling import Sample
from locapprox.solve import design, rounding

Link = Callable[[Tensor], tuple[Tensor, Tensor]]

LINKS: dict[str, Link] = {  # η -> g and dg/dη
    "identity": lambda eta: (eta, torch.ones_like(eta)),
    "logistic": lambda eta: (eta.sigmoid(), eta.sigmoid() * (-eta).sigmoid()),
}


def mean_loss(
    sample: Sample,
    weights: Float[Tensor, "b k d"],
    intercept: Float[Tensor, "b k"],
    loss: Loss,
    link: str = "identity",
) -> Float[Tensor, "b k"]:
    """The weighted mean loss of g(ξ) = link(w · ξ + intercept) over the rows of finite weight."""
    theta = torch.cat([weights, intercept[..., None]], dim=-1)
    total, nothing = torch.zeros_like(intercept), torch.zeros_like(intercept)
    weight_sum = torch.zeros_like(intercept[:, :1])
    for block in sample.blocks():
        X = design(block.xi, True, sample.dtype)
        g, slope = LINKS[link](theta @ X.mT)
        if loss.gradient:
            squares = torch.zeros_like(intercept)
            y = sample.gradients(block, partial(_add_squares, squares, block.weight, weights, slope))[1]
            total += loss.gradient * squares
        else:
            y = sample.values(block)[1]
        total += loss.value * (block.weight[:, None] * (y.to(sample.dtype) - g).square()).sum(-1)
        nothing = torch.maximum(nothing, loss.value * rounding(theta, X).square())
        weight_sum += block.weight.sum(-1, keepdim=True)
    return torch.where(total > nothing * weight_sum, total / weight_sum, 0.0)


def _add_squares(
    squares: Tensor, weight: Tensor, weights: Tensor, slope: Tensor, i: slice, rows: slice, gradient: Tensor
) -> None:
    """Σ weight ‖∇f − g′ w‖² of one chunk, added to `squares`."""
    gap = gradient.to(slope.dtype) - slope[i, :, rows, None] * weights[i, :, None]
    weight = weight[i if len(weight) > 1 else slice(None), rows]
    squares[i] += (weight[:, None] * gap.square().sum(-1)).sum(-1)

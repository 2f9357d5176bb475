"""Ranks that are compatible with what is known of the weights.

If intervals cover all weights of an instance at once, feature i is surely behind every j whose interval lies beyond its
own, and surely before those that lie below: its rank is between 1 + #{j: l_j > u_i} and d − #{j: u_j < l_i}, for all
features at once with the same probability (Klein, Wright and Wieczorek 2020). Weights of one fit may be correlated as
they like. Of |w|, the intervals are those of the absolute values.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

ROUND_OFF = 1e3  # of float64, in units of the largest weight: ties of exact weights


def bounds(
    weights: Float[Tensor, "b k d"], half: Float[Tensor, "b k d"], signed: bool
) -> tuple[Float[Tensor, "b k d"], Float[Tensor, "b k d"]]:
    """Of w, or of |w|, from half the widths of intervals; without limits where they are NaN."""
    half = half + ROUND_OFF * torch.finfo(weights.dtype).eps * largest(weights)
    low, high = (weights - half).nan_to_num(-torch.inf), (weights + half).nan_to_num(torch.inf)
    if signed:
        return low, high
    return torch.maximum(low, -high).clamp_min(0), torch.maximum(-low, high)


def largest(weights: Float[Tensor, "b k d"]) -> Float[Tensor, "b k 1"]:
    """The largest |w|."""
    return weights.abs().nan_to_num(0).amax(-1, keepdim=True)


def rank_bounds(
    weights: Float[Tensor, "b k d"], half: Float[Tensor, "b k d"], signed: bool
) -> tuple[Int[Tensor, "b k d"], Int[Tensor, "b k d"]]:
    """The best and the worst rank, 1 of the largest; 0 for what is no feature of an instance."""
    check_features(weights.shape[-1])
    known, (low, high) = ~weights.isnan(), bounds(weights, half, signed)
    lows, highs = low.sort(-1).values, high.sort(-1).values
    beyond = weights.shape[-1] - torch.searchsorted(lows, high, right=True)
    below = torch.searchsorted(highs, low)
    return (1 + beyond) * known, (known.sum(-1, keepdim=True) - below) * known


def check_features(d: int) -> int:
    """Refuse to rank one feature."""
    if d < 2:
        raise ValueError("there is one feature, so there is nothing to rank")
    return d

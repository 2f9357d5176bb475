"""What a surrogate's fit returns."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Fit:
    """g(ξ) = link(w · ξ + intercept) per instance and score, with its errors.

    Shapes: b instances of one sample, k scores, d features. What is not known is NaN.
    """

    weights: Float[Tensor, "b k d"]
    intercept: Float[Tensor, "b k"]
    standard_error: Float[Tensor, "b k d"]
    loss: Float[Tensor, "b k"]  # mean loss, of draws that were left out
    constant_loss: Float[Tensor, "b k"]  # of the best constant g
    degrees_of_freedom: float = torch.inf  # of the t distribution of (w − its expectation) / standard error
    rows: Int[Tensor, " b"] | None = None  # of the draw that each instance took, where that is not all

"""Kernels: how the weight of a perturbation falls with its distance from the input."""

import math
from dataclasses import dataclass, replace
from numbers import Real
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from locapprox._parts import Concise
from locapprox.neighbourhoods.base import Draw


@dataclass(frozen=True, repr=False)
class ExponentialKernel(Concise):
    """Weight exp(−D² / width²), D the Euclidean distance from x₀, measured on the input or on ξ.

    The same kernel elsewhere: the paper's authors use exp(−D²/w²) on the input: `width = w`. captum's
    `get_exp_kernel_similarity_function("euclidean", w)` is exp(−D²/(2w²)) on the input: `width = √2 w`. lime takes the
    square root, so exp(−D²/(2w²)) on standardised ξ with w = ¾√d by default: `width = √2 w, measured_in="xi"`.
    """

    width: float
    measured_in: Literal["x", "xi"] = "x"

    def __post_init__(self) -> None:
        if not isinstance(self.width, Real) or not self.width > 0:
            raise ValueError(f"width must be positive, one number; got {self.width!r}")
        if not (1e-150 < self.width < 1e150 or self.width == math.inf):
            raise ValueError(f"width must be between 1e-150 and 1e150, or math.inf; got {self.width:g}")
        if self.measured_in not in ("x", "xi"):
            raise ValueError(f'measured_in must be "x" or "xi", got {self.measured_in!r}')

    def apply(self, draw: Draw, squared_distance: Float[Tensor, "b n"]) -> Draw:
        weight = torch.exp(squared_distance / -(self.width**2)) * draw.weight
        exact = draw.weight.isinf()
        return replace(draw, weight=torch.where(exact, torch.inf, weight) if exact.any() else weight)

    def advice(self, draw: Draw, squared_distance: Float[Tensor, "b n"], n: int, rows: int) -> str:
        """What to do for n draws to have an effective size of `rows`."""
        if n < rows:
            return f"use n_samples ≥ {4 * rows}, and a wider kernel than width={self.width:g}"
        width = self.workable_width(draw, squared_distance, n, rows)
        if math.isinf(width):
            return "no width of the kernel leaves more here: draw more (n_samples), or use another distribution"
        step = 10.0 ** (math.floor(math.log10(width)) - 1)  # two digits, rounded up
        return f"width={self.width:g} is too narrow here: use width={math.ceil(width / step) * step:.2g} or more"

    def workable_width(self, draw: Draw, squared_distance: Float[Tensor, "b n"], n: int, rows: int) -> float:
        """The least wider one, in steps of a quarter, for n such draws to have an effective size of `rows`."""
        width = 1.25 * self.width
        while True:
            log_weight = draw.weight.double().log() - squared_distance / width**2
            weight = (log_weight - log_weight.amax(-1, keepdim=True)).exp()
            effective = weight.sum(-1).square() / weight.square().sum(-1) * (n / len(draw.xi))
            if bool((effective >= min(rows, n)).all()) or not math.isfinite(width):
                return width
            width *= 1.25

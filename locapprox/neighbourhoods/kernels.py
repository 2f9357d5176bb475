"""Kernels: how the weight of a perturbation falls with its distance from the input."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from locapprox._parts import Concise, share
from locapprox.neighbourhoods.draws import Draw

LEAST = 0.01  # of an instance's own weight: what removing one feature alone leaves at least, where a width is chosen
SPREAD_LEFT = 4 * LEAST / (1 + LEAST) ** 2  # the same said of any ξ: the share of its variance that the kernel leaves
HALVINGS = 60
STEEPEST = 1e4  # of a kernel's exponent −t D² / max D²

Suffices = Callable[[Float[Tensor, " b"]], Bool[Tensor, " b"]]  # whether a steepness per instance is not too much


@dataclass(frozen=True, repr=False)
class ExponentialKernel(Concise):
    """Weight v = exp(−D² / width²), D the Euclidean distance from x₀, measured on the input or on ξ.

    Without a width, every instance gets its own: the narrowest for which the effective share of the draws,
    E[v]² / E[v²], is `share`, or more where n_samples is so small that this would leave fewer effective rows than twice
    the unknowns (below that many draws all weigh the same), and no feature is lost: removing one alone leaves a weight
    of at least 0.01 (in general: 4 % of the variance of its ξ). It is a function of the instance and n_samples alone.

    The same kernel elsewhere: the paper's authors use exp(−D²/w²) on the input: `width = w`. captum's
    `get_exp_kernel_similarity_function("euclidean", w)` is exp(−D²/(2w²)) on the input: `width = √2 w`. lime takes the
    square root, so exp(−D²/(2w²)) on standardised ξ with w = ¾√d by default: `width = √2 w, measured_in="xi"`.
    """

    width: float | None = None
    measured_in: Literal["x", "xi"] = "x"
    share: float = 0.25
    chosen: Float[Tensor, " b"] | None = field(default=None, repr=False, compare=False)  # a width for each instance

    def __post_init__(self) -> None:
        if self.width is not None and (not isinstance(self.width, Real) or not self.width > 0):
            raise ValueError(f"width must be positive, one number, or None to choose it; got {self.width!r}")
        if self.width is not None and not (1e-150 < self.width < 1e150 or self.width == math.inf):
            raise ValueError(f"width must be between 1e-150 and 1e150, or math.inf; got {self.width:g}")
        if self.measured_in not in ("x", "xi"):
            raise ValueError(f'measured_in must be "x" or "xi", got {self.measured_in!r}')
        share(self.share, "share")

    def apply(self, draw: Draw, squared_distance: Float[Tensor, "*b n"]) -> Draw:
        """With the weights; one row of them for all instances where distances and widths are the same for all."""
        width = self.width if self.chosen is None else self.chosen[:, None]
        assert width is not None
        if isinstance(width, Tensor) and squared_distance.ndim == 1 and bool((width == width[0]).all()):
            width = width[0]
        weight = torch.exp(squared_distance / -(width**2)) * draw.weight
        exact = draw.weight.isinf()
        return replace(draw, weight=torch.where(exact, torch.inf, weight) if exact.any() else weight)

    def at(self, instances: Tensor | slice) -> "ExponentialKernel":
        return self if self.chosen is None else replace(self, chosen=self.chosen[instances])

    def joined(self, others: Sequence["ExponentialKernel"]) -> "ExponentialKernel":
        """With the widths of the instances of several."""
        widths = [one.chosen for one in (self, *others) if one.chosen is not None]
        return self if self.chosen is None else replace(self, chosen=torch.cat(widths))

    def advice(self, widths: Float[Tensor, " b"], n: int | None) -> str:
        """What to do where draws leave too little: by the widths that would be chosen, and n draws if those are few."""
        least = float(torch.where(widths.isinf(), 0.0, widths).amax())  # at the baseline no width matters
        draws = "" if n is None else f"n_samples ≥ {n}"
        if self.width is not None and self.width < least:
            step = 10.0 ** (math.floor(math.log10(least)) - 1)  # two digits, rounded up
            wide = f"width={math.ceil(least / step) * step:.2g} or more, or none (each instance then gets its own)"
            return f"width={self.width:g} is too narrow here: use {draws}{' and ' if draws else ''}{wide}"
        more = f"use {draws}" if draws else "draw more (n_samples)"
        return f"no width of the kernel leaves more here: {more}, or use another distribution"


def widths_of_fair_masks(gap: Float[Tensor, "b d"], share: float, n: int | None) -> Float[Tensor, " b"]:
    """The narrowest widths for fair masks, in closed form; `gap` is a feature's squared distance from the baseline.

    With q = exp(−gap/width²), E[v]² / E[v²] = Π (1 + q)² / (2 (1 + q²)) = Π (1 + sech(gap/width²)) / 2.
    """
    unknowns = (gap > 0).sum(-1) + 1
    wanted, largest = _wanted(share, unknowns, n), gap.amax(-1)
    relative = gap / _or_one(largest)[:, None]

    def suffices(t: Tensor) -> Tensor:
        return (wanted < 1) & ((0.5 + 0.5 / (relative * t[:, None]).cosh()).prod(-1) >= wanted)

    return _widths(suffices, largest, -math.log(LEAST))


def widths_of_draw(draw: Draw, squared_distance: Float[Tensor, "b m"], share: float, n: int | None) -> Tensor:
    """The narrowest widths as a draw of any distribution shows them."""
    xi = draw.xi.double().expand(len(squared_distance), -1, -1) if draw.xi.ndim == 3 else draw.xi.double()
    weight = torch.where(draw.weight.isinf(), 0.0, draw.weight).expand(len(squared_distance), -1)
    wanted = _wanted(share, torch.full_like(weight[:, 0], xi.shape[-1] + 1), n)
    largest, least = squared_distance.amax(-1), squared_distance.amin(-1, keepdim=True)
    relative = (squared_distance - least) / _or_one(largest)[:, None]
    spread = _spread(xi, weight)

    def suffices(t: Tensor) -> Tensor:
        v = weight * torch.exp(-relative * t[:, None])
        effective = v.sum(-1).square() / (v.square().sum(-1) * (weight > 0).sum(-1))
        return (wanted < 1) & (effective >= wanted) & (_spread(xi, v) >= SPREAD_LEFT * spread).all(-1)

    return _widths(suffices, largest, STEEPEST)


def _widths(suffices: Suffices, largest: Float[Tensor, " b"], steepest: float) -> Float[Tensor, " b"]:
    """max D / √t for the largest t that suffices, by bisection; infinite where none does, or nothing has a distance."""
    low, high = torch.zeros_like(largest), torch.full_like(largest, steepest)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        enough = suffices(middle)
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    return torch.where((low > 0) & (largest > 0), (largest / low).sqrt(), torch.inf)


def _wanted(share: float, unknowns: Tensor, n: int | None) -> Float[Tensor, " b"]:
    return (2 * unknowns.double() / (n or math.inf)).clamp(share, 1.0)


def _spread(xi: Float[Tensor, "*b m d"], weight: Float[Tensor, "b m"]) -> Float[Tensor, "b d"]:
    """The weighted variance of every entry of ξ."""
    share = (weight / weight.sum(-1, keepdim=True))[:, None]
    return ((share @ xi.square()) - (share @ xi).square()).squeeze(1).clamp_min(0)


def _or_one(size: Tensor) -> Tensor:
    return torch.where(size > 0, size, 1.0)

"""When an answer is certain enough: a tolerance of its errors, or a decision that more draws would hardly change.

A decision is looked at after every round of draws. So that all looks together are wrong with probability 1 − level at
most, the rth spends (1 − level) / (r (r + 1)) of it, which sums to 1 − level over any number of rounds. The level is of
one instance and score; several of them are as many decisions.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from locapprox._parts import Concise, brief, share, whole_number
from locapprox.fit.evidence import half_width
from locapprox.fit.ranks import bounds, check_features, largest


class Stop(ABC):
    """What is asked of an explanation before its draws end."""

    @abstractmethod
    def lacks(
        self, weights: Float[Tensor, "b k d"], error: Float[Tensor, "b k d"], degrees: Float[Tensor, " b"], rounds: int
    ) -> Float[Tensor, "b k"]:
        """What is missing after so many rounds, 0 where the stop holds. Errors that are not known do not count."""

    @abstractmethod
    def far(self, lacks: Float[Tensor, " b"]) -> str:
        """How far from holding it is."""


@dataclass(frozen=True, repr=False)
class Tolerance(Concise, Stop):
    """Every standard error of an instance ≤ absolute + relative · max |w| (per score), as of `numpy.allclose`."""

    relative: float = 0.0
    absolute: float = 0.0

    def __post_init__(self) -> None:
        for name in ("relative", "absolute"):
            object.__setattr__(self, name, _least_zero(getattr(self, name), name))
        if not self.relative + self.absolute > 0:
            raise ValueError("tol must be positive: one of relative and absolute at least")

    def lacks(self, weights: Tensor, error: Tensor, degrees: Tensor, rounds: int) -> Tensor:
        ratio = error / (self.absolute + self.relative * largest(weights))
        ratio = torch.where(error > 0, ratio, 0.0).amax(-1)
        return torch.where(ratio > 1, ratio, 0.0)

    def far(self, lacks: Tensor) -> str:
        return f"the largest standard error is {float(lacks.max()):.3g} times what is allowed"


@dataclass(frozen=True, repr=False)
class Signs(Concise, Stop):
    """The sign of every weight is certain (all of an instance and score at once, with probability `level`), or the
    weight is shown to be within ± margin · max |w|."""

    level: float = 0.95
    margin: float = 0.01

    def __post_init__(self) -> None:
        _check(self)

    def lacks(self, weights: Tensor, error: Tensor, degrees: Tensor, rounds: int) -> Tensor:
        low, high = bounds(weights, half_width(error, degrees, spent(self.level, rounds), True), signed=True)
        near = torch.maximum(-low, high) <= self.margin * largest(weights)
        return ((error > 0) & ~((low > 0) | (high < 0) | near)).sum(-1).double()

    def far(self, lacks: Tensor) -> str:
        return f"up to {int(lacks.max())} signs are not certain"


@dataclass(frozen=True, repr=False)
class Order(Concise, Stop):
    """Which features have the `top` largest |w| (signed: w), and their order, are certain.

    All comparisons of an instance and score are right at once with probability `level`: intervals of all weights do not
    overlap, see `Explanation.ranks`. Features whose |w| are shown to differ by margin · max |w| at most are a tie.
    """

    top: int = 5
    level: float = 0.95
    margin: float = 0.02
    signed: bool = False

    def __post_init__(self) -> None:
        whole_number(self.top, "top")
        _check(self)

    def lacks(self, weights: Tensor, error: Tensor, degrees: Tensor, rounds: int) -> Tensor:
        d = check_features(weights.shape[-1])
        low, high = bounds(weights, half_width(error, degrees, spent(self.level, rounds), True), self.signed)
        of = (weights if self.signed else weights.abs()).nan_to_num(-torch.inf)
        first = of.topk(min(self.top, d)).indices
        low_first, high_first, error_first = (part.gather(-1, first)[..., None] for part in (low, high, error))
        low, high, error = low[..., None, :], high[..., None, :], error[..., None, :]
        near = torch.maximum(high_first - low, high - low_first) <= self.margin * largest(weights)[..., None]
        itself = torch.arange(d, device=first.device) == first[..., None]
        open_ = (error_first + error > 0) & ~itself & ~near & (low_first <= high) & (low <= high_first)
        return open_.any(-1).sum(-1).double()

    def far(self, lacks: Tensor) -> str:
        return f"up to {int(lacks.max())} of the first {self.top} places are not certain"


def spent(level: float, rounds: int) -> float:
    """The level of the look after so many rounds."""
    return 1 - (1 - level) / (rounds * (rounds + 1))


def as_stops(tol: Any, until: Any) -> list[Stop]:
    """What `explain` was asked for; ValueError or TypeError naming the argument."""
    if isinstance(tol, Real) and not isinstance(tol, bool):
        tol = Tolerance(relative=float(tol))
    if not isinstance(tol, Tolerance | None):
        raise TypeError(f"tol must be a number or lx.Tolerance(relative=…, absolute=…), got {brief(tol)}")
    if not isinstance(until, Stop | None) or isinstance(until, Tolerance):
        raise TypeError(f"until must be lx.Order(top=…) or lx.Signs(), got {brief(until)}")
    return [stop for stop in (tol, until) if stop is not None]


def _check(stop: "Signs | Order") -> None:
    object.__setattr__(stop, "level", share(stop.level, "level"))
    object.__setattr__(stop, "margin", _least_zero(stop.margin, "margin"))


def _least_zero(value: Any, name: str) -> float:
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 <= float(value) < float("inf"):
        raise ValueError(f"{name} must be a number ≥ 0, got {brief(value)}")
    return float(value)

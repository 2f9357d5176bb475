"""Losses ℓ(f, g, x₀, ξ): what a fit minimises. Each is a kind of row of one least-squares system."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Loss:
    """value · (f(x_ξ) − g(ξ))² + gradient · ‖∇_ξ f(x_ξ) − ∇_ξ g(ξ)‖².

    For a linear g the first term is a row [ξ, 1] θ = f(x_ξ), the second d rows w = ∇_ξ f(x_ξ). Losses add and scale:
    `SquaredError() + 0.1 * GradientMatching()` fits values and slopes (a Sobolev loss).
    """

    value: float
    gradient: float

    def __post_init__(self) -> None:
        if not (self.value >= 0 and self.gradient >= 0 and 0 < self.value + self.gradient < math.inf):
            raise ValueError(f"a loss needs finite weights ≥ 0, not both 0; got {self.value} and {self.gradient}")

    def __add__(self, other: "Loss") -> "Loss":
        if not isinstance(other, Loss):
            return NotImplemented
        return Loss(self.value + other.value, self.gradient + other.gradient)

    def __mul__(self, factor: float) -> "Loss":
        return Loss(factor * self.value, factor * self.gradient)

    __rmul__ = __mul__


@dataclass(frozen=True)
class SquaredError(Loss):
    """(f(x_ξ) − g(ξ))²; valid in the sense of Han et al. 2022, definition 1."""

    value: float = 1.0
    gradient: float = 0.0


@dataclass(frozen=True)
class GradientMatching(Loss):
    """‖∇_ξ f(x_ξ) − ∇_ξ g(ξ)‖², without a factor 1/2. The intercept is then E f(x_ξ) − w · E ξ."""

    value: float = 0.0
    gradient: float = 1.0

"""Losses ℓ(f, g, x₀, ξ): what a fit minimises. Each is a kind of row of one least-squares system."""

import math
from dataclasses import dataclass
from numbers import Real


@dataclass(frozen=True, eq=False)
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
        if not isinstance(factor, Real):
            raise TypeError(f"a loss is multiplied by a number, got {factor!r}")
        return Loss(factor * self.value, factor * self.gradient)

    __rmul__ = __mul__

    def __radd__(self, other: object) -> "Loss":
        return self if other == 0 else NotImplemented  # sum() starts with 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Loss) and (self.value, self.gradient) == (other.value, other.gradient)

    def __hash__(self) -> int:
        return hash((self.value, self.gradient))

    @property
    def name(self) -> str:
        """In words."""
        if (self.value > 0) != (self.gradient > 0):
            return "squared error" if self.value > 0 else "gradient matching"
        return f"{self.value:g} squared error + {self.gradient:g} gradient matching"


class SquaredError(Loss):
    """(f(x_ξ) − g(ξ))²; valid in the sense of Han et al. 2022, definition 1."""

    def __init__(self) -> None:
        super().__init__(1.0, 0.0)

    def __repr__(self) -> str:
        return "SquaredError()"


class GradientMatching(Loss):
    """‖∇_ξ f(x_ξ) − ∇_ξ g(ξ)‖², without a factor 1/2. The intercept is then E f(x_ξ) − w · E ξ."""

    def __init__(self) -> None:
        super().__init__(0.0, 1.0)

    def __repr__(self) -> str:
        return "GradientMatching()"

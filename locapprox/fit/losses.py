"""Losses ℓ(f, g, x₀, ξ): what a fit minimises.

Loss           value · r² + gradient · ‖∇_ξ r‖², r = f(x_ξ) − g(ξ): quadratic, by streaming sums
BaseLoss       ρ(r) with a convex ρ (Huber, Quantile, a user's own), by Newton steps on rows that are kept
OnGradients    Σ_j ρ(∂_j r)
CrossEntropy   of probabilities, with a logistic g
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from locapprox._parts import Concise, positive, share
from locapprox.fit.links import Link

ROUNDED = 1e-5  # what probabilities in single precision may be above 1
NO_SUM = "only squared errors and gradient matching can be added and scaled; got {}"


class Terms(NamedTuple):
    """A row's loss ℓ as a function of η = w · ξ + intercept; all but the first of ℓ / 2, as in normal equations."""

    loss: Tensor
    slope: Tensor  # dg/dη
    first: Tensor  # −dℓ/dg; of the cross-entropy slope · first = y − g, without 0/0
    weight: Tensor  # of Gauss–Newton steps, ≥ 0
    curvature: Tensor  # d²ℓ/dη²
    bound: Tensor  # of reweighted least squares, ≥ 0: ρ′(r)/r in place of ρ″

    def score(self, weight: Tensor) -> Tensor:
        """−dℓ/dη, weighted."""
        return weight * self.slope * self.first


class RowLoss(ABC):
    """A loss of every row of a draw; what is minimised is its weighted mean."""

    of_gradients: bool = False  # whether it looks at ∇f

    @property
    def name(self) -> str:
        """In words."""
        return type(self).__qualname__

    @abstractmethod
    def terms(self, y: Tensor, eta: Tensor, link: Link) -> Terms:
        """Of value rows."""

    def taken(self, y: Tensor) -> Tensor:
        """The outputs, or ValueError for some that it is not a loss of."""
        return y

    def __add__(self, other: object) -> Any:
        raise TypeError(NO_SUM.format(repr(self)))

    __radd__ = __mul__ = __rmul__ = __add__


class BaseLoss(RowLoss):
    """E ρ(f(x_ξ) − g(ξ)) with a convex ρ: derive from it, write `rho`, and try `lx.check_loss`."""

    @abstractmethod
    def rho(self, residual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """ρ, ρ′ and ρ″, element by element: ρ(0) = 0 is the minimum, ρ′ continuous, ρ″ ≥ 0 (0 beside a kink of ρ′)."""

    def terms(self, y: Tensor, eta: Tensor, link: Link) -> Terms:
        g, slope = link(eta)
        residual = y - g
        rho, first, second = self.rho(residual)
        first, second = first / 2, second / 2
        moved = residual.abs() > torch.finfo(residual.dtype).tiny
        secant = torch.where(moved, first / torch.where(moved, residual, 1.0), second)
        square = slope.square()
        weight = second * square
        return Terms(rho, slope, first, weight, weight - first * link.bends(g, slope)[0], secant * square)


@dataclass(frozen=True, eq=False)
class Loss(BaseLoss):
    """value · (f(x_ξ) − g(ξ))² + gradient · ‖∇_ξ f(x_ξ) − ∇_ξ g(ξ)‖².

    For a linear g the first term is a row [ξ, 1] θ = f(x_ξ), the second d rows w = ∇_ξ f(x_ξ). Losses add and scale:
    `SquaredError() + 0.1 * GradientMatching()` fits values and slopes (a Sobolev loss). For another loss derive from
    `BaseLoss`.
    """

    value: float
    gradient: float

    def __post_init__(self) -> None:
        if not (self.value >= 0 and self.gradient >= 0 and 0 < self.value + self.gradient < math.inf):
            raise ValueError(f"a loss needs finite weights ≥ 0, not both 0; got {self.value} and {self.gradient}")
        object.__setattr__(self, "of_gradients", self.gradient > 0)

    def __add__(self, other: "Loss") -> "Loss":  # type: ignore[override]
        if not isinstance(other, Loss):
            return NotImplemented
        return Loss(self.value + other.value, self.gradient + other.gradient)

    def __mul__(self, factor: object) -> "Loss":
        if not isinstance(factor, Real):
            raise TypeError(f"a loss is multiplied by a number, got {factor!r}")
        return Loss(float(factor) * self.value, float(factor) * self.gradient)

    __rmul__ = __mul__

    def __radd__(self, other: object) -> "Loss":
        return self if other == 0 else NotImplemented  # sum() starts with 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Loss) and (self.value, self.gradient) == (other.value, other.gradient)

    def __hash__(self) -> int:
        return hash((self.value, self.gradient))

    @property
    def name(self) -> str:
        if (self.value > 0) != (self.gradient > 0):
            return "squared error" if self.value > 0 else "gradient matching"
        return f"{self.value:g} squared error + {self.gradient:g} gradient matching"

    def rho(self, residual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of value rows."""
        second = torch.full_like(residual, 2 * self.value)
        return self.value * residual.square(), second * residual, second

    def terms(self, y: Tensor, eta: Tensor, link: Link) -> Terms:
        g, slope = link(eta)
        residual = y - g
        first = self.value * residual
        weight = self.value * slope.square()
        return Terms(first * residual, slope, first, weight, weight - first * link.bends(g, slope)[0], weight)


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


@dataclass(frozen=True, repr=False)
class Huber(Concise, BaseLoss):
    """ρ(r) = r² / 2 up to |r| = δ, δ (|r| − δ / 2) beyond (Huber 1964); δ in the unit of the model's output."""

    delta: float

    def __post_init__(self) -> None:
        positive(self.delta, "delta")

    @property
    def name(self) -> str:
        return f"Huber loss (delta {self.delta:g})"

    def rho(self, residual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        size, first = residual.abs(), residual.clamp(-self.delta, self.delta)
        rho = torch.where(size <= self.delta, residual.square() / 2, self.delta * (size - self.delta / 2))
        return rho, first, (size <= self.delta).to(residual)


@dataclass(frozen=True, repr=False)
class Quantile(Concise, BaseLoss):
    """The check function r (q − 1{r < 0}) (Koenker & Bassett 1978), smoothed: quadratic where |r| ≤ h = `smoothing`.

    ρ(r) = c r² / (2h) there and c (|r| − h / 2) beyond, c = q above the surrogate and 1 − q below. `smoothing`, in the
    unit of the model's output, is part of the loss: the minimiser is that of the check function as h → 0. Standard
    errors rest on the rows within h, of which there must be several times as many as weights.
    """

    q: float
    smoothing: float

    def __post_init__(self) -> None:
        share(self.q, "q")
        positive(self.smoothing, "smoothing")

    @property
    def name(self) -> str:
        return f"{self.q:g} quantile loss (smoothing {self.smoothing:g})"

    def rho(self, residual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h, size = self.smoothing, residual.abs()
        side = self.q + (1 - 2 * self.q) * (residual < 0).to(residual)
        rho = torch.where(size <= h, residual.square() / (2 * h), size - h / 2)
        return side * rho, side * (residual / h).clamp(-1, 1), side / h * (size <= h)


@dataclass(frozen=True, repr=False)
class OnGradients(Concise, RowLoss):
    """E Σ_j ρ(∂_j f(x_ξ) − ∂_j g(ξ)): gradient matching under another ρ, `OnGradients(Huber(0.1))`.

    Every weight of a linear g is then an M-estimate of location of its partial derivative over the draw; the intercept
    is E f(x_ξ) − w · E ξ.
    """

    of: BaseLoss
    of_gradients = True

    def __post_init__(self) -> None:
        if not isinstance(self.of, BaseLoss) or isinstance(self.of, Loss):
            raise TypeError(f"of must be a loss with a ρ, such as Huber(0.1); got {self.of!r}")

    @property
    def name(self) -> str:
        return f"{self.of.name} of gradients"

    def terms(self, y: Tensor, eta: Tensor, link: Link) -> NoReturn:
        raise TypeError(f"{self!r} has no value rows")


@dataclass(frozen=True, repr=False)
class CrossEntropy(Concise, RowLoss):
    """−y log g − (1 − y) log(1 − g) less its value at g = y, for outputs y in [0, 1] and a logistic g.

    The Kullback–Leibler divergence of g from y, 0 where g = y: its minimiser is the likelihood's.
    """

    @property
    def name(self) -> str:
        return "cross-entropy"

    def taken(self, y: Tensor) -> Tensor:
        if y.numel() and not (float(y.amin()) > -ROUNDED and float(y.amax()) < 1 + ROUNDED):
            raise ValueError(
                f"cross-entropy is for outputs between 0 and 1, and the model's go from {float(y.amin()):.3g} to "
                f"{float(y.amax()):.3g}: explain a probability, or use SquaredError()"
            )
        return y.clamp(0, 1)

    def terms(self, y: Tensor, eta: Tensor, link: Link) -> Terms:
        """With −log(1 − g) = log(1 + exp η): no probability is ever 0."""
        g, slope = link(eta)
        entropy = -torch.special.xlogy(y, y) - torch.special.xlogy(1 - y, 1 - y)
        loss = torch.logaddexp(eta, torch.zeros_like(eta)) - y * eta - entropy
        return Terms(loss.clamp_min(0), torch.ones_like(g), (y - g) / 2, slope / 2, slope / 2, slope / 2)

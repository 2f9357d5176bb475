"""Distributions of ξ. They know d, never x: where ξ is put is a placement's affair (`placements`).

Rules of quadrature are in `quadratures`, binary masks in `masks`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from locapprox._names import names_of
from locapprox._parts import Concise, brief, finite
from locapprox.models.inputs import Array, all_finite, as_numbers
from locapprox.neighbourhoods.draws import Draw, block_size
from locapprox.neighbourhoods.named import Named
from locapprox.neighbourhoods.sobol import COPIES, MOST, Copies

PAIRS_FROM = 8, 160  # draws for an unknown (from 2 pairs for each intervals cover .98, from 4 .95–.96), and in all
Sigma = float | Tensor | np.ndarray | pd.Series


@runtime_checkable
class Distribution(Protocol):
    """What users write: one method. What a class may say besides is declared by `BaseDistribution`."""

    def draw(self, d: int, n: int, rng: torch.Generator, dtype: torch.dtype) -> Draw:
        """At most n perturbations ξ ∈ Rᵈ on the generator's device; large n come in several calls."""
        ...


class BaseDistribution(ABC):
    """A distribution that says more of itself than `draw`: derive from it and override what differs."""

    draws_at_once: bool = False  # whether `draw` must see its whole budget n in one call: rows then depend on n
    draws_a_share: bool = False  # whether fixed rows may be random: a share of those drawn without replacement
    interpolates: bool | None = None  # whether rows have infinite weight; None: unknown
    binary: bool = False  # whether every entry is 0 or 1, so that a removed feature may be missing in x
    spread: float | None = None  # the least standard deviation of an entry, if known
    nulls_leave: bool = False  # whether masks may pass over features that they do not move: its entries are all alike
    shrinks: bool = False  # whether it stands for distributions that shrink to its one row (`Limit`)
    tol: float | None = None  # of nested rules: see `BaseNeighbourhood`

    @property
    def kind(self) -> str:
        """What seeds the draw beside seed, role and d."""
        return type(self).__qualname__

    def named(self, names: Sequence[str], index: pd.Index | None = None) -> "BaseDistribution":
        """The distribution with what it holds by name in the order of x's columns; ValueError if they are others."""
        return self

    @abstractmethod
    def draw(self, d: int, n: int, rng: torch.Generator, dtype: torch.dtype) -> Draw:
        """See `Distribution`."""

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise ValueError if it does not fit inputs of this shape, with an entry of ξ for every entry."""
        return

    def blocks(self, d: int, n: int, rng: torch.Generator, dtype: torch.dtype) -> Iterator[Draw]:
        """The draw of n rows, in blocks whose size depends on d alone."""
        size = n if self.draws_at_once else block_size(d)
        for start in range(0, n, size):
            yield self.draw(d, min(size, n - start), rng, dtype)


@dataclass(frozen=True, eq=False, repr=False)
class DescribedDistribution(BaseDistribution):
    """A class of a user's with the defaults of `BaseDistribution`; only its `draw` is read."""

    own: Distribution

    @property
    def kind(self) -> str:
        return type(self.own).__qualname__

    def draw(self, d: int, n: int, rng: torch.Generator, dtype: torch.dtype) -> Any:  # a placement looks at it
        return self.own.draw(d, n, rng, dtype)


def described_distribution(distribution: Any) -> BaseDistribution:
    """The distribution itself if it derives from `BaseDistribution`, else one that wraps it."""
    if isinstance(distribution, BaseDistribution):
        return distribution
    if isinstance(distribution, type) or not callable(getattr(distribution, "draw", None)):
        raise TypeError(f"distribution must have a method draw, like lx.Normal(0.1); got {distribution!r}")
    return DescribedDistribution(distribution)


def ones(xi: Tensor) -> Tensor:
    """Weight 1 for every row."""
    return torch.ones(xi.shape[0], dtype=torch.float64, device=xi.device)


@dataclass(frozen=True, eq=False, repr=False)
class Normal(Named, Concise, BaseDistribution):
    """ξ ~ Normal(0, diag σ²), σ > 0 a number or one per entry (a Series by the names of the columns of x).

    With `antithetic`, draws come in pairs ξ, −ξ; None: where n ≥ 8 (d + 1) and 160, so that half as many units tell
    enough.
    With `sobol`, they are 16 independent copies of Sobol's points in turn (up to 21,201 entries; independent beyond).
    """

    sigma: Sigma
    antithetic: bool | None = False
    sobol: bool = False
    names: list[str] | None = field(default=None, repr=False, compare=False)

    interpolates = False
    called, per_feature = "sigma", ("sigma",)

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            sigma = as_numbers(self.sigma, "sigma").double()
        except TypeError as error:
            found = brief(self.sigma)
            raise TypeError(f"sigma must be a number, or one per entry of the input; got {found}") from error
        if not bool(((sigma > 0) & torch.isfinite(sigma)).all()):
            raise ValueError(f"sigma must be positive and finite, got {self.sigma}; for σ → 0 use vanilla_gradients()")
        if self.sobol and self.antithetic is not False:
            raise ValueError("antithetic and sobol are two ways to draw: give one of them")
        object.__setattr__(self, "spread", float(sigma.min()))
        if sigma.ndim:
            object.__setattr__(self, "sigma", sigma)

    def check(self, shape: tuple[int, ...]) -> None:
        given = tuple(torch.as_tensor(self.sigma, device="cpu").shape)
        if len(given) > 1 and given[-len(shape) :] != shape and math.prod(given) == math.prod(shape):
            raise ValueError(f"sigma has shape {given}, an input {shape}: its entries would go to others")

    def draw(self, d: int, n: int, rng: torch.Generator, dtype: torch.dtype) -> Draw:
        if self.sobol and d <= MOST:
            return self._scaled(Copies(d, rng).normal(0, n, dtype), replicates=COPIES)
        paired = self._paired(d, n)
        z = torch.randn(n // 2 if paired else n, d, generator=rng, device=rng.device, dtype=dtype)
        if paired:
            return self._scaled(torch.stack([z, -z], dim=1).reshape(-1, d), unit_size=2)
        return self._scaled(z)

    def blocks(self, d: int, n: int, rng: torch.Generator, dtype: torch.dtype) -> Iterator[Draw]:
        if self.sobol and d <= MOST:
            copies, size = Copies(d, rng), block_size(d) // COPIES * COPIES
            for start in range(0, n, size):
                yield self._scaled(copies.normal(start, min(start + size, n), dtype), replicates=COPIES)
        elif self.antithetic is None:  # decided by the whole draw
            yield from replace(self, antithetic=self._paired(d, n)).blocks(d, n, rng, dtype)
        else:
            yield from super().blocks(d, n, rng, dtype)

    def _paired(self, d: int, n: int) -> bool:
        each, least = PAIRS_FROM
        return n >= max(least, each * (d + 1)) if self.antithetic is None else self.antithetic

    def _scaled(self, z: Tensor, unit_size: int = 1, replicates: int = 0) -> Draw:
        sigma, d = torch.as_tensor(self.sigma, dtype=z.dtype, device=z.device).flatten(), z.shape[1]
        if sigma.numel() not in (1, d):
            raise ValueError(f"sigma has {sigma.numel()} entries, the input has {d}: give one number or one per entry")
        xi = sigma * z
        return Draw(xi, ones(xi), unit_size, replicates=replicates)


@dataclass(frozen=True, eq=False, repr=False)
class CorrelatedNormal(Named, Concise, BaseDistribution):
    """ξ ~ Normal(0, covariance), for a positive definite covariance of the flattened input.

    The covariance, or the data it is computed from, may be a DataFrame, whose names are those of the columns of x.
    """

    covariance: Any  # (d, d), a Tensor once it is here
    names: list[str] | None = field(default=None, repr=False, compare=False)

    interpolates = False
    called, per_feature = "covariance", ("covariance",)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "covariance", as_numbers(self.covariance, "covariance"))
        given: Tensor = self.covariance
        if not all_finite(given):
            raise ValueError("covariance has NaN or infinite values")
        square = given.ndim == 2 and len(given) == len(given.mT)
        if square and not torch.allclose(given, given.mT, rtol=1e-6, atol=1e-9 * float(given.abs().max())):
            raise ValueError("covariance must be symmetric; (C + C.T) / 2 is, if only rounding is to blame")

    @classmethod
    def of_data(cls, data: Array, scale: float = 1.0) -> "CorrelatedNormal":
        """scale² times the covariance of a data set (rows), which must have more rows than entries."""
        rows = as_numbers(data, "data").flatten(1).double()
        if not all_finite(rows):
            raise ValueError("data has NaN or infinite values; leave those rows out or fill them in")
        if len(rows) <= rows.shape[1]:
            raise ValueError(f"data has {len(rows)} rows for {rows.shape[1]} entries; a covariance needs more rows")
        return cls(scale**2 * torch.cov(rows.mT).reshape(rows.shape[1], -1), names_of(data))

    def _each(self, change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        return {"covariance": change(change(self.covariance).mT).mT}

    def draw(self, d: int, n: int, rng: torch.Generator, dtype: torch.dtype) -> Draw:
        covariance = self.covariance.double()
        if covariance.shape != (d, d):
            raise ValueError(f"covariance must be ({d}, {d}) for inputs of {d} entries, got {tuple(covariance.shape)}")
        factor, info = torch.linalg.cholesky_ex(covariance)
        if int(info) or not bool(torch.isfinite(factor).all()):
            raise ValueError("covariance must be positive definite: more data rows than entries are needed")
        z = torch.randn(n, d, generator=rng, device=rng.device, dtype=dtype)
        with torch.autocast(z.device.type, enabled=False):
            xi = z @ factor.to(z).mT
        return Draw(xi, ones(xi))


@dataclass(frozen=True, repr=False)
class Uniform(Concise, BaseDistribution):
    """One number t ~ Uniform(low, high) in all d entries of ξ."""

    low: float = 0.0
    high: float = 1.0

    interpolates = False

    def __post_init__(self) -> None:
        finite(self.low, "low")
        finite(self.high, "high")

    def draw(self, d: int, n: int, rng: torch.Generator, dtype: torch.dtype) -> Draw:
        t = torch.rand(n, 1, generator=rng, device=rng.device, dtype=dtype)
        xi = (self.low + (self.high - self.low) * t).expand(n, d)
        return Draw(xi, ones(xi))


@dataclass(frozen=True, repr=False)
class PointMass(Concise, BaseDistribution):
    """ξ = value in all entries: the exact limit of a distribution that shrinks to a point. Ignores n."""

    value: float
    draws_at_once = True
    interpolates = False

    def __post_init__(self) -> None:
        finite(self.value, "value")

    def draw(self, d: int, n: int, rng: torch.Generator, dtype: torch.dtype) -> Draw:
        xi = torch.full((1, d), self.value, dtype=dtype, device=rng.device)
        return Draw(xi, ones(xi), n_fixed=1)

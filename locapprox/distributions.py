"""Distributions of ξ. They know d, never x: where ξ is put is a placement's affair (`neighbourhoods`).

A quadrature rule is a distribution too: its nodes are ξ, its weights the weights.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import roots_legendre
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Draw:
    """Perturbations and their weights.

    `weight` is (n,), or (b, n) if it depends on the instance; inf means "the surrogate must interpolate this point".
    Rows are independent unless said otherwise: after the first `fixed` rows, which are not random (enumerated, or
    nodes of a quadrature), every `unit` consecutive rows were drawn together (2 for complementary pairs).
    `coarse` holds the weights of a coarser quadrature on the same nodes; the difference is the reported error.
    """

    xi: Float[Tensor, "*b n d"]
    weight: Float[Tensor, "*g n"]
    unit: int = 1
    fixed: int = 0
    coarse: Float[Tensor, " n"] | None = None


@runtime_checkable
class Distribution(Protocol):
    """Draws n perturbations ξ ∈ Rᵈ on the generator's device."""

    def draw(self, d: int, n: int, rng: torch.Generator, dtype: torch.dtype) -> Draw: ...


def block_size(d: int) -> int:
    """Draws that are held at once: a function of d alone, so that no result depends on `batch_size`."""
    return max(2, min(1024, 2**22 // d) // 2 * 2)


def _ones(xi: Tensor) -> Tensor:
    return torch.ones(xi.shape[0], dtype=torch.float64, device=xi.device)


@dataclass(frozen=True, eq=False)
class Normal:
    """ξ ~ Normal(0, diag σ²), σ > 0 a number or one per entry. With `antithetic`, draws come in pairs ξ, −ξ."""

    sigma: float | Tensor
    antithetic: bool = False

    def __post_init__(self) -> None:
        try:
            sigma = torch.as_tensor(self.sigma, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"sigma must be a number, or one per entry of the input; got {self.sigma!r}") from error
        if not bool(((sigma > 0) & torch.isfinite(sigma)).all()):
            raise ValueError(f"sigma must be positive and finite, got {self.sigma}; for σ → 0 use vanilla_gradients()")

    def draw(self, d: int, n: int, rng: torch.Generator, dtype: torch.dtype) -> Draw:
        sigma = torch.as_tensor(self.sigma, dtype=dtype, device=rng.device).flatten()
        if sigma.numel() not in (1, d):
            raise ValueError(f"sigma has {sigma.numel()} entries, the input has {d}: give one number or one per entry")
        unit = 2 if self.antithetic else 1
        xi = sigma * torch.randn(n // unit, d, generator=rng, device=rng.device, dtype=dtype)
        if self.antithetic:
            xi = torch.stack([xi, -xi], dim=1).reshape(-1, d)
        return Draw(xi, _ones(xi), unit=unit)


@dataclass(frozen=True, eq=False)
class CorrelatedNormal:
    """ξ ~ Normal(0, covariance), for a positive definite covariance of the flattened input."""

    covariance: Tensor

    @classmethod
    def of_data(cls, data: Tensor, scale: float = 1.0) -> "CorrelatedNormal":
        """scale² times the covariance of a data set (rows), which must have more rows than entries."""
        rows = (data if isinstance(data, Tensor) else torch.from_numpy(np.array(data, float))).flatten(1).double()
        return cls(scale**2 * torch.cov(rows.mT).reshape(rows.shape[1], -1))

    def draw(self, d: int, n: int, rng: torch.Generator, dtype: torch.dtype) -> Draw:
        covariance = torch.as_tensor(self.covariance).double()
        if covariance.shape != (d, d):
            raise ValueError(f"covariance must be ({d}, {d}) for inputs of {d} entries, got {tuple(covariance.shape)}")
        factor, info = torch.linalg.cholesky_ex(covariance)
        if int(info) or not bool(torch.isfinite(factor).all()):
            raise ValueError("covariance must be positive definite: more data rows than entries are needed")
        z = torch.randn(n, d, generator=rng, device=rng.device, dtype=dtype)
        xi = z @ factor.to(z).mT
        return Draw(xi, _ones(xi))


@dataclass(frozen=True)
class Uniform:
    """One number t ~ Uniform(low, high) in all d entries of ξ."""

    low: float = 0.0
    high: float = 1.0

    def draw(self, d: int, n: int, rng: torch.Generator, dtype: torch.dtype) -> Draw:
        t = torch.rand(n, 1, generator=rng, device=rng.device, dtype=dtype)
        xi = (self.low + (self.high - self.low) * t).expand(n, d)
        return Draw(xi, _ones(xi))


@dataclass(frozen=True)
class GaussLegendre:
    """`Uniform(low, high)` by Gauss–Legendre quadrature with n nodes (exact for polynomials of degree 2n − 1).

    The coarser rule interpolates on every second node. Whole budget at once: the nodes depend on n.
    """

    low: float = 0.0
    high: float = 1.0
    whole_budget = True

    def draw(self, d: int, n: int, rng: torch.Generator, dtype: torch.dtype) -> Draw:
        nodes, weights, coarse = (torch.tensor(a, device=rng.device) for a in _gauss_legendre(n))
        t = self.low + (self.high - self.low) * nodes.to(dtype)
        return Draw(t[:, None].expand(n, d), weights, fixed=n, coarse=coarse)


@lru_cache(maxsize=32)
def _gauss_legendre(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes on (0, 1), weights, and the weights of the rule on every second node."""
    nodes, weights = roots_legendre(n)  # O(n²); numpy's leggauss is O(n³), seconds for n = 1000
    coarse = np.zeros(n)  # one node has no coarser rule, so weight 0, and its error is NaN: unknown
    if n > 1:
        half = nodes[::2]
        moments = np.zeros(len(half))
        moments[0] = 1.0  # the mean of P_0; all higher Legendre polynomials have mean 0
        coarse[::2] = np.linalg.solve(np.polynomial.legendre.legvander(half, len(half) - 1).T, moments)
    return (nodes + 1) / 2, weights / 2, coarse


@dataclass(frozen=True)
class PointMass:
    """ξ = value in all entries: the exact limit of a distribution that shrinks to a point. Ignores n."""

    value: float
    whole_budget = True

    def draw(self, d: int, n: int, rng: torch.Generator, dtype: torch.dtype) -> Draw:
        xi = torch.full((1, d), self.value, dtype=dtype, device=rng.device)
        return Draw(xi, _ones(xi), fixed=1)


@dataclass(frozen=True)
class LeaveOneOut:
    """The d masks with one feature removed, and ξ = 1, the input itself, to be interpolated. Ignores n."""

    whole_budget = True
    binary = True

    def draw(self, d: int, n: int, rng: torch.Generator, dtype: torch.dtype) -> Draw:
        xi = torch.cat([1 - torch.eye(d), torch.ones(1, d)]).to(rng.device, dtype)
        weight = _ones(xi)
        weight[-1] = torch.inf
        return Draw(xi, weight, fixed=d + 1)


@dataclass(frozen=True)
class FairMasks:
    """Every entry of ξ is 0 or 1 with probability 1/2."""

    binary = True

    def draw(self, d: int, n: int, rng: torch.Generator, dtype: torch.dtype) -> Draw:
        xi = torch.randint(0, 2, (n, d), generator=rng, device=rng.device).to(dtype)
        return Draw(xi, _ones(xi))


@dataclass(frozen=True)
class AllCoalitions:
    """All 2ᵈ binary masks with weight 1: `FairMasks` without sampling error. Ignores n."""

    whole_budget = True
    binary = True

    def draw(self, d: int, n: int, rng: torch.Generator, dtype: torch.dtype) -> Draw:
        if d > 24:
            raise ValueError(f"AllCoalitions needs 2**{d} evaluations; sample them (FairMasks) or group the features")
        rows = torch.arange(2**d, device=rng.device)
        xi = (rows[:, None] >> torch.arange(d, device=rng.device) & 1).to(dtype)
        return Draw(xi, _ones(xi), fixed=len(xi))


@lru_cache(maxsize=16)
def shapley_size_weights(d: int) -> np.ndarray:
    """Total Shapley kernel weight of the coalitions of size k = 1 … d − 1, summing to 1.

    One coalition weighs (d − 1) / (C(d, k) k (d − k)) (Lundberg and Lee 2017, theorem 2), so all of a size together
    (d − 1) / (k (d − k)): no binomial coefficient is needed, and none overflows.
    """
    k = np.arange(1, d)
    weight = (d - 1) / (k * (d - k))
    weight /= weight.sum()
    weight.flags.writeable = False
    return weight


@dataclass(frozen=True)
class ShapleyMasks:
    """Binary masks with the Shapley kernel; the empty and the full one are interpolated (their weight is infinite).

    Sizes k and d − k are enumerated together, from the outermost inwards, while sampling would be expected to draw each
    of their coalitions at least once; what is left of the n masks are complementary pairs of random coalitions, sizes
    drawn in proportion to their weight (Covert and Lee 2021). With n ≥ 2ᵈ everything is enumerated.
    """

    binary = True

    def draw(self, d: int, n: int, rng: torch.Generator, dtype: torch.dtype) -> Draw:
        return _join(list(self.stream(d, n, rng, dtype)))

    def stream(self, d: int, n: int, rng: torch.Generator, dtype: torch.dtype) -> Iterator[Draw]:
        """The same draw in blocks of about `block_size(d)` rows."""
        waiting: list[Draw] = []
        for part in self._parts(d, n, rng, dtype):
            waiting.append(part)
            if sum(len(p.weight) for p in waiting) >= block_size(d):
                yield _join(waiting)
                waiting = []
        if waiting:
            yield _join(waiting)

    def _parts(self, d: int, n: int, rng: torch.Generator, dtype: torch.dtype) -> Iterator[Draw]:
        half = block_size(d) // 2
        yield _masks(torch.stack([torch.zeros(d), torch.ones(d)]), math.inf, rng, dtype, fixed=2)
        if n <= 2:
            return
        left, size_weight, size = n - 2, shapley_size_weights(d), 1
        while size <= d // 2:
            twice = 1 if 2 * size == d else 2  # size d/2 is its own complement
            count = twice * math.comb(d, size)
            outer = twice * size_weight[size - 1]
            if left * outer / size_weight[size - 1 : d - size].sum() < count * (1 - 1e-8):
                break
            few = count <= block_size(d)
            for xi in _coalitions(d, size) if few else _of_size(d, size):
                yield _masks(xi, outer / count, rng, dtype, fixed=len(xi))
            left -= count
            size += 1
        pairs = left // 2
        if size > d // 2 or pairs == 0:
            return
        inner = size_weight[size - 1 : d - size]
        probability = torch.from_numpy(inner / inner.sum()).to(rng.device)
        for start in range(0, pairs, half):
            m = min(half, pairs - start)
            k = size + torch.multinomial(probability, m, replacement=True, generator=rng)
            u = torch.rand(m, d, generator=rng, device=rng.device, dtype=torch.float64)
            ordered = torch.from_numpy(np.sort(u.cpu().numpy())).to(u.device)  # short rows: 5 times torch's speed
            xi = (u <= ordered.gather(1, k[:, None] - 1)).to(dtype)
            xi = torch.stack([xi, 1 - xi], dim=1).reshape(-1, d)
            yield _masks(xi, inner.sum() / (2 * pairs), rng, dtype, unit=2)


def _of_size(d: int, size: int) -> Iterator[Tensor]:
    """All masks with `size` or d − size ones, in blocks."""
    chosen = itertools.combinations(range(d), size)
    while rows := list(itertools.islice(chosen, block_size(d) // 2)):
        xi = torch.zeros(len(rows), d).scatter_(1, torch.tensor(rows), 1.0)
        yield xi if 2 * size == d else torch.cat([xi, 1 - xi])


@lru_cache(maxsize=16)
def _coalitions(d: int, size: int) -> list[Tensor]:
    return list(_of_size(d, size))


def _masks(xi: Tensor, weight: float, rng: torch.Generator, dtype: torch.dtype, unit: int = 1, fixed: int = 0) -> Draw:
    weights = torch.full((len(xi),), weight, dtype=torch.float64, device=rng.device)
    return Draw(xi.to(rng.device, dtype), weights, unit=unit, fixed=fixed)


def _join(draws: list[Draw]) -> Draw:
    """Consecutive draws as one; only leading ones may have fixed rows."""
    return Draw(
        torch.cat([draw.xi for draw in draws]),
        torch.cat([draw.weight for draw in draws]),
        unit=draws[-1].unit,
        fixed=sum(draw.fixed for draw in draws),
    )

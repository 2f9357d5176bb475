"""Distributions of binary masks: ξ_j = 1 keeps feature j, ξ_j = 0 removes it."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from locapprox._memory import require_memory
from locapprox._parts import Concise
from locapprox.neighbourhoods.distributions import BaseDistribution, ones
from locapprox.neighbourhoods.draws import Draw, block_size


@dataclass(frozen=True, repr=False)
class LeaveOneOut(Concise, BaseDistribution):
    """The d masks with one feature removed, and ξ = 1, the input itself, to be interpolated. Ignores n."""

    draws_at_once = True
    binary = True
    nulls_leave = True
    interpolates = True

    def draw(self, d: int, n: int, rng: torch.Generator, dtype: torch.dtype) -> Draw:
        way_out = "group them (features=lx.patches(…), lx.superpixels(…) or labels)"
        require_memory(2 * d**2, f"removing each of {d} features in turn", rng.device, way_out)
        xi = torch.cat([1 - torch.eye(d, device=rng.device), torch.ones(1, d, device=rng.device)]).to(dtype)
        weight = ones(xi)
        weight[-1] = torch.inf
        return Draw(xi, weight, n_fixed=d + 1)


@dataclass(frozen=True, repr=False)
class FairMasks(Concise, BaseDistribution):
    """Every entry of ξ is 0 or 1 with probability 1/2."""

    binary = True
    nulls_leave = True
    interpolates = False

    def draw(self, d: int, n: int, rng: torch.Generator, dtype: torch.dtype) -> Draw:
        xi = torch.randint(0, 2, (n, d), generator=rng, device=rng.device).to(dtype)
        return Draw(xi, ones(xi))


@dataclass(frozen=True, repr=False)
class AllCoalitions(Concise, BaseDistribution):
    """All 2ᵈ binary masks with weight 1: `FairMasks` without sampling error. Ignores n."""

    draws_at_once = True
    binary = True
    nulls_leave = True
    interpolates = False

    def draw(self, d: int, n: int, rng: torch.Generator, dtype: torch.dtype) -> Draw:
        if d > 24:
            raise ValueError(f"AllCoalitions needs 2**{d} evaluations; sample them (FairMasks) or group the features")
        rows = torch.arange(2**d, device=rng.device)
        xi = (rows[:, None] >> torch.arange(d, device=rng.device) & 1).to(dtype)
        return Draw(xi, ones(xi), n_fixed=len(xi))


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


@dataclass(frozen=True, repr=False)
class ShapleyMasks(Concise, BaseDistribution):
    """Binary masks with the Shapley kernel; the empty and the full one are interpolated (their weight is infinite).

    Sizes k and d − k are enumerated together, from the outermost inwards, while sampling would be expected to draw each
    of their coalitions at least once; what is left of the n masks are complementary pairs of random coalitions, sizes
    drawn in proportion to their weight (Covert and Lee 2021). With n ≥ 2ᵈ everything is enumerated.
    """

    binary = True
    nulls_leave = True
    interpolates = True

    def draw(self, d: int, n: int, rng: torch.Generator, dtype: torch.dtype) -> Draw:
        return join(list(self.blocks(d, n, rng, dtype)))

    def blocks(self, d: int, n: int, rng: torch.Generator, dtype: torch.dtype) -> Iterator[Draw]:
        """The same draw in blocks of about `block_size(d)` rows."""
        waiting: list[Draw] = []
        for part in self._parts(d, n, rng, dtype):
            waiting.append(part)
            if sum(len(p.weight) for p in waiting) >= block_size(d):
                yield join(waiting)
                waiting = []
        if waiting:
            yield join(waiting)

    def _parts(self, d: int, n: int, rng: torch.Generator, dtype: torch.dtype) -> Iterator[Draw]:
        half = block_size(d) // 2
        empty = torch.zeros(1, d, device=rng.device)
        yield _masks(torch.cat([empty, 1 - empty]), math.inf, rng, dtype, n_fixed=2)
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
                yield _masks(xi, outer / count, rng, dtype, n_fixed=len(xi))
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
            on_cpu = u.device.type == "cpu"  # short rows: there numpy is 5 times as fast
            ordered = torch.from_numpy(np.sort(u.numpy())) if on_cpu else u.sort().values
            xi = (u <= ordered.gather(1, k[:, None] - 1)).to(dtype)
            xi = torch.stack([xi, 1 - xi], dim=1).reshape(-1, d)
            yield _masks(xi, inner.sum() / (2 * pairs), rng, dtype, unit_size=2)


def _of_size(d: int, size: int) -> Iterator[Tensor]:
    """All masks with `size` or d − size ones, in blocks."""
    chosen = itertools.combinations(range(d), size)
    while rows := list(itertools.islice(chosen, block_size(d) // 2)):
        xi = torch.zeros(len(rows), d, device="cpu").scatter_(1, torch.tensor(rows, device="cpu"), 1.0)
        yield xi if 2 * size == d else torch.cat([xi, 1 - xi])


@lru_cache(maxsize=16)
def _coalitions(d: int, size: int) -> list[Tensor]:
    return list(_of_size(d, size))


def _masks(
    xi: Tensor, weight: float, rng: torch.Generator, dtype: torch.dtype, unit_size: int = 1, n_fixed: int = 0
) -> Draw:
    weights = torch.full((len(xi),), weight, dtype=torch.float64, device=rng.device)
    return Draw(xi.to(rng.device, dtype), weights, unit_size=unit_size, n_fixed=n_fixed)


def join(draws: list[Draw]) -> Draw:
    """Consecutive draws as one; only leading ones may have fixed rows."""
    return Draw(
        torch.cat([draw.xi for draw in draws]),
        torch.cat([draw.weight for draw in draws]),
        unit_size=draws[-1].unit_size,
        n_fixed=sum(draw.n_fixed for draw in draws),
    )

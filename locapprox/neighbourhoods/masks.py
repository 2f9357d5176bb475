"""Distributions of binary masks: ξ_j = 1 keeps feature j, ξ_j = 0 removes it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from locapprox._memory import require_memory
from locapprox._parts import Concise
from locapprox.neighbourhoods.distributions import BaseDistribution, ones
from locapprox.neighbourhoods.draws import Draw, block_size

LEAST_SHARE = 1 / 16  # of a size; smaller ones are drawn with replacement, which costs a thirtieth of them at most
LEAST_RANDOM = 8  # of a size, whatever its share


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

    The others are complementary pairs of coalitions. Sizes k and d − k are enumerated together, from the outermost
    inwards, while sampling would be expected to draw each of their coalitions at least once; the pairs that are left
    are shared among the other sizes in proportion to their weight (Covert and Lee 2021), rounded at random, and drawn
    without replacement (as Musco and Witter 2025) where they are a sixteenth of a size or more. With n ≥ 2ᵈ everything
    is enumerated.

    Of a size of which the share f is drawn without replacement, f of the draws count as fixed, as if enumerated. The
    others then tell 1 − f of the variance with replacement, which is that without, and of the loss their share of all
    coalitions, those that were not drawn.
    """

    binary = True
    nulls_leave = True
    interpolates = True
    draws_a_share = True

    def draw(self, d: int, n: int, rng: torch.Generator, dtype: torch.dtype) -> Draw:
        return join(list(self.blocks(d, n, rng, dtype)))

    def blocks(self, d: int, n: int, rng: torch.Generator, dtype: torch.dtype) -> Iterator[Draw]:
        """The same draw in blocks of about `block_size(d)` rows."""
        empty = torch.zeros(1, d, device=rng.device, dtype=dtype)
        infinite = torch.full((2,), math.inf, device=rng.device, dtype=torch.float64)
        ends = Draw(torch.cat([empty, 1 - empty]), infinite, n_fixed=2)
        size, weight, rank, fixed = _pairs(d, n, rng)
        half = block_size(d) // 2
        for start in range(0, len(size), half):
            i = slice(start, start + half)
            xi = coalitions(d, size[i], rank[i], rng)
            xi = torch.stack([xi, 1 - xi], dim=1).reshape(-1, d).to(dtype)
            n_fixed = min(len(xi), max(0, 2 * (fixed - start)))
            unit_size = 2 if n_fixed < len(xi) else 1
            part = Draw(xi, torch.from_numpy(weight[i].repeat(2)).to(xi.device), unit_size, n_fixed)
            yield join([ends, part]) if start == 0 else part
        if len(size) == 0:
            yield ends


class _Pairs(NamedTuple):
    """A coalition of each complementary pair: first those that are fixed, last those without a rank."""

    size: np.ndarray
    weight: np.ndarray
    rank: Int[Tensor, " r"]  # see `coalitions`
    n_fixed: int


def _pairs(d: int, n: int, rng: torch.Generator) -> _Pairs:
    weight, total = 2 * shapley_size_weights(d)[: d // 2], [1]
    for k in range(1, d // 2 + 1):  # C(d, k), or so many that nobody draws two alike
        total.append(min(2**60, total[-1] * (d - k + 1) // k))
    del total[0]
    if d % 2 == 0:  # size d/2 is its own complement
        weight[-1], total[-1] = weight[-1] / 2, total[-1] // 2
    left, outer = max(0, n - 2) / 2, 0
    while outer < len(total) and left * weight[outer] / weight[outer:].sum() >= total[outer] * (1 - 1e-8):
        left, outer = left - total[outer], outer + 1
    m, inner = int(left), weight[outer:].sum()
    edges = m * np.cumsum(weight[outer:]) / inner
    edges[-1:] = m
    start = float(torch.rand(1, generator=rng, device=rng.device, dtype=torch.float64))
    drawn = np.array([*total[:outer], *np.diff(np.floor(edges + start), prepend=0)], int)
    share = drawn / np.array(total, float)
    ranked = int(np.flatnonzero([*(share < LEAST_SHARE), True])[0])
    fixed = np.where(np.arange(len(drawn)) < outer, drawn, 0)
    if m >= 2 * d:  # below, fits are shrunk and nobody knows their errors
        shared = slice(outer, ranked)
        fixed[shared] = np.minimum(drawn * share, np.maximum(drawn - LEAST_RANDOM, 0))[shared]
    ranks = [torch.arange(all_, device=rng.device) for all_ in total[:outer]]
    ranks += [torch.randperm(all_, generator=rng, device=rng.device) for all_ in total[outer:ranked]]
    cut = [
        rank[:some].tensor_split([still])
        for rank, some, still in zip(ranks, drawn.tolist(), fixed.tolist(), strict=False)
    ]
    rank = torch.cat([torch.arange(0, device=rng.device), *(one for part in zip(*cut, strict=True) for one in part)])
    each = np.full(len(drawn), inner / max(1, 2 * m))
    each[:outer] = weight[:outer] / (2 * drawn[:outer])
    of = np.tile(np.arange(len(drawn)), 2).repeat(np.concatenate([fixed, drawn - fixed]))
    return _Pairs(of + 1, each[of], rank, int(fixed.sum()))


def coalitions(d: int, size: np.ndarray, rank: Int[Tensor, " r"], rng: torch.Generator) -> Float[Tensor, "m d"]:
    """The coalitions of these ranks among those of their size, then others at random.

    Players c₁ < … < c_k have rank Σ C(cᵢ, i): those without the last player come first, and of half the players they
    are half of all, none the complement of another.
    """
    ranked, rest = size[: len(rank)], rank.clone()
    xi = torch.zeros(len(rank), d, device=rank.device, dtype=torch.float64)
    for k in range(int(ranked.max(initial=0)), 0, -1):
        i, of_k = torch.from_numpy(np.flatnonzero(ranked >= k)).to(rank.device), _binomials(d, k, rank.device)
        last = torch.searchsorted(of_k, rest[i], right=True) - 1
        xi[i, last] = 1
        rest[i] -= of_k[last]
    others = torch.from_numpy(size[len(rank) :, None] - 1).to(rank.device)
    u = torch.rand(len(others), d, generator=rng, device=rank.device, dtype=torch.float64)
    on_cpu = u.device.type == "cpu"  # short rows: there numpy is 5 times as fast
    ordered = torch.from_numpy(np.sort(u.numpy())) if on_cpu else u.sort().values
    return torch.cat([xi, (u <= ordered.gather(1, others)).double()])


@lru_cache(maxsize=256)
def _binomials(d: int, k: int, device: torch.device) -> Int[Tensor, " d"]:
    """C(c, k) of c < d."""
    return torch.tensor([math.comb(c, k) for c in range(d)], device=device)


def join(draws: list[Draw]) -> Draw:
    """Consecutive draws as one; only leading ones may have fixed rows."""
    return Draw(
        torch.cat([draw.xi for draw in draws]),
        torch.cat([draw.weight for draw in draws]),
        unit_size=draws[-1].unit_size,
        n_fixed=sum(draw.n_fixed for draw in draws),
    )

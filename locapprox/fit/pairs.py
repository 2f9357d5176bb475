"""A draw of complementary masks as pairs: χ = 2ξ − 1 and u = (v(S) − v(Sᶜ)) / 2, all that Shapley values see."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from locapprox.fit.blocks import Block
from locapprox.fit.sampling import Sample
from locapprox.fit.solve import binary

NUGGET = 1e-9  # the noise variance of a pair drawn once, in the process': against round-off


@dataclass(frozen=True, eq=False)
class Pairs:
    """Every pair of masks once, the full and the empty one first, for B problems (instances × scores)."""

    chi: Float[Tensor, "m d"]
    odd: Float[Tensor, "B m"]  # u
    even: Float[Tensor, "B m"]  # (v(S) + v(Sᶜ)) / 2
    weight: Float[Tensor, " m"]  # in that of the last row of the draw, so how often it was drawn; 0 of the first
    fixed: Bool[Tensor, " m"]  # not random

    @property
    def noise(self) -> Float[Tensor, " m"]:
        return torch.where(self.weight > 0, NUGGET / self.weight, 0.0)

    def mean(self, values: Float[Tensor, "B m"]) -> Float[Tensor, " B"]:
        """Weighted."""
        return values @ self.weight / self.weight.sum()

    def constant_loss(self) -> Float[Tensor, " B"]:
        """The weighted variance of f."""
        return self.mean(self.odd.square() + (self.even - self.mean(self.even)[:, None]).square())

    def some(self, most: int) -> "Pairs":
        """The first pair and at most so many others, at random but always the same."""
        rng = torch.Generator("cpu").manual_seed(0)
        i = 1 + torch.randperm(len(self.chi) - 1, generator=rng)[:most].to(self.chi.device)
        return self.at(torch.cat([i.new_zeros(1), i]))

    def at(self, i: Int[Tensor, " n"]) -> "Pairs":
        """Some of them."""
        return Pairs(self.chi[i], self.odd[:, i], self.even[:, i], self.weight[i], self.fixed[i])

    def scaled(self) -> tuple["Pairs", Float[Tensor, "B 1"]]:
        """With outputs of order 1 about the middle of the first pair, and what they were divided by."""
        even = self.even - self.even[:, :1]
        size = binary(torch.maximum(self.odd.abs().amax(1, True), even.abs().amax(1, True)))
        return replace(self, odd=self.odd / size, even=even / size), size


def pairs(sample: Sample, blocks: list[Block]) -> Pairs:
    """The model's answers to a draw of `ShapleyMasks`, equal masks as one."""
    values = [sample.values(block) for block in blocks]
    y = torch.cat([*(exact for exact, _ in values), *(y for _, y in values)], -1).flatten(0, 1).to(sample.dtype)
    rows = torch.cat([*(block.exact for block in blocks), *(block.xi for block in blocks)])
    weight = torch.cat([block.weight[0] for block in blocks])
    weight = torch.cat([weight.new_zeros(len(rows) - len(weight)), weight / (2 * weight[-1])])
    random = torch.cat([torch.arange(len(block.xi), device=y.device) >= block.n_fixed for block in blocks])
    second = rows[:, :1] == 0  # of its pair: without the first feature
    chi, pair = torch.unique(torch.where(second, 1 - rows, rows), dim=0, return_inverse=True)
    m, place = len(chi), 2 * pair + second[:, 0]
    count = y.new_zeros(2 * m).index_add(0, place, torch.ones_like(y[0]))
    halves = (y.new_zeros(len(y), 2 * m).index_add(1, place, y) / count).unflatten(1, (m, 2))
    weights = weight.new_zeros(m).index_add(0, pair, weight)
    fixed = torch.ones(m, dtype=torch.bool, device=y.device)
    fixed[pair[len(rows) - len(random) :][random]] = False
    found = Pairs(2 * chi.to(sample.dtype) - 1, -halves.diff(dim=2)[..., 0] / 2, halves.mean(2), weights, fixed)
    return found.at(chi.sum(1).argsort(descending=True, stable=True))  # the full mask is the only one without weight

"""How mean gradients vary over the independent units of a draw, or over the sets that its rows are of in turn.

Shapes as in `solve`.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from locapprox.fit.evidence import carriers
from locapprox.fit.quadratic import Quadratic


@dataclass(eq=False)
class Spread:
    """Of independent units u of gradient rows, W_u = Σ w and G_u = Σ w g about g₀: Σ G_u², Σ W_u G_u and Σ W_u², and
    the least and the largest G_u."""

    squares: Float[Tensor, "b k d"]
    cross: Float[Tensor, "b k d"]
    weight: Float[Tensor, "b 1 1"]
    least: Float[Tensor, "b k d"]
    most: Float[Tensor, "b k d"]
    units: int = 0

    def add(
        self, i: slice, weight: Float[Tensor, "h u"], squares: Tensor, cross: Tensor, ends: tuple[Tensor, Tensor]
    ) -> None:
        """Units of instances i: W_u, the two sums of G_u, and their extremes."""
        self.squares[i] += squares
        self.cross[i] += cross
        self.weight[i] += weight.square().sum(-1)[:, None, None]
        self.least[i] = torch.minimum(self.least[i], ends[0])
        self.most[i] = torch.maximum(self.most[i], ends[1])
        self.units += weight.shape[-1] if i.start == 0 else 0

    @property
    def degrees(self) -> float:
        """Of freedom; infinite if nothing is random."""
        return float(max(1, self.units - 1)) if self.units else torch.inf

    def variance(self, problem: Quadratic) -> Float[Tensor, "b k d"]:
        """Of the problem's weighted mean gradient; 0 if nothing is random."""
        if self.units == 0:
            return torch.zeros_like(self.squares)
        correction = self.units / (self.units - 1) if self.units > 1 else torch.nan
        return correction * self._about_the_mean(problem) / problem.w[:, None, None].square()

    def carriers(self, problem: Quadratic, precision: torch.dtype) -> Float[Tensor, "b k d"]:
        """Σ δ² / max δ² of δ_u = G_u − W_u ḡ (max at the mean W_u); 0 where ∇f is the same but for round-off."""
        if self.units == 0:
            return torch.zeros_like(self.squares)
        mean = problem.gradients.g / problem.w[:, None, None]
        centre = mean * (problem.w[:, None, None] / self.units)
        largest = torch.maximum(self.most - centre, centre - self.least)
        size = (problem.mean_gradient.abs() * problem.w[:, None, None] / self.units).to(largest)
        moved = largest > 8 * torch.finfo(precision).eps * size
        return carriers(self._about_the_mean(problem), torch.where(moved, largest, 0.0).square())

    def _about_the_mean(self, problem: Quadratic) -> Float[Tensor, "b k d"]:
        """Σ (G_u − W_u ḡ)²."""
        mean = problem.gradients.g / problem.w[:, None, None]
        spread = self.squares - 2 * mean * self.cross
        return (spread + mean.square() * self.weight).clamp_min(0)


@dataclass(eq=False)
class Replicates:
    """Of independent sets that gradient rows are of in turn (see `Draw`): Σ w and Σ w g about g₀."""

    w: Float[Tensor, "b r"]
    g: Float[Tensor, "b k r d"]

    def add(
        self, i: slice, weight: Float[Tensor, "h n"], of_rows: Float[Tensor, "c k n d"], scale: Tensor, start: int
    ) -> None:
        """Rows of instances i, the draw's from `start` on: w, and w g over a factor of all (see `weighed`)."""
        sets = self.w.shape[1]
        self.w[i] += in_turn(weight[..., None], sets, start)[..., 0]
        self.g[i] += in_turn(of_rows, sets, start) * scale

    def spread(self) -> Spread:
        """The sets as units."""
        cross, units = (self.w[:, None, :, None] * self.g).sum(2), int((self.w > 0).any(0).sum())
        weight = self.w.square().sum(1)[:, None, None]
        return Spread(self.g.square().sum(2), cross, weight, self.g.amin(2), self.g.amax(2), units)


def in_turn(values: Float[Tensor, "*c n d"], sets: int, start: int) -> Float[Tensor, "*c r d"]:
    """Sums of rows r = start, start + 1, …, one for each r mod sets."""
    n = values.shape[-2]
    whole = n // sets * sets
    sums: Tensor = values[..., :whole, :].unflatten(-2, (n // sets, sets)).sum(-3)
    sums[..., : n - whole, :] += values[..., whole:, :]
    return sums.roll(start % sets, dims=-2)

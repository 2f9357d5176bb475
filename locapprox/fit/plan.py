"""What is known of a draw before the model is asked: its size, and how many instances share it at once."""

from typing import NamedTuple

import torch
from torch import Tensor

from locapprox._memory import require_memory
from locapprox.fit.quadrature import COPIES
from locapprox.neighbourhoods.base import BaseNeighbourhood

MEMORY = 2**26  # numbers (outputs, sums, Gram matrices) of one batch of instances


class Plan(NamedTuple):
    """What one draw for one instance tells of all, from shapes alone."""

    rows: int  # of the draw
    d: int  # features
    copies: int  # inputs that the model is averaged over
    coarser: int  # rules that come with the draw
    replicates: int  # see `Draw`
    interpolates: bool | None  # whether rows have infinite weight; None: not known
    own_xi: bool  # ξ differs between instances
    own_weight: bool

    @classmethod
    def of(cls, neighbourhood: BaseNeighbourhood, x: Tensor, n: int, rng: torch.Generator) -> "Plan":
        """From the instance x, (1, *input shape)."""
        whole = neighbourhood.draws_at_once
        draw = neighbourhood.drawn_once(x, n if whole else 2, rng)
        placed = neighbourhood.placed(x, draw.xi[..., :1, :])
        return cls(
            rows=len(draw.weight.flatten()) if whole else n,
            d=draw.xi.shape[-1],
            copies=placed.shape[2] if placed.ndim == x.ndim + 2 else 1,
            coarser=0 if draw.coarse_weight is None else len(torch.atleast_2d(draw.coarse_weight)),
            replicates=draw.replicates,
            interpolates=neighbourhood.interpolates,
            own_xi=draw.xi.ndim == 3,
            own_weight=draw.weight.ndim == 2,
        )

    def check_memory(self, features: int, b: int, scores: int, keeps_gradients: bool, device: torch.device) -> None:
        """Refuse weights and errors of all instances, or gradients of all rows of one, that cannot be held."""
        held = 4 * self.rows if keeps_gradients else 0
        at_once = (12 + self.replicates + (COPIES + 1) * self.coarser) * min(b, self.together(scores, keeps_gradients))
        require_memory(
            scores * (4 * features * b + self.d * (at_once + held)),
            f"{scores} × {features} weights of {b} instances" + (f" from {self.rows} gradients" if held else ""),
            device,
            "ask for fewer outputs (target=) or instances, group the features (features=)"
            + (", or draw less (n_samples=)" if held else ""),
        )

    def outputs_fit(self, scores: int) -> bool:
        """Whether all of them, of so many scores, may be held."""
        return scores * self.rows <= MEMORY

    def together(self, scores: int, keeps_gradients: bool) -> int:
        """Instances that share a draw and fit into memory."""
        if self.own_xi:
            return 1
        numbers = scores * (self.rows + (8 + self.replicates) * self.d) + (self.d**2 if self.own_weight else 0)
        numbers += (4 * self.rows if keeps_gradients else (COPIES + 1) * self.coarser) * scores * self.d
        return max(1, MEMORY // numbers)

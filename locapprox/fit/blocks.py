"""Parts of a draw, and of the model's answers to it."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Block:
    """Some rows of a draw: those to fit, and those to interpolate (`exact`)."""

    xi: Float[Tensor, "n d"]
    weight: Float[Tensor, "g n"]  # g = 1, or one row per instance; finite
    unit_size: int
    n_fixed: int
    coarse_weight: Float[Tensor, "r n"] | None  # of coarser rules, coarsest first
    exact: Float[Tensor, "e d"]
    replicates: int = 0  # independent sets that the rows are of in turn, see `Draw`

    @property
    def rows(self) -> Float[Tensor, "m d"]:
        """Those to interpolate and those to fit."""
        return torch.cat([self.exact, self.xi]) if len(self.exact) else self.xi

    @property
    def units(self) -> int:
        """Independent units among the rows to fit."""
        return (len(self.xi) - self.n_fixed) // self.unit_size


@runtime_checkable
class Bar(Protocol):
    """A progress bar over rows, like tqdm's."""

    def update(self, n: float) -> Any: ...


class Chunk(NamedTuple):
    """One model call: scores and their gradients in ξ at some rows of a block for some instances."""

    instances: slice
    rows: slice
    y: Float[Tensor, "c k r"]
    gradient: Float[Tensor, "c k r d"]

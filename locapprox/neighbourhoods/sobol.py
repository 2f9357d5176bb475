"""Sobol's points (1967) in independent copies: one sequence, each copy of it shifted at random.

A copy's mean is unbiased, and the spread of their means is the error of the mean of all, whatever f is (L'Ecuyer and
Lemieux 2002). Shifts are digital: x ⊕ s bit by bit, s uniform, so that every box of the net keeps its number of points.
"""

import math
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.quasirandom import SobolEngine

COPIES = 16  # more of them have fewer points each; of t intervals with 15 degrees the half-width is 1.09 times z's
MOST = SobolEngine.MAXDIM  # entries of a point: no direction numbers are known beyond
BITS = SobolEngine.MAXBIT


class Copies:
    """Rows of independent copies in turn: row r is point ⌊r / COPIES⌋ of copy r mod COPIES."""

    def __init__(self, d: int, rng: torch.Generator) -> None:
        self.shifts = torch.randint(2**BITS, (COPIES, d), generator=rng, device=rng.device)

    def normal(self, start: int, stop: int, dtype: torch.dtype) -> Float[Tensor, "n d"]:
        """Rows from `start`, a multiple of COPIES, to `stop` as standard normal numbers, by the inverse of Φ."""
        points = _points(start // COPIES, math.ceil(stop / COPIES), self.shifts.shape[1], self.shifts.device)
        rows = (points[:, None] ^ self.shifts).flatten(0, 1)[: stop - start]
        real = torch.promote_types(dtype, torch.float32)
        bits = 24 if real == torch.float32 else BITS  # that 2u − 1 has room for, and is never ±1
        centred = (rows >> (BITS - bits)) - 2 ** (bits - 1)
        u: Tensor = centred.to(real).add_(0.5).div_(2 ** (bits - 1))
        return u.erfinv_().mul_(math.sqrt(2)).to(dtype)


@lru_cache(maxsize=8)
def _points(first: int, end: int, d: int, device: torch.device) -> Int[Tensor, "m d"]:
    """Of the sequence, `first` to before `end`, times 2^BITS."""
    index = torch.arange(first, end, device=device)
    points = torch.zeros(len(index), d, dtype=torch.int64, device=device)
    for bit, direction in enumerate(_directions(d, device)[: (end - 1).bit_length()]):
        points ^= (index >> bit & 1)[:, None] * direction
    return points


@lru_cache(maxsize=8)
def _directions(d: int, device: torch.device) -> Int[Tensor, "bits d"]:
    """Direction numbers, each entry's times a random matrix (Matoušek 1998) that is always the same: it mends the first
    points of Sobol's, which are far from even in many dimensions. Only shifts differ between draws."""
    return SobolEngine(d, scramble=True, seed=0).sobolstate.mT.contiguous().to(device)

"""Where the random numbers of a draw come from."""

import zlib
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from locapprox.neighbourhoods.base import BaseNeighbourhood


def generator(seed: int, neighbourhood: BaseNeighbourhood, role: str, x: Tensor) -> torch.Generator:
    """Seeded by (seed, kind of neighbourhood, role, d): the same for any batch and for all parameters of a kind."""
    return torch.Generator(x.device).manual_seed(_seed(seed, f"{neighbourhood.kind}|{role}", x[0].numel()))


@lru_cache(maxsize=64)
def _seed(seed: int, words: str, d: int) -> int:
    sequence = np.random.SeedSequence([seed, zlib.crc32(words.encode()), d])
    return int(sequence.generate_state(1, np.uint64)[0]) >> 1

"""What a fit saw around one instance."""

from dataclasses import replace

import torch
from torch import Tensor

from locapprox.fit.nulls import lifted
from locapprox.fit.seeds import generator
from locapprox.neighbourhoods.base import BaseNeighbourhood
from locapprox.neighbourhoods.draws import Draw


def points_around(
    x: Tensor, neighbourhood: BaseNeighbourhood, n_samples: int, seed: int, first: int | None, nulls_leave: bool
) -> tuple[Draw, Tensor]:
    """The draw for x, (1, *input shape), or its first rows, and the inputs x_ξ (n, *input shape).

    ξ has an entry for every feature, 0 for null players that left the draw.
    """
    rng = generator(seed, neighbourhood, "fit", x)
    here, places = neighbourhood.without_nulls(x) if nulls_leave else (neighbourhood, None)
    draws: list[Draw] = []
    for draw in here.drawn(x, n_samples, rng):
        draws.append(draw)
        if first is not None and sum(draw.weight.shape[-1] for draw in draws) >= first:
            break
    xi = torch.cat([draw.xi.flatten(0, -2) for draw in draws])[:first]
    weight = torch.cat([draw.weight.flatten() for draw in draws])[:first]
    n_fixed, last = min(sum(draw.n_fixed for draw in draws), len(xi)), draws[-1]
    coarse = None if last.coarse_weight is None else last.coarse_weight[..., :first]
    seen, placed = Draw(xi, weight, last.unit_size, n_fixed, coarse, last.replicates), here.placed(x, xi)[0]
    return seen if places is None else replace(seen, xi=lifted(xi[None], places)[0]), placed

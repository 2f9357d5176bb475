"""The lasso path of many problems at once (LARS, Efron et al. 2004), by Gauss–Jordan steps on the features in it."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

LAST = 1e-7  # the correlation at which a path ends
DEGENERATE = 1e-14  # what the features in leave of one that then stays out, as in sklearn's path


def last_with(gram: Float[Tensor, "g d d"], score: Float[Tensor, "B d"], k: int) -> Bool[Tensor, "B d"]:
    """Which features are in at the last point of the lasso path with at most k of them, for ½ wᵀAw − w · score + λ‖w‖₁.

    `gram` has unit diagonals, `score` is of order 1000. Features may leave the path, so it is followed until there are
    2k + 10: none is known that came back from there.
    """
    (B, d), most = score.shape, min(score.shape[1], 2 * k + 10)
    each, own = torch.arange(B, device=score.device), torch.arange(B, device=score.device) * len(gram) // B
    # [A_ss⁻¹ A_s·, A_ss⁻¹] of the features s that are in, each with a place (which holds d where it is free) and a sign
    table, feature = score.new_zeros(B, most, d + most), own.new_full((B, most), d)
    sign, w = score.new_zeros(B, most), score.new_zeros(B, d + 1)
    out, last = torch.ones_like(score, dtype=torch.bool), torch.zeros_like(score, dtype=torch.bool)
    level, going = score.abs().amax(-1), torch.ones_like(own, dtype=torch.bool)
    for _ in range(8 * d):
        fall, move = (sign[:, None] @ table)[:, 0].split([d, most], -1)
        ways = torch.stack([(level[:, None] - score) / (1 - fall), (level[:, None] + score) / (1 + fall)])
        closes = torch.stack([fall < 1, fall > -1]) & out
        ways = torch.where(closes, ways.clamp_min(0), torch.inf)
        enters, new = ways.amin(0).min(-1)
        at = w.gather(-1, feature)
        leaves, old = torch.where(at * move < 0, -at / move, torch.inf).min(-1)
        step = torch.minimum(torch.minimum(enters, leaves), level) * going
        leaving, ending = leaves < enters, step >= level
        w.scatter_add_(-1, feature, step[:, None] * move)
        w[each, torch.where(leaving & going & ~ending, feature[each, old], d)] = 0
        w[:, d] = 0
        score, level = score - step[:, None] * fall, level - step
        within = w[:, :d] != 0
        count = within.sum(-1)
        last = torch.where((going & (count <= k))[:, None], within, last)
        free, place = (feature == d).max(-1)
        going = going & ~ending & (level > LAST) & (count < most) & (leaving | free)
        if not bool(going.any()):
            break
        place = torch.where(leaving, old, place)
        # a feature that leaves is the pivot among the columns of A_ss⁻¹, one that enters among those of A_s·
        column, line = torch.where(leaving, d + old, new), gram[own, new]
        known = torch.nn.functional.pad(line, (0, 1)).gather(-1, feature)
        line = torch.cat([line, torch.nn.functional.one_hot(place, most).to(line)], -1)
        line = torch.where(leaving[:, None], table[each, old], line - (known[:, None] @ table)[:, 0])
        pivot = line[each, column]
        stuck = going & ~leaving & (pivot < DEGENERATE)
        changes = going & ~stuck
        line = torch.where(changes[:, None], line / pivot[:, None], 0.0)
        table = torch.baddbmm(table, table[each, :, column][..., None], line[:, None], alpha=-1)
        moved, entering = each[changes], changes & ~leaving
        table[moved, place[moved]] = torch.where(leaving[:, None], 0.0, line)[moved]
        out[each, new] &= ~(entering | stuck)
        left = moved[leaving[moved]]
        out[left, feature[left, old[left]]] = True
        up = torch.where(ways[0, each, new] <= ways[1, each, new], 1.0, -1.0)
        sign[moved, place[moved]] = torch.where(leaving, 0.0, up)[moved].to(sign)
        feature[moved, place[moved]] = torch.where(leaving, d, new)[moved]
    return last

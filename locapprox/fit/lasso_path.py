"""The lasso path of many problems at once (LARS, Efron et al. 2004), by Gauss–Jordan steps on the features in it.

In NumPy, on the host: a path is hundreds of steps of a few numbers each, whose price is that of a call.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

LAST = 1e-7  # the correlation at which a path ends
DEGENERATE = 1e-14  # what the features in leave of one that then stays out, as in sklearn's path


@np.errstate(divide="ignore", invalid="ignore")
def last_with(gram: Float[Tensor, "g d d"], score: Float[Tensor, "B d"], k: int) -> Bool[Tensor, "B d"]:
    """Which features are in at the last point of the lasso path with at most k of them, for ½ wᵀAw − w · score + λ‖w‖₁.

    `gram` has unit diagonals, `score` is of order 1000. Features may leave the path, so it is followed until there are
    2k + 10: none is known that came back from there.
    """
    (B, d), most = score.shape, min(score.shape[1], 2 * k + 10)
    A, c = gram.cpu().numpy(), score.cpu().numpy()
    each, own = np.arange(B), np.arange(B) * len(A) // B
    # [A_ss⁻¹ A_s·, A_ss⁻¹] of the features s that are in, each with a place (which holds d where it is free), a sign
    # and a weight
    table, feature = np.zeros((B, most, d + most)), np.full((B, most), d)
    sign, w, last = np.zeros((B, most)), np.zeros((B, most)), feature
    level, going = np.abs(c).max(-1), np.ones(B, dtype=bool)
    c, out = np.concatenate([c, -c], -1), np.ones((B, 2 * d), dtype=bool)  # of features that enter with sign ±
    for _ in range(8 * d):
        moves = (sign[:, None] @ table)[:, 0]
        fall, move = np.concatenate([moves[:, :d], -moves[:, :d]], -1), moves[:, d:]
        room = 1 - fall
        ways = np.where(out & (room > 0), np.maximum((level[:, None] - c) / room, 0), np.inf)
        new = ways.argmin(-1)
        at = np.where(w * move < 0, -w / move, np.inf)
        old = at.argmin(-1)
        enters, leaves = ways[each, new], at[each, old]
        step = np.minimum(np.minimum(enters, leaves), level) * going
        ending, leaving = step >= level, leaves < enters
        w += step[:, None] * move
        w[each, old] *= ~(leaving & going & ~ending)
        c -= step[:, None] * fall
        level = level - step
        within = w != 0
        count = within.sum(-1)
        last = np.where((going & (count <= k))[:, None], np.where(within, feature, d), last)
        is_free = feature == d
        free, place = is_free.any(-1), np.where(leaving, old, is_free.argmax(-1))
        going = going & ~ending & (level > LAST) & (count < most) & (leaving | free)
        if not going.any():
            break
        up, new = new < d, new % d
        # a feature that enters is the pivot among the columns of A_s·, one that leaves among those of A_ss⁻¹
        line = np.zeros((B, d + most))
        line[:, :d] = A[own, new]
        known = np.where(is_free, 0, line[each[:, None], np.minimum(feature, d - 1)])
        line[each, d + place] = 1
        line -= (known[:, None] @ table)[:, 0]
        line[leaving] = table[each, old][leaving]
        column = np.where(leaving, d + old, new)
        pivot = line[each, column]
        changes = going & (leaving | (pivot >= DEGENERATE))
        line = np.where(changes[:, None], line / pivot[:, None], 0)
        factor = table[each, :, column]
        factor[each, place] -= ~leaving  # the line itself comes where nothing was
        table -= factor[:, :, None] * line[:, None]
        left = each[changes & leaving]
        back = feature[left, old[left]]
        out[left, back] = out[left, d + back] = True
        entering = each[going & ~leaving]  # or kept out for good
        out[entering, new[entering]] = out[entering, d + new[entering]] = False
        each_changed, of_place = each[changes], place[changes]
        feature[each_changed, of_place] = np.where(leaving, d, new)[changes]
        sign[each_changed, of_place] = np.where(leaving, 0, np.where(up, 1, -1))[changes]
    found = np.zeros((B, d + 1), dtype=bool)
    found[each[:, None], last] = True
    return torch.from_numpy(found[:, :d]).to(score.device)

"""Many quadratic programmes at once: min ½ uᵀPu − cᵀu with G u ≤ h, and G u = h where `equal`.

Rows taken to be active are met, the others have no multiplier: one linear system of each programme. Then rows that are
violated become active and those with a negative multiplier do not (Hintermüller, Ito and Kunisch 2002). Few steps
suffice from the active rows of a programme nearby, though none need. What comes back as solved meets the conditions
of Karush, Kuhn and Tucker, and with a regular system no other u does.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

MOST_STEPS = 12
ROUND_OFF = 1e-11  # of numbers of order 1


def solve(
    P: Float[Tensor, "B n n"],
    c: Float[Tensor, "B n"],
    G: Float[Tensor, "B m n"],
    h: Float[Tensor, "B m"],
    equal: Bool[Tensor, " m"],
    active: Bool[Tensor, "B m"],
) -> tuple[Float[Tensor, "B n"], Bool[Tensor, "B m"], Bool[Tensor, " B"]]:
    """u, its active rows, and which programmes are solved. `active` is where the search begins."""
    u, solved = torch.zeros_like(c), c.new_zeros(len(c), dtype=torch.bool)
    says = (G != 0).any(-1)  # a row of zeros holds or not
    active, left = (active | equal) & says, torch.arange(len(c), device=c.device)
    for _ in range(MOST_STEPS):
        here, own = active[left], (P[left], c[left], G[left], h[left])
        found, multiplier, regular = at(*own, here)
        excess = (own[2] @ found[..., None])[..., 0] - own[3]
        size = ROUND_OFF * (1 + torch.cat([found, multiplier], -1).abs().amax(-1, keepdim=True))
        met = (excess <= size) & (~equal | (excess >= -size)) & (equal | (multiplier >= -size))
        done = regular & met.all(-1)
        u[left[done]], solved[left[done]] = found[done], True
        onward = says[left] & (equal | (torch.where(here, multiplier, excess) > 0))
        active[left] = torch.where(done[:, None], here, onward)
        left = left[regular & ~done]
        if len(left) == 0:
            break
    return u, active, solved


def at(
    P: Float[Tensor, "B n n"],
    c: Float[Tensor, "B n"],
    G: Float[Tensor, "B m n"],
    h: Float[Tensor, "B m"],
    active: Bool[Tensor, "B m"],
) -> tuple[Float[Tensor, "B n"], Float[Tensor, "B m"], Bool[Tensor, " B"]]:
    """u and its multipliers if these rows are active, and whether that determines both."""
    n = c.shape[-1]
    met = G * active[..., None]
    system = torch.cat([torch.cat([P, met.mT], -1), torch.cat([met, torch.diag_embed((~active).to(P))], -1)], -2)
    factor, pivots, _ = torch.linalg.lu_factor_ex(system)
    right = torch.cat([c, h * active], -1)[..., None]
    found = torch.linalg.lu_solve(factor, pivots, right)[..., 0]
    least = factor.diagonal(dim1=-2, dim2=-1).abs().amin(-1)
    regular = (least > 100 * system.shape[-1] * torch.finfo(c.dtype).eps) & found.isfinite().all(-1)
    return found[:, :n], found[:, n:], regular

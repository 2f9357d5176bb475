"""The error of a quadrature: of smooth functions from a coarser rule, of kinks and steps from where they may lie.

Nodes on a line are cells of measure w_i. A function that is constant but for steps is integrated exactly if every step
lies at the edge of a cell; it may lie anywhere between two nodes, which is as far as the edge, at random, from half the
measure of both cells to the left to as much to the right: a standard deviation of (w_i + w_{i+1}) / (2√12) per unit of
step. The variance Σ (Δ_i (w_i + w_{i+1}) / 2)² / 12 is the mean square of what `COPIES` rules differ by whose edges are
moved so far to the left or the right, by the columns of a Hadamard matrix (balanced replication, McCarthy 1969).
"""

from functools import lru_cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor

COPIES = 16
FALLS = 0.1  # of the gap between the rules before: what one between two rules is at most, where f is smooth
SMOOTH = 0.03  # of the error by steps: if the coarser rule is off by less, the function is smooth between the nodes


@lru_cache(maxsize=1)
def _signs() -> Float[Tensor, "s s"]:
    """Sylvester's Hadamard matrix."""
    signs = torch.ones(1, 1, dtype=torch.float64, device="cpu")
    while len(signs) < COPIES:
        signs = torch.cat([torch.cat([signs, signs], 1), torch.cat([signs, -signs], 1)])
    return signs


def on_a_line(xi: Float[Tensor, "n d"]) -> bool:
    """Whether the rows lie on a line, one after the other."""
    steps, whole = xi[1:] - xi[:-1], xi[-1] - xi[0]
    share = steps @ whole / whole.square().sum().clamp_min(torch.finfo(xi.dtype).tiny)
    near = 1e3 * torch.finfo(xi.dtype).eps * float(xi.abs().amax())
    return bool((share > 0).all()) and bool(((steps - share[:, None] * whole).abs() <= near).all())


def moved_edges(weight: Float[Tensor, "g n"]) -> Float[Tensor, "g s n"]:
    """The weights of rules whose edges between nodes are moved."""
    gap = (weight[:, 1:] + weight[:, :-1]) / (2 * 12**0.5)
    signs = _signs().to(weight)[:, torch.arange(gap.shape[-1], device=weight.device) % COPIES]
    move = signs * gap[:, None]
    pad = move.new_zeros(*move.shape[:2], 1)
    return weight[:, None] + torch.cat([move, pad], -1) - torch.cat([pad, move], -1)


def trend(
    gap: Float[Tensor, "b k p"], before: Float[Tensor, "b k p"] | None
) -> tuple[Float[Tensor, "b k p"], Bool[Tensor, "b k 1"]]:
    """The error of a nested rule from how far it, and the rule before, moved from its predecessor; and whether the two
    tell that f is smooth: the first is a tenth of the second, at most.

    If every rule leaves at most the share r of the last one's error, the gap leaves r / (1 − r) of itself.
    """
    if before is None:
        return gap, torch.zeros_like(gap[..., :1], dtype=torch.bool)
    share = gap.amax(-1, keepdim=True) / before.amax(-1, keepdim=True)
    falls = share <= FALLS
    return torch.where(falls, gap * (share / (1 - share)), gap), falls


def rule_error(
    coarse: Float[Tensor, "b k p"], moved: Float[Tensor, "s b k p"], of_smooth: Float[Tensor, "b k p"] | None = None
) -> tuple[Float[Tensor, "b k p"], Bool[Tensor, "b k 1"]]:
    """From differences to the coarser rule, where those of a fit tell that it is smooth (or of one node), and to those
    of moved edges elsewhere; and where it is. `of_smooth` is a better error than the former."""
    steps = moved.square().mean(0).sqrt()
    smooth = ~(coarse.abs().amax(-1, keepdim=True) > SMOOTH * steps.amax(-1, keepdim=True))
    return torch.where(smooth, coarse.abs() if of_smooth is None else of_smooth, steps), smooth

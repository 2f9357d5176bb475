"""The paper's eight methods as a neighbourhood would have them: its baseline and features, and its scale."""

from typing import Any

import torch
from torch import Tensor

from locapprox._method import Method
from locapprox._methods import (
    c_lime,
    gradient_x_input,
    integrated_gradients,
    kernel_shap,
    lime,
    occlusion,
    smoothgrad,
    vanilla_gradients,
)
from locapprox._problem import Problem
from locapprox.fit.sampling import samples
from locapprox.neighbourhoods.base import BaseNeighbourhood
from locapprox.neighbourhoods.distributions import Normal
from locapprox.neighbourhoods.placements import Additive, Multiplicative

DRAWS = 64  # that tell how far a neighbourhood goes


def inherited(problem: Problem, where: BaseNeighbourhood, seed: int) -> tuple[dict[str, Method], dict[str, str]]:
    """The methods, and which are left out and why: where features are groups, none is fitted to single entries."""
    masks: dict[str, Any] = {}
    if isinstance(where, Multiplicative):
        masks = {"baseline": where.baseline, "features": where.features}
    if isinstance(where, Additive) and isinstance(where.distribution, Normal):
        sigma = where.distribution.sigma
    else:
        sigma = distance(problem, where, seed)
    methods = [lime(**masks), c_lime(sigma), kernel_shap(**masks), occlusion(**masks), vanilla_gradients()]
    methods += [gradient_x_input(**masks), smoothgrad(sigma), integrated_gradients(**masks)]
    found = {method.name: method for method in methods}
    if masks.get("features") is None:
        return found, {}
    entries = problem.x[0].numel()
    why = f"it would fit {entries:,} weights, one for each entry; SmoothGrad estimates the same ones (Stein)"
    return {name: method for name, method in found.items() if name != "C-LIME"}, {"C-LIME": why}


def distance(problem: Problem, where: BaseNeighbourhood, seed: int) -> Tensor:
    """How far x_ξ is from x: per entry of an input the root mean square over the instances and a few draws.

    At least a thousandth of that of all entries, so that none is 0; the paper's σ of 0.1 where nothing moves.
    """
    x = problem.x
    square = torch.zeros(x.shape[1:], dtype=torch.float64, device="cpu")
    for sample in samples(problem, where, DRAWS, seed, "distance"):
        for i, one in enumerate(sample.x.split(1)):
            here = sample.neighbourhood.at(sample.x, slice(i, i + 1))
            moved, total = torch.zeros_like(square), 0.0
            for block in sample.blocks():
                weight = block.weight[i % len(block.weight)].double().cpu()
                gap = (here.placed(one, block.xi)[0] - one[0]).double().square().nan_to_num().cpu()
                gap = gap.mean(1) if gap.ndim > x.ndim else gap  # over a sample of baselines
                moved, total = moved + torch.tensordot(weight, gap, 1), total + float(weight.sum())
            square += moved / (total or 1.0) / len(x)
    size = square.mean().sqrt()
    return square.sqrt().clamp_min(1e-3 * size).to(x) if size > 0 else torch.full_like(x[0], 0.1)

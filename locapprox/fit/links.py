"""Link functions: g(ξ) = link(w · ξ + intercept)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Link:
    """η -> g and dg/dη; with these g″ and g‴; of g η and dg/dη. The name is what files keep."""

    name: str
    function: Callable[[Tensor], tuple[Tensor, Tensor]]
    bends: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    inverse: Callable[[Tensor], tuple[Tensor, Tensor]]

    def __call__(self, eta: Tensor) -> tuple[Tensor, Tensor]:
        return self.function(eta)


def _identity(eta: Tensor) -> tuple[Tensor, Tensor]:
    return eta, torch.ones_like(eta)


def _straight(g: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    return torch.zeros_like(slope), torch.zeros_like(slope)


def _sigmoid(eta: Tensor) -> tuple[Tensor, Tensor]:
    g = eta.sigmoid()
    return g, g * (-eta).sigmoid()


def _sigmoid_bends(g: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    return slope * (1 - 2 * g), slope * (1 - 6 * slope)


def _logit(g: Tensor) -> tuple[Tensor, Tensor]:
    return g.logit(), g * (1 - g)


IDENTITY = Link("identity", _identity, _straight, _identity)
LOGISTIC = Link("logistic", _sigmoid, _sigmoid_bends, _logit)
LINKS = {link.name: link for link in (IDENTITY, LOGISTIC)}

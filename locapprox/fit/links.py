"""Link functions: g(ξ) = link(w · ξ + intercept)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Link:
    """η -> g and dg/dη. The name is what files keep."""

    name: str
    function: Callable[[Tensor], tuple[Tensor, Tensor]]

    def __call__(self, eta: Tensor) -> tuple[Tensor, Tensor]:
        return self.function(eta)


def _identity(eta: Tensor) -> tuple[Tensor, Tensor]:
    return eta, torch.ones_like(eta)


def _sigmoid(eta: Tensor) -> tuple[Tensor, Tensor]:
    return eta.sigmoid(), eta.sigmoid() * (-eta).sigmoid()


IDENTITY, LOGISTIC = Link("identity", _identity), Link("logistic", _sigmoid)
LINKS = {link.name: link for link in (IDENTITY, LOGISTIC)}

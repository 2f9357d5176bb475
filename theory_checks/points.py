"""A distribution on finitely many points, given: what an oracle can enumerate."""

from dataclasses import dataclass

import numpy as np
import torch

import locapprox as lx


@dataclass(frozen=True, eq=False)
class Points(lx.BaseDistribution):
    """ξ = xi[i] with weight weight[i]; an infinite weight asks a surrogate to interpolate. Ignores n."""

    xi: np.ndarray  # (n, d)
    weight: np.ndarray  # (n,)

    draws_at_once = True

    def draw(self, d: int, n: int, rng: torch.Generator, dtype: torch.dtype) -> lx.Draw:
        return lx.Draw(torch.as_tensor(self.xi, dtype=dtype), torch.as_tensor(self.weight), n_fixed=len(self.xi))


def gauss_hermite(sigma: float, d: int, nodes: int) -> Points:
    """Normal(0, σ²I) by the product rule: nodesᵈ points, exact for polynomials of degree 2 nodes − 1 per variable."""
    node, weight = np.polynomial.hermite_e.hermegauss(nodes)
    grid = np.stack(np.meshgrid(*[sigma * node] * d, indexing="ij"), axis=-1).reshape(-1, d)
    mass = np.stack(np.meshgrid(*[weight / weight.sum()] * d, indexing="ij"), axis=-1).reshape(-1, d).prod(-1)
    return Points(grid, mass)

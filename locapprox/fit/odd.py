"""Gaussian processes of odd functions of signs, with their Shapley values in closed form.

With signs χ = 2ξ − 1, k(χ, χ′) = sinh(Σ θ_i χ_i χ′_i) / sinh(Σ θ_i) + s χ·χ′ / d. Its first term is proportional to the
odd part of Π (1 + ρ_i χ_i χ′_i) = exp(Σ θ_i χ_i χ′_i) / Π cosh θ_i, ρ = tanh θ: the product of the signs of an odd
number of features has a prior variance proportional to the product of their ρ. Even functions have no Shapley values.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

MOST_NODES = 64  # exact up to 128 features; beyond, e^{Σθ t} is as smooth


class Left(NamedTuple):
    """What a fit to m values leaves: α = (K + noise)⁻¹ u, and of every value left out in turn its residual e and the
    share of e by which the Shapley values then change."""

    shapley: Float[Tensor, "b d"]
    residual: Float[Tensor, "b m"]
    influence: Float[Tensor, "d m"]
    precision: Float[Tensor, " m"]  # 1 / the variance of e under the process
    variance: Float[Tensor, " d"]  # of the Shapley values under the process, given the values


class Process(NamedTuple):
    """θ, and the share s of the linear term."""

    theta: Float[Tensor, " d"]
    linear: float

    def kernel(self, a: Float[Tensor, "m d"], b: Float[Tensor, "n d"]) -> Float[Tensor, "m n"]:
        """k(χ, χ′)."""
        return sinh_ratio((a * self.theta) @ b.mT, self.theta.sum())[0] + self.linear / a.shape[1] * a @ b.mT

    def shapley(self, chi: Float[Tensor, "m d"]) -> Float[Tensor, "d m"]:
        """Of k(·, χ): φ_i = c ∫₋₁¹ ρ_i χ_i Π_{j≠i} (1 + t ρ_j χ_j) dt, c = Π cosh θ_j / sinh Σ θ_j, and 2 s χ_i / d.

        It is the integral of the multilinear extension's derivative along its diagonal, t = 2q − 1.
        """
        t, weight = nodes(len(self.theta), chi)
        rho, slope = torch.tanh(self.theta)[:, None], 2 * self.linear / chi.shape[1]
        product = weight * torch.exp(
            chi @ torch.atanh(t * rho) + torch.log1p(-(t * rho).square()).sum(0) / 2 + self._log_size
        )
        rest = rho / (1 - (t * rho).square())  # ρχ / (1 + tρχ) = rest (χ − tρ), as χ² = 1
        return (chi * (product @ rest.mT) - product @ (rest * t * rho).mT).mT + slope * chi.mT

    def shapley_variance(self) -> Float[Tensor, " d"]:
        """Of φ under the process: both arguments of k integrated, c ∫∫ ρ_i Π_{j≠i} (1 + t t′ ρ_j) dt dt′ + 4 s / d."""
        t, weight = nodes(len(self.theta), self.theta)
        rho, tt = torch.tanh(self.theta)[:, None], torch.outer(t, t).flatten()
        factors = 1 + tt * rho
        product = torch.outer(weight, weight).flatten() * torch.exp(factors.log().sum(0) + self._log_size)
        return (product / factors * rho).sum(1) + 4 * self.linear / len(self.theta)

    @property
    def _log_size(self) -> Tensor:
        total = self.theta.sum()
        return torch.cosh(self.theta).log().sum() - total - (-torch.expm1(-2 * total) / 2).log()

    def fit(self, chi: Float[Tensor, "m d"], noise: Float[Tensor, " m"], u: Float[Tensor, "b m"]) -> Left:
        """To values with noise variances in units of k(χ, χ)."""
        gram = self.kernel(chi, chi)
        gram.diagonal().add_(noise)
        root, of_kernel, before = torch.linalg.cholesky(gram), self.shapley(chi), self.shapley_variance()
        inverse = torch.linalg.solve_triangular(
            root, torch.eye(len(chi)).to(root), upper=False
        )  # K⁻¹ itself loses digits
        precision, known = inverse.square().sum(0), (inverse @ of_kernel.mT).square().sum(0)
        alpha, influence = (torch.cholesky_solve(part.mT, root).mT for part in (u, of_kernel))
        variance = torch.maximum(before - known, 1e-13 * before)  # less is round-off
        return Left(alpha @ of_kernel.mT, alpha / precision, influence, precision, variance)


def sinh_ratio(z: Tensor, largest: Tensor) -> tuple[Tensor, Tensor]:
    """sinh z / sinh S and cosh z / sinh S for |z| ≤ S, which may be large."""
    scale = torch.exp(z.abs() - largest) / -torch.expm1(-2 * largest)
    return -z.sign() * scale * torch.expm1(-2 * z.abs()), scale * (1 + torch.exp(-2 * z.abs()))


def nodes(d: int, like: Tensor) -> tuple[Float[Tensor, " q"], Float[Tensor, " q"]]:
    """A Gauss–Legendre rule on [−1, 1] that is exact to degree d."""
    t, weight = _gauss_legendre(min(d // 2 + 1, MOST_NODES))
    return torch.from_numpy(t).to(like), torch.from_numpy(weight).to(like)


@lru_cache(maxsize=16)
def _gauss_legendre(n: int) -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(n)

"""Rules of quadrature as distributions: their nodes are ξ, one number in all entries, their weights the weights."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from locapprox._parts import Concise, finite
from locapprox.neighbourhoods.distributions import BaseDistribution
from locapprox.neighbourhoods.draws import Draw

MOST_NODES = 2000  # of one Gauss–Legendre rule
COARSEST = 8  # cells of the first rule that is refined, to 15


@dataclass(frozen=True, repr=False)
class GaussLegendre(Concise, BaseDistribution):
    """`Uniform(low, high)` by Gauss–Legendre quadrature with n nodes (exact for polynomials of degree 2n − 1).

    More than 2,000 nodes are spread over panels of equal length, exact to degree 2,000 at least.
    The coarser rule interpolates on every second node. Whole budget at once: the nodes depend on n.
    """

    low: float = 0.0
    high: float = 1.0
    draws_at_once = True
    interpolates = False

    def __post_init__(self) -> None:
        finite(self.low, "low")
        finite(self.high, "high")

    def draw(self, d: int, n: int, rng: torch.Generator, dtype: torch.dtype) -> Draw:
        nodes, weights, coarse = (torch.tensor(a, device=rng.device) for a in _gauss_legendre(n))
        t = self.low + (self.high - self.low) * nodes.to(dtype)
        return Draw(t[:, None].expand(n, d), weights, n_fixed=n, coarse_weight=coarse)


@lru_cache(maxsize=32)
def _gauss_legendre(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes on (0, 1), weights, and the weights of the rule on every second node."""
    if n > MOST_NODES:  # in panels: finding N nodes takes O(N²), the coarser rule's weights O(N³)
        panels = math.ceil(n / MOST_NODES)
        rules = [_gauss_legendre(n // panels + (i < n % panels)) for i in range(panels)]
        nodes = np.concatenate([i + rule[0] for i, rule in enumerate(rules)])
        weights, coarse = (np.concatenate([rule[part] for rule in rules]) for part in (1, 2))
        return nodes / panels, weights / panels, coarse / panels
    from scipy.special import roots_legendre

    nodes, weights = roots_legendre(n)  # O(n²); numpy's leggauss is O(n³), seconds for n = 1000
    coarse = np.zeros(n)  # one node has no coarser rule, so weight 0, and its error is NaN: unknown
    if n > 1:
        coarse[::2] = _interpolating(nodes[::2])
    return (nodes + 1) / 2, weights / 2, coarse


@dataclass(frozen=True, repr=False)
class Fejer(Concise, BaseDistribution):
    """`Uniform(low, high)` by Fejér's second rule, t = (1 − cos(πj/N)) / 2 for 0 < j < N, and the rules nested in it.

    N = m 2ᵏ ≤ n + 1 with m from 8 to 15, so that at most a ninth of n is left (n = 1,000: 959 nodes); every rule has
    all nodes of the one before. With as many nodes it is as exact as `GaussLegendre` where f has kinks, and needs up to
    twice as many where it is smooth. Under gradient matching an instance stops at the first rule, of 15 nodes or more,
    whose error is at most `tol` of its largest weight: `e.n_samples` says which; 0 or None: all of n.
    """

    low: float = 0.0
    high: float = 1.0
    tol: float | None = 1e-6
    draws_at_once = True
    interpolates = False

    def __post_init__(self) -> None:
        finite(self.low, "low")
        finite(self.high, "high")
        if self.tol is not None and not 0 <= self.tol < math.inf:
            raise ValueError(f"tol must be a number ≥ 0 or None, a share of the largest weight; got {self.tol!r}")

    def draw(self, d: int, n: int, rng: torch.Generator, dtype: torch.dtype) -> Draw:
        nodes, rules = (torch.tensor(a, device=rng.device) for a in _nested_fejer(n))
        t = self.low + (self.high - self.low) * nodes.to(dtype)
        return Draw(t[:, None].expand(len(t), d), rules[-1], n_fixed=len(t), coarse_weight=rules[:-1])


@lru_cache(maxsize=32)
def _nested_fejer(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes on (0, 1), and the weights of all rules on them, coarsest first; before those that double, one that
    interpolates on every second node of the first (0 of a single node, whose error is unknown)."""
    doublings = max(0, ((n + 1) // COARSEST).bit_length() - 1)
    first = (n + 1) >> doublings
    cells = first << doublings
    rules = np.zeros((doublings + 2, cells - 1))
    for k in range(doublings + 1):
        stride = 1 << (doublings - k)
        rules[k + 1, stride - 1 :: stride] = _fejer(first << k)
    nodes = (1 - np.cos(np.pi / cells * np.arange(1, cells))) / 2
    if first > 2:
        every_second = slice((1 << doublings) - 1, None, 2 << doublings)
        rules[0, every_second] = _interpolating(2 * nodes[every_second] - 1)
    return nodes, rules


def _fejer(cells: int) -> np.ndarray:
    """Weights on (0, 1): (2 / N) sin θ Σ_k sin((2k − 1) θ) / (2k − 1), k ≤ N / 2, by a Fourier transform."""
    odd = np.arange(1, cells + 1, 2)[: cells // 2]
    sines = np.zeros(2 * cells)
    sines[odd] = 1 / odd
    theta = np.pi / cells * np.arange(1, cells)
    return np.asarray(2 / cells * np.sin(theta) * -np.fft.fft(sines).imag[1:cells])


def _interpolating(nodes: np.ndarray) -> np.ndarray:
    """Weights, of sum 1, of the rule that integrates the polynomial through the nodes on (−1, 1)."""
    moments = np.zeros(len(nodes))
    moments[0] = 1.0  # the mean of P_0; all higher Legendre polynomials have mean 0
    return np.asarray(np.linalg.solve(np.polynomial.legendre.legvander(nodes, len(nodes) - 1).T, moments))

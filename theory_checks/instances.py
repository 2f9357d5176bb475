"""Theorem 1 of Han, Srinivas and Lakkaraju (2022): eight methods are minimisers of a (neighbourhood, loss) objective.

For every method three numbers: the distance of the framework's weights from the method's original definition, written
out below without the engine; the least change of the stated objective when the weights are moved (positive if they are
its minimiser); and the distance from what cvxpy finds for the same finite problem. Random perturbations are those that
the engine drew; masks, quadrature nodes and all weights are written out again.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cvxpy as cp
import numpy as np
import torch
from scipy.integrate import quad

import locapprox as lx
from theory_checks.claims import Claim, main

D, SIGMA, WIDTH, NODES, DRAWS = 5, 0.4, 1.5, 40, 60
ADDITIVE = ("C-LIME", "SmoothGrad", "Vanilla Gradients")
GRADIENTS = ("SmoothGrad", "Vanilla Gradients", "Integrated Gradients", "Gradient x Input")
STEP = 1e-5
Numbers = Sequence[float] | np.ndarray


@dataclass(frozen=True, eq=False)
class SlowNet:
    """f(x) = Σ_h v_h φ(Σ_j W_hj x_j + c_h), φ = tanh or ReLU, number by number; `model` is for the engine."""

    W: np.ndarray
    c: np.ndarray
    v: np.ndarray
    relu: bool = False

    @classmethod
    def random(cls, hidden: int, seed: int, relu: bool) -> "SlowNet":
        rng = np.random.default_rng(seed)
        return cls(rng.normal(size=(hidden, D)) / 2, rng.normal(size=hidden), rng.normal(size=hidden), relu)

    def model(self, x: torch.Tensor) -> torch.Tensor:
        W, c, v = (torch.from_numpy(a) for a in (self.W, self.c, self.v))
        before = x @ W.mT + c
        return (before.relu() if self.relu else before.tanh()) @ v

    def value(self, x: Numbers) -> float:
        total = 0.0
        for row, c, v in zip(self.W, self.c, self.v, strict=True):
            z = c + sum(w * a for w, a in zip(row, x, strict=True))
            total += v * (max(z, 0.0) if self.relu else math.tanh(z))
        return total

    def gradient(self, x: Numbers) -> list[float]:
        out = [0.0] * D
        for row, c, v in zip(self.W, self.c, self.v, strict=True):
            z = c + sum(w * a for w, a in zip(row, x, strict=True))
            slope = float(z > 0) if self.relu else 1 - math.tanh(z) ** 2
            for j in range(D):
                out[j] += v * slope * row[j]
        return out


@dataclass(eq=False)
class Recorded(lx.BaseNeighbourhood):
    """A neighbourhood that remembers its last draw."""

    inner: Any
    xi: np.ndarray = field(default_factory=lambda: np.empty(0))

    draws_at_once = True

    def draw(self, x: torch.Tensor, n: int, rng: torch.Generator) -> lx.Draw:
        draw = self.inner.draw(x, n, rng)
        self.xi = draw.xi.numpy()
        return draw

    def place(self, x: torch.Tensor, xi: torch.Tensor) -> torch.Tensor:
        return self.inner.place(x, xi)


def methods(base: np.ndarray) -> dict[str, lx.Method]:
    given = [lx.c_lime(SIGMA), lx.smoothgrad(SIGMA), lx.vanilla_gradients()]
    given += [lx.integrated_gradients(base, rule=lx.GaussLegendre())]
    given += [lx.gradient_x_input(base), lx.lime(WIDTH, base), lx.kernel_shap(base), lx.occlusion(base)]
    return {method.name: method for method in given}


def masked(x: np.ndarray, base: np.ndarray, mask: Numbers) -> list[float]:
    return [b + m * (a - b) for a, b, m in zip(x, base, mask, strict=True)]


def original(name: str, f: SlowNet, x: np.ndarray, base: np.ndarray, xi: np.ndarray) -> np.ndarray:
    """The method's own definition, on the perturbations `xi` if it is random."""
    if name == "Vanilla Gradients":
        return np.array(f.gradient(x))
    if name == "Gradient x Input":
        return np.array([(a - b) * g for a, b, g in zip(x, base, f.gradient(x), strict=True)])
    if name == "Integrated Gradients":
        path = [quad(lambda t, j=j: f.gradient(masked(x, base, [t] * D))[j], 0, 1, epsabs=1e-13)[0] for j in range(D)]
        return (x - base) * np.array(path)
    if name == "SmoothGrad":
        return np.array([sum(f.gradient(x + step)[j] for step in xi) / len(xi) for j in range(D)])
    if name == "C-LIME":  # the slopes of a regression: Cov(ξ)⁻¹ Cov(ξ, f)
        covariance = np.cov(np.c_[xi, [f.value(x + step) for step in xi]].T)
        return np.linalg.solve(covariance[:-1, :-1], covariance[:-1, -1])
    if name == "LIME":
        root = [math.sqrt(kernel(x, base, mask)) for mask in xi]
        rows = [[r * m for m in (*mask, 1.0)] for r, mask in zip(root, xi, strict=True)]
        right = [r * f.value(masked(x, base, mask)) for r, mask in zip(root, xi, strict=True)]
        return np.linalg.lstsq(np.array(rows), np.array(right), rcond=None)[0][:D]
    if name == "Occlusion":
        without = [f.value(masked(x, base, [float(i != j) for i in range(D)])) for j in range(D)]
        return np.array([f.value(x) - value for value in without])
    shapley = np.zeros(D)  # the mean over all orders of what a feature adds when it enters
    for order in itertools.permutations(range(D)):
        mask = [0.0] * D
        for j in order:
            before = f.value(masked(x, base, mask))
            mask[j] = 1.0
            shapley[j] += f.value(masked(x, base, mask)) - before
    return shapley / math.factorial(D)


def kernel(x: np.ndarray, base: np.ndarray, mask: Numbers) -> float:
    return math.exp(-sum((a - p) ** 2 for a, p in zip(x, masked(x, base, mask), strict=True)) / WIDTH**2)


def finite_problem(name: str, x: np.ndarray, base: np.ndarray, xi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Perturbations and weights (inf: interpolate) of the objective, as Table 1 states them."""
    if name == "Vanilla Gradients":
        return np.zeros((1, D)), np.ones(1)
    if name == "Gradient x Input":
        return np.ones((1, D)), np.ones(1)
    if name == "Integrated Gradients":
        nodes, weights = np.polynomial.legendre.leggauss(NODES)
        return np.array([[(t + 1) / 2] * D for t in nodes]), weights / 2
    if name == "LIME":
        return xi, np.array([kernel(x, base, mask) for mask in xi])
    if name == "Occlusion":
        masks = [[float(i != j) for i in range(D)] for j in range(D)]
        return np.array([*masks, [1.0] * D]), np.array([1.0] * D + [math.inf])
    if name == "KernelSHAP":
        masks = [list(mask) for mask in itertools.product((0.0, 1.0), repeat=D)]
        sizes = [int(sum(mask)) for mask in masks]
        shapley = [(D - 1) / (math.comb(D, k) * k * (D - k)) if 0 < k < D else math.inf for k in sizes]
        return np.array(masks), np.array(shapley)
    return xi, np.ones(len(xi))


def problem(name: str, f: SlowNet, x: np.ndarray, base: np.ndarray, xi: np.ndarray) -> tuple[np.ndarray, ...]:
    """Rows, right-hand sides and weights: the objective is Σ weight (row · θ − right)², with θ = [w, intercept]."""
    steps, weights = finite_problem(name, x, base, xi)
    rows, right, each = [], [], []
    for step, weight in zip(steps, weights, strict=True):
        at = x + step if name in ADDITIVE else np.array(masked(x, base, step))
        if name in GRADIENTS:  # d rows: w_j = ∂f/∂ξ_j, by the chain rule
            inner = np.ones(D) if name in ADDITIVE else x - base
            for j, slope in enumerate(f.gradient(at)):
                rows.append(np.eye(D)[j])
                right.append(inner[j] * slope)
                each.append(weight)
        else:
            rows.append(np.array([*step, 1.0]))
            right.append(f.value(at))
            each.append(weight)
    return np.array(rows), np.array(right), np.array(each)


def least_rise(theta: np.ndarray, rows: np.ndarray, right: np.ndarray, weight: np.ndarray) -> float:
    """The least change of the objective over 400 moves of length STEP that keep what is interpolated, over STEP²."""
    soft, p = np.isfinite(weight), len(theta)
    directions = np.r_[np.eye(p), np.random.default_rng(0).normal(size=(200, p))]
    hard = rows[~soft]
    directions = directions - directions @ np.linalg.pinv(hard) @ hard if len(hard) else directions
    length = np.linalg.norm(directions, axis=1)
    directions = directions[length > 1e-8] / length[length > 1e-8, None]
    rest, mass = right[soft] - rows[soft] @ theta, weight[soft] / weight[soft].sum()
    moves = [rows[soft] @ (sign * STEP * u) for u in directions for sign in (1, -1)]
    gap = float(np.abs(right[~soft] - hard @ theta).max(initial=0.0))
    if gap > 1e-9:
        return -gap  # what must be interpolated is not
    # (rest − move)² − rest², free of cancellation
    return min(float(mass @ (move * (move - 2 * rest))) for move in moves) / STEP**2


def by_cvxpy(rows: np.ndarray, right: np.ndarray, weight: np.ndarray) -> np.ndarray:
    soft, theta = np.isfinite(weight), cp.Variable(rows.shape[1])
    root = np.sqrt(weight[soft] / weight[soft].sum())
    hard = [rows[~soft] @ theta == right[~soft]] if (~soft).any() else []
    stated = cp.Problem(cp.Minimize(cp.sum_squares(cp.multiply(root, rows[soft] @ theta - right[soft]))), hard)  # type: ignore[attr-defined]
    stated.solve(solver=cp.CLARABEL, tol_gap_abs=1e-13, tol_gap_rel=1e-13, tol_feas=1e-13)
    assert theta.value is not None
    return theta.value


def claims() -> list[Claim]:
    rng, found = np.random.default_rng(3), dict[str, list[tuple[float, float, float]]]()
    for relu in (False, True):
        f = SlowNet.random(6, 1, relu)
        x, base = rng.normal(size=D), rng.normal(size=D)
        for name, method in methods(base).items():
            kept = Recorded(method.neighbourhood)
            e = lx.explain(
                f.model, torch.from_numpy(x[None]), replace(method, neighbourhood=kept), n_samples=count(name)
            )
            w = e.weights[0].numpy()
            rows, right, weight = problem(name, f, x, base, kept.xi)
            theta = w if name in GRADIENTS else np.append(w, float(e.intercept[0]))
            kinks = relu and name == "Integrated Gradients"  # quadrature across them is a matter of rates.py
            away = np.nan if kinks else float(np.abs(w - original(name, f, x, base, kept.xi)).max())
            other = float(np.abs(by_cvxpy(rows, right, weight) - theta).max())
            found.setdefault(name, []).append((away, least_rise(theta, rows, right, weight), other))
    out = []
    for name, numbers in found.items():
        away, rise, other = np.array(numbers).T
        what = "the integral" if name == "Integrated Gradients" else "the original definition"
        nets = "a tanh network" if name == "Integrated Gradients" else "a tanh and a ReLU network"
        out.append(Claim(f"{name}: weights − {what}, {nets} (theorem 1)", float(np.nanmax(away)), 1e-10))
        out.append(
            Claim(f"{name}: rise of the stated objective at a small move, over its square", rise.min(), 1e-6, ">=")
        )
        out.append(Claim(f"{name}: weights − what cvxpy finds for the finite problem", other.max(), 1e-6))
    return out


def count(name: str) -> int:
    return NODES if name == "Integrated Gradients" else DRAWS


if __name__ == "__main__":
    main(claims)

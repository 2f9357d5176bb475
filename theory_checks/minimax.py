"""min over g of max over points of ℓ: Chebyshev approximation, enclosing balls, and the polygons of a ReLU network."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import torch
from scipy.optimize import linprog
from torch import nn


@dataclass(frozen=True, eq=False)
class Minimax:
    """min over g of max over points of ℓ, its minimiser, and Z* as a weight per point."""

    d: float
    theta: np.ndarray
    weight: np.ndarray

    @property
    def atoms(self) -> np.ndarray:
        return np.flatnonzero(self.weight > 1e-6)


def chebyshev(points: np.ndarray, values: np.ndarray) -> Minimax:
    """Squared error: minimise t with |f − [x, 1] θ| ≤ t at all points; d = t²."""
    X = np.c_[points, np.ones(len(points))]
    rows = np.r_[np.c_[X, -np.ones(len(X))], np.c_[-X, -np.ones(len(X))]]
    free = [(None, None)] * X.shape[1] + [(0, None)]
    cost = np.eye(X.shape[1] + 1)[-1]
    found = linprog(cost, A_ub=rows, b_ub=np.r_[values, -values], bounds=free, method="highs-ds")
    return Minimax(found.fun**2, found.x[:-1], -found.ineqlin.marginals.reshape(2, -1).sum(0))


def chebyshev_of_squares(points: np.ndarray, values: np.ndarray) -> Minimax:
    """The same by squares, as the theorem has them: minimise t with (f − [x, 1] θ)² ≤ t."""
    X = np.c_[points, np.ones(len(points))]
    theta, most = cp.Variable(X.shape[1]), cp.Variable()
    rules = [cp.square(y - x @ theta) <= most for x, y in zip(X, values, strict=True)]  # type: ignore[attr-defined]
    return solved(cp.Problem(cp.Minimize(most), rules), theta)


def enclosing_ball(gradients: np.ndarray) -> Minimax:
    """Gradient matching: the smallest ball around all gradients, a second-order cone programme; d = radius²."""
    centre, most = cp.Variable(gradients.shape[1]), cp.Variable()
    rules = [cp.sum_squares(g - centre) <= most for g in gradients]  # type: ignore[attr-defined]
    return solved(cp.Problem(cp.Minimize(most), rules), centre)


def solved(problem: cp.Problem, theta: cp.Variable) -> Minimax:
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    weight = np.array([max(0.0, float(np.squeeze(rule.dual_value))) for rule in problem.constraints])
    return Minimax(float(problem.value), np.asarray(theta.value), weight / weight.sum())


@dataclass(frozen=True, eq=False)
class ReLU:
    """v · relu(W x + c) on the box X = [−1, 1]²: linear on each of finitely many polygons."""

    W: np.ndarray
    c: np.ndarray
    v: np.ndarray

    def network(self) -> nn.Sequential:
        hidden, out = nn.Linear(2, len(self.c)), nn.Linear(len(self.c), 1)
        net = nn.Sequential(hidden, nn.ReLU(), out).double().requires_grad_(False)
        hidden.weight[:], hidden.bias[:] = torch.from_numpy(self.W), torch.from_numpy(self.c)
        out.weight[:], out.bias[:] = torch.from_numpy(self.v), 0.0
        return net.eval()

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return np.maximum(x @ self.W.T + self.c, 0) @ self.v

    def regions(self) -> tuple[np.ndarray, np.ndarray]:
        """The gradient Wᵀ(v ⊙ s) of every activation pattern s that is feasible in the box, and a point inside it.

        The point is the centre of the largest inscribed disc; a pattern is feasible if its radius is positive.
        """
        gradients, inner = [], []
        for on in itertools.product((0, 1), repeat=len(self.c)):
            sign = 2 * np.array(on) - 1
            rows = -sign[:, None] * np.c_[self.W, -sign * np.linalg.norm(self.W, axis=1)]
            rows = np.r_[rows, np.c_[np.eye(2), np.ones(2)], np.c_[-np.eye(2), np.ones(2)]]
            found = linprog([0, 0, -1], A_ub=rows, b_ub=np.r_[sign * self.c, np.ones(4)], bounds=[(None, None)] * 3)
            if found.status == 0 and found.x[2] > 1e-9:
                gradients.append(self.W.T @ (self.v * np.array(on)))
                inner.append(found.x[:2])
        return np.array(gradients), np.array(inner)

    def crossings(self) -> tuple[np.ndarray, np.ndarray]:
        """Where kinks meet inside the box, and where they meet its edges."""
        edges = [(np.eye(2)[i], -s) for i in range(2) for s in (-1.0, 1.0)]
        kinks = list(zip(self.W, self.c, strict=True))
        return meeting(itertools.combinations(kinks, 2)), meeting(itertools.product(kinks, edges))

    def vertices(self) -> np.ndarray:
        """The corners of all polygons: |f − g| is largest at one of them for every affine g."""
        return np.r_[np.array(list(itertools.product((-1.0, 1.0), repeat=2))), *self.crossings()]


def meeting(pairs: Iterable[Any]) -> np.ndarray:
    """Where two lines w · x + c = 0 meet, if in the box [−1, 1]²."""
    at = np.array([np.linalg.solve(np.stack([a[0], b[0]]), -np.array([a[1], b[1]])) for a, b in pairs])
    return at[(np.abs(at) <= 1 + 1e-12).all(1)]


def grid(n: int) -> np.ndarray:
    return np.stack(np.meshgrid(*[np.linspace(-1, 1, n)] * 2), axis=-1).reshape(-1, 2)

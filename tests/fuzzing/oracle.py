"""The slow oracle: every row written out in float64, the model asked row by row, numpy's lstsq. Of the library it takes
the draw alone."""

import numpy as np
import torch


class Wrong(AssertionError):  # noqa: N818 (a verdict)
    """A number that is not the oracle's, or an argument that was accepted and must not be."""


class Truth:
    """What a model means: a function of one row, (1, d) float64 tensors to (1, k), and its gradient by autograd."""

    def __init__(self, function, pick=lambda row: row[0, 0]):
        self.function, self.pick = function, pick

    def __call__(self, rows):
        """(n, d) -> (n,)."""
        with torch.no_grad():
            return np.array([float(self.pick(self.function(torch.from_numpy(r[None].copy())))) for r in rows])

    def gradient(self, rows):
        """(n, d) -> (n, d)."""
        out = []
        for row in rows:
            leaf = torch.from_numpy(row[None].copy()).requires_grad_()
            with torch.enable_grad():
                out.append(torch.autograd.grad(self.pick(self.function(leaf)), leaf)[0][0].numpy())
        return np.array(out)


def additive(x, xi):
    """(d,), (n, d) -> rows (n, 1, d) and dx/dξ as a function of gradients (n, 1, d) -> (n, d)."""
    return (x + xi)[:, None], lambda g: g[:, 0]


def multiplicative(base, labels=None):
    """base (m, d): a sample over which the model is averaged; labels (d,)."""

    def place(x, xi):
        own = np.arange(len(x)) if labels is None else labels
        gap = x - base
        lift = np.eye(own.max() + 1)[own]
        # 0 · NaN is NaN: a removed feature that is missing is not touched
        full = np.where(xi[:, None, own] == 0, base, base + gap * xi[:, None, own])
        return full, lambda g: (g * gap).mean(1) @ lift

    return place


def answers(truth, place, x, xi, gradients):
    """y (n,), ∇_ξ (n, q) or None."""
    rows, pull = place(x, xi)
    n, m, d = rows.shape
    y = truth(rows.reshape(-1, d)).reshape(n, m).mean(1)
    return y, pull(truth.gradient(rows.reshape(-1, d)).reshape(n, m, d)) if gradients else None


def kkt(gram, right, rows, values):
    """min ½ θᵀAθ − θᵀr with rows θ = values, by Lagrange multipliers."""
    p, e = len(gram), len(rows)
    system = np.block([[gram, rows.T], [rows, np.zeros((e, e))]])
    if not (np.isfinite(system).all() and np.isfinite(right).all() and np.isfinite(values).all()):
        raise Wrong("accepted, where the model or the draw is not finite")
    return np.linalg.lstsq(system, np.concatenate([right, values]), rcond=None)[0][:p]


def surrogate(y, g, xi, weight, loss=(1.0, 0.0), intercept=True, random=True):
    """θ's weights and intercept; where rows are random one by one also the loss out of sample and standard errors."""
    value, slope = loss
    design = np.hstack([xi, np.ones((len(xi), 1))]) if intercept else xi
    exact, d = np.isinf(weight), xi.shape[1]
    units = np.abs(design).max(0)  # columns of like size
    units[units == 0] = 1
    design = design / units
    X, z, w = design[~exact], y[~exact], weight[~exact] / weight[~exact].max(initial=1e-300)
    eye = np.diag(1 / units)[:, :d]
    gram, right = value * X.T @ (w[:, None] * X), value * X.T @ (w * z)
    if slope:
        gram = gram + slope * w.sum() * eye @ eye.T
        right = right + slope * eye @ (w @ g[~exact])
    theta = kkt(gram, right, design[exact], y[exact])
    if slope and not value and intercept and not exact.any():
        theta[d] = w @ (z - X[:, :d] @ theta[:d]) / w.sum()
    residual, theta = z - X @ theta, theta / units
    out = {
        "weights": theta[:d],
        "intercept": theta[d] if intercept else 0.0,
        "effective": w.sum() ** 2 / (w @ w + 1e-300),
    }
    if slope and not value and not exact.any():
        gap = g - theta[:d]
        variance = (w**2) @ gap**2 / w.sum() ** 2 * (len(w) / max(1, len(w) - 1)) * random
        return out | {"standard_error": np.sqrt(variance), "loss": slope * (w @ gap**2 / w.sum() + 2 * variance).sum()}
    if not slope and len(z) and not (random and exact.any()):
        inverse = np.linalg.pinv(gram / value)
        rest = 1 - random * w * np.einsum("ni,ij,nj->n", X, inverse, X)
        left = residual / rest
        influence = (w * left * rest**0.25)[:, None] * X @ inverse * random  # half-way between HC2 and HC3
        out["standard_error"] = np.sqrt((influence**2).sum(0))[:d] / units[:d]
        out["loss"] = value * w @ left**2 / w.sum()
    return out


def close(name, got, expected, tolerance, scale=0.0):
    """Raise Wrong unless |got − expected| ≤ tolerance · (largest expected number, or scale)."""
    got, expected = (
        np.asarray(torch.as_tensor(np.ascontiguousarray(a) if isinstance(a, np.ndarray) else a).detach().double())
        for a in (got, expected)
    )
    if got.shape != expected.shape:
        raise Wrong(f"{name} has shape {got.shape}, not {expected.shape}")
    size = max(float(np.abs(expected).max(initial=0)), scale)
    off = (np.abs(got - expected) > tolerance * size) | (np.isnan(got) != np.isnan(expected))
    if off.any():
        raise Wrong(f"{name}: {got[off][:3]}, not {expected[off][:3]} (tolerance {tolerance:g} of {size:.3g})")

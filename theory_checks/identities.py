"""Faithfulness measures that are one: infidelity, the variance of gradients, and the leave-one-out loss.

Infidelity (Yeh et al. 2019): INFD(Φ) = E_I (IᵀΦ − f(x₀) + f(x₀ − I))². With x_ξ = x₀ − I it is E (f(x_ξ) − g(x_ξ))² for
g(x) = f(x₀) + Φᵀ(x − x₀): the squared error with the intercept through x₀. Φ are slopes on the input: w for additive
explanations, w / (x₀ − b) for multiplicative ones. Its minimiser is Φ* = (E IIᵀ)⁻¹ E I (f(x₀) − f(x₀ − I)) (proposition
3.1 there).

SmoothGrad's in-sample loss Σ_j (1/n) Σ_i (∂_j f(x_i) − w_j)² falls apart into coordinates, each least at the mean
gradient, where it is the variance with divisor n; at w = 0 it is the second moment.

The leave-one-out loss of a fit to n draws has the expectation of the loss on fresh draws of a fit to n − 1.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from scipy import stats
from scipy.optimize import minimize_scalar

import locapprox as lx
from paper_figures.style import COLOURS, save, style
from theory_checks.claims import Claim, main
from theory_checks.points import Points

SEEDS = 250


@dataclass(frozen=True, eq=False)
class Net:
    """f(x) = v · tanh(W x + c), with its gradient written out."""

    W: np.ndarray
    c: np.ndarray
    v: np.ndarray

    @classmethod
    def random(cls, d: int, hidden: int, seed: int, scale: float = 1.0) -> "Net":
        rng = np.random.default_rng(seed)
        W, c, v = rng.standard_normal((hidden, d)), rng.standard_normal(hidden), rng.standard_normal(hidden)
        return cls(scale * W, c, v)

    def model(self, x: torch.Tensor) -> torch.Tensor:
        W, c, v = (torch.from_numpy(a) for a in (self.W, self.c, self.v))
        return (x @ W.mT + c).tanh() @ v

    def values(self, x: np.ndarray) -> np.ndarray:
        return np.tanh(x @ self.W.T + self.c) @ self.v

    def gradients(self, x: np.ndarray) -> np.ndarray:
        return ((1 - np.tanh(x @ self.W.T + self.c) ** 2) * self.v) @ self.W


def slopes(e: lx.Explanation, base: np.ndarray) -> np.ndarray:
    """Weights per unit of the input."""
    additive = e.method.name in ("C-LIME", "SmoothGrad", "Vanilla Gradients")
    return e.weights[0].numpy() / (1.0 if additive else e.x[0].numpy() - base)


def infidelity(f: Net, x: np.ndarray, phi: np.ndarray, removed: np.ndarray) -> float:
    """The definition, one perturbation I at a time."""
    return float(np.mean([(step @ phi - f.values(x) + f.values(x - step)) ** 2 for step in removed]))


def infidelities() -> list[Claim]:
    """The eight explanations under Gaussian noise and under removal of random features."""
    f, rng = Net.random(4, 6, seed=0), np.random.default_rng(0)
    x, base = torch.from_numpy(rng.standard_normal((1, 4))), rng.standard_normal(4)
    remove = [lx.lime(3.0, base), lx.kernel_shap(base), lx.occlusion(base)]
    walk = [lx.gradient_x_input(base), lx.integrated_gradients(base)]
    methods = lx.paper_methods() | {method.name: method for method in (*remove, *walk)}
    explanations = {name: lx.explain(f.model, x, method) for name, method in methods.items()}
    xi, masks = 0.7 * rng.standard_normal((200, 4)), rng.integers(0, 2, (200, 4)).astype(float)
    noise, removal = Points(xi, np.ones(200)), Points(masks, np.ones(200))
    spaces = {"noise": lx.Additive(noise), "removal": lx.Multiplicative(removal, baseline=base)}
    frame = lx.faithfulness(f.model, x, explanations, spaces, intercept="through_x").table
    at, out = x[0].numpy(), []
    for name, removed in {"noise": -xi, "removal": (1 - masks) * (at - base)}.items():
        errors = frame[frame["neighbourhood"] == name].set_index("method")["error"]
        own = pd.Series({m: infidelity(f, at, slopes(e, base), removed) for m, e in explanations.items()})
        gap = float((errors / own - 1).abs().max())
        out.append(Claim(f"infidelity ({name}) = squared error through x₀: largest relative gap of 8", gap, 1e-10))
    through = Points(np.r_[xi, np.zeros((1, 4))], np.r_[np.ones(200), np.inf])
    best = lx.explain(f.model, x, lx.Method("through x", lx.Additive(through), lx.SquaredError()))
    drop = np.array([f.values(at) - f.values(at + step) for step in xi])
    optimum = np.linalg.solve(xi.T @ xi, -xi.T @ drop)
    gap = np.abs(best.weights[0].numpy() - optimum).max()
    out.append(Claim("infidelity (noise): the fit that interpolates x₀ = Φ* of Yeh et al., |Δ|", float(gap), 1e-10))
    return out


def variances() -> list[Claim]:
    """SmoothGrad's own draws, with gradients by hand and every coordinate's loss minimised numerically."""
    f, x, n = Net.random(4, 6, seed=1), torch.tensor([[0.3, -0.5, 0.8, 0.1]], dtype=torch.float64), 60
    e = lx.explain(f.model, x, lx.smoothgrad(sigma=0.4, sobol=False), n_samples=n)
    draw, placed = e.points(0)
    gradients = f.gradients(placed.numpy())
    found = [minimize_scalar(lambda w, g=g: np.mean((g - w) ** 2), tol=1e-12) for g in gradients.T]
    least, at = np.array([r.fun for r in found]), np.array([r.x for r in found])
    variance = gradients.var(axis=0)  # divisor n
    by_engine = e.standard_error[0].numpy() ** 2 * (n - 1)
    given = lx.Additive(Points(draw.xi.numpy(), np.ones(n)))
    again = lx.explain(f.model, x, lx.Method("given", given, lx.GradientMatching()))
    loss, moment = float(again.loss), float(again.loss / (1 - again.r2))
    return [
        Claim(
            "SmoothGrad: each coordinate's loss is least at its weight, |Δw|", farthest(at, e.weights[0].numpy()), 1e-6
        ),
        Claim(
            "SmoothGrad: each coordinate's least loss = its gradients' variance = standard error² (n − 1)",
            max(farthest(least, variance), farthest(least, by_engine)),
            1e-12,
        ),
        Claim("SmoothGrad: in-sample loss = Σ variances (divisor n)", abs(loss - variance.sum()), 1e-12),
        Claim("SmoothGrad: that loss at w = 0 = Σ second moments", abs(moment - (gradients**2).mean(0).sum()), 1e-12),
    ]


def farthest(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max())


@cache
def losses() -> pd.DataFrame:
    """In-sample, leave-one-out and fresh-draw loss of fits to few draws, one row per method and seed."""
    x = torch.tensor([[0.6, -0.5, 0.8, 0.4, -0.7, 0.5, 0.3, -0.2, 0.9, -0.4, 0.6, -0.8]], dtype=torch.float64)
    methods = {lx.c_lime(sigma=0.5): (40, 6), lx.smoothgrad(sigma=0.5): (4, 6), lx.lime(width=2.0): (40, 6)}
    methods |= {lx.kernel_shap(): (60, 12)}
    rows = []
    for method, (n, d) in methods.items():
        f, some = Net.random(d, 8, seed=2), x[:, :d]
        for seed in range(SEEDS):
            e = lx.explain(f.model, some, method, n_samples=n, seed=seed)
            draw, placed = e.points(0)
            weight, points = draw.weight.numpy(), placed.numpy()
            if method.loss.of_gradients:
                squares = ((f.gradients(points) - e.weights[0].numpy()) ** 2).sum(1)
            else:
                squares = (f.values(points) - e.predict(placed[None])[0].numpy()) ** 2
            inner = np.isfinite(weight)
            in_sample = np.average(squares[inner], weights=weight[inner])
            fresh = float(e.validate(1_000, seed=seed + SEEDS))
            losses = {"in sample": in_sample, "leave one out": float(e.loss), "fresh draws": fresh}
            rows.append({"method": method.name, "seed": seed, **losses})
    return pd.DataFrame(rows)


def left_out() -> list[Claim]:
    """Standardised differences to the fresh-draw loss, paired by seed."""
    out = []
    for name, frame in losses().groupby("method", sort=False):
        z = {kind: standardised(frame[kind] - frame["fresh draws"]) for kind in ("leave one out", "in sample")}
        gap, seeds = "fresh-draw loss, mean / its error", f"{SEEDS} seeds"
        out += [
            Claim(f"{name}: leave-one-out − {gap}, {seeds}, absolute", abs(z["leave one out"]), 3),
            Claim(f"{name}: in-sample − {gap}, {seeds} (it is too low)", z["in sample"], -5),
        ]
    return out


def standardised(gaps: pd.Series) -> float:
    return float(np.mean(gaps) / stats.sem(gaps))


def claims() -> list[Claim]:
    return [*infidelities(), *variances(), *left_out()]


def figure(folder: Path) -> Path:
    """The leave-one-out loss, which costs no model call, estimates the loss on fresh draws; the in-sample loss is too
    low. Mean and standard error over 250 fits to 40 draws (SmoothGrad: 4) of a tanh network in six features, relative
    to the mean loss on fresh draws.
    """
    frame = losses().set_index(["method", "seed"])
    share = frame.div(frame["fresh draws"].groupby("method").mean(), axis=0, level="method").groupby("method")
    mean, error = share.mean(), share.sem()
    with style():
        plot, ax = plt.subplots(figsize=(4.6, 2.8))
        for row, name in enumerate(mean.index):
            for kind, marker in {"in sample": "v", "leave one out": "o", "fresh draws": "|"}.items():
                x, half = mean.loc[name, kind], error.loc[name, kind]
                label = kind if row == 0 else None
                ax.errorbar(x, row, xerr=half, marker=marker, color=COLOURS[str(name)], linestyle="", label=label)
        ax.axvline(1, color="0.8", zorder=0)
        ax.set_yticks(range(len(mean)), mean.index)
        ax.set(xlabel="loss / loss on fresh draws", ylim=(-0.6, len(mean) - 0.4))
        ax.legend(fontsize=7, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))
        return save(plot, folder / "leave_one_out")


if __name__ == "__main__":
    main(claims)

"""Stein's identity: with ξ ~ Normal(0, σ²I), E ξ f(x₀ + ξ) = σ² E ∇f(x₀ + ξ) for weakly differentiable f (Stein 1981).

So the linear surrogates under squared error (C-LIME) and gradient matching (SmoothGrad) have the same population
weights. On a draw they differ, by a gap whose standard error needs both computed on the same rows. The identity needs
the Gaussian (for uniform noise on x³ the slopes are 3a²/5 and a²) and weak differentiability (a step has slopes
1/(σ√2π) and 0).
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from matplotlib import pyplot as plt
from scipy import stats

import locapprox as lx
from paper_figures.style import COLOURS, save, style
from theory_checks.claims import Claim, main
from theory_checks.instances import Recorded
from theory_checks.points import Points, gauss_hermite

SIGMA, DRAWS, SEEDS = 0.5, 1000, 320
WIDTHS = (0.25, 0.5, 1.0, 2.0)  # a
RNG = np.random.default_rng(11)
W, C, V = RNG.normal(size=(5, 3)), RNG.normal(size=5), RNG.normal(size=5)
X = RNG.normal(size=3)
ORIGIN = torch.zeros(1, 1, dtype=torch.float64)
LOSSES = {"C-LIME": lx.SquaredError(), "SmoothGrad": lx.GradientMatching()}


def before(x: torch.Tensor) -> torch.Tensor:
    return x @ torch.from_numpy(W).mT + torch.from_numpy(C)


def smooth(x: torch.Tensor) -> torch.Tensor:
    return before(x).tanh() @ torch.from_numpy(V)


def relu(x: torch.Tensor) -> torch.Tensor:
    return before(x).relu() @ torch.from_numpy(V)


def cubic(x: torch.Tensor) -> torch.Tensor:
    return x[..., 0] ** 3


def polynomial(x: torch.Tensor) -> torch.Tensor:
    return 3 * x[..., 0] ** 2 * x[..., 1] - x[..., 1] ** 3 + x[..., 0] * x[..., 2]


def step(x: torch.Tensor) -> torch.Tensor:
    return (x[..., 0] > 0).to(x) + 0 * x[..., 0]


@dataclass(frozen=True)
class Box:
    """ξ ~ Uniform(−a, a)ᵈ."""

    a: float

    def draw(self, d: int, n: int, rng: torch.Generator, dtype: torch.dtype) -> lx.Draw:
        xi = self.a * (2 * torch.rand(n, d, generator=rng, dtype=dtype) - 1)
        return lx.Draw(xi, torch.ones(n, dtype=torch.float64))


def both(f: object, x: torch.Tensor, noise: object, n: int = 1, seed: int = 0) -> list[lx.Explanation]:
    """C-LIME and SmoothGrad with other noise, on the same draw."""
    where = lx.Additive(noise)  # type: ignore[arg-type]
    return [
        lx.explain(f, x, lx.Method(m, where, loss), n_samples=n, seed=seed, progress=False)
        for m, loss in LOSSES.items()
    ]


def difference(f: object, x: np.ndarray, noise: object) -> float:
    value, slope = (e.weights[0].numpy() for e in both(f, torch.from_numpy(x[None]), noise))
    return float(np.abs(value - slope).max())


def legendre(a: float) -> Points:
    """Uniform(−a, a) by four Gauss–Legendre nodes, exact for polynomials of degree 7."""
    nodes, weights = np.polynomial.legendre.leggauss(4)
    return Points(a * nodes[:, None], weights / 2)


@cache
def on_relu() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(SEEDS, 3) each: C-LIME and SmoothGrad of the ReLU network, and the paired s.e. of their gap.

    To first order C-LIME is a mean over rows as well, of Cov(ξ)⁻¹ (ξ − ξ̄) residual: the paired error is the spread of
    that minus ∇f over the same rows.
    """
    x, columns = torch.from_numpy(X[None]), []
    for seed in range(SEEDS):
        kept = Recorded(lx.Additive(lx.Normal(SIGMA)))
        found = [
            lx.explain(relu, x, lx.Method(m, kept, loss), n_samples=DRAWS, seed=seed) for m, loss in LOSSES.items()
        ]
        xi, value, slope = kept.xi, found[0].weights[0].numpy(), found[1].weights[0].numpy()
        z = (X + xi) @ W.T + C
        rest = np.maximum(z, 0) @ V - float(found[0].intercept[0]) - xi @ value
        centred = xi - xi.mean(0)
        influence = DRAWS * rest[:, None] * np.linalg.solve(centred.T @ centred, centred.T).T
        gradient = ((z > 0) * V) @ W
        paired = (influence - gradient).std(0, ddof=4) / np.sqrt(DRAWS)
        columns.append((value, slope, paired))
    value, slope, paired = (np.array(column) for column in zip(*columns, strict=True))
    return value, slope, paired


def relu_population() -> np.ndarray:
    """E ∇f(x₀ + ξ) = Σ_h v_h w_h Φ((w_h · x₀ + c_h) / (σ‖w_h‖))."""
    return (V * stats.norm.cdf((W @ X + C) / (SIGMA * np.linalg.norm(W, axis=1)))) @ W


@cache
def on_cubic(sampled: bool) -> dict[str, np.ndarray]:
    """Slopes of x³ at 0 under Uniform(−a, a) over WIDTHS: exact (quadrature), or sampled, with standard errors."""
    found = [both(cubic, ORIGIN, Box(a) if sampled else legendre(a), 4000) for a in WIDTHS]
    out = {}
    for i, name in enumerate(LOSSES):
        out[name] = np.array([(float(e[i].weights[0, 0]), float(e[i].standard_error[0, 0])) for e in found])
    return out


def claims() -> list[Claim]:
    a = np.array(WIDTHS)
    out = [
        Claim(
            "Gaussian, a cubic of 3 variables, population: C-LIME − SmoothGrad (Stein 1981)",
            difference(polynomial, X, gauss_hermite(SIGMA, 3, 5)),
            1e-12,
        ),
        Claim(
            "Gaussian, tanh network, population: C-LIME − SmoothGrad",
            difference(smooth, X, gauss_hermite(SIGMA, 3, 24)),
            1e-4,
        ),
    ]
    value, slope, paired = on_relu()
    t = stats.t.ppf(0.975, DRAWS - 4)
    for name, found in (("C-LIME", value), ("SmoothGrad", slope), ("their gap", value - slope)):
        to = 0.0 if name == "their gap" else relu_population()
        z = np.abs((found - to).mean(0)) / (found.std(0, ddof=1) / np.sqrt(SEEDS))
        what = "mean gap" if name == "their gap" else f"{name}, mean over seeds − Σ v w Φ(·),"
        out.append(Claim(f"Gaussian, ReLU network, {SEEDS} seeds: {what} / its s.e.", float(z.max()), 3.0))
    covered = np.abs(value - slope) <= t * paired
    out.append(
        Claim(
            "the gap on 1,000 draws lies within its paired 95 % error: |coverage − 0.95|",
            float(np.abs(covered.mean(0) - 0.95).max()),
            0.03,
        )
    )
    ratio = paired.mean(0) / (value - slope).std(0, ddof=1)
    out.append(
        Claim("paired s.e. of the gap / its spread over seeds: |ratio − 1|", float(np.abs(ratio - 1).max()), 0.1)
    )
    exact, sampled = on_cubic(False), on_cubic(True)
    for name, factor, text in (("C-LIME", 3 / 5, "3a²/5"), ("SmoothGrad", 1.0, "a²")):
        gap = np.abs(exact[name][:, 0] / (factor * a**2) - 1).max()
        out.append(Claim(f"Uniform(−a, a) on x³ at 0, population: slope of {name} / ({text}) − 1", float(gap), 1e-12))
        z = np.abs(sampled[name][:, 0] - factor * a**2) / sampled[name][:, 1]
        out.append(Claim(f"Uniform(−a, a) on x³, 4,000 draws: |slope of {name} − {text}| / s.e.", float(z.max()), 3.0))
    equal = [float(e.weights[0, 0]) for e in both(cubic, ORIGIN, gauss_hermite(SIGMA, 1, 4))]
    out.append(
        Claim("Normal(0, σ²) on x³ at 0: both slopes − 3σ²", float(np.abs(np.array(equal) - 3 * SIGMA**2).max()), 1e-12)
    )
    jump = both(step, ORIGIN, lx.Normal(SIGMA), 20_000)
    z = abs(float(jump[0].weights[0, 0]) - 1 / (SIGMA * np.sqrt(2 * np.pi))) / float(jump[0].standard_error[0, 0])
    out.append(Claim("a step is not weakly differentiable: |C-LIME − 1/(σ√2π)| / s.e.", z, 3.0))
    out.append(
        Claim(
            "a step is not weakly differentiable: |SmoothGrad|, where C-LIME is 0.80",
            abs(float(jump[1].weights[0, 0])),
            0.0,
        )
    )
    return out


def figure(folder: Path) -> Path:
    """Stein's identity needs Gaussian noise: slopes of linear surrogates of x³ at 0 under Uniform(−a, a).

    Lines: the closed forms 3a²/5 (squared error) and a² (gradient matching). Points: 4,000 draws, with 95 % intervals.
    Gaussian noise of the same variance a²/3 has the slope a² under both.
    """
    sampled, a = on_cubic(True), np.linspace(0, 1.05 * WIDTHS[-1], 100)
    with style():
        fig, axis = plt.subplots(figsize=(4.2, 3.1))
        for name, factor, marker in (("C-LIME", 0.6, "o"), ("SmoothGrad", 1.0, "s")):
            colour = COLOURS["LIME"] if name == "C-LIME" else COLOURS[name]
            loss = "squared error, 3a²/5" if name == "C-LIME" else "gradient matching, a²"
            axis.plot(a, factor * a**2, color=colour, label=loss)
            at, error = sampled[name].T
            axis.errorbar(WIDTHS, at, 1.96 * error, fmt=marker, ms=4, capsize=2, color=colour)
        axis.set(xlabel="a", ylabel="slope", title="x³ under Uniform(−a, a)")
        axis.legend(frameon=False)
        return save(fig, folder / "stein")


if __name__ == "__main__":
    main(claims)

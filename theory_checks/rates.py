"""Limits of the framework's methods and the rates at which they are reached.

For smooth f, w(σ) − ∇f(x₀) = σ²/2 ∇Δf(x₀) + O(σ⁴) for SmoothGrad, and by Stein's identity for C-LIME. Integrated
Gradients on [a, 1] reaches Gradient × Input as (1 − a)/2 (x₀ − b) ⊙ H(x₀)(x₀ − b). With n draws the error is
s.d. / √n; scrambled Sobol points and Gauss–Legendre nodes do better where f is smooth, and less so where ∇f jumps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.ticker import NullFormatter
from scipy import stats

import locapprox as lx
from paper_figures.style import COLOURS, save, style
from theory_checks.claims import Claim, main
from theory_checks.points import gauss_hermite

SIGMAS = np.array([0.1, 0.05, 0.025, 0.0125])
GAPS = np.array([0.2, 0.1, 0.05, 0.025])  # 1 − a
COUNTS = np.array([64, 128, 256, 512, 1024])
NODES = np.array([4, 6, 8, 10, 12, 14])
KINK_NODES = np.array([8, 16, 32, 64, 128, 256])
SEEDS, SOBOL_SEEDS, INSTANCES, NOISE = 80, 20, 200, 0.5
RNG = np.random.default_rng(5)
W, C, V = (torch.from_numpy(RNG.normal(size=shape)) for shape in ((6, 3), (6,), (6,)))
X = torch.from_numpy(RNG.normal(size=(1, 3)))
Gradients = lx.GradientMatching()


def smooth(x: torch.Tensor) -> torch.Tensor:
    return (x @ W.mT + C).tanh() @ V


def relu(x: torch.Tensor) -> torch.Tensor:
    return (x @ W.mT + C).relu() @ V


@dataclass(frozen=True)
class Sobol(lx.BaseDistribution):
    """ξ ~ Normal(0, σ²I) by scrambled Sobol points through the normal quantile."""

    sigma: float
    draws_at_once = True

    def draw(self, d: int, n: int, rng: torch.Generator, dtype: torch.dtype) -> lx.Draw:
        seed = int(torch.randint(2**31, (1,), generator=rng))
        xi = torch.from_numpy(self.sigma * normal_scores(d, n, seed))
        return lx.Draw(xi.to(dtype), torch.ones(n, dtype=torch.float64))


@cache
def normal_scores(d: int, n: int, seed: int) -> np.ndarray:
    return stats.norm.ppf(stats.qmc.Sobol(d, rng=np.random.default_rng(seed)).random(n))


def derivatives() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """∇f, H and ∇Δf of the tanh network at X, written out."""
    w, v, t = W.numpy(), V.numpy(), np.tanh(X[0].numpy() @ W.numpy().T + C.numpy())
    first, second = 1 - t**2, -2 * t * (1 - t**2)
    third = (1 - t**2) * (6 * t**2 - 2)
    return (v * first) @ w, (w.T * (v * second)) @ w, (v * third * (w**2).sum(1)) @ w


def weights(
    f: object, distribution: object, loss: lx.Loss, n: int, seed: int = 0, path: bool = False, x: torch.Tensor = X
) -> np.ndarray:
    """(d,), or (instances, d) of several."""
    where = lx.Multiplicative(distribution) if path else lx.Additive(distribution)  # type: ignore[arg-type]
    w = lx.explain(f, x, lx.Method("", where, loss), n_samples=n, seed=seed, progress=False).weights.numpy()
    return w[0] if len(x) == 1 else w


def slope(sizes: np.ndarray, errors: Sequence[float] | np.ndarray) -> float:
    return float(np.polyfit(np.log(sizes), np.log(errors), 1)[0])


@cache
def limits() -> dict[str, np.ndarray]:
    """Distances from the limit: of antithetic C-LIME and SmoothGrad over SIGMAS, of the path over GAPS."""
    gradient = derivatives()[0]
    product = X[0].numpy() * gradient
    pairs = {"C-LIME": lx.SquaredError(), "SmoothGrad": Gradients}
    out = {
        name: np.array([np.abs(weights(smooth, lx.Normal(s, True), loss, 400) - gradient).max() for s in SIGMAS])
        for name, loss in pairs.items()
    }
    paths = [weights(smooth, lx.GaussLegendre(1 - gap, 1.0), Gradients, 10, path=True) for gap in GAPS]
    return out | {"Integrated Gradients": np.array([np.abs(w - product).max() for w in paths])}


@cache
def squares(f_is_smooth: bool, kind: str) -> np.ndarray:
    """Squared distances from the population, (counts, seeds), of SmoothGrad by draws or Sobol, or of the path."""
    f = smooth if f_is_smooth else relu
    path = kind == "path"
    exact = weights(f, lx.GaussLegendre(), Gradients, 60, path=True) if path else population(f_is_smooth)
    noise = {"normal": lx.Normal(NOISE), "sobol": Sobol(NOISE), "path": lx.Uniform()}[kind]
    seeds = SOBOL_SEEDS if kind == "sobol" else SEEDS
    return np.array(
        [
            [np.square(weights(f, noise, Gradients, int(n), seed, path) - exact).sum() for seed in range(seeds)]
            for n in COUNTS
        ]
    )


def population(f_is_smooth: bool) -> np.ndarray:
    """E ∇f(x₀ + ξ) = Σ_h v_h w_h E φ′(z_h), z_h ~ Normal(w_h·x₀ + c_h, σ²‖w_h‖²): an integral per unit."""
    w, mean = W.numpy(), X[0].numpy() @ W.numpy().T + C.numpy()
    spread = NOISE * np.linalg.norm(w, axis=1)
    if not f_is_smooth:
        return (V.numpy() * stats.norm.cdf(mean / spread)) @ w
    grid = np.linspace(-9, 9, 4001)  # the trapezium rule is spectral here
    density = stats.norm.pdf(grid) * (grid[1] - grid[0])
    return (V.numpy() * ((1 - np.tanh(mean[:, None] + spread[:, None] * grid) ** 2) @ density)) @ w


def spread_of_gradients(f_is_smooth: bool) -> float:
    """Root of the summed variances of ∇f(x₀ + ξ) on 400,000 draws of numpy's."""
    z = (X[0].numpy() + NOISE * np.random.default_rng(1).normal(size=(400_000, 3))) @ W.numpy().T + C.numpy()
    outer = (1 - np.tanh(z) ** 2) if f_is_smooth else (z > 0)
    return float(np.sqrt(((outer * V.numpy()) @ W.numpy()).var(0).sum()))


def slope_and_error(squared: np.ndarray) -> tuple[float, float]:
    """Slope of the log RMS error over COUNTS and its standard error, from the spread over seeds."""
    mean = squared.mean(1)
    error = squared.std(1, ddof=1) / np.sqrt(squared.shape[1]) / (2 * mean)  # of log RMS
    t = np.log(COUNTS) - np.log(COUNTS).mean()
    pull = t / (t @ t)
    return float(pull @ np.log(np.sqrt(mean))), float(np.sqrt(np.square(pull) @ np.square(error)))


@cache
def quadrature() -> tuple[np.ndarray, np.ndarray]:
    """RMS errors of Gauss–Legendre over random instances: tanh over NODES, ReLU (exact integral) over KINK_NODES."""
    x = torch.from_numpy(2 * np.random.default_rng(2).normal(size=(INSTANCES, 3)))
    reference = weights(smooth, lx.GaussLegendre(), Gradients, 200, path=True, x=x)
    rise, c = x.numpy() @ W.numpy().T, C.numpy()  # unit h is on where rise t + c > 0
    share = np.clip(-c / rise, 0, 1)
    share = np.where(rise > 0, 1 - share, np.where(c > 0, share, 0.0))
    exact = x.numpy() * ((share * V.numpy()) @ W.numpy())
    curves = []
    for f, to, nodes in ((smooth, reference, NODES), (relu, exact, KINK_NODES)):
        found = [weights(f, lx.GaussLegendre(), Gradients, int(n), path=True, x=x) for n in nodes]
        curves.append(np.array([np.sqrt(np.square(w - to).sum(1).mean()) for w in found]))
    return curves[0], curves[1]


def claims() -> list[Claim]:
    near, (gradient, hessian, bend) = limits(), derivatives()
    out = []
    for name in ("C-LIME", "SmoothGrad"):
        power = slope(SIGMAS, near[name])
        out.append(Claim(f"{name}, antithetic → gradient as σ²: |log-log slope − 2|", abs(power - 2), 0.05))
    for name, loss in (("C-LIME", lx.SquaredError()), ("SmoothGrad", Gradients)):
        small = SIGMAS / 50
        one = [np.abs(weights(smooth, lx.Normal(s), loss, 400) - gradient).max() for s in small]
        power = slope(small, one)
        out.append(Claim(f"{name} without pairs → gradient as σ only: |slope − 1|", abs(power - 1), 0.05))
        drawn = weights(smooth, gauss_hermite(0.05, 3, 8), loss, 1) - gradient
        away = np.abs(drawn / (0.05**2 / 2 * bend) - 1).max()
        out.append(Claim(f"{name}, σ = 0.05, population: bias / (σ²/2 ∇Δf(x₀)) − 1", away, 0.05))
    x = X[0].numpy()
    power = slope(GAPS, near["Integrated Gradients"])
    out.append(Claim("IG on [a, 1] → Gradient × Input as 1 − a: |log-log slope − 1|", abs(power - 1), 0.05))
    last = weights(smooth, lx.GaussLegendre(1 - 1e-4, 1.0), Gradients, 10, path=True) - x * gradient
    away = np.abs(last / (-0.5e-4 * x * (hessian @ x)) - 1).max()
    out.append(Claim("IG on [a, 1], a = 0.9999: gap / (−(1 − a)/2 x₀ ⊙ H x₀) − 1", away, 0.01))
    for smoothness in (True, False):
        net = "tanh" if smoothness else "ReLU"
        power, error = slope_and_error(squares(smoothness, "normal"))
        out.append(
            Claim(f"SmoothGrad, {net}, n draws: |slope of RMS error + 1/2| ≤ 3 s.e.", abs(power + 0.5), 3 * error)
        )
        level = np.sqrt(squares(smoothness, "normal").mean(1) * COUNTS).mean() / spread_of_gradients(smoothness)
        out.append(Claim(f"SmoothGrad, {net}: |√n RMS error / s.d. of ∇f − 1|", abs(level - 1), 0.05))
    power, error = slope_and_error(squares(True, "path"))
    out.append(Claim("IG by n uniform draws: |slope of RMS error + 1/2| ≤ 3 s.e.", abs(power + 0.5), 3 * error))
    power, error = slope_and_error(squares(True, "sobol"))
    statement = "SmoothGrad, tanh, n scrambled Sobol points, d = 3: slope of RMS error + 2 s.e."
    out.append(Claim(statement, power + 2 * error, -0.9))
    sobol, drawn = (float(np.sqrt(squares(False, kind)[-1].mean())) for kind in ("sobol", "normal"))
    out.append(Claim("SmoothGrad, ReLU, 1,024 Sobol points: RMS error / that of random draws", sobol / drawn, 0.5))
    fast, slow = quadrature()
    factor = float(np.exp(np.polyfit(NODES, np.log(fast), 1)[0]))
    out.append(Claim("IG by Gauss–Legendre, tanh: factor of RMS error per node (spectral)", factor, 0.6))
    power = slope(KINK_NODES, slow)
    out.append(Claim("IG by Gauss–Legendre, ReLU: |slope of RMS error + 1|", abs(power + 1), 0.1))
    return out


def figure(folder: Path) -> Path:
    """How fast explanations reach their limits and their populations (tanh and ReLU networks of 6 units, d = 3).

    (a) Distance from the gradient in σ, and of IG on [a, 1] from Gradient × Input in 1 − a. (b) SmoothGrad's RMS error
    over n: 80 seeds of random draws, 20 of scrambled Sobol points. (c) RMS error of IG over 200 inputs in
    Gauss–Legendre nodes. Slopes are least-squares fits in log-log.
    """
    near, (fast, slow) = limits(), quadrature()
    with style():
        fig, (a, b, c) = plt.subplots(1, 3, figsize=(9.5, 3))
        for name, sizes in (("C-LIME", SIGMAS), ("SmoothGrad", SIGMAS), ("Integrated Gradients", GAPS)):
            line = "--" if name == "SmoothGrad" else "-"
            label = f"{name}, slope {slope(sizes, near[name]):.2f}"
            a.loglog(sizes, near[name], marker="o", ms=3, ls=line, color=COLOURS[name], label=label)
        for kind, line in (("normal", "-"), ("sobol", "--")):
            for net, colour in (("tanh", "C0"), ("ReLU", "C1")):
                squared = squares(net == "tanh", kind)
                word = "draws" if kind == "normal" else "Sobol"
                label = f"{net}, {word}, slope {slope_and_error(squared)[0]:.2f}"
                b.loglog(COUNTS, np.sqrt(squared.mean(1)), marker="o", ms=3, ls=line, color=colour, label=label)
        c.loglog(NODES, fast, marker="o", ms=3, color="C0", label="tanh, spectral")
        c.loglog(KINK_NODES, slow, marker="o", ms=3, color="C1", label=f"ReLU, slope {slope(KINK_NODES, slow):.2f}")
        a.xaxis.set_minor_formatter(NullFormatter())
        for axis, xlabel, ylabel, letter in (
            (a, "σ (local), 1 − a (path)", "largest distance from the limit", "(a) limits"),
            (b, "n", "RMS error", "(b) SmoothGrad"),
            (c, "nodes", "RMS error", "(c) Integrated Gradients"),
        ):
            axis.set(xlabel=xlabel, ylabel=ylabel, title=letter)
            axis.legend(fontsize=7, frameon=False)
        return save(fig, folder / "rates")


if __name__ == "__main__":
    main(claims)

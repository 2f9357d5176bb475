"""Draws docs/overview.png: one model, one input, two neighbourhoods, two honest explanations."""

from pathlib import Path

import numpy as np
import torch
from matplotlib import pyplot as plt

import locapprox as lx


def f(x: torch.Tensor) -> torch.Tensor:
    return torch.sin(3 * x[:, 0]) + 0.3 * x[:, 0] ** 2


def main() -> None:
    x = torch.tensor([[0.9]], dtype=torch.float64)
    line = torch.linspace(-1.2, 3, 400, dtype=torch.float64)[:, None]
    figure, axes = plt.subplots(1, 2, figsize=(8, 3), sharey=True, layout="constrained")
    for ax, (title, method) in zip(
        axes,
        {
            "C-LIME, σ = 0.1: the slope at x₀": lx.c_lime(sigma=0.1),
            "C-LIME, σ = 0.7: the trend around x₀": lx.c_lime(sigma=0.7),
        }.items(),
        strict=True,
    ):
        e = lx.explain(f, x, method, n_samples=300)
        _, points = e.points(n=150)
        weight, error = float(e.weights), 1.96 * float(e.standard_error)
        ax.plot(line, f(line), color="0.25", label="model f")
        ax.scatter(points, f(points), s=9, color="#2166ac", alpha=0.5, label="perturbations")
        reach = np.array([[points.min()], [points.max()]])
        ax.plot(reach, e.predict(reach[None])[0], color="#b2182b", label="surrogate g", linewidth=2)
        ax.scatter(x, f(x), marker="*", s=150, color="k", zorder=3, label="input x₀")
        ax.set(title=title, xlabel=f"weight {weight:.2f} ± {error:.2f},  $R^2$ = {float(e.r2):.2f}", ylim=(-1.6, 2.6))
    axes[0].legend(fontsize="small", loc="upper left")
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=150)


if __name__ == "__main__":
    main()

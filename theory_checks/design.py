"""What the framework promises by construction: optima bound their columns, and what intervals cover on shared draws.

A column is (neighbourhood, loss, rows to interpolate). Its population optimum, the least E ℓ over linear g that
interpolate those rows, bounds the error of every such g there, whether it keeps its intercept or is refitted subject to
the rows; a sample's best fit is no such bound.

Instances share a draw, so each one's interval covers as it should, but their errors do not average out: the error of a
mean over instances must come from replicate draws (`explain_mean`), not from standard errors as if independent.
"""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from scipy import stats

import locapprox as lx
from paper_figures.style import save, style
from theory_checks.claims import Claim, main
from theory_checks.identities import Net
from theory_checks.points import gauss_hermite

D, SIGMA = 3, 0.5
NET = Net.random(D, 6, seed=5)
X = torch.tensor([[0.9, -0.7, 0.5]], dtype=torch.float64)
LEVEL, TRIALS, REPLICATES, INSTANCES, DRAWS = 0.95, 100, 10, 20, 150


def columns() -> dict[str, lx.Method]:
    """The eight neighbourhoods and losses, every one enumerated or by quadrature."""
    noise = gauss_hermite(SIGMA, D, nodes=20)
    masks = lx.Multiplicative(lx.AllCoalitions(), kernel=lx.ExponentialKernel(1.0))
    return lx.paper_methods() | {
        "LIME": lx.Method("LIME", masks, lx.SquaredError()),
        "C-LIME": lx.Method("C-LIME", lx.Additive(noise), lx.SquaredError()),
        "SmoothGrad": lx.Method("SmoothGrad", lx.Additive(noise), lx.GradientMatching()),
    }


def optima() -> dict[str, float]:
    """The least error of each column, by dense least squares and gradients by hand."""
    x, noise, masks = X[0].numpy(), gauss_hermite(SIGMA, D, 20), np.array(list(itertools.product((0.0, 1.0), repeat=D)))
    node, weight = np.polynomial.legendre.leggauss(60)
    size = masks.sum(1)
    inner = (size > 0) & (size < D)
    ends = np.array([[0.0] * D, [1.0] * D])
    shapley = np.array([1 / (stats.binom.pmf(k, D, 0.5) * k * (D - k)) for k in size[inner]])
    return {
        "LIME": least(masks, np.exp(-(((1 - masks) * x) ** 2).sum(1)), NET.values(masks * x)),
        "KernelSHAP": least(masks[inner], shapley, NET.values(masks[inner] * x), ends, NET.values(ends * x)),
        "Occlusion": least(1 - np.eye(D), np.ones(D), NET.values((1 - np.eye(D)) * x), ends[1:], NET.values(x[None])),
        "C-LIME": least(noise.xi, noise.weight, NET.values(x + noise.xi)),
        "SmoothGrad": spread(NET.gradients(x + noise.xi), noise.weight),
        "Integrated Gradients": spread(x * NET.gradients((node[:, None] + 1) / 2 * x), weight),
        "Vanilla Gradients": 0.0,
        "Gradient x Input": 0.0,
    }


def least(
    xi: np.ndarray, weight: np.ndarray, y: np.ndarray, at: np.ndarray | None = None, value: np.ndarray | None = None
) -> float:
    """min E (y − [ξ, 1] θ)², with [at, 1] θ = value by Lagrange multipliers."""
    A, root = np.c_[xi, np.ones(len(xi))], np.sqrt(weight / weight.sum())[:, None]
    C = np.empty((0, A.shape[1])) if at is None else np.c_[at, np.ones(len(at))]
    c = np.empty(0) if value is None else value
    kkt = np.block([[(root * A).T @ (root * A), C.T], [C, np.zeros((len(C), len(C)))]])
    theta = np.linalg.lstsq(kkt, np.r_[(root * A).T @ (root[:, 0] * y), c], rcond=None)[0][: A.shape[1]]
    return float(((root[:, 0] * (y - A @ theta)) ** 2).sum())


def spread(gradients: np.ndarray, weight: np.ndarray) -> float:
    """min over w of E ‖∇f − w‖²: the trace of the gradients' covariance."""
    share = weight / weight.sum()
    return float(share @ (gradients**2).sum(1) - ((share @ gradients) ** 2).sum())


def others() -> Iterator[tuple[str, lx.Explanation]]:
    """The eight explanations, and random g from close to each to far away that interpolate x₀ and the baseline."""
    rng = np.random.default_rng(0)
    at_base, at_x = float(NET.values(np.zeros(D))), float(NET.values(X[0].numpy()))
    for name, method in columns().items():
        e = lx.explain(NET.model, X, method, n_samples=200)
        yield name, e
        if name not in ("LIME", "KernelSHAP", "Occlusion"):
            continue
        for i, scale in enumerate(10.0 ** rng.uniform(-4, 1, 60)):
            w = e.weights[0].numpy() + scale * rng.standard_normal(D)
            w += (at_x - at_base - w.sum()) / D
            fitted = replace(
                e, weights=torch.from_numpy(w)[None], intercept=torch.tensor([at_base], dtype=torch.float64)
            )
            yield f"{name} + noise {i}", fitted


def bounds() -> list[Claim]:
    """Optima against dense least squares, and no regret below zero where the rows to interpolate are met."""
    surrogates = dict(others())
    own, out, meets = optima(), [], pd.Series(dtype=bool)
    for intercept in ("fitted", "refitted"):
        frame = lx.faithfulness(NET.model, X, surrogates, columns(), intercept=intercept, n_samples=200).table
        meets = frame["violation"] < 1e-9 if intercept == "fitted" else meets  # refitted, they still must
        for name, part in frame.groupby("neighbourhood", sort=False):
            met, where = part[meets[part.index]], f"column {name}, {intercept}"
            gap = float((part["optimum"] - own[str(name)]).abs().max())
            least = met["regret"].min()
            out += [
                Claim(f"{where}: |optimum − dense least squares|", gap, 1e-10),
                Claim(f"{where}: least regret of the {len(met)} g that meet its rows", least, -1e-10, ">="),
            ]
    lime, rows = [columns()["LIME"]], {"KernelSHAP": lx.kernel_shap()}
    free = lx.faithfulness(NET.model, X, lime, rows, intercept="fitted", n_samples=200).table
    text = "LIME misses KernelSHAP's rows with its own intercept: its regret there may be negative, and is"
    out.append(Claim(text, free["regret"].min(), 0))
    return out


def own_column() -> Claim:
    """C-LIME is not the best estimate on its own neighbourhood: SmoothGrad has the same target and less variance."""
    where = {"noise": columns()["C-LIME"]}
    methods = [lx.c_lime(sigma=SIGMA), lx.smoothgrad(sigma=SIGMA)]
    gaps = []
    for seed in range(100):
        fits = {m.name: lx.explain(NET.model, X, m, n_samples=100, seed=seed) for m in methods}
        error = lx.faithfulness(NET.model, X, fits, where).table["error"]
        gaps.append(float(error[0] - error[1]))
    text = "C-LIME − SmoothGrad, population error on C-LIME's own column, 100 seeds: mean / its error"
    return Claim(text, float(np.mean(gaps) / stats.sem(gaps)), 3, ">=")


@cache
def coverage() -> pd.DataFrame:
    """Per trial: the share of 95 % intervals of C-LIME's weights that hold the population's weights.

    By Stein's identity these are the mean gradients, here by Gauss–Hermite quadrature.
    """
    x = np.random.default_rng(2).standard_normal((INSTANCES, D)) / 2
    noise, method = gauss_hermite(SIGMA, D, nodes=16), lx.c_lime(sigma=SIGMA)
    truth = np.stack([noise.weight @ NET.gradients(row + noise.xi) for row in x])
    inputs, rows = torch.from_numpy(x), []
    for trial in range(TRIALS):
        e = lx.explain(NET.model, inputs, method, n_samples=DRAWS, seed=trial)
        low, high = (side.numpy() for side in e.interval(LEVEL))
        mean, error = e.weights.numpy().mean(0), (e.standard_error.square().nanmean(0) / INSTANCES).sqrt().numpy()
        kinds = {
            "each instance": (low, high, truth),
            "mean, as if independent": (*interval(mean, error, float(e.degrees_of_freedom[0])), truth.mean(0)),
        }
        replicated = lx.explain_mean(
            NET.model, inputs, method, n_samples=DRAWS, replicates=REPLICATES, seed=1000 + 10 * trial, progress=False
        )
        mean, error = (t.numpy() for t in replicated)
        kinds["mean, replicate draws"] = (*interval(mean, error, REPLICATES - 1), truth.mean(0))
        for kind, (lower, upper, at) in kinds.items():
            known = np.isfinite(upper)  # NaN where few draws carry an error
            rows.append({"kind": kind, "covered": float(np.mean(((lower <= at) & (at <= upper))[known]))})
    return pd.DataFrame(rows)


def interval(mean: np.ndarray, error: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    half = stats.t.ppf((1 + LEVEL) / 2, degrees) * error
    return mean - half, mean + half


def intervals() -> list[Claim]:
    """Coverage per instance and of the mean over instances, each with its standard error over trials."""
    out = []
    for kind, (share, error) in covered().items():
        if kind == "mean, as if independent":
            out.append(Claim(f"{kind}: coverage of its 95 % intervals is below .7", share, 0.7))
        else:
            text = f"{kind}: coverage {share:.3f} of 95 % intervals in {TRIALS} trials, |coverage − .95| ≤ 4 errors"
            out.append(Claim(text, abs(share - LEVEL), 4 * error))
    return out


def covered() -> dict[str, tuple[float, float]]:
    """Coverage of each kind of interval, and its standard error over trials."""
    return {
        str(kind): (float(part["covered"].mean()), float(stats.sem(part["covered"])))
        for kind, part in coverage().groupby("kind", sort=False)
    }


def claims() -> list[Claim]:
    return [*bounds(), own_column(), *intervals()]


def figure(folder: Path) -> Path:
    """What 95 % intervals of C-LIME's weights cover when 20 instances share their draws (mean and two standard errors
    over 100 trials): each instance's own interval; an interval for the mean over instances from their standard errors
    as if they were independent; and one from ten replicate draws.
    """
    found = covered()
    shares, errors = np.array(list(found.values())).T
    with style():
        plot, ax = plt.subplots(figsize=(4.6, 2.2))
        ax.errorbar(shares, range(len(found)), xerr=2 * errors, fmt="o", color="#2166ac")
        ax.axvline(LEVEL, color="0.6", linewidth=0.8)
        ax.set_yticks(range(len(found)), list(found))
        ax.set(xlabel="coverage", xlim=(0, 1), ylim=(len(found) - 0.5, -0.5))
        return save(plot, folder / "shared_draws")


if __name__ == "__main__":
    main(claims)

"""What is said of explanations: perturbation tests, the optimum of a column, and intervals of `recommend`.

Of f = w · x perturbation tests have closed forms. The optimum is in-sample too low and, left out, too high, each by
about p/n of itself; what is reported is neither. `recommend` compares errors by the median over instances, whose
interval needs order statistics and a binomial only.
"""

from itertools import pairwise

import numpy as np
import torch
from scipy import stats

import locapprox as lx
from theory_checks.claims import Claim, main
from theory_checks.identities import Net
from theory_checks.points import gauss_hermite

EXACT = 1e-9
W = np.array([2.0, -1.0, 0.5, -3.0])
X = np.array([[1.0, 2.0, -1.0, 0.5], [-0.5, 1.5, 2.0, 1.0], [0.3, -0.7, 1.2, -0.4]])
MAPS = W * X * np.array([1.1, 0.7, 2.3, 0.6])  # an explanation whose order is not that of w ⊙ x
NET, SIGMA, SEEDS, DRAWS = Net.random(3, 6, seed=5), 0.5, 150, 20


def linear(x: torch.Tensor) -> torch.Tensor:
    return x @ torch.from_numpy(W)


def tests() -> list[Claim]:
    """Curves and areas, feature by feature."""
    out = []
    for kind in ("bottom", "top", "deletion", "insertion"):
        test = lx.perturbation_test(linear, torch.from_numpy(X), {"m": MAPS}, kind=kind)
        curves = []
        for x, weight in zip(X, MAPS, strict=True):
            signed = kind in ("deletion", "insertion")
            order = np.argsort(weight if signed else np.abs(weight))
            order = order if kind == "bottom" else order[::-1]
            moved = np.r_[0.0, np.cumsum((W * x)[order])]
            left = moved if kind == "insertion" else W @ x - moved
            curves.append(left if signed else np.abs(moved[1:]))
        found = test.changes.pivot_table(index="instance", columns="k", values=test.measure).to_numpy()
        gap = float(np.abs(found - np.array(curves)).max())
        out.append(Claim(f"{kind}, f = w · x, baseline 0: curves − those by hand", gap, EXACT))
        areas = [np.mean([(a + b) / 2 for a, b in pairwise(c)]) if len(c) > 4 else np.mean(c) for c in curves]
        gap = float(np.abs(test.auc()["auc"].to_numpy() - areas).max())
        out.append(Claim(f"{kind}, f = w · x, baseline 0: areas − those by hand", gap, EXACT))
    return [*out, noise(), ties()]


def ties() -> Claim:
    """Features 1 and 2 share the largest weight: where a step of the curve does not part them it is known."""
    tied = np.array([5.0, -5.0, 1.0, 2.0]) + 0 * X
    moved = (W * X)[:, [2, 3, 0, 1]].cumsum(1)[:, [0, 1, 3]]
    test = lx.perturbation_test(linear, torch.from_numpy(X), {"m": tied}, draws=5)
    found = test.changes.pivot_table(index="instance", columns="k", values="change")[[1, 2, 4]].to_numpy()
    return Claim(
        "bottom, two features of one weight: curves where they are not parted",
        float(np.abs(found - np.abs(moved)).max()),
        EXACT,
    )


def noise() -> Claim:
    """E |Σ w_j ε_j| over k features is σ ‖w‖ √(2/π) of theirs."""
    sigma, draws = 0.3, 500
    test = lx.perturbation_test(
        linear, torch.from_numpy(X), {"m": MAPS}, kind="top", replace="noise", sigma=sigma, draws=draws
    )
    found = test.changes.pivot_table(index="instance", columns="k", values="change").to_numpy()
    order = np.argsort(-np.abs(MAPS), axis=1)
    norm = sigma * np.sqrt(np.cumsum(W[order] ** 2, axis=1))
    z = (found / norm - (2 / np.pi) ** 0.5) / ((1 - 2 / np.pi) ** 0.5 / draws**0.5)
    return Claim(
        f"top, f = w · x, {draws} draws of noise: mean change − σ‖w_S‖√(2/π): largest |z|", float(np.abs(z).max()), 4
    )


def optima() -> list[Claim]:
    """Over seeds, the optimum of 20 draws against the population's, by quadrature."""
    x = torch.tensor([[0.9, -0.7, 0.5]], dtype=torch.float64)
    method, rule = lx.c_lime(SIGMA), gauss_hermite(SIGMA, 3, 20)
    root, y = np.sqrt(rule.weight), NET.values(x.numpy() + rule.xi)
    A = np.c_[rule.xi, np.ones(len(rule.xi))]
    rest = root * (y - A @ np.linalg.lstsq(root[:, None] * A, root * y, rcond=None)[0])
    truth, found, fits = float(rest @ rest / rule.weight.sum()), [], []
    for seed in range(SEEDS):
        e = lx.explain(NET.model, x, method, n_samples=DRAWS, seed=seed, progress=False)
        table = lx.faithfulness(NET.model, x, {"m": e}, {"Z": method}, n_samples=DRAWS, seed=seed).table
        found.append(float(table["optimum"].iloc[0]))
        fits.append(float(e.loss[0]))
    z = float((np.mean(found) - truth) / stats.sem(found))
    text = f"optimum of {DRAWS} draws, {SEEDS} seeds: |mean − the population's| / its error"
    beside = "… while the leave-one-out loss of as many is too high by p/2n of it at least"
    return [Claim(text, abs(z), 3), Claim(beside, float(np.mean(fits)) / truth - 1, 2 / DRAWS, ">=")]


def intervals() -> list[Claim]:
    """Where nothing is drawn, the interval of a ratio holds the 7th to the 18th of 24, at that interval's own level.

    P(x₍₇₎ ≤ median ≤ x₍₁₈₎) = 1 − 2 P(Binomial(24, ½) ≤ 6).
    """
    x = torch.from_numpy(np.random.default_rng(3).standard_normal((24, 3)))
    where = lx.Multiplicative(lx.AllCoalitions())
    methods = {"Occlusion": lx.occlusion(), "Gradient x Input": lx.gradient_x_input()}
    level = 1 - 2 * float(stats.binom.cdf(6, 24, 0.5))
    answer = lx.recommend(
        NET.model, x, where, methods=methods, replicates=2, n_samples=50, level=level, progress=False
    ).table.set_index("method")
    column = {"Z": lx.Method("Z", where, lx.SquaredError())}
    error = lx.faithfulness(NET.model, x, methods, column).table.pivot_table(
        index="instance", columns="method", values="error"
    )
    first, other = answer.index[answer["in_set"]][0], answer.index[~answer.index.isin(["designed for it"])][-1]
    ratio = np.sort(np.log(error[other] / error[first]))
    found = np.log(answer.loc[other, ["low", "high"]].to_numpy(float))
    gap = float(np.abs(found - ratio[[6, 17]]).max())
    return [Claim("recommend, 24 instances: bounds of log error ratio − order statistics 7 and 18", gap, 1e-6)]


def of_draws() -> Claim:
    """The interval of one instance speaks of other draws: its half width ÷ t is the spread of the ratio over seeds."""
    x, where, seeds, replicates = torch.tensor([[0.9, -0.7, 0.5]], dtype=torch.float64), lx.c_lime(SIGMA), 40, 5
    e = lx.explain(NET.model, x, lx.vanilla_gradients(), progress=False)
    found = []
    for seed in range(seeds):
        answer = lx.recommend(
            NET.model,
            x,
            where.neighbourhood,
            methods={"e": e},
            n_samples=30,
            replicates=replicates,
            seed=seed,
            progress=False,
        )
        found.append(
            np.log(answer.table.set_index("method").loc["designed for it", ["ratio", "low", "high"]].to_numpy(float))
        )
    ratio, low, high = np.array(found).T
    error = np.sqrt(np.mean(((high - low) / 2 / stats.t.ppf(0.975, replicates - 1)) ** 2))
    text = f"recommend, one instance, {seeds} seeds: |log (half width ÷ t ÷ spread of the ratio)|"
    return Claim(text, abs(float(np.log(error / ratio.std(ddof=1)))), 0.4)


def claims() -> list[Claim]:
    return [*tests(), *optima(), *intervals(), of_draws()]


if __name__ == "__main__":
    main(claims)

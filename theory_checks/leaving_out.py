"""Standard errors and losses against what they stand for: the fit made again without a unit of the draw.

A unit is what is drawn together: a row, or a pair. Without unit u the weights are θ_u and its residuals e, which were
r. The leave-one-out loss is the weighted mean of e². Standard errors are √Σ δ² of δ_u = (θ_u − θ) ρ^¼ with ρ = r·e /
e·e, which is half-way between HC3 (MacKinnon and White 1985; ρ⁰) and HC2 (ρ^½). Beside enumerated rows they are those
of the jackknife, (m − 1)/m Σ (δ − δ̄)². Where rows cannot be left out one by one, 20 groups are: 19/20 Σ (θ_g − θ̄)².
Intervals are θ ± t of the errors. Of a quadrature the error is the distance to the rule on every second node.

Here everything is fitted again, by dense least squares on the rows that the engine drew; bounds are those of round-off.
"""

import numpy as np
import torch
from numpy.polynomial import Polynomial
from scipy import stats

import locapprox as lx
from theory_checks.claims import Claim, main
from theory_checks.identities import Net

D, GROUPS, EXACT = 6, 20, 1e-8
NET = Net.random(D, 6, seed=3)
X = torch.tensor([[0.8, -0.6, 0.5, -0.9, 0.4, 0.7]], dtype=torch.float64)
SOBOLEV = lx.SquaredError() + 0.5 * lx.GradientMatching()


def explained(method: lx.Method, n: int) -> lx.Explanation:
    return lx.explain(NET.model, X, method, n_samples=n, seed=1, progress=False)


def noise(loss: lx.Loss, antithetic: bool = False) -> lx.Method:
    return lx.Method("", lx.Additive(lx.Normal(0.5, antithetic)), loss)


def rows(e: lx.Explanation) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[ξ, 1], f and weights (inf: interpolate) of the draw."""
    draw, placed = e.points(0)
    return np.c_[draw.xi.numpy(), np.ones(len(placed))], NET.values(placed.numpy()), draw.weight.numpy().flatten()


def fit(A: np.ndarray, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weighted least squares through the rows of infinite weight."""
    hard = np.isinf(weight)
    particular = np.linalg.lstsq(A[hard], y[hard], rcond=None)[0] if hard.any() else np.zeros(A.shape[1])
    free = np.linalg.svd(A[hard])[2][hard.sum() :].T if hard.any() else np.eye(A.shape[1])
    root = np.sqrt(weight[~hard])
    step = np.linalg.lstsq(root[:, None] * (A[~hard] @ free), root * (y - A @ particular)[~hard], rcond=None)[0]
    return particular + free @ step


def refitted(e: lx.Explanation, unit: int = 1, fixed: int = 0) -> tuple[np.ndarray, float]:
    """Standard errors and loss, a unit left out at a time; the first rows are fixed.

    Of a mask and its complement (beside fixed rows) the sum moves nothing, so there r and e are differences.
    """
    A, y, weight = rows(e)
    theta, change, total = fit(A, y, weight), [], 0.0
    for start in range(fixed, len(y), unit):
        out = np.arange(start, start + unit)
        keep = np.setdiff1d(np.arange(len(y)), out)
        without = fit(A[keep], y[keep], weight[keep])
        before, after = y[out] - A[out] @ theta, y[out] - A[out] @ without
        r, left = (np.diff(part) if fixed else part for part in (before, after))
        share = (r @ left) / (left @ left)
        change.append((without - theta)[:-1] * share**0.25)
        total += float(weight[out] @ after**2)
    held, delta = np.isfinite(weight) & (np.arange(len(y)) < fixed), np.array(change)
    total += float(weight[held] @ (y - A @ theta)[held] ** 2)
    square = (delta**2).sum(0)
    if fixed:
        square = (len(delta) - 1) / len(delta) * ((delta - delta.mean(0)) ** 2).sum(0)
    return np.sqrt(square), total / weight[np.isfinite(weight)].sum()


def by_groups(e: lx.Explanation, inner: np.ndarray, unit: int = 1, fixed: int = 0) -> np.ndarray:
    """Standard errors of a fit of values and slopes (∇f ⊙ inner), one of up to 20 groups of units left out, the others
    weighing more for it; the first rows are fixed."""
    A, y, weight = rows(e)
    slopes = inner * NET.gradients(e.points(0)[1].numpy())
    soft, row = np.isfinite(weight), np.arange(len(y))
    group, found = np.where(row < fixed, -1, (row - fixed) // unit % GROUPS), []
    for left_out in range(group.max() + 1):
        keep, sampled = group != left_out, weight[group >= 0].sum()
        w = np.where(group < 0, 1.0, sampled / (sampled - weight[~keep].sum())) * weight
        design = np.r_[A[keep], np.tile(np.eye(D, D + 1), ((keep & soft).sum(), 1))]
        answers = np.r_[y[keep], slopes[keep & soft].flatten()]
        found.append(fit(design, answers, np.r_[w[keep], SOBOLEV.gradient * w[keep & soft].repeat(D)])[:D])
    return np.sqrt((len(found) - 1) / len(found) * ((np.array(found) - np.mean(found, 0)) ** 2).sum(0))


def of_pairs(e: lx.Explanation) -> np.ndarray:
    """Standard errors of a mean gradient over pairs ±ξ."""
    means = NET.gradients(e.points(0)[1].numpy()).reshape(-1, 2, D).mean(1)
    return means.std(0, ddof=1) / len(means) ** 0.5


def by_polynomials(e: lx.Explanation) -> np.ndarray:
    """The distance to the integral of the polynomials through the gradients at every second node of the path."""
    nodes = e.points(0)[0].xi.numpy()[::2, 0]
    slopes = X.numpy() * NET.gradients(nodes[:, None] * X.numpy())
    integrals = [
        Polynomial.fit(nodes, slope, len(nodes) - 1, domain=[0, 1]).integ()(np.array([0, 1])) for slope in slopes.T
    ]
    return np.abs(np.diff(integrals)[:, 0] - e.weights[0].numpy())


def errors() -> list[Claim]:
    """Errors and losses, each against its definition."""
    masks = explained(lx.kernel_shap(), 30)
    fixed = int(masks.points(0)[0].n_fixed)
    values, weighted = explained(lx.c_lime(0.5), 40), explained(lx.lime(2.0), 60)
    mirrored = explained(noise(lx.SquaredError(), True), 60)
    cases = {
        "C-LIME": (values, refitted(values)),
        "LIME": (weighted, refitted(weighted)),
        "C-LIME, pairs ±ξ": (mirrored, refitted(mirrored, 2)),
        f"KernelSHAP, pairs of masks beside {fixed} enumerated ones": (masks, refitted(masks, 2, fixed)),
    }
    out = []
    for name, (e, (error, loss)) in cases.items():
        out.append(claim(f"{name}: standard errors ÷ those of refits", e, error))
        out.append(Claim(f"{name}: |loss ÷ mean square left out − 1|", abs(float(e.loss[0]) / loss - 1), EXACT))
    sobolev, pairs = explained(noise(SOBOLEV), 100), explained(noise(lx.GradientMatching(), True), 60)
    path = explained(lx.integrated_gradients(rule=lx.GaussLegendre()), 15)
    around = explained(lx.Method("", lx.Multiplicative(lx.ShapleyMasks()), SOBOLEV), 48)
    text, of_these = "standard errors ÷ those of refits without groups", int(around.points(0)[0].n_fixed)
    out.append(claim(f"values and slopes in noise: {text}", sobolev, by_groups(sobolev, np.ones(D))))
    out.append(claim(f"values and slopes on masks: {text}", around, by_groups(around, X.numpy(), 2, of_these)))
    out.append(claim("SmoothGrad, pairs ±ξ: standard errors ÷ those of the pairs' means", pairs, of_pairs(pairs)))
    out.append(
        claim("IG by 15 nodes: error ÷ distance to polynomials on every second", path, by_polynomials(path), 1e-5)
    )
    degrees = {"C-LIME": (values, 40 - D - 1), "KernelSHAP": (masks, (30 - fixed) // 2 - 1)}
    for name, (e, count) in (degrees | {"SmoothGrad, pairs ±ξ": (pairs, 29), "20 groups": (sobolev, 19)}).items():
        half = (e.interval(0.9)[1] - e.weights)[0].numpy() / e.standard_error[0].numpy()
        gap = float(np.abs(half / stats.t.ppf(0.95, count) - 1).max())
        out.append(Claim(f"{name}: |half width of a 90 % interval ÷ (t with {count} degrees × error) − 1|", gap, EXACT))
    return out


def claim(text: str, e: lx.Explanation, error: np.ndarray, bound: float = EXACT) -> Claim:
    return Claim(f"{text}, − 1", float(np.abs(e.standard_error[0].numpy() / error - 1).max()), bound)


def claims() -> list[Claim]:
    return errors()


if __name__ == "__main__":
    main(claims)

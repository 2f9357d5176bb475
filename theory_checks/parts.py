"""What stands around the fit: draws, what the model is asked, and links, each against what it should be.

Distributions by functions whose explanation has a closed form: mean gradients of x_i² x_j know the covariance of
noise, those of Σ x_j² along a path its ends, and the slope of x² knows the mean of lime's weighted table. Groups and
backgrounds are games of their own (Shapley values over all orders). Where a number is drawn the bound is four standard
errors, 1 in 16,000 by chance, and the seed is fixed, so that a claim fails where the code changed. Other bounds are
round-off.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

import locapprox as lx
from theory_checks.axioms import coalitions, shapley
from theory_checks.claims import Claim, main

EXACT, ERRORS = 1e-9, 4.0
X = torch.tensor([[0.8, -0.6, 1.1]], dtype=torch.float64)


def explained(f: object, x: Tensor, method: lx.Method, n: int = 4000, **more: object) -> lx.Explanation:
    return lx.explain(f, x, method, n_samples=n, progress=False, **more)  # type: ignore[arg-type]


def away(text: str, e: lx.Explanation, truth: list[float]) -> Claim:
    """In standard errors."""
    z = (e.weights[0] - torch.tensor(truth, dtype=torch.float64)) / e.standard_error[0]
    return Claim(f"{text}: largest |z|", float(z.abs().max()), ERRORS)


def gap(text: str, found: Tensor | np.ndarray, truth: Tensor | np.ndarray) -> Claim:
    return Claim(f"{text}: difference", float(np.abs(np.asarray(found) - np.asarray(truth)).max()), EXACT)


def noise() -> list[Claim]:
    """E ∇(x₁² x₂ + x₃³) has C₁₁ and C₁₂ and 3 C₃₃ in it."""
    root = np.array([[0.5, 0.0, 0.0], [0.8, 0.3, 0.0], [-0.4, 0.2, 0.6]])
    C, (a, b, c) = root @ root.T, X[0].tolist()
    truth = [2 * (a * b + C[0, 1]), a**2 + C[0, 0], 3 * (c**2 + C[2, 2])]
    method = lx.Method("", lx.Additive(lx.CorrelatedNormal(torch.from_numpy(C))), lx.GradientMatching())
    return [away("Normal(0, C): E ∇(x₁² x₂ + x₃³)", explained(bent, X, method), truth)]


def bent(x: Tensor) -> Tensor:
    return x[..., 0] ** 2 * x[..., 1] + x[..., 2] ** 3


def square(x: Tensor) -> Tensor:
    return (x**2).sum(-1)


def paths() -> list[Claim]:
    """Of t ~ Uniform(low, high) x ⊙ ∇f(t x) = 2 t x² has the mean (low + high) x²."""
    out = []
    for low in (0.0, 0.5):
        method = lx.Method("", lx.Multiplicative(lx.Uniform(low, 1.0)), lx.GradientMatching())
        truth = ((low + 1) * X[0] ** 2).tolist()
        out.append(away(f"t ~ Uniform({low}, 1) on Σ x²: (low + high) x²", explained(square, X, method), truth))
    return out


def tabular() -> list[Claim]:
    """x ~ Normal(μ, s²) with lime's weight exp(−(x − x₀)²/(2 w² s²)) is Normal(m, v), m = (μ + x₀/w²)/(1 + 1/w²).

    There x² has the slope 2m, and 2ms in units of s.
    """
    mean, scale, width = torch.tensor([0.3, 0.1, -0.2]), torch.tensor([0.5, 1.0, 2.0]), 1.2
    out = []
    for around in (False, True):
        centre = X[0] if around else (mean + X[0] / width**2) / (1 + width**-2)
        method = lx.Method("", lx.LimeTabular(mean, scale, width, around), lx.SquaredError())
        text = f"lime's table around {'x₀' if around else 'the mean'}: slopes of Σ x²"
        out.append(away(text, explained(square, X, method, 20_000), (2 * centre * scale).tolist()))
    return out


def sizes() -> list[Claim]:
    """Over seeds, the weight that sampled masks give each size, against d − 1 / (k (d − k))."""
    d, seeds, found = 7, 400, []
    for seed in range(seeds):
        draw = lx.ShapleyMasks().draw(d, 36, torch.Generator().manual_seed(seed), torch.float64)
        inner = draw.weight.isfinite()
        size, weight = draw.xi[inner].sum(1).long(), draw.weight[inner] / draw.weight[inner].sum()
        found.append(torch.zeros(d + 1, dtype=torch.float64).index_add(0, size, weight)[1:d].numpy())
    k = np.arange(1, d)
    kernel = 1 / (k * (d - k))
    gap, error = np.mean(found, 0) - kernel / kernel.sum(), np.std(found, 0) / seeds**0.5
    drawn = error > 1e-12
    text = f"36 of 2⁷ masks, {seeds} seeds: weight of the sizes that are"
    return [
        Claim(f"{text} drawn: largest |z|", np.abs(gap[drawn] / error[drawn]).max(), ERRORS),
        Claim(f"{text} enumerated: difference", np.abs(gap[~drawn]).max(initial=0.0), EXACT),
    ]


def three(x: Tensor) -> Tensor:
    """Three outputs."""
    return torch.stack([x.prod(-1), square(x), x.sum(-1).tanh()], -1)


def only(k: int) -> Callable[[Tensor], Tensor]:
    return lambda x: three(x)[..., k]


def targets() -> list[Claim]:
    """Each instance's own output, as if that were the model."""
    x, chosen = X * torch.tensor([[1.0], [0.5], [-1.0]]), [2, 0, 1]
    out = []
    for method in (lx.kernel_shap(), lx.vanilla_gradients()):
        found = explained(three, x, method, target=chosen).weights
        alone = [explained(only(k), x[i : i + 1], method).weights for i, k in enumerate(chosen)]
        out.append(gap(f"{method.name}, an output for each instance", found, torch.cat(alone)))
    return out


def groups() -> list[Claim]:
    """Features 1 and 3 as one player, or one ξ: the quotient game, and Σ x ∂f over the group."""

    def quotient(z: Tensor) -> Tensor:
        return bent(torch.stack([z[:, 0] * X[0, 0], z[:, 1] * X[0, 1], z[:, 0] * X[0, 2]], -1))

    a, b, c = X[0].tolist()
    by_chain_rule = np.array([2 * a**2 * b + 3 * c**3, a**2 * b])
    product = explained(bent, X, lx.gradient_x_input(features=[0, 1, 0])).weights[0]
    return [
        gap(
            "KernelSHAP, features {1, 3} and {2}: Shapley values of the quotient game",
            explained(bent, X, lx.kernel_shap(features=[0, 1, 0])).weights[0],
            shapley(coalitions(quotient, [1.0, 1.0])),
        ),
        gap("Gradient x Input, features {1, 3} and {2}: Σ x ∂f over each", product, by_chain_rule),
    ]


def between(b: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda z: bent(b + z * (X[0] - b))


def backgrounds() -> list[Claim]:
    """The game that averages f over rows: the mean of the games of each."""
    rows = torch.tensor([[0.2, 0.4, -0.3], [1.0, -1.0, 0.5], [-0.7, 0.1, 0.9]], dtype=torch.float64)
    each = [shapley(coalitions(between(b), [1.0] * 3)) for b in rows]
    found = explained(bent, X, lx.kernel_shap(lx.Background(rows))).weights[0]
    return [gap("KernelSHAP over a background: mean of the Shapley values of its rows", found, np.mean(each, 0))]


def links() -> list[Claim]:
    """f = 1/(1 + exp(−w·x − c)) is in the logistic class: every neighbourhood has its minimum there."""
    w, c = torch.tensor([1.5, -2.0, 0.7], dtype=torch.float64), 0.4

    def f(x: Tensor) -> Tensor:
        return (x @ w + c).sigmoid()

    out = []
    for where, scale in ((lx.Additive(lx.Normal(0.5)), torch.ones(3)), (lx.Multiplicative(lx.AllCoalitions()), X[0])):
        for loss in (lx.SquaredError(), lx.GradientMatching()):
            if isinstance(where, lx.Multiplicative) and loss.gradient:
                continue
            e = explained(f, X, lx.Method("", where, loss, lx.Logistic()), 300)
            text = f"logistic f and g, {loss.name}, {type(where).__name__}: weights − w"
            out.append(Claim(text, float((e.weights[0] - w * scale).abs().max()), 1e-6))
    return out


def claims() -> list[Claim]:
    return [*noise(), *paths(), *tabular(), *sizes(), *targets(), *groups(), *backgrounds(), *links()]


if __name__ == "__main__":
    main(claims)

"""No free lunch (Han et al. 2022, theorem 3): d(f, G) computed, the adversarial neighbourhoods built and measured.

d(f, G) = min over g ∈ G of max over x ∈ X of ℓ(f, g, x), G the affine functions of the input (for gradient matching:
their slopes).

Reading under which the theorem holds: Z₂ may be any distribution of x_ξ on X (additive ξ = x − x₀ reaches all of X) and
an explanation is read as a function of the input, `Explanation.predict`, with the intercept it came with. Then every
g ∈ G has a point of X with ℓ ≥ d, whatever it was fitted on. If Z₂ must keep a multiplicative placement the theorem
fails: what x_ξ = b + (x₀ − b) ⊙ ξ cannot reach is no evidence against g (`literal`).

Stronger, by minimax: one Z* on at most p + 1 points (p free parameters of g) has E ℓ ≥ d for every g. With t = √d the
Chebyshev error, the dual weights λ of the linear programme have Σ λᵢ sᵢ [xᵢ, 1] = 0 (sᵢ the signs of f − g) and
Σ λᵢ sᵢ f(xᵢ) = t, so E_λ (f − g)² ≥ (E_λ |f − g|)² ≥ (Σ λᵢ sᵢ (f − g)(xᵢ))² = t². For gradient matching Z* are the
weights with which the gradients on the smallest enclosing ball average to its centre.
"""

import itertools
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.patches import Circle

import locapprox as lx
from paper_figures.style import COLOURS, save, style
from theory_checks.claims import Claim, main
from theory_checks.minimax import Minimax, ReLU, chebyshev, chebyshev_of_squares, enclosing_ball, grid
from theory_checks.points import Points

LOSSES = {"squared error": lx.SquaredError(), "gradient matching": lx.GradientMatching()}
SHARE = 0.01  # of Z* in Z₂, so that the fit there is determined: E_{Z₂} ℓ ≥ (1 − SHARE) d + SHARE d
TIE = 1e-7  # relative accuracy of the programmes
FINE = 61  # grid points per side, for the tanh network


@dataclass(frozen=True, eq=False)
class Example:
    """The network, the instance, and under each loss: the points that decide, d and Z*."""

    f: ReLU
    x: torch.Tensor
    explanations: dict[str, lx.Explanation]
    points: dict[str, np.ndarray]
    answers: dict[str, np.ndarray]  # f, or its gradient, at these points
    minimax: dict[str, Minimax]

    def losses(self, loss: str, slopes: np.ndarray, intercept: float) -> np.ndarray:
        """ℓ at every point, for g(x) = slopes · x + intercept."""
        if loss == "squared error":
            return (self.answers[loss] - self.points[loss] @ slopes - intercept) ** 2
        return ((self.answers[loss] - slopes) ** 2).sum(1)

    def worst(self, loss: str, e: lx.Explanation) -> np.ndarray:
        """Z₂ of the theorem: a point mass where e is worst, mixed with Z*."""
        slopes, intercept = on_input(e)
        weight = SHARE * self.minimax[loss].weight
        weight[self.losses(loss, slopes, intercept).argmax()] += 1 - SHARE
        return weight

    def column(self, loss: str, weight: np.ndarray) -> lx.Method:
        """A distribution of inputs of X as a neighbourhood of x, and the loss."""
        near = weight > 0
        points = Points(self.points[loss][near] - self.x.numpy(), weight[near])
        return lx.Method("of X", lx.Additive(points), LOSSES[loss])


def on_input(e: lx.Explanation) -> tuple[np.ndarray, float]:
    """An explanation as a function of the input, slopes · x + intercept."""
    at = e.predict(torch.cat([torch.zeros(1, 2), torch.eye(2)])[None].to(e.x))[0].numpy()
    return at[1:] - at[0], float(at[0])


@cache
def example() -> Example:
    rng = np.random.default_rng(1)
    f = ReLU(rng.standard_normal((5, 2)), 0.4 * rng.standard_normal(5), rng.standard_normal(5))
    x = torch.tensor([[0.4, -0.1]], dtype=torch.float64)
    explanations = {name: lx.explain(f.network(), x, method) for name, method in lx.paper_methods().items()}
    gradients, inner = f.regions()
    points = {"squared error": f.vertices(), "gradient matching": inner}
    answers = {"squared error": f(points["squared error"]), "gradient matching": gradients}
    minimax = {
        "squared error": chebyshev(points["squared error"], answers["squared error"]),
        "gradient matching": enclosing_ball(gradients),
    }
    return Example(f, x, explanations, points, answers, minimax)


def boxes(case: Example) -> list[Claim]:
    """d on the box, against a grid with a bound on what lies between its points."""
    n, exact = 81, case.minimax["squared error"]
    least = chebyshev(grid(n), case.f(grid(n)))
    steepest = np.linalg.norm(case.answers["gradient matching"] - least.theta[:2], axis=1).max()
    most = (least.d**0.5 + steepest * 2**0.5 / (n - 1)) ** 2
    rng = np.random.default_rng(0)
    w, c, v = rng.standard_normal((6, 2)), rng.standard_normal(6), rng.standard_normal(6)
    smooth = chebyshev(grid(FINE), np.tanh(grid(FINE) @ w.T + c) @ v)
    curvature = 4 / 27**0.5 * (np.abs(v)[:, None] * w**2).sum()  # |tanh''| ≤ 4/√27; Σ_j max |∂²f/∂x_j²|
    slack = (2 / (FINE - 1)) ** 2 / 8 * curvature  # of interpolation between grid points, linear in each variable
    inside = rng.uniform(-1, 1, (20_000, 2))
    gap = np.abs(np.tanh(inside @ w.T + c) @ v - inside @ smooth.theta[:2] - smooth.theta[2]).max()
    inner, at_edges = case.f.crossings()
    count = 1 + len(at_edges) / 2 + len(inner)  # a line that crosses the box meets its edges twice
    anywhere = torch.from_numpy(rng.uniform(-1, 1, (2_000, 2)))
    seen = lx.explain(case.f.network(), anywhere, lx.vanilla_gradients()).weights.numpy()
    strange = np.linalg.norm(seen[:, None] - case.answers["gradient matching"], axis=2).min(1).max()
    return [
        Claim("ReLU network on a box, squared error: d from the vertices ≥ d on a grid", exact.d, least.d, ">="),
        Claim("ReLU network on a box, squared error: d from the vertices ≤ grid + Lipschitz bound", exact.d, most),
        Claim("tanh network on a box: √d is known to within (grid h²/8 Σ|∂²f|)/√d", slack / smooth.d**0.5, 0.01),
        Claim("tanh network on a box: |f − g| at 20,000 points ≤ √d on the grid + bound", gap, smooth.d**0.5 + slack),
        Claim(
            "ReLU regions in the box: activation patterns found by LP − (1 + lines + crossings)",
            abs(len(case.answers["gradient matching"]) - count),
            0,
        ),
        Claim("ReLU regions: distance of 2,000 Vanilla Gradients to the gradients enumerated", float(strange), 1e-12),
    ]


def finite() -> list[Claim]:
    """f = x₁x₂ on {0, 1}²: t = |f₀₀ − f₀₁ − f₁₀ + f₁₁| / 4, and Z* is the uniform distribution on all coalitions."""
    points = np.array(list(itertools.product((0.0, 1.0), repeat=2)))
    found = chebyshev(points, points.prod(1))
    where = lx.Multiplicative(lx.AllCoalitions())
    e = lx.explain(lambda x: x.prod(1), torch.ones(1, 2).double(), lx.Method("Z*", where, lx.SquaredError()))
    return [
        Claim("x₁x₂ on {0, 1}²: |d − 1/16| (linear programme)", abs(found.d - 1 / 16), 1e-12),
        Claim("x₁x₂ on {0, 1}²: Z* is uniform, largest |weight − 1/4|", np.abs(found.weight - 0.25).max(), 1e-12),
        Claim("x₁x₂ on {0, 1}²: |loss of the best fit on all coalitions − d|", abs(float(e.loss) - 1 / 16), 1e-12),
    ]


def theorem(case: Example) -> list[Claim]:
    """Every explanation, on the neighbourhood that the theorem builds against it, under its own loss.

    That its error there is d at least is no claim: by the definition of d it is so for every g (max ≥ min max).
    """
    gaps = []
    for name, e in case.explanations.items():
        loss = own_loss(name)
        weight = case.worst(loss, e)
        error = measured(case, loss, {name: e}, weight, "fitted")[0]
        gaps.append(abs(error / (weight @ case.losses(loss, *on_input(e))) - 1))
    out = [Claim("errors on the adversaries Z₂, engine against by hand: largest relative gap", max(gaps), 1e-9)]
    exact = [lx.vanilla_gradients(), lx.gradient_x_input(), lx.occlusion()]
    frame = lx.faithfulness(case.f.network(), case.x, exact, exact, intercept="fitted").table
    own = float(frame[frame["method"] == frame["neighbourhood"]]["error"].max())
    text = "Vanilla Gradients, Gradient x Input, Occlusion have ε = 0 on their own neighbourhoods (largest error)"
    return [*out, Claim(text, own, 1e-20)]


def own_loss(name: str) -> str:
    return lx.paper_methods()[name].loss.name


def measured(
    case: Example, loss: str, explanations: dict[str, lx.Explanation], weight: np.ndarray, intercept: str
) -> tuple[float, float]:
    """Least error of the explanations on a distribution of inputs, and the optimum there, by the engine."""
    where = {"Z": case.column(loss, weight)}
    frame = lx.faithfulness(case.f.network(), case.x, explanations, where, intercept=intercept).table  # type: ignore[arg-type]
    return float(frame["error"].min()), float(frame["optimum"].min())


def one_for_all(case: Example) -> list[Claim]:
    """One Z* against every g."""
    out, rng = [], np.random.default_rng(1)
    for loss, found in case.minimax.items():
        d, weight, p = found.d, found.weight, 3 if loss == "squared error" else 2
        slopes, intercept = found.theta[:2], float(found.theta[-1])
        most = case.losses(loss, slopes, intercept).max()
        scales = 10.0 ** rng.uniform(-4, 1, 1_000)
        others = [(slopes + s * rng.standard_normal(2), intercept + s * rng.standard_normal()) for s in scales]
        random = min(weight @ case.losses(loss, *g) for g in others)
        fitted = lx.explain(case.f.network(), case.x, case.column(loss, weight))
        best = on_input(fitted)
        least, optimum = measured(case, loss, case.explanations, weight, "refitted")
        out += [
            Claim(f"{loss}: certificate |max over X of ℓ(f, g) at the minimax g − d| / d", abs(most / d - 1), TIE),
            Claim(f"{loss}: points of Z* ≤ p + 1, p = {p}", len(found.atoms), p + 1),
            Claim(f"{loss}: least E ℓ over 1,000 random g on Z* ≥ d", random, d * (1 - TIE), ">="),
            Claim(f"{loss}: least error of the eight on Z*, intercept refitted ≥ d", least, d * (1 - TIE), ">="),
            Claim(f"{loss}: the best fit on Z* has loss d, |loss − d| / d", abs(float(fitted.loss) / d - 1), TIE),
            Claim(f"{loss}: the optimum of column Z* is d, |optimum − d| / d", abs(optimum / d - 1), TIE),
            Claim(f"{loss}: the best fit on Z* is the minimax g, |Δ slopes|", np.abs(best[0] - slopes).max(), 1e-5),
        ]
    squares = chebyshev_of_squares(case.points["squared error"], case.answers["squared error"])
    gap = np.abs(squares.weight - case.minimax["squared error"].weight).max()
    out.append(Claim("squared error: Z* of the programme in squares − that of the linear programme", gap, 1e-5))
    return out


def literal() -> list[Claim]:
    """f = x₁ + x₂², x₀ = (1, 0), b = 0: theorem 3 if Z₂ keeps the multiplicative placement, and if it need not."""

    def f(x: torch.Tensor) -> torch.Tensor:
        return x[:, 0] + x[:, 1] ** 2

    x, points = torch.tensor([[1.0, 0.0]]).double(), grid(21)
    found = chebyshev(points, points[:, 0] + points[:, 1] ** 2)  # the box's d: g = x₁ + 1/2 errs by 1/2 at most
    names = ("LIME", "KernelSHAP", "Occlusion", "Gradient x Input", "Integrated Gradients")
    methods = {name: lx.paper_methods()[name] for name in names}
    kept = lx.Multiplicative(Points(points, np.ones(len(points))))
    errors = lx.faithfulness(f, x, methods, {"multiplicative": kept}, intercept="fitted").table["error"]
    inputs, answers = torch.from_numpy(points), f(torch.from_numpy(points))
    surrogates = [lx.explain(f, x, method).predict(inputs[None])[0] for method in methods.values()]
    worst = [float((answers - g).square().max()) for g in surrogates]
    return [
        Claim("f = x₁ + x₂² on [−1, 1]²: |d − 1/4|", abs(found.d - 0.25), 1e-12),
        Claim(
            "f = x₁ + x₂², x₀ = (1, 0), b = 0, Z₂ kept multiplicative: largest error of the five maskers and paths "
            "(below d: the literal theorem fails)",
            errors.max(),
            1e-20,
        ),
        Claim("the same five with Z₂ anywhere in X: least of their largest errors ≥ d = 1/4", min(worst), 0.25, ">="),
    ]


def claims() -> list[Claim]:
    case = example()
    return [*finite(), *boxes(case), *theorem(case), *one_for_all(case), *literal()]


def figure(folder: Path) -> Path:
    """No free lunch, for a ReLU network on the box X = [−1, 1]². Left: f, its kinks, the instance and the points of Z*
    under squared error (area: probability; colour: sign of f − g for the minimax g). Middle: the gradients of all
    linear regions, the smallest ball around them (radius √d) and the points of Z* under gradient matching. Right: every
    explanation's error, under its own loss and as a multiple of d, on the neighbourhood built against it (theorem 3)
    and on the one Z* that is bad for all.
    """
    case = example()
    with style():
        plot, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.4))
        values, gradients = case.minimax["squared error"], case.minimax["gradient matching"]
        fine, axis = grid(201), np.linspace(-1, 1, 201)
        shades = left.contourf(axis, axis, case.f(fine).reshape(201, 201), 20, cmap="Greys", alpha=0.7)
        plot.colorbar(shades, ax=left, label="f")
        for w, c in zip(case.f.W, case.f.c, strict=True):
            left.contour(axis, axis, (fine @ w + c).reshape(201, 201), [0], colors="0.3", linewidths=0.7)
        at = case.points["squared error"][values.atoms]
        signs = case.answers["squared error"][values.atoms] - np.c_[at, np.ones(len(at))] @ values.theta
        colours, areas = np.where(signs > 0, "#b2182b", "#2166ac"), 500 * values.weight[values.atoms]
        left.scatter(*at.T, s=areas, c=colours, clip_on=False, zorder=3)
        left.scatter(*case.x.numpy().T, marker="*", s=90, color="k", zorder=3)
        left.annotate("$x_0$", case.x[0].tolist(), xytext=(6, 4), textcoords="offset points")
        left.set(title="Z* under squared error", xlabel="$x_1$", ylabel="$x_2$", xlim=(-1, 1), ylim=(-1, 1))
        slopes = case.answers["gradient matching"]
        middle.add_patch(Circle(tuple(gradients.theta), gradients.d**0.5, fill=False, color="0.4"))
        middle.scatter(*slopes.T, s=12, color="0.5")
        atoms = gradients.atoms
        middle.scatter(*slopes[atoms].T, s=500 * gradients.weight[atoms], color="#b2182b", alpha=0.8)
        middle.scatter(*gradients.theta, marker="+", color="k")
        middle.set(title="Z* under gradient matching", xlabel=r"$\partial f/\partial x_1$")
        middle.set(ylabel=r"$\partial f/\partial x_2$", aspect="equal")
        for row, (name, e) in enumerate(case.explanations.items()):
            loss = own_loss(name)
            d, share = case.minimax[loss].d, case.minimax[loss].weight
            against = measured(case, loss, {name: e}, case.worst(loss, e), "fitted")[0] / d
            common = measured(case, loss, {name: e}, share, "refitted")[0] / d
            right.plot([against, common], [row, row], color="0.8", zorder=0)
            right.scatter(against, row, color=COLOURS[name], label="against it" if row == 0 else None)
            right.scatter(common, row, facecolor="w", edgecolor=COLOURS[name], label="Z*" if row == 0 else None)
        right.axvline(1, color="k", linewidth=0.8)
        right.set_yticks(range(len(case.explanations)), list(case.explanations))
        right.set(xlabel="error / d", xlim=(0, None), title="Error of every explanation")
        right.legend(fontsize=7)
        return save(plot, folder / "no_free_lunch_minimax")


if __name__ == "__main__":
    main(claims)

"""Axioms of attributions, by enumeration (Shapley 1953; Sundararajan et al. 2017 for completeness).

The game of f at x₀ with baseline b is v(S) = f(x₀ on S, b elsewhere). Efficiency: Σ w = v(all) − v(∅), for Integrated
Gradients called completeness. Symmetry: features that every coalition gains equally from weigh the same. Dummy: a
feature that no coalition gains from weighs 0. Additivity: w(f + g) = w(f) + w(g).

Every game of 4 players is a combination of the 15 unanimity games v_T(S) = [T ⊆ S], in one way, so for a method that is
linear in f efficiency and dummy hold on all games if on those, and symmetry if also on sums of two. As a function, v_T
is the product of the inputs in T at x₀ = 1 with b = 0.

Read on the game, the axioms ask for nothing between b and x₀; whoever differentiates breaks them by what f does there.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from matplotlib import pyplot as plt

import locapprox as lx
from paper_figures.style import FAMILIES, SEQUENTIAL, number, save, style
from theory_checks.claims import Claim, main

Model = Callable[[torch.Tensor], torch.Tensor]
PLAYERS = 4
TEAMS = [T for size in range(1, PLAYERS + 1) for T in itertools.combinations(range(PLAYERS), size)]
EXACT = 1e-10
AXIOMS = ("efficiency", "symmetry", "dummy")
P = [1 / (1 + np.exp(-(gap**2))) for gap in (1, 2)]  # LIME, width 1: probability that a feature at distance 1, 2 stays


def methods() -> dict[str, lx.Method]:
    """The eight, LIME with all masks instead of sampled ones."""
    where = lx.Multiplicative(lx.AllCoalitions(), kernel=lx.ExponentialKernel(1.0))
    return lx.paper_methods() | {"LIME": lx.Method("LIME", where, lx.SquaredError())}


def weights(f: Model, x: list[float], method: lx.Method) -> np.ndarray:
    return lx.explain(f, torch.tensor([x], dtype=torch.float64), method).weights[0].numpy()


def games() -> dict[str, Model]:
    """The unanimity games and all sums of two, as functions with x₀ = 1 and b = 0."""
    single = {str(T): product(T) for T in TEAMS}
    pairs = itertools.combinations(single, 2)
    return single | {f"{a}+{b}": lambda x, a=a, b=b: single[a](x) + single[b](x) for a, b in pairs}


def product(team: tuple[int, ...]) -> Model:
    return lambda x: x[:, list(team)].prod(1)


def coalitions(f: Model, x: list[float]) -> dict[frozenset[int], float]:
    """v(S) for every coalition, one model call each."""
    players = range(len(x))
    sets = [frozenset(S) for size in range(len(x) + 1) for S in itertools.combinations(players, size)]
    at = [[x[i] if i in S else 0.0 for i in players] for S in sets]
    return {S: float(f(torch.tensor([row], dtype=torch.float64))[0]) for S, row in zip(sets, at, strict=True)}


def shapley(v: dict[frozenset[int], float]) -> np.ndarray:
    """The mean marginal contribution over all orders of the players."""
    players = range(len(max(v, key=len)))
    orders = list(itertools.permutations(players))
    value = np.zeros(len(players))
    for order in orders:
        for at, i in enumerate(order):
            value[i] += v[frozenset(order[: at + 1])] - v[frozenset(order[:at])]
    return value / len(orders)


def violations(w: np.ndarray, v: dict[frozenset[int], float]) -> dict[str, float]:
    """How far w is from each axiom in the game v; 0 for an axiom that asks for nothing there."""
    everyone = max(v, key=len)
    gains = {i: np.array([v[S | {i}] - v[S] for S in v if i not in S]) for i in everyone}
    alike = [
        abs(w[i] - w[j])
        for i, j in itertools.combinations(everyone, 2)
        if all(abs(v[S | {i}] - v[S | {j}]) < EXACT for S in v if not S & {i, j})
    ]
    return {
        "efficiency": abs(w.sum() - v[everyone] + v[frozenset()]),
        "symmetry": max(alike, default=0.0),
        "dummy": max((abs(w[i]) for i in everyone if np.abs(gains[i]).max() < EXACT), default=0.0),
    }


@dataclass(frozen=True)
class Smallest:
    """f with the fewest features on which methods break an axiom, and by how much."""

    axiom: str
    formula: str
    f: Model
    x: list[float]
    broken_by: dict[str, float]


LOCAL = ("Vanilla Gradients", "SmoothGrad", "C-LIME")


def examples() -> list[Smallest]:
    """With one feature, LIME and Occlusion are exact and Integrated Gradients is complete: they need two.

    Kinks are 5σ from x₀, farther than any of the draws reaches, so the local methods see a line.
    """
    by_hat = dict.fromkeys((*LOCAL, "Gradient x Input"), 1.0)
    return [
        Smallest("efficiency", "x₁x₂ at (1, 1)", product((0, 1)), [1, 1], {"LIME": 2 * P[0] - 1, "Occlusion": 1.0}),
        Smallest("efficiency", "x at 2", lambda x: x[:, 0], [2], dict.fromkeys(LOCAL, 1.0)),
        Smallest("efficiency", "x² at 1", lambda x: x[:, 0] ** 2, [1], {"Gradient x Input": 1.0}),
        Smallest("symmetry", "x₁x₂/2 at (1, 2)", lambda x: x.prod(1) / 2, [1, 2], {"LIME": P[1] - P[0]}),
        Smallest("symmetry", "x₁ + x₂/2 at (1, 2)", lambda x: x[:, 0] + x[:, 1] / 2, [1, 2], dict.fromkeys(LOCAL, 0.5)),
        Smallest("symmetry", "x₁(1 − x₁)x₂ at (1, 1)", bump, [1, 1], {"Integrated Gradients": 1 / 3}),
        Smallest("symmetry", "x₁(1 − x₁)x₂ at (1, 1)", bump, [1, 1], {"Gradient x Input": 1.0}),
        Smallest("dummy", "|x − 1/2| at 1", lambda x: (x[:, 0] - 0.5).abs(), [1], by_hat),
        Smallest("dummy", "x₁(1 − x₁)x₂ at (1, 1)", bump, [1, 1], {"Integrated Gradients": 1 / 6}),
    ]


def bump(x: torch.Tensor) -> torch.Tensor:
    """0 for every coalition, but not between them."""
    return x[:, 0] * (1 - x[:, 0]) * x[:, 1]


@cache
def on_games() -> dict[tuple[str, str], float]:
    """The largest violation of each axiom (and distance to the Shapley values) by the masking methods, at x₀ = 1."""
    x = [1.0] * PLAYERS
    worst: dict[tuple[str, str], float] = defaultdict(float)
    for f in games().values():
        v = coalitions(f, x)
        for name in FAMILIES["mask"]:
            w = weights(f, x, methods()[name])
            for axiom, size in {**violations(w, v), "oracle": np.abs(w - shapley(v)).max()}.items():
                worst[name, axiom] = max(worst[name, axiom], float(size))
    return dict(worst)


def mixed() -> list[Model]:
    """Functions of two features that are no sums, and two that have one feature each."""
    return [lambda x: x[:, 0], lambda x: 0.6 * x[:, 1], bump, product((0, 1)), lambda x: x.sum(1).tanh()]


def additivity(method: lx.Method, parts: list[Model], x: tuple[float, ...] = (1.0, 2.0)) -> float:
    """Largest |w(f + g) − w(f) − w(g)| over the pairs of some functions."""

    def gap(f: Model, g: Model) -> float:
        both, one, other = (weights(h, list(x), method) for h in (lambda z: f(z) + g(z), f, g))
        return float(np.abs(both - one - other).max())

    return max(gap(f, g) for f, g in itertools.combinations(parts, 2))


def one_feature(name: str) -> float:
    """The largest efficiency gap over x, x², …, x⁶ and tanh x at x₀ = 2, where there is nothing to share."""
    powers: list[Model] = [lambda x, k=k: x[:, 0] ** k for k in range(1, 7)]  # type: ignore[misc]
    return max(
        violations(weights(f, [2.0], methods()[name]), coalitions(f, [2.0]))["efficiency"]
        for f in (*powers, lambda x: x[:, 0].tanh())
    )


def completeness() -> float:
    """Integrated Gradients: the largest |Σ w − f(x₀) + f(b)| of 50 instances of a tanh network, b ≠ 0."""
    rng = torch.Generator().manual_seed(0)
    first, second, base = (torch.randn(*s, generator=rng, dtype=torch.float64) for s in ((6, 8), (8,), (6,)))

    def f(x: torch.Tensor) -> torch.Tensor:
        return (x @ first).tanh() @ second

    x = torch.randn(50, 6, generator=rng, dtype=torch.float64)
    e = lx.explain(f, x, lx.integrated_gradients(baseline=base, rule=lx.GaussLegendre()), n_samples=300)
    return float((e.weights.sum(1) - f(x) + f(base[None])).abs().max())


def enumerated() -> list[Claim]:
    """What holds on every game."""
    found, count = on_games(), len(games())
    holding = [("KernelSHAP", axiom) for axiom in AXIOMS]
    holding += [(name, axiom) for name in ("LIME", "Occlusion") for axiom in ("symmetry", "dummy")]
    out = [
        Claim(f"{name}, {axiom}: largest violation in {count} games with |x₀ − b| equal", found[name, axiom], EXACT)
        for name, axiom in holding
    ]
    distance = found["KernelSHAP", "oracle"]
    return [*out, Claim(f"KernelSHAP, {count} games: distance to the mean gain over all orders", distance, EXACT)]


def on_functions() -> list[Claim]:
    """What holds for every f."""
    out = [Claim("Integrated Gradients, completeness: tanh network, 50 instances", completeness(), EXACT)]
    out += [
        Claim(f"{name}, efficiency: holds with one feature", one_feature(name), EXACT) for name in ("LIME", "Occlusion")
    ]
    return out + [
        Claim(f"{name}, additivity: holds (its fit is linear in f)", additivity(method, mixed()), EXACT)
        for name, method in methods().items()
    ]


def broken() -> list[Claim]:
    """The smallest example of each violation, against its closed form."""
    sparse = lx.Method("sparse", lx.Multiplicative(lx.AllCoalitions()), lx.SquaredError(), lx.Sparse(1))
    gap = abs(additivity(sparse, mixed()[:2], (1.0, 1.0)) - 0.6)
    out = [Claim("a Sparse(1) surrogate breaks additivity by 0.6 on x₁ and 0.6 x₂ at (1, 1)", gap, EXACT)]
    for example in examples():
        for name, size in example.broken_by.items():
            gap = abs(violation(example, name) - size)
            out.append(Claim(f"{name} breaks {example.axiom} by {size:.4g} on {example.formula}", gap, EXACT))
    return out


def claims() -> list[Claim]:
    return [*enumerated(), *on_functions(), *broken()]


def violation(example: Smallest, name: str) -> float:
    w = weights(example.f, example.x, methods()[name])
    return violations(w, coalitions(example.f, example.x))[example.axiom]


def figure(folder: Path) -> Path:
    """How far each explanation is from each axiom, read on the game of keeping and removing features: the largest
    violation over the smallest examples and 120 games of four players (0: none found).
    """
    names = [name for family in FAMILIES.values() for name in family]
    columns = [*AXIOMS, "additivity"]
    table = np.zeros((len(names), len(columns)))
    for i, name in enumerate(names):
        table[i, -1] = additivity(methods()[name], mixed())
        for j, axiom in enumerate(AXIOMS):
            sizes = [violation(e, name) for e in examples() if e.axiom == axiom]
            table[i, j] = max(*sizes, on_games().get((name, axiom), 0.0))
    table[table < EXACT] = 0
    with style():
        plot, ax = plt.subplots(figsize=(4.4, 3.6))
        ax.imshow(table, cmap=SEQUENTIAL, aspect="auto", vmin=0, vmax=1)
        for (i, j), value in np.ndenumerate(table):
            ax.text(j, i, number(value), ha="center", va="center", color="k" if value > 0.6 else "w")
        ax.set_xticks(range(len(columns)), columns)
        ax.set_yticks(range(len(names)), names)
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
        ax.set_title("Largest violation found")
        return save(plot, folder / "axioms")


if __name__ == "__main__":
    main(claims)

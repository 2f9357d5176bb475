"""Definition 2 of Han, Srinivas and Lakkaraju (2022): does a method recover f when f is in the surrogate class?

For linear f = w · x + c: additive methods give w, multiplicative ones w ⊙ (x₀ − b), since their g is a function of ξ.
Read as functions of the input all eight are f. On a binary domain only the three that evaluate f on masks see f there
alone, if masks reach all of it: at the paper's own b = 0 they are blind to every feature with x₀_j = 0, so what it says
holds for x₀ = 1 or b = 1 − x₀. The others depend on how f is continued off the domain. On {0, 1, 2}ᵈ the others leave
the domain and the masks reach too few points: their weights are not w, and where x₀ has a 0 they are blind. A
neighbourhood designed for the domain recovers f.
`properties` has the paper's table.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

import locapprox as lx
from theory_checks.claims import Claim, main

ADDITIVE = ("C-LIME", "SmoothGrad", "Vanilla Gradients")
PATHS = ("Integrated Gradients", "Gradient x Input")
MASKS = ("LIME", "KernelSHAP", "Occlusion")
D = 4
SLOPES = torch.tensor([1.5, -2.0, 0.7, 3.0], dtype=torch.float64)
CONSTANT = 0.4
SCALE = torch.arange(1.0, D + 1, dtype=torch.float64)


def linear(x: torch.Tensor) -> torch.Tensor:
    return x @ SLOPES + CONSTANT


def bent(x: torch.Tensor) -> torch.Tensor:
    """Equals `linear` where all x_i are 0 or 1, and nowhere else near."""
    return linear(x) + (SCALE * x * (1 - x)).sum(-1)


def wavy(x: torch.Tensor) -> torch.Tensor:
    """Equals `linear` where all x_i are whole numbers; each term pairs two features: no path averages it out."""
    return linear(x) + (SCALE * torch.sin(np.pi * x) * x.roll(-1, -1).square()).sum(-1)


def product(x: torch.Tensor) -> torch.Tensor:
    return x[..., 0] * x[..., 1]


def explained(f: object, x: torch.Tensor, base: torch.Tensor | float = 0.0) -> dict[str, lx.Explanation]:
    """The eight explanations of one instance."""
    methods = [lx.c_lime(), lx.smoothgrad(), lx.vanilla_gradients(), lx.integrated_gradients(base)]
    methods += [lx.gradient_x_input(base), lx.lime(2.0, base), lx.kernel_shap(base), lx.occlusion(base)]
    return {method.name: lx.explain(f, x[None], method, n_samples=200, progress=False) for method in methods}


def away(e: lx.Explanation, weights: torch.Tensor) -> float:
    return float((e.weights[0] - weights).abs().max())


@dataclass(frozen=True)
class OnDomain:
    """x_ξ = x₀ + ξ is uniform on {0, …, levels − 1}ᵈ, for x₀ in it: f is asked nowhere else."""

    levels: int

    def draw(self, x: torch.Tensor, n: int, rng: torch.Generator) -> lx.Draw:
        at = torch.randint(0, self.levels, (len(x), n, x.shape[1]), generator=rng).to(x)
        return lx.Draw(at - x[:, None], torch.ones(len(x), n, dtype=torch.float64))

    def place(self, x: torch.Tensor, xi: torch.Tensor) -> torch.Tensor:
        return x[:, None] + xi


def on_linear() -> list[Claim]:
    """Continuous domain."""
    rng = torch.Generator().manual_seed(4)
    x, base, elsewhere = (torch.randn(*s, D, generator=rng, dtype=torch.float64) for s in ((), (), (50,)))
    out = []
    for name, e in explained(linear, x, base).items():
        expected, text = (SLOPES, "w") if name in ADDITIVE else (SLOPES * (x - base), "w ⊙ (x₀ − b)")
        out.append(Claim(f"f = w·x + c: {name} − {text} (definition 2)", away(e, expected), 1e-10))
        gap = float((e.predict(elsewhere[None])[0] - linear(elsewhere)).abs().max())
        out.append(Claim(f"f = w·x + c: {name} as a function of the input − f, 50 points", gap, 1e-9))
    return out


def on_binary() -> list[Claim]:
    """Domain {0, 1}ᵈ with b = 1 − x₀, so that masks reach all of it: w ⊙ (x₀ − b) is w up to known signs."""
    x = torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    sign = 2 * x - 1
    exact, other = explained(linear, x, 1 - x), explained(bent, x, 1 - x)
    out = []
    for name, e in other.items():
        if name in MASKS:
            gap = max(away(each[name], SLOPES * sign) for each in (exact, other))
            out.append(Claim(f"binary domain: {name} − (±w), however f is continued", gap, 1e-10))
        else:
            scale = 1.0 if name in ADDITIVE else sign
            gap = away(e, SLOPES * scale)
            if name == "Integrated Gradients":  # the path's ends are in the domain, and this f is a sum over features
                out.append(Claim(f"binary domain, f + Σ i x_i(1 − x_i): {name} − (±w)", gap, 1e-10))
            else:
                out.append(Claim(f"binary domain, f + Σ i x_i(1 − x_i): {name} − (±w)", gap, 0.9, ">="))
    crossed = lx.explain(wavy, x[None], lx.integrated_gradients(1 - x), n_samples=60, progress=False)
    out.append(
        Claim("binary domain, f + a term that pairs features: IG − (±w)", away(crossed, SLOPES * sign), 0.1, ">=")
    )
    return out


def counter_examples() -> list[Claim]:
    """What masks cannot see."""
    x = torch.tensor([0.5, 2.0, 1.25, 0.8], dtype=torch.float64)
    n = torch.tensor([1.0, 2.0, 3.0, 2.0], dtype=torch.float64)
    w = n * np.pi / x  # sin(w_i x_i) is 0 at 0 and at x₀, with |w_i| ≥ π / x₀_i
    waves = explained(lambda at: torch.sin(w * at).sum(-1), x)
    powers = torch.tensor([3.0, 2.0, 1.0, 1.0], dtype=torch.float64)
    pair = x[0] * x[1]
    twin = explained(lambda at: pair * ((at / x) ** powers)[..., :2].prod(-1), x)
    out = []
    for name in MASKS:
        out.append(
            Claim(
                f"f = Σ sin(w_i x_i), w_i = n_i π/x₀_i: largest weight of {name} (remark)",
                away(waves[name], 0 * x),
                1e-12,
            )
        )
    slope = waves["Vanilla Gradients"]
    out.append(Claim("f = Σ sin(w_i x_i): gradient − w_i cos(n_i π)", away(slope, w * torch.cos(n * np.pi)), 1e-10))
    both = torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    seen = explained(product, x)
    # LIME as a limit: all masks, no kernel, where the sample drawn plays no part
    fair = lx.Method("LIME", lx.Multiplicative(lx.AllCoalitions()), lx.SquaredError())
    seen["LIME"] = lx.explain(product, x[None], fair, progress=False)
    for name, share, text in (("LIME", 0.5, "half"), ("KernelSHAP", 0.5, "half"), ("Occlusion", 1.0, "all")):
        gap = away(seen[name], share * pair * both)
        what = "LIME (all masks, no kernel)" if name == "LIME" else name
        out.append(Claim(f"f = x₁x₂: {what} − {text} of f(x₀) to each", gap, 1e-10))
    plain = explained(product, x)
    same = max(away(twin[name], plain[name].weights[0]) for name in MASKS)
    out.append(Claim("f = x₁x₂ and x₀₁x₀₂(x₁/x₀₁)³(x₂/x₀₂)²: masks explain both alike", same, 1e-10))
    apart = away(twin["Vanilla Gradients"], plain["Vanilla Gradients"].weights[0])
    out.append(Claim("… while their gradients at x₀ = (0.5, 2, …) differ by", apart, 1.0, ">="))
    return out


def on_discrete() -> list[Claim]:
    """Domain {0, 1, 2}ᵈ, x₀ with a 0, baseline 0: recovered if the surrogate equals f on all 3ᵈ points."""
    domain = torch.tensor(list(itertools.product((0.0, 1.0, 2.0), repeat=D)), dtype=torch.float64)
    x = torch.tensor([2.0, 1.0, 0.0, 2.0], dtype=torch.float64)
    out = []
    for name, e in explained(wavy, x).items():
        gap = float((e.predict(domain[None])[0] - linear(domain)).abs().max())
        where = f"f = w·x + c on {{0, 1, 2}}⁴, known there alone: {name} is off f"
        if name in MASKS:  # by what feature 3 adds, which they cannot see: x₀₃ = 0
            out.append(Claim(f"{where} by 2|w₃| = 1.4: difference", abs(gap - 2 * abs(float(SLOPES[2]))), 1e-9))
        else:
            out.append(Claim(f"{where} by", gap, 5.0, ">="))
    designed = lx.explain(
        wavy, x[None], lx.Method("own", OnDomain(3), lx.SquaredError()), n_samples=100, progress=False
    )
    out.append(Claim("… and a neighbourhood on the domain: weights − w", away(designed, SLOPES), 1e-10))
    made = designed.intercept[0] + (domain - x) @ designed.weights[0]
    out.append(Claim("… its surrogate − f on all 81 points", float((made - linear(domain)).abs().max()), 1e-10))
    return out


FULL, HOLE = torch.tensor([[2.0, 1.0, 1.0, 2.0], [2.0, 1.0, 0.0, 2.0]], dtype=torch.float64)
EIGHT = (*ADDITIVE, *PATHS, *MASKS)
TABLE: dict[str, tuple[Sequence[str], Sequence[str]]] = {  # setting -> methods that recover f: the paper's, and here
    "continuous: w": (ADDITIVE, ADDITIVE),
    "continuous": (ADDITIVE, EIGHT),
    "binary, x₀ = 1": (MASKS, MASKS),
    "binary, a 0 in x₀": (MASKS, ()),
    "binary, b = 1 − x₀": (MASKS, MASKS),
    "{0, 1, 2}ᵈ, no 0 in x₀": ((), MASKS),
    "{0, 1, 2}ᵈ, a 0 in x₀": ((), ()),
}


def properties() -> pd.DataFrame:
    """The paper's table, method × setting: how far an explanation is from f = w · x + c on the domain, at most.

    First by its weights − w, then as a function of the input, b = 0 but where it is said; f is known on the domain
    alone (`wavy`).
    """
    line, base, *points = torch.randn(52, D, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    exact, ones, hole = explained(linear, line, base), FULL.clamp(max=1), HOLE.clamp(max=1)
    columns = [{name: away(e, SLOPES) for name, e in exact.items()}]
    columns += [{name: apart(e, torch.stack(points)) for name, e in exact.items()}]
    for x, b, levels in ((ones, 0.0, 2), (hole, 0.0, 2), (hole, 1 - hole, 2), (FULL, 0.0, 3), (HOLE, 0.0, 3)):
        domain = torch.tensor(list(itertools.product(range(levels), repeat=D)), dtype=torch.float64)
        columns.append({name: apart(e, domain) for name, e in explained(wavy, x, b).items()})
    return pd.DataFrame(dict(zip(TABLE, columns, strict=True))).loc[list(EIGHT)]


def apart(e: lx.Explanation, points: torch.Tensor) -> float:
    """|g − f| at the worst of some points."""
    return float((e.predict(points[None])[0] - linear(points)).abs().max())


def on_properties() -> list[Claim]:
    """Who recovers f in which setting; in three of the seven these are not the paper's."""
    table, out = properties(), []
    for setting, (said, recover) in TABLE.items():
        yes = table.index.isin(list(recover))
        text = "as the paper says" if set(said) == set(recover) else "not as the paper says"
        if yes.any():
            most = table[setting][yes].max()
            out.append(Claim(f"{setting}: largest gap to f of the {yes.sum()} that recover ({text})", most, 1e-9))
        if not yes.all():
            least = table[setting][~yes].min()
            out.append(Claim(f"{setting}: least gap to f of the {8 - yes.sum()} others ({text})", least, 0.5, ">="))
    blind = table.loc[list(MASKS), "binary, a 0 in x₀"]
    gap = (blind - float(SLOPES[HOLE == 0].abs())).abs().max()
    return [*out, Claim("binary, x₀₃ = 0: LIME, KernelSHAP and Occlusion are off f by |w₃|: difference", gap, 1e-9)]


def claims() -> list[Claim]:
    return on_linear() + on_binary() + counter_examples() + on_discrete() + on_properties()


if __name__ == "__main__":
    main(claims)

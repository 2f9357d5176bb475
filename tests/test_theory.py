"""Theory checks of explanations (instances, rates, stein, recovery): claims hold, and fail if the engine is broken."""

import inspect
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import locapprox as lx
from locapprox.fit import quadratic, surrogates
from locapprox.models.scores import Scores
from locapprox.neighbourhoods import masks, quadratures
from theory_checks import instances, rates, recovery, stein
from theory_checks.claims import Claim, main, table

FILES = {"instances": instances, "rates": rates, "stein": stein, "recovery": recovery}
COUNT = {"instances": 24, "rates": 17, "stein": 14, "recovery": 56}


def forget():
    for module in FILES.values():
        for _, kept in inspect.getmembers(module, lambda f: hasattr(f, "cache_clear")):
            kept.cache_clear()


@pytest.fixture
def fresh():
    """No numbers kept from or for other tests."""
    forget()
    yield
    forget()


@pytest.mark.parametrize("name", FILES)
def test_every_claim_holds(name, fresh):
    claims = FILES[name].claims()
    assert len(claims) == COUNT[name]
    assert len({claim.statement for claim in claims}) == len(claims)
    assert all(claim.holds for claim in claims), table(claims).query("verdict != 'holds'").to_string()


@pytest.mark.parametrize(
    ("number", "relation", "holds"),
    [
        (1, "<=", True),
        (2, "<=", False),
        (2, ">=", True),
        (0, ">=", False),
        (np.nan, "<=", False),
        (np.nan, ">=", False),
    ],
)
def test_a_claim_holds_on_one_side_of_its_bound(number, relation, holds):
    claim = Claim("one", number, 1, relation)
    assert claim.holds is holds
    assert list(table([claim])["verdict"]) == ["holds" if holds else "FAILS"]


@pytest.mark.parametrize(("number", "status"), [(0.5, 0), (2.0, 1)])
def test_one_file_alone_ends_with_a_status(number, status, capsys):
    with pytest.raises(SystemExit) as stop:
        main(lambda: [Claim("the only one", number, 1)])
    assert int(stop.value.code) == status
    assert "the only one" in capsys.readouterr().out


def test_the_table_has_its_columns():
    assert list(table([]).columns) == ["claim", "number", "relation", "bound", "verdict"]
    assert isinstance(table([Claim("a", 1, 2)]), pd.DataFrame)


def test_a_rise_is_negative_beside_the_minimum():
    """The perturbation check sees weights that are off by a thousandth."""
    rows, right, weight = np.eye(2), np.array([1.0, 2.0]), np.ones(2)
    assert instances.least_rise(right, rows, right, weight) == pytest.approx(0.5, rel=0.01)
    assert instances.least_rise(right + 1e-3, rows, right, weight) < -50


def test_an_unmet_row_to_interpolate_is_no_minimum():
    rows, right, weight = np.eye(2), np.array([1.0, 2.0]), np.array([1.0, np.inf])
    assert instances.least_rise(right + np.array([0, 1e-3]), rows, right, weight) == pytest.approx(-1e-3)


def test_the_derivatives_of_the_tanh_network(fresh):
    """∇f, H and ∇Δf by autograd."""
    x = rates.X[0]
    gradient, hessian, bend = rates.derivatives()
    laplacian = torch.func.grad(lambda x: torch.func.hessian(rates.smooth)(x).trace())
    np.testing.assert_allclose(gradient, torch.func.grad(rates.smooth)(x), atol=1e-12)
    np.testing.assert_allclose(hessian, torch.func.hessian(rates.smooth)(x), atol=1e-12)
    np.testing.assert_allclose(bend, laplacian(x), atol=1e-11)


@pytest.mark.parametrize("module", [rates, stein], ids=["rates", "stein"])
def test_a_figure_is_drawn_twice_the_same(module, tmp_path, fresh, monkeypatch):
    monkeypatch.setattr(rates, "SEEDS", 4)
    monkeypatch.setattr(rates, "SOBOL_SEEDS", 4)
    first, second = (module.figure(tmp_path / folder) for folder in ("one", "two"))
    assert first.read_bytes() == second.read_bytes()
    assert first.with_suffix(".pdf").stat().st_size > 1000


# --- mutations: each breaks one thing and names the claims that must then fail --------------------------------------


def fits(change):
    """Every linear fit, changed."""
    original = surrogates.Linear.fit
    return lambda patch: patch.setattr(surrogates.Linear, "fit", lambda s, *args: change(original(s, *args)))


def draws(kind, change):
    """Every draw of a distribution, changed."""
    original = kind.draw
    return lambda patch: patch.setattr(kind, "draw", lambda s, d, *rest: change(original(s, d, *rest)))


def placed(kind, change):
    """ξ, changed before it is placed."""
    original = kind.place
    return lambda patch: patch.setattr(kind, "place", lambda s, x, xi: original(s, x, change(xi)))


def flat_kernel(patch):
    patch.setattr(masks, "shapley_size_weights", lambda d: np.ones(d - 1) / (d - 1))


def narrow_kernel(patch):
    original = lx.ExponentialKernel.apply
    patch.setattr(lx.ExponentialKernel, "apply", lambda s, draw, distance: original(s, draw, 2 * distance))


def no_exact_rows(patch):
    """Rows to interpolate are left out, where the others determine the weights."""
    original = quadratic.eliminate

    def wrong(gram, rhs, exact, target, *more):
        try:
            return original(gram, rhs, exact[:0], target[..., :0], *more)
        except ValueError:
            return original(gram, rhs, exact, target * 1.01, *more)

    patch.setattr(quadratic, "eliminate", wrong)


def without_pairs(patch):
    original = lx.Normal.__init__
    patch.setattr(lx.Normal, "__init__", lambda s, sigma, antithetic=False: original(s, sigma))


def with_pairs(patch):
    original = lx.Normal.__init__
    patch.setattr(lx.Normal, "__init__", lambda s, sigma, antithetic=True: original(s, sigma, True))


def always_the_same(patch):
    """The seed is forgotten."""
    original = lx.explain
    patch.setattr(lx, "explain", lambda *args, **more: original(*args, **more | {"seed": 0}))


def midpoints(patch):
    """Equal weights at the middle of n equal parts, for Gauss–Legendre."""

    def wrong(n):
        return (np.arange(n) + 0.5) / n, np.full(n, 1 / n), np.full(n, 1 / n)

    patch.setattr(quadratures, "_gauss_legendre", wrong)


def stratified(patch):
    """One uniform number in each of n equal parts, for independent ones."""

    def wrong(self, d, n, rng, dtype):
        t = (torch.arange(n)[:, None] + torch.rand(n, 1, generator=rng, dtype=dtype)) / n
        return lx.Draw((self.low + (self.high - self.low) * t).expand(n, d), torch.ones(n, dtype=torch.float64))

    patch.setattr(lx.Uniform, "draw", wrong)


def gradients_times(factor):
    """Every gradient, scaled."""
    original = Scores.gradients

    def wrong(self, place, xi, instances):
        y, gradient = original(self, place, xi, instances)
        return y, factor * gradient

    return lambda patch: patch.setattr(Scores, "gradients", wrong)


def known_everywhere(patch):
    """f is linear off the domain as well: then all methods see it."""
    patch.setattr(recovery, "bent", recovery.linear)
    patch.setattr(recovery, "wavy", recovery.linear)


def off_the_domain(patch):
    placed(recovery.OnDomain, lambda xi: 0.9 * xi)(patch)


def scaled_xi(factor):
    return lambda draw: replace(draw, xi=factor * draw.xi)


def scaled_weights(fit):
    return replace(fit, weights=1.01 * fit.weights)


def shifted_weights(fit):
    return replace(fit, weights=fit.weights + 0.05)


def clipped(draw):
    """No longer Gaussian: Stein's identity fails."""
    return replace(draw, xi=draw.xi.clamp(-0.5, 0.5))


MUTATIONS = {
    "instances: weights 1 % off": (instances, fits(scaled_weights), [""]),
    "instances: flat Shapley kernel": (instances, flat_kernel, ["KernelSHAP"]),
    "instances: kernel too narrow": (instances, narrow_kernel, [" LIME: weights", " LIME: rise"]),
    "instances: no exact rows": (instances, no_exact_rows, ["KernelSHAP", "Occlusion: weights"]),
    "instances: additive placement": (
        instances,
        placed(lx.Additive, lambda xi: 1.1 * xi + 0.01),
        ["C-LIME", "SmoothGrad", "Vanilla Gradients"],
    ),
    "instances: multiplicative placement": (
        instances,
        placed(lx.Multiplicative, lambda xi: xi.roll(1, -1) * 0.9 + 0.1),
        [" LIME: weights", "KernelSHAP: weights", "Occlusion: weights", "Integrated", "Gradient x Input: weights"],
    ),
    "instances: half the gradient": (
        instances,
        gradients_times(0.5),
        ["SmoothGrad", "Vanilla Gradients", "Integrated Gradients", "Gradient x Input"],
    ),
    "instances: midpoint rule": (instances, midpoints, ["Integrated Gradients"]),
    "rates: no antithetic pairs": (rates, without_pairs, ["antithetic →"]),
    "rates: always antithetic pairs": (rates, with_pairs, ["without pairs", "SmoothGrad, tanh: |√n"]),
    "rates: weights 0.05 off": (
        rates,
        fits(shifted_weights),
        [
            "antithetic →",
            "without pairs",
            "∇Δf",
            "IG on",
            "SmoothGrad, tanh, n draws",
            "SmoothGrad, ReLU, n draws",
            "|√n",
            "Sobol",
            "Gauss–Legendre, ReLU",
        ],
    ),
    "rates: normal draw too wide": (rates, draws(lx.Normal, scaled_xi(1.2)), ["SmoothGrad, tanh: |√n", "ReLU: |√n"]),
    "rates: one seed for all": (rates, always_the_same, ["SmoothGrad, tanh: |√n", "SmoothGrad, ReLU: |√n"]),
    "rates: uniform draw stratified": (rates, stratified, ["IG by n uniform draws"]),
    "rates: midpoint rule": (rates, midpoints, ["tanh: factor of RMS error per node"]),
    "stein: weights 1 % off": (stein, fits(scaled_weights), ["a²) − 1", "/ (a²)", "3σ²"]),
    "stein: weights 0.05 off": (
        stein,
        fits(shifted_weights),
        ["C-LIME, mean over seeds", "SmoothGrad, mean over seeds", "C-LIME is 0.80", "− 1/(σ√2π)", "4,000 draws"],
    ),
    "stein: half the gradient": (
        stein,
        gradients_times(0.5),
        ["population: C-LIME − SmoothGrad", "SmoothGrad, mean", "mean gap", "coverage", "slope of SmoothGrad", "3σ²"],
    ),
    "stein: normal draw without tails": (stein, draws(lx.Normal, clipped), ["mean over seeds", "mean gap", "coverage"]),
    "stein: always antithetic pairs": (stein, with_pairs, ["paired s.e.", "coverage"]),
    "recovery: weights 1 % off": (
        recovery,
        fits(scaled_weights),
        [
            "off f by |w₃|",
            "f = w·x + c: ",
            "however f is continued",
            "f + Σ i x_i(1 − x_i): Integrated",
            "gradient − w_i",
            "2|w₃|",
        ],
    ),
    "recovery: weights 0.05 off": (
        recovery,
        fits(shifted_weights),
        ["largest weight of", "to each", "weights − w", "largest gap to f"],
    ),
    "recovery: additive placement": (
        recovery,
        placed(lx.Additive, lambda xi: 1.1 * xi + 0.01),
        ["C-LIME − w", "SmoothGrad − w"],
    ),
    "recovery: multiplicative placement": (
        recovery,
        placed(lx.Multiplicative, lambda xi: 0.9 * xi + 0.1),
        ["− w ⊙ (x₀ − b)", " LIME − (±w)", "KernelSHAP − (±w)", "Occlusion − (±w)", "largest weight of", "alike"],
    ),
    "recovery: no gradients": (recovery, gradients_times(0), ["gradients at x₀", "gradient − w_i"]),
    "recovery: f known everywhere": (
        recovery,
        known_everywhere,
        [
            *(f"(1 − x_i): {name}" for name in ("C-LIME", "Smooth", "Vanilla", "Gradient x")),
            "pairs features",
            "x₀ = 1: least gap to f",
            "no 0 in x₀: least gap to f",
            *(f"{name} is off f by" for name in ("C-LIME", "SmoothGrad", "Gradients", "Gradient x Input")),
        ],
    ),
    "recovery: designed draws leave the domain": (recovery, off_the_domain, ["weights − w", "on all 81 points"]),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_mutation_breaks_the_claims_it_names(mutation, monkeypatch, fresh):
    module, change, named = MUTATIONS[mutation]
    if module is rates:
        monkeypatch.setattr(rates, "SEEDS", 40)
        monkeypatch.setattr(rates, "SOBOL_SEEDS", 10)
    change(monkeypatch)
    claims = module.claims()
    for part in named:
        about = [claim for claim in claims if part in f" {claim.statement}"]
        assert about, f"no claim says {part!r}"
        assert not any(claim.holds for claim in about), table(about).to_string()

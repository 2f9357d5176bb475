"""Theory checks of evaluation (axioms, no free lunch, identities, design) and their runner: claims hold, and fail when
the engine is broken."""

import inspect
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import locapprox as lx
import theory_checks.__main__ as runner
from locapprox import _explain
from locapprox.evaluation import columns
from locapprox.fit import jackknife, minimise, quadratic, spread, surrogates
from locapprox.fit import points as points_around
from locapprox.models import scores
from locapprox.neighbourhoods import masks
from locapprox.neighbourhoods.base import BaseNeighbourhood
from theory_checks import axioms, design, identities, no_free_lunch, points
from theory_checks.claims import Claim
from theory_checks.minimax import ReLU, chebyshev, grid

ROOT = Path(__file__).resolve().parents[1]
FILES = {"axioms": axioms, "no_free_lunch": no_free_lunch, "identities": identities, "design": design}
Quadratic = quadratic.Quadratic


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """`python -m theory_checks`, once."""
    out = tmp_path_factory.mktemp("theory")
    command = [sys.executable, "-m", "theory_checks", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    return out, done


@pytest.fixture
def fresh():
    """No numbers kept from or for other tests."""

    def clear():
        for module in FILES.values():
            for _, kept in inspect.getmembers(module, lambda f: hasattr(f, "cache_clear")):
                kept.cache_clear()

    clear()
    yield
    clear()


def test_the_runner_runs_everything(everything):
    out, done = everything
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    claims = pd.read_csv(out / "claims.csv")
    assert list(claims.columns) == ["file", "claim", "number", "relation", "bound", "verdict"]
    assert set(claims["file"]) == set(runner.CHECKS)
    assert len(runner.CHECKS) == 11
    assert not claims.duplicated(["file", "claim"]).any()
    captions = json.loads((out / "figures.json").read_text(encoding="utf-8"))
    drawn = {p.name for p in (out / "figures").iterdir()}
    assert drawn == {f"{stem}{suffix}" for stem in captions for suffix in (".png", ".pdf")}
    assert all(len(text) > 40 for text in captions.values())
    assert {p.name for p in out.iterdir()} == {"claims.csv", "figures.json", "figures"}, "parts are left over"
    assert f"{len(claims)} claims, 0 failed" in done.stdout
    assert all(claim in done.stdout for claim in claims["claim"])


@pytest.mark.parametrize("name", FILES)
def test_every_claim_holds(name, everything):
    claims = pd.read_csv(everything[0] / "claims.csv").query("file == @name")
    assert len(claims) >= 8
    assert (claims["verdict"] == "holds").all(), claims[claims["verdict"] != "holds"].to_string()


def test_a_failing_claim_is_an_exit_status(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runner, "CHECKS", ("points",))
    monkeypatch.setattr(points, "claims", lambda: [Claim("one", 1, 2), Claim("two", float("nan"), 1)], raising=False)
    with pytest.raises(SystemExit) as stop:
        runner.main(tmp_path / "theory", processes=1)
    assert stop.value.code == 1
    assert "2 claims, 1 failed" in capsys.readouterr().out
    assert list(pd.read_csv(tmp_path / "theory" / "claims.csv")["verdict"]) == ["holds", "FAILS"]


def test_an_error_leaves_nothing(tmp_path, monkeypatch):
    def broken():
        raise RuntimeError("no claims")

    monkeypatch.setattr(runner, "CHECKS", ("points",))
    monkeypatch.setattr(points, "claims", broken, raising=False)
    with pytest.raises(RuntimeError, match="no claims"):
        runner.main(tmp_path / "theory", processes=1)
    assert list((tmp_path / "theory").iterdir()) == []


def test_gauss_hermite_has_the_moments_of_a_normal():
    rule = points.gauss_hermite(0.5, 2, nodes=6)
    assert rule.weight.sum() == pytest.approx(1)
    for power, moment in ((2, 0.25), (4, 3 * 0.5**4), (6, 15 * 0.5**6)):
        assert rule.weight @ rule.xi**power == pytest.approx([moment] * 2)


# --- mutations: each breaks one thing and names the claims that must then fail --------------------------------------


def scaled(owner, name, factor, offset=0.0):
    """A number or tensor that a function, or a property, of the engine returns, changed."""
    given = getattr(owner, name)
    original = given.fget if isinstance(given, property) else given

    def wrong(*args, **kwargs):
        return original(*args, **kwargs) * factor + offset

    return lambda patch: patch.setattr(owner, name, property(wrong) if isinstance(given, property) else wrong)


def fits(change):
    """Every linear fit, changed."""
    original = surrogates.Linear.fit
    return lambda patch: patch.setattr(surrogates.Linear, "fit", lambda s, *args: change(original(s, *args)))


def no_exact_rows(patch):
    """Rows to interpolate are left out, where the others determine the weights."""
    original = quadratic.eliminate

    def wrong(gram, rhs, exact, target, *more):
        try:
            return original(gram, rhs, exact[:0], target[..., :0], *more)
        except ValueError:
            return original(gram, rhs, exact, target, *more)

    patch.setattr(quadratic, "eliminate", wrong)


def draws(kind, change):
    """Every draw of a distribution, changed."""
    original = kind.draw
    return lambda patch: patch.setattr(kind, "draw", lambda s, d, *rest: change(original(s, d, *rest)))


def one_off(patch):
    """Feature j is removed in place of feature j + 1."""
    original = lx.Multiplicative.place
    patch.setattr(lx.Multiplicative, "place", lambda s, x, xi: original(s, x, xi.roll(1, -1)))


def removed_to_a_tenth(patch):
    original = lx.Multiplicative.place
    patch.setattr(lx.Multiplicative, "place", lambda s, x, xi: original(s, x, 0.1 + 0.9 * xi))


def flat_kernel(patch):
    patch.setattr(masks, "shapley_size_weights", lambda d: np.ones(d - 1) / (d - 1))


def kept_finite(patch):
    original = lx.ShapleyMasks.blocks

    def wrong(self, *args):
        yield from (replace(draw, weight=draw.weight.clamp(max=1.0)) for draw in original(self, *args))

    patch.setattr(lx.ShapleyMasks, "blocks", wrong)


def shifted(patch):
    """The multiplicative placement reaches what it must not: feature 2 moves though x₀ = b there."""
    original = lx.Multiplicative.place
    patch.setattr(lx.Multiplicative, "place", lambda s, x, xi: original(s, x + 0.1, xi))


def predicts_f(patch):
    patch.setattr(lx.Explanation, "predict", lambda s, inputs: inputs[..., 0] + inputs[..., 1] ** 2)


def slopes_off(patch):
    original = columns.carried

    def wrong(*args):
        w, c = original(*args)
        return 1.01 * w, c

    patch.setattr(columns, "carried", wrong)


def other_points(patch):
    original = points_around.generator
    patch.setattr(points_around, "generator", lambda seed, *rest: original(seed + 10_000, *rest))


def optimum_elsewhere(patch):
    """A column's best fit is beside the optimum, Σ w and intercept (so the rows to interpolate) as they should be."""

    original = columns.minimise

    def wrong(*args, **kwargs):
        best = original(*args, **kwargs)
        return replace(best, fit=replace(best.fit, weights=best.fit.weights + torch.tensor([0.1, -0.1, 0.0])))

    patch.setattr(columns, "minimise", wrong)


def refitted_past_exact_rows(patch):
    patch.setattr(minimise.Minimum, "refitted", lambda s, w: s.problem.with_mean_intercept(w))


def one_seed(patch):
    """All replicates of explain_mean share a draw."""
    patch.setattr(_explain, "child_seeds", lambda seed, n: [seed] * n)


def drawn_apart(patch):
    """Every instance has draws of its own."""
    normal = lx.Normal.draw

    def wrong(self, x, n, rng):
        first = int(torch.randint(2**40, (1,), generator=rng))
        own = [torch.Generator().manual_seed(first + int(row.abs().sum() * 1e6)) for row in x]
        xi = torch.stack([normal(self.distribution, x.shape[1], n, g, x.dtype).xi for g in own])
        return lx.Draw(xi, torch.ones(n, dtype=torch.float64))

    patch.setattr(lx.Additive, "draw", wrong)
    patch.setattr(lx.Additive, "blocks", BaseNeighbourhood.blocks)
    patch.setattr(design, "REPLICATES", 2)


def on_some_points(patch):
    """Only the first three quarters of the points are approximated."""

    def wrong(at, values):
        some = max(3, 3 * len(at) // 4)
        found = chebyshev(at[:some], values[:some])
        return replace(found, weight=np.r_[found.weight, np.zeros(len(at) - some)])

    patch.setattr(no_free_lunch, "chebyshev", wrong)


def case_with(**changes):
    """The example with another minimax solution under both losses."""

    def wrong(patch):
        case = no_free_lunch.example()
        solutions = {
            loss: replace(found, **{name: change(getattr(found, name)) for name, change in changes.items()})
            for loss, found in case.minimax.items()
        }
        patch.setattr(no_free_lunch, "example", lambda: replace(case, minimax=solutions))

    return wrong


def without_crossings(patch):
    patch.setattr(ReLU, "vertices", lambda s: np.r_[grid(2), s.crossings()[1]])


def without_a_region(patch):
    original = ReLU.regions
    patch.setattr(ReLU, "regions", lambda s: tuple(part[:-1] for part in original(s)))


def on_example(section):
    return lambda: section(no_free_lunch.example())


def own_column():
    return [design.own_column()]


def in_sample(patch):
    patch.setattr(jackknife, "leave_out", lambda X, weight, inverse, rest: rest)


def steep(patch):
    original = scores.Scores.gradients

    def wrong(*args):
        y, gradient = original(*args)
        return y, 1.01 * gradient

    patch.setattr(scores.Scores, "gradients", wrong)


def dense(patch):
    patch.setattr(surrogates.Sparse, "fit", lambda s, *args: surrogates.Linear().fit(*args))


def coarse(patch):
    patch.setattr(no_free_lunch, "FINE", 11)


uneven = draws(lx.AllCoalitions, lambda draw: replace(draw, weight=draw.weight * (1 + draw.xi[:, 0])))
entangled = draws(lx.AllCoalitions, lambda draw: replace(draw, weight=draw.weight * (1 + draw.xi[:, :3].prod(1))))
one_less = draws(lx.AllCoalitions, lambda draw: replace(draw, xi=draw.xi[:-1], weight=draw.weight[:-1], n_fixed=3))
bent = fits(lambda fit: replace(fit, weights=fit.weights + fit.weights**3))
longer = fits(lambda fit: replace(fit, weights=1.01 * fit.weights))
confident = fits(lambda fit: replace(fit, standard_error=0.7 * fit.standard_error))
uniform = case_with(weight=lambda w: np.full_like(w, 1 / len(w)))
loss_up, loss_low = scaled(Quadratic, "loss_of", 1.0, 1e-3), scaled(Quadratic, "loss_of", 1e-3)
mean_up = scaled(Quadratic, "mean_gradient", 1.01)
biased = scaled(Quadratic, "mean_gradient", 1.2)
spread_low = scaled(spread.Spread, "variance", 0.9)
spread_zero = scaled(spread.Spread, "variance", 0.0)
constant_up = scaled(Quadratic, "constant_loss", 1.01)

boxes, theorem, one_for_all = (
    on_example(section) for section in (no_free_lunch.boxes, no_free_lunch.theorem, no_free_lunch.one_for_all)
)
left_out = [f"{name}: leave-one-out" for name in ("C-LIME", "LIME", "KernelSHAP")]
of_atoms = ["points of Z* ≤ p + 1", "1,000 random g", "best fit on Z* has loss d", "programme in squares"]

MUTATIONS = [  # file, section, mutation, claims that must fail (parts of their statements)
    ("axioms", axioms.enumerated, flat_kernel, ["KernelSHAP, dummy", "mean gain over all orders"]),
    ("axioms", axioms.enumerated, kept_finite, ["KernelSHAP, efficiency"]),
    ("axioms", axioms.enumerated, one_off, ["KernelSHAP, symmetry", "Occlusion, symmetry", "Occlusion, dummy"]),
    ("axioms", axioms.enumerated, uneven, ["LIME, symmetry"]),
    ("axioms", axioms.enumerated, entangled, ["LIME, dummy"]),
    ("axioms", axioms.on_functions, removed_to_a_tenth, ["completeness", "holds with one feature"]),
    ("axioms", axioms.on_functions, bent, ["additivity: holds"]),
    ("axioms", axioms.broken, bent, [" breaks efficiency by ", " breaks symmetry by ", " breaks dummy by "]),
    ("axioms", axioms.broken, dense, ["Sparse(1) surrogate breaks additivity"]),
    ("no_free_lunch", no_free_lunch.finite, one_less, ["best fit on all coalitions"]),
    ("no_free_lunch", no_free_lunch.finite, on_some_points, ["|d − 1/16|", "Z* is uniform"]),
    ("no_free_lunch", boxes, without_crossings, ["the vertices ≥ d on a grid"]),
    ("no_free_lunch", boxes, case_with(d=lambda d: 1.3 * d), ["≤ grid + Lipschitz bound"]),
    ("no_free_lunch", boxes, coarse, ["√d is known"]),
    ("no_free_lunch", boxes, on_some_points, ["|f − g| at 20,000 points"]),
    ("no_free_lunch", boxes, without_a_region, ["patterns found by LP"]),
    ("no_free_lunch", boxes, steep, ["Vanilla Gradients to the gradients"]),
    ("no_free_lunch", theorem, loss_up, ["engine against by hand", "have ε = 0"]),
    ("no_free_lunch", one_for_all, loss_low, ["of the eight on Z*", "optimum of column"]),
    ("no_free_lunch", one_for_all, case_with(theta=lambda theta: theta + 0.1), ["certificate"]),
    ("no_free_lunch", one_for_all, uniform, of_atoms),
    ("no_free_lunch", one_for_all, longer, ["best fit on Z* is the minimax g"]),
    ("no_free_lunch", no_free_lunch.literal, on_some_points, ["|d − 1/4|"]),
    ("no_free_lunch", no_free_lunch.literal, shifted, ["Z₂ kept multiplicative"]),
    ("no_free_lunch", no_free_lunch.literal, predicts_f, ["with Z₂ anywhere in X"]),
    ("identities", identities.infidelities, slopes_off, ["squared error through x₀"]),
    ("identities", identities.infidelities, no_exact_rows, ["Φ* of Yeh et al."]),
    ("identities", identities.variances, mean_up, ["least at its weight", "in-sample loss = Σ variances"]),
    ("identities", identities.variances, spread_low, ["standard error² (n − 1)"]),
    ("identities", identities.variances, constant_up, ["w = 0 = Σ second moments"]),
    ("identities", identities.left_out, in_sample, left_out),
    ("identities", identities.left_out, spread_zero, ["SmoothGrad: leave-one-out"]),
    ("identities", identities.left_out, other_points, ["in-sample − fresh-draw"]),
    ("design", design.bounds, loss_up, ["dense least squares"]),
    ("design", design.bounds, optimum_elsewhere, ["least regret of the"]),
    ("design", design.bounds, refitted_past_exact_rows, ["column KernelSHAP, refitted: least regret of the"]),
    ("design", design.bounds, no_exact_rows, ["LIME misses KernelSHAP's rows"]),
    ("design", own_column, biased, ["C-LIME − SmoothGrad"]),
    ("design", design.intervals, confident, ["each instance: coverage"]),
    ("design", design.intervals, one_seed, ["mean, replicate draws"]),
    ("design", design.intervals, drawn_apart, ["mean, as if independent"]),
]


@pytest.mark.parametrize(
    ("section", "mutation", "broken"), [m[1:] for m in MUTATIONS], ids=[f"{m[0]}-{m[3][0]}" for m in MUTATIONS]
)
def test_a_broken_engine_is_noticed(section, mutation, broken, monkeypatch, fresh):
    monkeypatch.setattr(design, "TRIALS", 15)  # fewer suffice for what is this wrong
    monkeypatch.setattr(identities, "SEEDS", 100)
    mutation(monkeypatch)
    claims = section()
    for part in broken:
        named = [claim for claim in claims if part in claim.statement]
        assert named, f"no claim says {part!r}"
        unnoticed = [claim for claim in named if claim.holds]
        assert not unnoticed, f"still holds: {unnoticed}"


@pytest.mark.parametrize("name", FILES)
def test_every_claim_has_a_mutation(name, everything):
    claims = pd.read_csv(everything[0] / "claims.csv").query("file == @name")["claim"]
    parts = [part for file, _, _, broken in MUTATIONS if file == name for part in broken]
    assert [claim for claim in claims if not any(part in claim for part in parts)] == []

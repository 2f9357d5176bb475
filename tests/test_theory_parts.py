"""Theory checks of errors, parts and evaluations: claims hold, and fail if the engine is broken."""

from dataclasses import replace

import numpy as np
import pytest

import locapprox as lx
from locapprox.evaluation import columns, intervals, perturbation
from locapprox.fit import errors, evidence, jackknife, links, spread
from locapprox.models import scores
from locapprox.neighbourhoods import baselines, masks, quadratures
from theory_checks import evaluation, leaving_out, parts
from theory_checks.claims import table


@pytest.mark.parametrize("module", [leaving_out, parts, evaluation], ids=lambda module: module.__name__)
def test_every_claim_holds(module):
    claims = module.claims()
    assert len({claim.statement for claim in claims}) == len(claims) >= 12
    assert all(claim.holds for claim in claims), table(claims).query("verdict != 'holds'").to_string()


# --- mutations: each breaks one thing and names the claims that must then fail --------------------------------------


def given(owner, name, change):
    """What a function returns, changed; of a property, too."""
    original = getattr(owner, name)
    if isinstance(original, property):
        return lambda patch: patch.setattr(owner, name, property(lambda s: change(original.fget(s))))
    return lambda patch: patch.setattr(owner, name, lambda *args, **more: change(original(*args, **more)))


def without_factor(patch):
    """Σ (δ − δ̄)² without (m − 1)/m."""

    def wrong(total, units, fixed):
        return (total.influence_square - total.influence.square() / units * fixed).sqrt()

    patch.setattr(errors, "jackknife_error", wrong)


def of_other_pairs(draw):
    """Masks no longer with their complement."""
    return replace(draw, xi=draw.xi.roll(1, 0), n_fixed=draw.n_fixed) if draw.unit_size == 2 else draw


def first_row(patch):
    original = baselines.Background.of
    patch.setattr(baselines.Background, "of", lambda s, x: original(s, x)[:, :1])


def uniform_sizes(patch):
    original = masks.shapley_size_weights
    patch.setattr(masks, "shapley_size_weights", lambda d: np.full(d - 1, original(d).mean()))


def one_target(patch):
    original = scores.Scores._columns

    def wrong(self, x):
        found = original(self, x)
        return found if found is None else found[:1].expand_as(found).contiguous()

    patch.setattr(scores.Scores, "_columns", wrong)


def steeper(patch):
    function = links.LOGISTIC.function
    patch.setitem(vars(links.LOGISTIC), "function", lambda eta: function(1.1 * eta))


def kept_low(patch):
    draw = lx.Uniform.draw
    patch.setattr(lx.Uniform, "draw", lambda s, *args: draw(lx.Uniform(0.0, s.high), *args))


def draws_of(kind, change):
    original = kind.draw
    return lambda patch: patch.setattr(kind, "draw", lambda s, *args: change(original(s, *args)))


def turned(draw):
    return replace(draw, xi=draw.xi.flip(-1))


def twice(draw):
    return replace(draw, weight=draw.weight.square())


def other_groups(patch):
    original = lx.Multiplicative.place
    patch.setattr(lx.Multiplicative, "place", lambda s, x, xi: original(s, x, xi.flip(-1)))


def wide_median(values, level):
    return intervals.Interval(float(np.median(values)), float(np.min(values)), float(np.max(values)))


t_of_many = given(evidence, "half_width", lambda half: 1.02 * half)
half_a_leverage = given(jackknife, "leave_out", lambda left: 0.9 * left)

MUTATIONS = {  # section, mutation, claims that must fail (parts of their statements)
    "jackknife without (m − 1)/m": (leaving_out.errors, without_factor, ["KernelSHAP, pairs of masks beside 14 enum"]),
    "residuals left out too small": (leaving_out.errors, half_a_leverage, ["C-LIME: ", "LIME: ", "KernelSHAP, pairs"]),
    "19 groups": (
        leaving_out.errors,
        lambda p: p.setattr(errors, "GROUPS", 19),
        ["in noise: stand", "20 groups"],
    ),
    "variance of rows": (
        leaving_out.errors,
        given(spread.Spread, "variance", lambda v: 1.01 * v),
        ["the pairs' means"],
    ),
    "coarse rule": (
        leaving_out.errors,
        given(quadratures, "_interpolating", lambda weight: np.full(len(weight), 1 / len(weight))),
        ["polynomials on every second"],
    ),
    "t of more degrees": (
        leaving_out.errors,
        given(errors.Pass, "degrees", lambda n: n + 1),
        ["with 33", "with 7"],
    ),
    "t of more pairs": (leaving_out.errors, given(spread.Spread, "degrees", lambda n: n + 1), ["29"]),
    "noise turned": (parts.noise, draws_of(lx.CorrelatedNormal, turned), ["Normal(0, C)"]),
    "path from 0": (parts.paths, kept_low, ["Uniform(0.5, 1)"]),
    "kernel squared": (parts.tabular, given(lx.LimeTabular, "_weighted", twice), ["around the mean"]),
    "sizes alike": (parts.sizes, uniform_sizes, ["sizes that are"]),
    "one target for all": (parts.targets, one_target, ["KernelSHAP, an output", "Vanilla Gradients, an output"]),
    "groups swapped": (parts.groups, other_groups, ["quotient game"]),
    "gradients off": (
        parts.groups,
        given(scores.Scores, "gradients", lambda found: (found[0], 1.01 * found[1])),
        ["Σ x ∂f over each"],
    ),
    "one row of the background": (parts.backgrounds, first_row, ["over a background"]),
    "another link": (parts.links, steeper, ["squared error, Additive", "gradient matching, Add", "Multiplicative"]),
    "optimum in sample": (
        evaluation.optima,
        lambda p: p.setattr(columns, "out_of_sample", lambda least, left_out: least),
        ["optimum of 20"],
    ),
    "loss in sample": (evaluation.optima, given(jackknife, "leave_out", lambda left: 0.8 * left), ["too high by p/2n"]),
    "bounds are the ends": (
        evaluation.intervals,
        lambda p: p.setattr(intervals, "median", wide_median),
        ["order statistics 7 and 18"],
    ),
    "order turned": (
        evaluation.tests,
        given(perturbation, "_rank", lambda rank: rank.flip(-1)),
        [f"{kind}, f = w · x" for kind in ("bottom", "top", "deletion", "insertion")],
    ),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_mutation_breaks_the_claims_it_names(mutation, monkeypatch):
    section, change, named = MUTATIONS[mutation]
    monkeypatch.setattr(evaluation, "SEEDS", 80)
    change(monkeypatch)
    for rule in (quadratures._gauss_legendre, quadratures._nested_fejer):
        monkeypatch.setattr(quadratures, rule.__name__, rule.__wrapped__)
    claims = section()
    for part in named:
        about = [claim for claim in claims if part in claim.statement]
        assert about, f"no claim says {part!r}"
        assert not all(claim.holds for claim in about), table(about).to_string()

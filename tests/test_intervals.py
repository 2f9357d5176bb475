"""Intervals over instances: exact coverage by order statistics, and on real populations with heavy tails."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from locapprox.evaluation.intervals import Interval, fewest, median, needed, typical

POPULATIONS = {  # (draw, its median)
    "normal": (lambda rng, n: rng.normal(size=n), 0.0),
    "log-normal": (lambda rng, n: np.exp(3 * rng.normal(size=n)), 1.0),
    "Cauchy": (lambda rng, n: rng.standard_cauchy(n), 0.0),
}


def shown(instances, replicates=1):
    index = pd.MultiIndex.from_product([range(instances), range(replicates)], names=["instance", "replicate"])
    return lambda values: pd.Series(np.broadcast_to(values, (instances, replicates)).ravel(), index)


def within(share, runs, level=0.95):
    """Three standard errors about the level."""
    return abs(share - level) <= 3 * (level * (1 - level) / runs) ** 0.5 + 0.01  # and what interpolation leaves


@pytest.mark.parametrize("n", [6, 8, 15, 50])
@pytest.mark.parametrize("name", POPULATIONS)
def test_the_median_is_covered_whatever_the_tails(name, n):
    draw, truth = POPULATIONS[name]
    rng, runs = np.random.default_rng(n), 1000
    found = [median(draw(rng, n), 0.95) for _ in range(runs)]
    assert within(np.mean([one.low <= truth <= one.high for one in found]), runs)


def test_its_bounds_are_the_order_statistics_where_their_probability_is_the_level():
    x = np.random.default_rng(0).standard_cauchy(20)
    for k in (3, 6, 9):
        level = 1 - 2 * stats.binom.cdf(k - 1, 20, 0.5)
        bounds = np.sort(x)[k - 1], np.sort(x)[20 - k]
        assert median(x, level)[1:] == pytest.approx(bounds)
        wider, narrower = median(x, level + 1e-4), median(x, level - 1e-4)
        assert wider.low < bounds[0] < narrower.low
        assert narrower.high < bounds[1] < wider.high


def test_too_few_values_have_no_bounds():
    assert fewest(0.95) == 6
    for level in (0.5, 0.9, 0.95, 0.99, 0.999):
        n = fewest(level)
        assert np.isfinite(median(np.arange(float(n)), level)).all()
        assert np.isnan(median(np.arange(n - 1.0), level)[1:]).all()
    assert np.isnan(median(np.array([]), 0.95)).all()


def test_infinite_values_are_values():
    found = median(np.array([*range(10), *[np.inf] * 10], dtype=float), 0.95)
    assert (found.low, found.high) == (pytest.approx(5, abs=0.7), np.inf)


@pytest.mark.parametrize(("instances", "spread"), [(1, 1.0), (6, 0.3), (15, 1.0), (15, 0.0), (40, 3.0)])
def test_it_holds_for_other_instances_and_other_draws(instances, spread):
    """Log-normal instances, an error that a draw shares, and one of each: the median of the former is covered."""
    rng, runs, series = np.random.default_rng(instances), 600, shown(instances, 5)
    hits = 0
    for _ in range(runs):
        own = np.exp(rng.normal(size=(instances, 1))) if instances > 1 else 1.0
        noise = spread * (rng.normal(size=(1, 5)) + 0.2 * rng.normal(size=(instances, 5)))
        found = typical(series(own + noise), 0.95)
        hits += found.low <= 1 <= found.high
    assert within(hits / runs, runs)


def test_one_instance_is_students_t_over_draws():
    values = np.random.default_rng(0).normal(1, 2, size=7)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert typical(shown(1, 7)(values), 0.95) == pytest.approx((values.mean(), low, high))
    assert np.isnan(typical(shown(1)(values[:1]), 0.95)[1:]).all()


def test_the_states_are_two_one_sided_tests():
    for low, high, state in (
        *((0.02, 0.03, "worse"), (0.005, 0.02, "undecided"), (-0.02, 0.005, "undecided")),
        *((-0.005, 0.005, "equivalent"), (-0.03, -0.02, "undecided"), (np.nan, np.nan, "undecided")),
    ):
        assert Interval((low + high) / 2, low, high).state(0.01) == state


def test_what_is_needed_narrows_as_the_square_root():
    assert needed(Interval(0.02, 0.0, 0.04), 0.01, 30, 0.95) == 30 * 4  # half the width
    assert needed(Interval(0.005, -0.001, 0.02), 0.01, 30, 0.95) == 30 * 9
    assert needed(Interval(0.0, -0.02, 0.04), 0.01, 30, 0.95) == 30 * 16  # the wider side
    assert needed(Interval(0.01, 0.0, 0.04), 0.01, 30, 0.95) == np.inf
    assert needed(Interval(0.0, np.nan, np.nan), 0.01, 3, 0.95) == 6

"""What standard errors rest on: intervals that are printed cover, others are NaN with a warning that says why.

A draw that lacks the rare large values of a heavy tail looks like any other, so no statistic of the draw can make the
intervals that it lets pass cover .95: what can be held down is how often an interval is printed that misses.
"""

import warnings
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch
from test_calibration import INSTANCES, OneLayer

import locapprox as lx

F64 = torch.float64
ANTITHETIC = lx.Additive(lx.Normal(0.1, antithetic=True))
X0 = torch.zeros(1, 6, dtype=F64)


def direction(d=6):
    a = torch.randn(d, generator=torch.Generator().manual_seed(1), dtype=F64)
    return a / a.norm()


@cache
def trees(d=10):
    """Boosted trees, with their inputs."""
    from sklearn.ensemble import GradientBoostingRegressor

    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, d))
    y = X @ rng.normal(size=d) + 2 * np.sin(2 * X[:, 0]) * X[:, 1]
    return GradientBoostingRegressor(n_estimators=15, max_depth=2, random_state=0).fit(X, y), X[:4]


@cache
def mean_slope_of_trees(sigma, n=400_000):
    """E f(x + ξ) ξ / σ², the weights of C-LIME, by antithetic draws; float32 noise is far below one draw's."""
    model, x = trees()
    rng, total = np.random.default_rng(9), 0.0
    for _ in range(n // 20_000):
        z = rng.normal(size=(20_000, x.shape[1]))
        gaps = np.stack([model.predict(row + sigma * z) - model.predict(row - sigma * z) for row in x])
        total = total + gaps @ z / (2 * sigma * n)
    return torch.from_numpy(total)


@dataclass(frozen=True)
class Setting:
    """A model, its inputs, a method, its true weights, and what is expected of n draws."""

    name: str
    method: lx.Method
    n: int
    known: float = 0.0  # the least share of intervals that are printed
    covers: bool = True  # those that are printed, .93 to .97; else only few miss of all calls
    misses: float = 0.07  # at most this share of all intervals is printed and misses

    @property
    def parts(self):
        sigma = getattr(self.method.neighbourhood, "distribution", None)
        sigma = getattr(sigma, "sigma", None)
        kind, *rest = self.name.split()
        if kind == "log-normal":
            s, a = float(rest[0]), direction()
            return lambda x: torch.exp(s * (x @ a)), X0, s * a * np.exp(s**2 / 2)
        if kind == "trees":
            return trees()[0].predict, trees()[1], mean_slope_of_trees(sigma)
        model = OneLayer(kind)
        if sigma is not None:
            return model, INSTANCES, model.smooth_gradient(INSTANCES, sigma)
        kernel = {"kernel": lx.ExponentialKernel(1.0)} if self.method.name == "LIME" else {}
        where = lx.Multiplicative(lx.AllCoalitions(), **kernel)
        every = lx.kernel_shap() if not kernel else lx.Method("all", where, lx.SquaredError())
        return model, INSTANCES, lx.explain(model, INSTANCES, every, n_samples=2**14, progress=False).weights


def seen(setting, seeds):
    """Of all intervals: the share that is printed, that is printed and covers, and its standard error, by seed."""
    model, x, truth = setting.parts
    printed, covered = [], []
    for seed in range(seeds):
        e = lx.explain(model, x, setting.method, n_samples=setting.n, seed=seed, progress=False)
        low, high = e.interval()
        printed.append(float(low.isfinite().double().mean()))
        covered.append(float(((low <= truth) & (truth <= high)).double().mean()))
    return np.array(printed), np.array(covered)


def smoothgrad(sigma=0.1):
    return lx.smoothgrad(sigma)


SETTINGS = [  # the audit's table: share of intervals that covered before
    *(Setting("tanh", lx.kernel_shap(), n, 0.97) for n in (100, 200, 600)),
    Setting("tanh", lx.lime(width=1.0), 500, 0.95),
    Setting("trees σ=.1", lx.c_lime(0.1), 100),
    Setting("trees σ=.1", lx.c_lime(0.1), 500),
    Setting("trees σ=.01", lx.c_lime(0.01), 60, covers=False),  # .19: standard errors of 0
    Setting("trees σ=.01", lx.c_lime(0.01), 500, covers=False),  # .28
    Setting("relu", smoothgrad(0.01), 50, covers=False),  # .66
    Setting("relu", smoothgrad(0.01), 500, covers=False),  # .94; where few draws meet a kink, .99 of those printed
    Setting("relu", lx.c_lime(0.01), 50, covers=False),  # .79
    Setting("relu", lx.c_lime(0.01), 500),
    *(
        Setting(f"log-normal {s}", m(1.0), n, covers=False, misses=0.19 if s < 2 and n < 1000 else 0.08)
        for s in (1.5, 3.1, 5.1)
        for m in (lx.c_lime, smoothgrad)
        for n in (100, 1000)
    ),  # .82 to .05
    *(Setting("tanh", smoothgrad(), n) for n in (10, 30, 100)),
    *(Setting("tanh", smoothgrad(), n, covers=False) for n in (2, 3, 5)),
    *(
        Setting("tanh", lx.Method("SmoothGrad ±", ANTITHETIC, lx.GradientMatching()), n, covers=n > 10)
        for n in (4, 10, 100)
    ),
    *(Setting("tanh", lx.c_lime(), n, 0.95) for n in (41, 60, 100)),  # .97 to .99, 14 weights
    Setting("tanh", lx.Method("C-LIME ±", ANTITHETIC, lx.SquaredError()), 200, 0.95),
]
names = [f"{s.name}, {s.method.name}, n={s.n}" for s in SETTINGS]


def check(setting, seeds):
    printed, covered = seen(setting, seeds)
    missed = printed - covered
    share = covered.sum() / max(printed.sum(), 1e-9)
    error = np.std(covered - share * printed, ddof=1) / seeds**0.5 / max(printed.mean(), 1e-9)
    print(
        f"MUST-SHOW printed {printed.mean():.3f}, of them cover {share:.3f} ± {error:.3f}, "
        f"of all miss {missed.mean():.3f}"
    )
    assert printed.mean() >= setting.known
    assert missed.mean() < setting.misses + 3 * np.std(missed, ddof=1) / seeds**0.5
    if setting.covers:
        assert 0.93 - 3 * error <= share <= 0.97 + 3 * error


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("setting", SETTINGS, ids=names)
def test_intervals_that_are_printed_cover(setting):
    check(setting, 60)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("setting", SETTINGS, ids=names)
def test_intervals_that_are_printed_cover_over_600_seeds(setting):
    check(setting, 600)


# ---- why an error is not known


@pytest.mark.parametrize("method", [lx.c_lime(0.1), lx.smoothgrad(0.1), lx.kernel_shap(), lx.lime(width=3.0)])
def test_draws_that_all_tell_the_same_know_no_error(method):
    """A linear f: the weights are right, and of steps that fewer than 3 in n draws meet nothing is known."""
    a = torch.linspace(-1, 2, 12, dtype=F64)
    x = torch.randn(3, 12, generator=torch.Generator().manual_seed(0), dtype=F64)
    with pytest.warns(UserWarning, match="f is linear, but for round-off, over all .* of instances 0, 1, 2"):
        e = lx.explain(lambda z: z @ a + 1, x, method, n_samples=200)
    assert e.standard_error.isnan().all()
    expected = a.expand(3, -1) if isinstance(method.neighbourhood, lx.Additive) else a * x
    torch.testing.assert_close(e.weights, expected)


def test_a_feature_that_no_draw_moves_is_named_alone():
    """Of two instances, the second meets no kink in its second feature."""
    x = torch.tensor([[0.0, 0.0], [0.0, 5.0]], dtype=F64)
    with pytest.warns(UserWarning, match="of instance 1 "):
        e = lx.explain(lambda z: (z.tanh() + z.abs()).sum(1) - z[:, 1].tanh(), x, lx.smoothgrad(0.5), n_samples=100)
    assert e.standard_error.isnan().tolist() == [[False, False], [False, True]]


def test_a_step_that_few_draws_meet_is_named(given):
    """Of q of 200 draws that meet it: nothing is known of a Poisson mean from 3, enough from 12."""
    xi = torch.randn(200, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    method = lx.Method("", given(lx.Draw(xi, torch.ones(200, dtype=F64))), lx.SquaredError())
    x = torch.zeros(1, 2, dtype=F64)
    for q, known in ((1, False), (3, False), (12, True)):
        edge = float(xi[:, 0].sort().values[-q]) - 1e-6
        e = lx.explain(lambda z, edge=edge: (z[:, 0] > edge).double(), x, method, n_samples=200, progress=False)
        assert bool(e.standard_error.isfinite().all()) == known, q


def test_where_nothing_is_sampled_the_error_is_zero():
    a = torch.linspace(-1, 2, 5, dtype=F64)
    x = torch.ones(2, 5, dtype=F64)
    for method in (lx.kernel_shap(), lx.occlusion(), lx.vanilla_gradients(), lx.gradient_x_input()):
        assert (lx.explain(lambda z: z @ a, x, method, n_samples=64).standard_error == 0).all(), method.name


# ---- quadrature


def test_the_error_of_a_quadrature_covers_on_kinks_and_is_small_where_f_is_smooth():
    x = torch.randn(60, 14, generator=torch.Generator().manual_seed(5), dtype=F64)
    for n in (50, 200):
        relu, truth = (lx.explain(OneLayer("relu"), x, lx.integrated_gradients(), n_samples=m) for m in (n, 8001))
        inside = (relu.weights - truth.weights).abs() <= 1.96 * relu.standard_error
        share, by_instance = float(inside.double().mean()), inside.double().mean(1)
        print(f"MUST-SHOW Integrated Gradients, kinks, {n} nodes: {share:.3f} within 1.96 standard errors")
        assert abs(share - 0.95) < 0.02 + 3 * float(by_instance.std()) / len(x) ** 0.5
        smooth = lx.explain(OneLayer("tanh"), x, lx.integrated_gradients(), n_samples=n)
        assert bool((smooth.standard_error <= 1e-6 * smooth.weights.abs().amax(1, keepdim=True)).all())
    with pytest.warns(UserWarning, match="f has kinks between the 10 nodes"):
        few = lx.explain(OneLayer("relu"), x, lx.integrated_gradients(), n_samples=10)
    assert few.standard_error.isnan().any()


# ---- at once


def test_simultaneous_intervals_cover_together():
    """All 14 weights of an instance, and all 28 of the batch, in 95 % of draws at least."""
    model, truth, seeds = OneLayer("tanh"), OneLayer("tanh").smooth_gradient(INSTANCES, 0.1), 150
    joint = dict.fromkeys((False, "features", "all"), 0.0)
    for seed in range(seeds):
        e = lx.explain(model, INSTANCES, lx.c_lime(0.1), n_samples=300, seed=seed, progress=False)
        for together in joint:
            low, high = e.interval(0.95, simultaneous=together)
            inside = ((low <= truth) & (truth <= high)) | low.isnan()
            joint[together] += float(inside.all() if together == "all" else inside.all(1).double().mean()) / seeds
    print(f"MUST-SHOW joint coverage: {joint}")
    bound = 0.95 - 3 * (0.95 * 0.05 / seeds) ** 0.5
    assert joint[False] < 0.8
    assert joint["features"] > bound
    assert joint["all"] > bound


def test_the_width_of_simultaneous_intervals():
    """Bonferroni: t at 1 − 0.05 / 2m; True means features; weights without an error do not count."""
    from scipy import stats

    e = lx.explain(OneLayer("tanh"), INSTANCES, lx.smoothgrad(0.1), n_samples=300)
    for together, m in ((False, 1), (True, 14), ("features", 14), ("all", 28)):
        low, high = e.interval(simultaneous=together)
        expected = 2 * stats.t.ppf(1 - 0.05 / (2 * m), 15) * e.standard_error
        torch.testing.assert_close(high - low, expected)
    with pytest.raises(ValueError, match="simultaneous must be"):
        e.interval(simultaneous="batch")


def test_errors_that_nobody_sees_are_not_spoken_of():
    """What shows no standard errors does not warn of them; explain() does."""
    x, method = torch.zeros(6, 3, dtype=F64), lx.c_lime()
    flat = lambda rows: rows.sum(1)  # noqa: E731
    with pytest.warns(UserWarning, match="f is linear"):
        lx.explain(flat, x, method, n_samples=100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lx.faithfulness(flat, x, method, method, n_samples=100)
        lx.recommend(flat, x, method.neighbourhood, methods=[method, lx.smoothgrad()], n_samples=100, replicates=2)
        lx.perturbation_test(flat, x, method, n_samples=100)
        lx.explain_mean(flat, x, method, n_samples=100, replicates=2)
    with pytest.warns(UserWarning, match="f is linear"):
        lx.explain(flat, x, method, n_samples=100)

"""Draws in growing rounds: what is pooled, when they stop, which ranks are certain, and intervals at the stop."""

import json
import re

import numpy as np
import pytest
import torch
from scipy import stats
from test_bad_input import lx as users
from test_calibration import INSTANCES, METHODS, OneLayer, truth

import locapprox as lx
from locapprox._parts import child_seeds
from locapprox.fit.ranks import rank_bounds
from locapprox.fit.stopping import spent

F64 = torch.float64
NET = OneLayer("tanh")
UNREACHABLE = lx.Tolerance(relative=1e-12)
SMALL = torch.linspace(-1, 1.3, 8, dtype=F64).reshape(2, 4)  # one line of numbers, no two alike


def wavy(x):
    return torch.sin(x @ torch.tensor([1.0, -0.7, 0.4, 0.1], dtype=x.dtype)) + x[..., 0] * x[..., 1]


def rounds_by_hand(model, x, method, sizes, seed):
    seeds = child_seeds(seed, len(sizes))
    return [lx.explain(model, x, method, n_samples=n, seed=s) for n, s in zip(sizes, seeds, strict=True)]


# ---- rounds


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.filterwarnings("ignore:max_samples")
def test_rounds_are_pooled_as_independent_estimates(name):
    """By rows; variances of a weighted mean; degrees by Welch and Satterthwaite: from explanations made one by one."""
    e = lx.explain(NET, INSTANCES, METHODS[name], n_samples=200, tol=UNREACHABLE, max_samples=1400, seed=3)
    parts = rounds_by_hand(NET, INSTANCES, METHODS[name], (200, 400, 800), 3)
    assert all(part.standard_error.isfinite().all() for part in parts)
    share = torch.stack([part.n_samples for part in parts]).double()
    share = share / share.sum(0)  # (rounds, instances)
    for number in ("weights", "intercept", "loss"):
        expected = sum(s.reshape(-1, *[1] * (p.ndim - 1)) * p for s, p in zip(share, of(parts, number), strict=True))
        torch.testing.assert_close(getattr(e, number), expected, rtol=1e-10, atol=1e-12)
    variances = torch.stack([(s[:, None] * p) ** 2 for s, p in zip(share, of(parts, "standard_error"), strict=True)])
    torch.testing.assert_close(e.standard_error, variances.sum(0).sqrt(), rtol=1e-10, atol=0.0)
    degrees = torch.stack(of(parts, "degrees_of_freedom"))[..., None]
    expected = (variances.sum(0) ** 2 / (variances**2 / degrees).sum(0)).amin(1)
    assert (e.degrees_of_freedom <= expected * (1 + 1e-9)).all()  # the least, round by round
    assert (e.degrees_of_freedom > 0.8 * expected).all()
    assert e.n_samples.tolist() == sum(of(parts, "n_samples")).tolist()
    assert e.converged.tolist() == [False, False]


def of(parts, name):
    return [getattr(part, name) for part in parts]


def test_one_round_is_an_explanation_as_before():
    e, plain = (lx.explain(NET, INSTANCES, lx.lime(3.0), n_samples=400, **kw) for kw in ({"tol": 10.0}, {}))
    torch.testing.assert_close(e.weights, plain.weights, rtol=0, atol=0)
    torch.testing.assert_close(e.standard_error, plain.standard_error, rtol=0, atol=0)
    assert e.converged.all()
    assert plain.converged is None
    assert "until" not in plain.settings


@pytest.mark.parametrize("kw", [{"tol": 0.02}, {"until": lx.Order(2)}, {"until": lx.Signs(margin=0.1)}])
@pytest.mark.filterwarnings("ignore:max_samples")
def test_an_instance_stops_for_itself(kw):
    """Its numbers do not depend on the others, which draw on."""
    x = torch.cat([INSTANCES, INSTANCES.flip(1), 0.2 * INSTANCES])
    whole = lx.explain(NET, x, lx.lime(3.0), n_samples=200, max_samples=3000, **kw)
    assert len(set(whole.n_samples.tolist())) > 1
    for i in range(len(x)):
        alone = lx.explain(NET, x[i : i + 1], lx.lime(3.0), n_samples=200, max_samples=3000, **kw)
        torch.testing.assert_close(alone.weights[0], whole.weights[i], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(alone.standard_error[0], whole.standard_error[i], rtol=1e-9, atol=1e-12)
        assert (alone.n_samples[0], alone.converged[0]) == (whole.n_samples[i], whole.converged[i])


def test_a_tolerance_is_met_by_no_more_rounds_than_it_takes():
    for tol in (lx.Tolerance(0.01), lx.Tolerance(absolute=0.004), lx.Tolerance(0.005, 0.002)):
        e = lx.explain(NET, INSTANCES, lx.kernel_shap(), n_samples=200, tol=tol)
        allowed = tol.absolute + tol.relative * e.weights.abs().amax(1)
        assert (e.standard_error.amax(1) <= allowed).all()
        assert e.converged.all()
        for i in range(2):
            rounds = round(np.log2(int(e.n_samples[i]) / 200 + 1))
            assert int(e.n_samples[i]) == (2**rounds - 1) * 200
            if rounds > 1:
                with pytest.warns(UserWarning, match="max_samples"):
                    lx.explain(NET, INSTANCES[i : i + 1], lx.kernel_shap(), n_samples=200, tol=tol,
                               max_samples=(2 ** (rounds - 1) - 1) * 200)  # fmt: skip


def test_both_must_hold_where_both_are_asked():
    kw = {"n_samples": 200, "progress": False}
    tol = lx.explain(NET, INSTANCES, lx.kernel_shap(), tol=0.005, **kw)
    order = lx.explain(NET, INSTANCES, lx.kernel_shap(), until=lx.Order(1), **kw)
    both = lx.explain(NET, INSTANCES, lx.kernel_shap(), tol=0.005, until=lx.Order(1), **kw)
    assert both.n_samples.tolist() == torch.maximum(tol.n_samples, order.n_samples).tolist()
    assert tol.n_samples.tolist() != order.n_samples.tolist()


# ---- rounds that replace what was before


@pytest.mark.filterwarnings("ignore:n_samples is small")
def test_an_enumeration_is_exact_and_replaces_everything():
    """20, 40 and 80 ≥ 2⁶ masks: the third round is all of them."""
    x = torch.linspace(-1, 1, 6, dtype=F64)[None]
    model = lambda z: torch.tanh(z.sum(-1)) * z[..., 0] + z[..., 3] ** 2  # noqa: E731
    e = lx.explain(model, x, lx.kernel_shap(), n_samples=20, tol=1e-9)
    exact = lx.explain(model, x, lx.kernel_shap(), n_samples=64)
    torch.testing.assert_close(e.weights, exact.weights, rtol=1e-10, atol=1e-12)
    assert (e.standard_error == 0).all()
    assert e.converged.all()
    assert e.n_samples.tolist() == [20 + 40 + 64]


@pytest.mark.parametrize("method", [lx.occlusion(), lx.vanilla_gradients(), lx.gradient_x_input()])
def test_what_is_exact_draws_once(method):
    for kw in ({"tol": 1e-9}, {"until": lx.Order(margin=0.0)}, {"until": lx.Signs(margin=0.0)}):
        e = lx.explain(NET, torch.ones(1, 14, dtype=F64), method, **kw)
        assert e.converged.all()
        assert e.n_samples.tolist() == lx.explain(NET, INSTANCES[:1], method).n_samples.tolist()


def test_a_quadrature_is_taken_anew():
    model = OneLayer("relu")
    e = lx.explain(model, INSTANCES, lx.integrated_gradients(), n_samples=50, tol=1e-3)
    assert e.converged.all()
    rounds = round(np.log2(int(e.n_samples[0]) / 50 + 1))
    last = lx.explain(model, INSTANCES[:1], lx.integrated_gradients(), n_samples=50 * 2 ** (rounds - 1))
    assert rounds > 1
    torch.testing.assert_close(e.weights[:1], last.weights, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(e.standard_error[:1], last.standard_error, rtol=1e-10, atol=1e-15)


@pytest.mark.filterwarnings("ignore:max_samples")
def test_a_class_that_is_not_convex_is_fitted_anew():
    """A mean of sparse weights has more of them."""
    method = lx.Method("sparse", lx.Additive(lx.Normal(0.5)), lx.SquaredError(), lx.Sparse(2))
    e = lx.explain(wavy, SMALL, method, n_samples=100, tol=UNREACHABLE, max_samples=700)
    last = rounds_by_hand(wavy, SMALL, method, (100, 200, 400), 0)[-1]
    torch.testing.assert_close(e.weights, last.weights)
    assert e.n_samples.tolist() == [700, 700]


@pytest.mark.filterwarnings("ignore:n_samples is small")
@pytest.mark.filterwarnings("ignore:max_samples")
def test_a_shrunk_fit_is_replaced():
    """14 features from 20 rows are shrunk and their errors unknown; the next round has no part of it."""
    e = lx.explain(NET, INSTANCES, lx.c_lime(0.5), n_samples=20, tol=UNREACHABLE, max_samples=60)
    last = rounds_by_hand(NET, INSTANCES, lx.c_lime(0.5), (20, 40), 0)[-1]
    assert last.standard_error.isfinite().all()
    torch.testing.assert_close(e.weights, last.weights)
    torch.testing.assert_close(e.standard_error, last.standard_error)


def test_errors_that_stay_unknown_are_not_waited_for():
    """f is linear: after three rounds of 7 n draws nothing is known of its errors; so it is said."""
    slopes = torch.arange(1.0, 15.0, dtype=F64)
    for kw in ({"tol": 0.01}, {"until": lx.Order(3)}, {"until": lx.Signs()}):
        with pytest.warns(UserWarning, match=re.escape("not known (NaN) for 2 of 2 instances (0, 1)")):
            e = lx.explain(lambda z: z @ slopes, INSTANCES, lx.lime(3.0), n_samples=100, **kw)
        torch.testing.assert_close(e.weights, slopes * INSTANCES, rtol=1e-8, atol=1e-10)
        assert e.n_samples.tolist() == [700, 700]
        assert not e.converged.any()


@pytest.mark.filterwarnings("ignore:max_samples")
@pytest.mark.filterwarnings("ignore:standard errors")
def test_an_error_that_one_round_does_not_know_comes_from_the_others():
    """f has a kink in one feature that few draws meet: its variance per row is that of the rounds that know it."""

    def kinked(z):
        return torch.sin(z[..., 0]) + 3 * torch.relu(z[..., 1] - 0.95)

    x = torch.zeros(1, 2, dtype=F64)
    parts = rounds_by_hand(kinked, x, lx.smoothgrad(0.5, sobol=False), (100, 200, 400), 0)
    known = ~torch.stack([part.standard_error[0, 1] for part in parts]).isnan()
    assert 0 < int(known.sum()) < 3
    e = lx.explain(kinked, x, lx.smoothgrad(0.5, sobol=False), n_samples=100, tol=UNREACHABLE, max_samples=700)
    rows = torch.tensor([100.0, 200.0, 400.0], dtype=F64)
    squares = torch.stack([(n * part.standard_error[0, 1]) ** 2 for n, part in zip(rows, parts, strict=True)])
    expected = (squares[known].sum() / (700 * rows[known].sum())).sqrt()
    torch.testing.assert_close(e.standard_error[0, 1], expected)
    torch.testing.assert_close(e.weights[0], sum(n / 700 * p.weights[0] for n, p in zip(rows, parts, strict=True)))


# ---- ranks


def ranks_by_pairs(w, half, signed):
    best, worst = np.zeros(len(w), int), np.zeros(len(w), int)
    features = [i for i in range(len(w)) if not np.isnan(w[i])]
    for i in features:
        low, high = {}, {}
        for j in features:
            h = np.inf if np.isnan(half[j]) else half[j]
            ends = np.linspace(w[j] - h, w[j] + h, 3) if np.isfinite(h) else np.array([-np.inf, 0, np.inf])
            if not signed:
                ends = np.append(np.abs(ends), 0.0 if ends[0] <= 0 <= ends[-1] else np.abs(ends[0]))
            low[j], high[j] = ends.min(), ends.max()
        best[i] = 1 + sum(low[j] > high[i] for j in features if j != i)
        worst[i] = len(features) - sum(high[j] < low[i] for j in features if j != i)
    return best, worst


@pytest.mark.parametrize("signed", [False, True])
def test_rank_bounds_are_those_of_all_pairs(signed):
    rng = np.random.default_rng(0)
    weights, half = rng.normal(size=(6, 3, 9)), rng.exponential(0.2, size=(6, 3, 9))
    weights[0, :, -2:], half[0, :, -2:] = np.nan, np.nan  # an instance with fewer features
    half[1, :, 4] = np.nan  # an error that is not known
    half[2] = 0
    weights[3, :, 1] = weights[3, :, 0]
    best, worst = rank_bounds(torch.tensor(weights), torch.tensor(half), signed)
    for i, k in np.ndindex(6, 3):
        expected = ranks_by_pairs(weights[i, k], half[i, k], signed)
        assert best[i, k].tolist() == expected[0].tolist()
        assert worst[i, k].tolist() == expected[1].tolist()
    assert torch.equal(best[2], worst[2])


def test_ranks_are_of_simultaneous_intervals(three_outputs, x):
    e = lx.explain(three_outputs, x, lx.c_lime(0.5), n_samples=100, target=range(3))
    best, worst = e.ranks(0.9)
    d = e.weights.shape[-1]
    q = stats.t.ppf(1 - 0.1 / (2 * d), float(e.degrees_of_freedom[0]))
    expected = ranks_by_pairs(e.weights[1, 2].numpy(), (q * e.standard_error[1, 2]).numpy(), False)
    assert (best[1, 2].tolist(), worst[1, 2].tolist()) == (expected[0].tolist(), expected[1].tolist())
    assert best.shape == worst.shape == e.weights.shape
    assert (best <= worst).all()
    frame = e.to_frame(ranks=0.9)
    assert frame["best_rank"].tolist() == best.flatten().tolist()
    assert frame["worst_rank"].tolist() == worst.flatten().tolist()
    assert "best_rank" not in e.to_frame()


def test_ties_are_ties_and_end_the_draws():
    """f is symmetric in two features: no draw tells their order, a margin does; exact weights are a tie at once."""

    def symmetric(z):
        return torch.sin(z[..., 0] + z[..., 1]) + 0.2 * torch.cos(z[..., 2]) + 0.05 * z[..., 3] ** 2

    x = torch.tensor([[0.5, 0.5, 1.0, 1.0]], dtype=F64)
    where = lx.Method("C-LIME", lx.Additive(lx.Normal(0.3)), lx.SquaredError())
    e = lx.explain(symmetric, x, where, n_samples=200, until=lx.Order(3, margin=0.1))
    assert e.converged.all()
    best, worst = e.ranks()
    assert (best[0, :2].tolist(), worst[0, :2].tolist()) == ([1, 1], [2, 2])
    assert best[0, 2] == worst[0, 2] == 3
    with pytest.warns(UserWarning, match=r"before Order\(top=1, margin=0\.0\) holds .* 1 of the first 1"):
        none = lx.explain(symmetric, x, where, n_samples=200, max_samples=6200, until=lx.Order(1, margin=0.0))
    assert none.n_samples.tolist() == [6200]
    exact = lx.explain(symmetric, x, lx.kernel_shap(), n_samples=16, until=lx.Order(1, margin=0.0))
    assert exact.n_samples.tolist() == [16]
    assert exact.ranks()[0][0, :2].tolist() == [1, 1]


def test_a_weight_of_zero_has_no_sign_to_wait_for():
    """f does not depend on the last feature, but its weight has an error."""

    def unused(z):
        return torch.sin(z[..., 0]) + torch.cos(z[..., 1]) + z[..., 2] ** 2 + 0 * z[..., 3]

    x, where = torch.ones(1, 4, dtype=F64), lx.c_lime(0.3)
    e = lx.explain(unused, x, where, n_samples=200, until=lx.Signs(margin=0.02))
    assert e.converged.all()
    low, high = e.interval(simultaneous=True)
    assert low[0, 3] < 0 < high[0, 3]
    assert high[0, 3] - low[0, 3] < 0.04 * e.weights.abs().max()
    assert ((low * high > 0)[0, :3]).all()
    with pytest.warns(UserWarning, match=r"Signs\(margin=0\.0\) holds for 1 of 1 instances \(0\): up to 1 signs"):
        lx.explain(unused, x, where, n_samples=200, max_samples=3000, until=lx.Signs(margin=0.0))


def test_looks_share_the_level():
    total = sum(1 - spent(0.95, r) for r in range(1, 10_000))
    assert 0.0499 < total < 0.05


# ---- what it says


def test_it_travels_with_the_explanation(tmp_path, three_outputs, x):
    with pytest.warns(UserWarning, match="max_samples"):
        e = lx.explain(three_outputs, x, lx.lime(), n_samples=60, target=0, tol=0.05, max_samples=420)
    assert set(e.converged.tolist()) == {True, False}
    back = lx.load(e.save(tmp_path / "e"))
    for other in (back, lx.concat([e[:2], e[2:]]), e[list(range(len(e)))]):
        assert other.converged.tolist() == e.converged.tolist()
        assert other.n_samples.tolist() == e.n_samples.tolist()
        assert other.settings["until"] == "Tolerance(relative=0.05)"
    assert e[1].converged.tolist() == e.converged[1:2].tolist()
    plain = lx.explain(three_outputs, x, lx.lime(), n_samples=60, target=0)
    assert lx.concat([e, plain]).converged is None
    assert lx.load(plain.save(tmp_path / "plain")).converged is None
    json.dumps(e.settings)


def test_how_far_it_got():
    with pytest.warns(UserWarning, match="max_samples") as said:
        e = lx.explain(NET, INSTANCES, lx.kernel_shap(), n_samples=100, tol=0.001, max_samples=700)
    ratio = float((e.standard_error.amax(1) / e.weights.abs().amax(1)).max()) / 0.001
    assert [str(one.message) for one in said] == [
        "max_samples=700 ends the draws before Tolerance(relative=0.001) holds for 2 of 2 instances (0, 1): the "
        f"largest standard error is {ratio:.3g} times what is allowed"
    ]
    assert e.n_samples.tolist() == [700, 700]


def test_every_round_has_a_bar(monkeypatch):
    from locapprox import _explain

    bars = []

    class Bar:
        total, rows = 0, 0

        def __init__(self, **settings):
            self.name = settings["desc"]
            bars.append(self)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def update(self, n):
            self.rows += n

    monkeypatch.setattr(_explain, "tqdm", Bar)
    e = lx.explain(NET, INSTANCES, lx.lime(3.0), n_samples=200, tol=0.02)
    assert [bar.name for bar in bars[:2]] == ["LIME", "LIME: round 2, 2 instances"]
    assert sum(bar.rows for bar in bars) == sum(bar.total for bar in bars) == int(e.n_samples.sum())


@pytest.mark.parametrize(
    ("kw", "error", "says"),
    [
        ({"tol": 0}, ValueError, "tol must be positive"),
        ({"tol": -0.1}, ValueError, "relative must be a number ≥ 0"),
        ({"tol": float("nan")}, ValueError, "relative must be a number ≥ 0"),
        ({"tol": "tight"}, TypeError, "tol must be a number"),
        ({"tol": True}, TypeError, "tol must be a number"),
        ({"tol": users.Signs()}, TypeError, "tol must be a number"),
        ({"until": 0.05}, TypeError, "until must be"),
        ({"until": users.Tolerance(0.1)}, TypeError, "until must be"),
        ({"until": users.Order}, TypeError, "until must be"),
        ({"tol": 0.1, "max_samples": 99}, ValueError, "max_samples must be at least n_samples=100"),
        ({"tol": 0.1, "max_samples": 0}, ValueError, "max_samples must be a whole number"),
        ({"max_samples": 500}, ValueError, "max_samples is for tol and until"),
    ],
)
def test_bad_input_is_named(kw, error, says):
    with pytest.raises(error, match=says):
        users.explain(wavy, SMALL, users.c_lime(0.5), n_samples=100, **kw)


@pytest.mark.parametrize(
    ("part", "says"),
    [
        (lambda: users.Tolerance(absolute=-1), "absolute must be"),
        (users.Tolerance, "tol must be positive"),
        (lambda: users.Order(0), "top must be"),
        (lambda: users.Order(level=1), "level must be"),
        (lambda: users.Signs(level=95), "level must be"),
        (lambda: users.Signs(margin=-0.1), "margin must be"),
    ],
)
def test_bad_stops_are_named(part, says):
    with pytest.raises(ValueError, match=says):
        part()


def test_one_feature_has_no_ranks():
    e = lx.explain(lambda z: torch.sin(z[..., 0]), SMALL[:, :1], lx.c_lime(0.5))
    with pytest.raises(ValueError, match="one feature"):
        e.ranks()
    with pytest.raises(ValueError, match="one feature"):
        lx.explain(lambda z: torch.sin(z[..., 0]), SMALL[:, :1], lx.c_lime(0.5), until=lx.Order(1))


# ---- calibration under stopping


def at_the_stop(name, kind, n, seeds, **kw):
    """Coverage of the 95 % intervals at the stop, its error; draws in the mean; the explanations that converged."""
    model = OneLayer(kind)
    expected, covered, drawn, done = truth(name, model, INSTANCES), [], [], []
    for seed in range(seeds):
        e = lx.explain(model, INSTANCES, METHODS[name], n_samples=n, seed=seed, max_samples=7 * n, **kw)
        low, high = e.interval()
        known = low.isfinite()
        covered += [float(((low <= expected) & (expected <= high))[known].double().mean())] if known.any() else []
        drawn.append(float(e.n_samples.double().mean()))
        done.append((e.weights, e.converged))
    return np.mean(covered), np.std(covered, ddof=1) / len(covered) ** 0.5, np.mean(drawn), expected, done


def wrong_orders(expected, done, top):
    """Of certified instances, those with a pair of the first in the wrong order by more than a tie."""
    wrong, certified = 0, 0
    for weights, converged in done:
        for w, truly in zip(weights[converged], expected.abs()[converged], strict=True):
            found = truly[w.abs().argsort(descending=True)]
            beyond = torch.stack([found[i + 1 :].max() - found[i] for i in range(top)]).max()
            certified, wrong = certified + 1, wrong + int(beyond > lx.Order().margin * truly.max())
    return wrong, certified


def wrong_signs(expected, done):
    wrong, certified = 0, 0
    for weights, converged in done:
        matters = expected.abs() > lx.Signs().margin * expected.abs().amax(1, keepdim=True)
        bad = ((weights.sign() != expected.sign()) & matters).any(1)
        certified, wrong = certified + int(converged.sum()), wrong + int((bad & converged).sum())
    return wrong, certified


def typical(name, kind, n):
    """The error that half of the first rounds meet: where it is luck to stop."""
    e = [lx.explain(OneLayer(kind), INSTANCES, METHODS[name], n_samples=n, seed=10**6 + s) for s in range(20)]
    ratio = torch.stack([part.standard_error.amax(1) / part.weights.abs().amax(1) for part in e])
    return float(ratio.nanmedian(0).values.mean())


def check_stops(name, kind, n, seeds, within):
    ratio = typical(name, kind, n)
    for kw in ({"tol": ratio}, {"tol": ratio / 2}, {"until": lx.Order(3)}, {"until": lx.Signs()}):
        mean, error, drawn, expected, done = at_the_stop(name, kind, n, seeds, **kw)
        until = kw.get("until")
        wrong, certified = wrong_orders(expected, done, 3) if isinstance(until, lx.Order) else (0, 1)
        wrong, certified = wrong_signs(expected, done) if isinstance(until, lx.Signs) else (wrong, certified)
        print(
            f"MUST-SHOW stop {name}, {kind}, n = {n}, {kw}: coverage {mean:.4f} ± {error:.4f}, {drawn:.0f} draws, "
            f"wrong {wrong} of {certified}"
        )
        assert abs(mean - 0.95) < within(error)
        assert wrong <= 0.05 * certified


@pytest.mark.filterwarnings("ignore:max_samples", "ignore:standard errors")
def test_intervals_cover_at_the_stop():
    check_stops("C-LIME", "tanh", 128, 20, lambda error: 4 * error)


@pytest.mark.slow
@pytest.mark.parametrize("n", [128, 512])
@pytest.mark.parametrize("kind", ["tanh", "relu"])
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.filterwarnings("ignore:max_samples", "ignore:standard errors")
def test_intervals_cover_at_the_stop_over_1000_seeds(name, kind, n):
    check_stops(name, kind, n, 1000, lambda error: 0.02)

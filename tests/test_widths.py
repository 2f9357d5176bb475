"""The kernel's width: chosen for every instance from a stated effective share, recorded, and advised."""

import math
import re

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import locapprox as lx

F64 = torch.float64
CHOSEN = lx.ExponentialKernel()


def model(a):
    return torch.tanh(a.flatten(1)[:, :5].sum(1) / 3)


def kernel_weights(x, width, base=0.0):
    """Of all 2ᵈ masks, by definition: (b, 2ᵈ)."""
    d = x.shape[1]
    masks = torch.tensor(list(np.ndindex(*[2] * d)), dtype=F64)
    square = ((x[:, None] - base) * (1 - masks)).square().sum(-1)
    return torch.exp(-square / torch.as_tensor(width).reshape(-1, 1) ** 2), masks


def effective_share(v):
    return v.mean(-1).square() / v.square().mean(-1)


def widths(x, method=None, n=1000):
    return torch.tensor(lx.explain(model, x, method or lx.lime(), n_samples=n).settings["width"], dtype=F64)


@pytest.mark.parametrize("share", [0.25, 0.6, 0.9])
def test_the_effective_share_over_all_masks_is_the_one_that_was_stated(share):
    x = 40 * torch.randn(6, 9, generator=torch.Generator().manual_seed(1), dtype=F64) + 90
    for masks in (lx.FairMasks(), lx.AllCoalitions()):
        where = lx.Multiplicative(masks, baseline=2.0, kernel=lx.ExponentialKernel(share=share))
        got = widths(x, lx.Method("", where, lx.SquaredError()))
        v, _ = kernel_weights(x, got, 2.0)
        np.testing.assert_allclose(effective_share(v), share, rtol=1e-9)


def test_a_feature_in_other_units_keeps_a_weight(x):
    """Its removal alone leaves 1 % of the weight, and the share is more than asked for."""
    x = x * torch.tensor([1, 1, 1, 1, 1, 1e4], dtype=F64)
    v, masks = kernel_weights(x, widths(x))
    assert bool((effective_share(v) > CHOSEN.share).all())
    alone = int((masks.sum(1) + 10 * masks[:, 5] == 5).nonzero())
    np.testing.assert_allclose(v[:, alone], 0.01, rtol=1e-9)


def test_the_width_of_an_instance_is_its_own_and_scales_with_it(x):
    method, got = lx.lime(), widths(x)
    assert len(set(got.tolist())) == len(x)
    for i in range(len(x)):
        torch.testing.assert_close(widths(x[i : i + 1]), got[i : i + 1], rtol=1e-14, atol=0)
    for size in (1e-9, 1e9):
        torch.testing.assert_close(widths(size * x), size * got, rtol=1e-12, atol=0)
    one, other = (lx.explain(model, x, method, batch_size=size) for size in (7, 1000))
    assert one.settings == other.settings


@pytest.mark.parametrize("n", [9, 14, 20, 50, 56])
def test_few_draws_leave_twice_the_unknowns_or_weigh_the_same(n):
    """Seven unknowns: up to 14 draws weigh the same, up to 56 leave 14 effective ones, then a share of 1/4 rules."""
    x = torch.arange(1.0, 6.0, dtype=F64)[:, None] * torch.linspace(1, 2, 6, dtype=F64)
    got = lx.lime().neighbourhood.settled(x, n).kernel.chosen
    np.testing.assert_allclose(n * effective_share(kernel_weights(x, got)[0]), min(n, 14), rtol=1e-9)
    assert bool(got.isinf().all()) == (n <= 14)


def test_features_at_the_baseline_have_no_part(x):
    """They change neither the width, nor, all of them, anything."""
    without, with_nulls = x[:, :4], torch.cat([x[:, :2], torch.zeros(5, 30, dtype=F64), x[:, 2:4]], dim=1)
    torch.testing.assert_close(widths(with_nulls), widths(without), rtol=1e-14, atol=0)
    x = x.index_fill(0, torch.tensor(2), 0.0)
    e = lx.explain(lambda a: a.sum(1), x, lx.lime())
    assert e.settings["width"][2] == math.inf
    torch.testing.assert_close(e.weights, x, rtol=0, atol=1e-9)


@pytest.mark.parametrize("n", [25, 40, 70, 200, 1000])
@pytest.mark.filterwarnings("ignore:n_samples is small")
def test_lime_without_a_width_works_on_raw_tables(n):
    for data in (load_breast_cancer(), load_wine()):
        fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(data.data, data.target)
        for base in (0.0, data.data.mean(0)):
            e = lx.explain(fitted, data.data[:20], lx.lime(baseline=base), target=1, n_samples=n)
            assert bool(e.weights.isfinite().all())
            assert bool((e.standard_error != 0).all() if n > 2 * 31 else True)  # NaN: few draws carry it


@pytest.mark.filterwarnings("ignore:n_samples is small")
def test_lime_without_a_width_works_on_images():
    images = torch.tensor(load_digits().images[:3, None])  # 0 … 16, many pixels at the baseline
    for method in (lx.lime(), lx.lime(features=lx.patches(images.shape, size=2)), lx.lime(baseline=lx.ChannelMean())):
        for n in (60, 1000):
            assert bool(lx.explain(model, images, method, n_samples=n).weights.isfinite().all())
    photo = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    e = lx.explain(model, photo, lx.lime(features=lx.patches(photo.shape, size=8)))
    v = e.points()[0].weight
    assert float(v.sum().square() / v.square().sum()) > 0.9 * 2 * 145  # as many on average


def test_a_width_is_chosen_on_xi_for_other_distributions_and_without_one():
    """In Gaussian noise E[v]²/E[v²] = Π √(1 + 4s) / (1 + 2s), s = σ²/width²; found from 1,024 draws."""
    x, sigma, d = torch.zeros(3, 4, dtype=F64), 0.7, 4
    where = lx.Additive(lx.Normal(sigma), kernel=CHOSEN)
    s = (sigma / widths(x, lx.Method("", where, lx.SquaredError()))) ** 2
    share = ((1 + 4 * s).sqrt() / (1 + 2 * s)) ** d
    np.testing.assert_allclose(share, CHOSEN.share, rtol=0.1)
    where = lx.Multiplicative(lx.FairMasks(), kernel=lx.ExponentialKernel(measured_in="xi"))
    got = widths(x + 3.0, lx.Method("", where, lx.SquaredError()))
    np.testing.assert_allclose(effective_share(kernel_weights(torch.ones(3, 4), got)[0]), 0.25, rtol=1e-9)
    for where in (lx.Multiplicative(lx.Normal(0.5)), lx.Multiplicative(lx.ShapleyMasks())):
        chosen = lx.Multiplicative(where.distribution, kernel=CHOSEN)
        e = lx.explain(model, x + 1.0, lx.Method("", chosen, lx.SquaredError()))
        assert bool(e.weights.isfinite().all())
        lx.check_neighbourhood(chosen, x + 1.0)


@pytest.mark.parametrize(
    "method", [lx.lime(), lx.lime(baseline=torch.zeros(5, 6)), lx.lime(features=[0, 0, 1, 1, 2, 2])]
)
def test_widths_are_recorded_and_go_with_their_instances(method, x, tmp_path):
    x = x * torch.arange(1, 6)[:, None]
    e = lx.explain(model, x, method, n_samples=300)
    assert len(set(e.settings["width"])) == 5
    some = e[[3, 1]]
    assert some.settings["width"] == [e.settings["width"][3], e.settings["width"][1]]
    joined = lx.concat([e[:2], e[2:]])
    assert joined.settings == e.settings
    for other in (some, joined[[3, 1]]):
        torch.testing.assert_close(other.validate(200), e.validate(200)[[3, 1]])
        assert torch.equal(other.points(1)[0].weight, e.points(1)[0].weight)
    back = lx.load(e.save(tmp_path / "e"))
    assert back[2:4].settings["width"] == e.settings["width"][2:4]
    assert "ExponentialKernel()" in repr(back.method)
    by_hand = [lx.explain(model, x[i : i + 1], lx.lime(w, **placed(method, i)), n_samples=300) for i, w in at(e)]
    torch.testing.assert_close(torch.cat([one.weights for one in by_hand]), e.weights)


def at(e):
    return enumerate(e.settings["width"])


def placed(method, i):
    base = method.neighbourhood.baseline
    return {"baseline": base if isinstance(base, float) else base[i], "features": method.neighbourhood.features}


def test_the_papers_lime_keeps_its_width():
    assert lx.paper_methods()["LIME"].neighbourhood.kernel == lx.ExponentialKernel(1.0)


def test_a_share_is_one():
    for wrong in (0.0, 1.0, 1.5):
        with pytest.raises(ValueError, match=r"^share must be between 0 and 1"):
            lx.ExponentialKernel(share=wrong)


# ---- advice, followed


def followed(x, n, width, base=0.0, f=model):
    """The next explanation after the sentence, and how many draws and what width it said."""
    with pytest.raises(ValueError, match=r"use (n_samples ≥ \d+ and )?width=") as error:
        lx.explain(f, x, lx.lime(width, baseline=base), n_samples=n, target=None if f is model else 1)
    words = str(error.value)
    width = float(re.search(r"use .*width=([\d.e+-]+)", words)[1])
    found = re.search(r"use n_samples ≥ (\d+)", words)
    n = int(found[1]) if found else n
    return lx.explain(f, x, lx.lime(width, baseline=base), n_samples=n, target=None if f is model else 1), n, width


def test_the_advice_on_the_readmes_own_data_works():
    """It was width=44, and then "its rows determine 29 of the 31 weights"."""
    data = load_breast_cancer()
    f = make_pipeline(StandardScaler(), LogisticRegression()).fit(data.data, data.target)
    for width in (1.0, 44.0):
        e, n, _ = followed(data.data[:5], 1000, width, data.data.mean(0), f)
        assert n == 1000
        assert bool(e.weights.isfinite().all())


@pytest.mark.filterwarnings("ignore:n_samples is small")
@pytest.mark.parametrize("seed", range(60))
def test_the_advice_on_random_tables_works(seed):
    """Columns of scales over ten orders of magnitude, some at the baseline, many or few draws, any width."""
    rng = np.random.default_rng(seed)
    b, d = rng.integers(1, 6), rng.integers(1, 25)
    scale = 10.0 ** rng.uniform(-4, 6, d) if rng.random() < 0.5 else np.full(d, 10.0 ** rng.uniform(-3, 3))
    x = torch.from_numpy(rng.standard_normal((b, d)) * scale * (rng.random((b, d)) < 0.9))
    x[0, 0] = scale[0]
    n = int((d + 1) * rng.uniform(1, 60)) + 3
    width = float(x.abs().max()) * 10.0 ** rng.uniform(-4, -1.2)
    try:
        lx.explain(model, x, lx.lime(width), n_samples=n)
    except ValueError:
        e, _, wider = followed(x, n, width)
        assert wider > width
        assert bool(e.weights.isfinite().all())
    assert bool(lx.explain(model, x, lx.lime(), n_samples=n).weights.isfinite().all())

"""What an explanation says about itself, and that it comes back from disk."""

import json
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import locapprox as lx

F64 = torch.float64


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def test_intervals_are_normal_or_t(tanh_net, x, monkeypatch):
    from locapprox import sampling

    e = lx.explain(tanh_net, x, lx.c_lime(), n_samples=100)
    for level in (0.5, 0.95, 0.999):
        low, high = e.interval(level)
        q = stats.t.ppf((1 + level) / 2, 100 - 7)
        torch.testing.assert_close(high - e.weights, q * e.standard_error, rtol=1e-9, atol=1e-15)
        torch.testing.assert_close(e.weights - low, q * e.standard_error, rtol=1e-9, atol=1e-15)
    monkeypatch.setattr(sampling, "MEMORY", 10)
    e = lx.explain(tanh_net, x, lx.c_lime(), n_samples=100)
    q = stats.t.ppf(0.975, 19)
    torch.testing.assert_close(e.interval()[1] - e.weights, q * e.standard_error, rtol=1e-9, atol=1e-15)
    for level in (0.0, 1.0, 95):
        with pytest.raises(ValueError, match="level"):
            e.interval(float(level))


STOCHASTIC = {
    "C-LIME": (lx.c_lime(0.6), 300),
    "LIME": (lx.lime(width=3.0), 300),
    "SmoothGrad": (lx.smoothgrad(0.6), 300),
    "KernelSHAP": (lx.kernel_shap(), 40),
    "both": (lx.Method("both", lx.Additive(lx.Normal(0.6)), lx.SquaredError() + 0.5 * lx.GradientMatching()), 300),
}


def loss_by_hand(model, e, method, xi, weight):
    """The weighted mean loss of an explanation's surrogate on given draws, and its standard error."""
    where, result = method.neighbourhood, []
    finite = weight.reshape(-1, len(xi))[0].isfinite()
    xi, weight = xi[finite], weight[..., finite]
    for i in range(len(e.x)):
        leaf = xi[None].clone().requires_grad_()
        y = model(where.place(e.x[i : i + 1], leaf).flatten(0, 1))[:, 0]
        each = method.loss.value * (y - xi @ e.weights[i] - e.intercept[i]).square()
        if method.loss.gradient:
            gradient = torch.autograd.grad(y.sum(), leaf)[0][0]
            each = each + method.loss.gradient * (gradient - e.weights[i]).square().sum(1)
        w = weight[i] if weight.ndim == 2 else weight
        mean = (w * each).sum() / w.sum()
        result.append((mean.item(), ((w * (each - mean)).square().sum().sqrt() / w.sum()).item()))
    return torch.tensor(result, dtype=F64).T


@pytest.mark.parametrize("name", STOCHASTIC)
def test_validate_is_the_loss_on_fresh_draws(name, tanh_net, x, draw_of):
    method, n = STOCHASTIC[name]
    e = lx.explain(tanh_net, x, method, n_samples=n)
    fresh = draw_of(method.neighbourhood, x, 500, 0, "validate")
    fitted = draw_of(method.neighbourhood, x, n, 0, "fit")
    if name == "C-LIME":
        assert not torch.isclose(fresh.xi[: len(fitted.xi)], fitted.xi[:500]).any()
    expected, _ = loss_by_hand(tanh_net, e, method, fresh.xi, fresh.weight)
    torch.testing.assert_close(e.validate(500), expected, rtol=1e-9, atol=0)
    other = draw_of(method.neighbourhood, x, 500, 9, "validate")
    expected, _ = loss_by_hand(tanh_net, e, method, other.xi, other.weight)
    torch.testing.assert_close(e.validate(500, seed=9), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("name", "n", "trials"),
    [("C-LIME", 30, 60), ("LIME", 30, 60), ("SmoothGrad", 10, 100), ("KernelSHAP", 40, 60), ("both", 20, 60)],
)
def test_the_reported_loss_is_that_of_fresh_draws(name, n, trials, tanh_net, x, draw_of):
    """Mean over fits on few draws: the reported loss is the one on fresh ones, the in-sample loss is less."""
    method, x = STOCHASTIC[name][0], x[:2]
    fresh = draw_of(method.neighbourhood, x, 2000, 123, "validate")
    gaps, inside = [], []
    for seed in range(trials):
        e = lx.explain(tanh_net, x, method, n_samples=n, seed=seed)
        true, error = loss_by_hand(tanh_net, e, method, fresh.xi, fresh.weight)
        own = draw_of(method.neighbourhood, x, n, seed, "fit")
        gaps.append(((e.loss - true) / true).numpy())
        inside.append(((loss_by_hand(tanh_net, e, method, own.xi, own.weight)[0] - true) / true).numpy())
    gaps, inside, common = np.array(gaps), np.array(inside), (error / true).numpy()
    if fresh.fixed == len(fresh.xi):  # all coalitions: nothing random
        common = 0 * common
    bound = 4 * (gaps.var(0, ddof=1) / trials + common**2) ** 0.5
    print(f"{name}: reported − true {gaps.mean(0)}, in-sample − true {inside.mean(0)}, bound {bound}")
    assert (np.abs(gaps.mean(0)) < bound).all()
    assert (inside.mean(0) < gaps.mean(0) - 4 * (gaps - inside).std(0) / trials**0.5).all()
    assert (inside.mean(0) < 0).all()


def test_validate_is_zero_for_determined_surrogates(tanh_net, x):
    for method in (lx.vanilla_gradients(), lx.gradient_x_input(), lx.occlusion()):
        assert (lx.explain(tanh_net, x, method).validate(100) == 0).all(), method.name


def test_to_frame(three_outputs, x):
    names = ["a", "b", "c", "d", "e", "f"]
    frame = pd.DataFrame(x.numpy(), columns=names)
    e = lx.explain(three_outputs, frame, lx.c_lime(), n_samples=50, target=range(3))
    table = e.to_frame()
    assert list(table.columns) == ["method", "instance", "target", "feature", "weight", "standard_error"]
    assert len(table) == 5 * 3 * 6
    assert set(table["method"]) == {"C-LIME"}
    for _, row in table.sample(40, random_state=0).iterrows():
        at = row["instance"], row["target"], names.index(row["feature"])
        assert row["weight"] == float(e.weights[at])
        assert row["standard_error"] == float(e.standard_error[at])
    one = lx.explain(three_outputs, frame, lx.c_lime(), n_samples=50, target=1).to_frame()
    assert list(one.columns) == ["method", "instance", "feature", "weight", "standard_error"]
    np.testing.assert_allclose(one["weight"], table.loc[table["target"] == 1, "weight"], rtol=1e-13)
    grouped = lx.explain(three_outputs, frame, lx.kernel_shap(features=[0, 0, 1, 1, 2, 2]), n_samples=8, target=0)
    assert grouped.to_frame()["feature"].tolist() == ["0", "1", "2"] * 5


def test_to_frame_of_images(tanh_net):
    x = torch.arange(12.0, dtype=F64).reshape(2, 2, 3)
    table = lx.explain(lambda a: a.flatten(1).sum(1), x, lx.occlusion()).to_frame()
    assert table["feature"].tolist() == ["0,0", "0,1", "0,2", "1,0", "1,1", "1,2"] * 2
    np.testing.assert_allclose(table["weight"], np.arange(12), atol=1e-12)


def test_plot_draws_bars_with_intervals(tanh_net, x, monkeypatch):
    monkeypatch.setattr(plt, "show", lambda *a, **k: pytest.fail("plot() shows"))
    frame = pd.DataFrame(x.numpy(), columns=list("abcdef"))
    e = lx.explain(tanh_net, frame, lx.c_lime(), n_samples=80)
    _, given = plt.subplots()
    ax = e.plot(ax=given, instance=2, top=4)
    assert ax is given
    order = e.weights[2].abs().argsort()[-4:]
    widths = [bar.get_width() for bar in ax.patches]
    np.testing.assert_allclose(widths, e.weights[2][order].numpy())
    assert [t.get_text() for t in ax.get_yticklabels()] == ["abcdef"[i] for i in order]
    segments = np.array([s for c in ax.collections for s in c.get_segments()])
    low, high = e.interval()
    np.testing.assert_allclose(sorted(segments[:, 0, 0]), sorted(low[2][order].numpy()))
    np.testing.assert_allclose(sorted(segments[:, 1, 0]), sorted(high[2][order].numpy()))
    assert "C-LIME" in ax.get_title()
    plt.close("all")
    assert e.plot() is plt.gca()


def test_plot_draws_images_on_a_symmetric_scale():
    x = torch.linspace(-1, 2, 24, dtype=F64).reshape(1, 2, 3, 4)
    e = lx.explain(lambda a: a.flatten(1).sum(1), x, lx.occlusion())
    image = e.plot().images[0]
    np.testing.assert_allclose(image.get_array(), x[0].sum(0).numpy(), atol=1e-12)
    assert image.get_clim() == pytest.approx((-float(x[0].sum(0).abs().max()), float(x[0].sum(0).abs().max())))


def test_plot_with_padding_and_several_scores(three_outputs, x):
    labels = torch.tensor(
        [[0, 1, 2, 2, 1, 0], [0, 1, 2, 3, 4, 0], [0, 1, 0, 1, 0, 1], [0, 0, 0, 1, 1, 1], [0, 1, 2, 3, 4, 5]]
    )
    e = lx.explain(three_outputs, x, lx.occlusion(features=labels), target=range(3))
    ax = e.plot(instance=2, score=1)
    widths = sorted(w for w in (bar.get_width() for bar in ax.patches) if math.isfinite(w) and w != 0)
    np.testing.assert_allclose(widths, sorted(e.weights[2, 1, :2].numpy()))


METHODS = {
    "additive": lx.c_lime(),
    "groups": lx.kernel_shap(baseline=0.25, features=[0, 2, 1, 1, 2, 0]),
    "quadrature": lx.integrated_gradients(),
}


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_save_and_load(name, several, three_outputs, x, tmp_path):
    target = range(3) if several else 1
    frame = pd.DataFrame(x.numpy(), columns=list("abcdef"))
    e = lx.explain(three_outputs, frame, METHODS[name], n_samples=50, target=target)
    path = e.save(tmp_path / "e.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["e.npz"]
    back = lx.load(path)
    for field in ("weights", "intercept", "standard_error", "loss", "r2", "x"):
        assert torch.equal(getattr(back, field), getattr(e, field)), field
    for field in ("degrees", "method", "feature_names", "settings", "several"):
        assert getattr(back, field) == getattr(e, field), field
    pd.testing.assert_frame_equal(back.to_frame(), e.to_frame())
    assert repr(back) == repr(e)
    inputs = torch.randn(5, 7, 6, generator=torch.Generator().manual_seed(0), dtype=F64)
    torch.testing.assert_close(back.predict(inputs), e.predict(inputs), rtol=0, atol=1e-13)
    assert torch.equal(back.interval()[0], e.interval()[0])
    with pytest.raises(ValueError, match="loaded"):
        back.validate()
    again = lx.load(back.save(tmp_path / "again.npz"))
    torch.testing.assert_close(again.predict(inputs), e.predict(inputs), rtol=0, atol=1e-13)
    with np.load(path, allow_pickle=False) as stored:  # arrays and a JSON text, nothing executable
        assert all(stored[key].dtype != object for key in stored.files)
        assert json.loads(str(stored["meta"]))["method"] == e.method


def test_padded_explanations_come_back(tanh_net, x, tmp_path):
    labels = torch.tensor(
        [[0, 1, 2, 2, 1, 0], [0, 1, 2, 3, 4, 0], [0, 1, 0, 1, 0, 1], [0, 0, 0, 1, 1, 1], [0, 1, 2, 3, 4, 5]]
    )
    e = lx.explain(tanh_net, x, lx.occlusion(features=labels))
    back = lx.load(e.save(tmp_path / "e"))
    torch.testing.assert_close(back.weights, e.weights, equal_nan=True, rtol=0, atol=0)
    torch.testing.assert_close(back.predict(x / 2), e.predict(x / 2), rtol=0, atol=1e-13)


def test_load_takes_the_path_that_save_took(tanh_net, x, tmp_path):
    e = lx.explain(tanh_net, x, lx.occlusion())
    for name in ("plain", "with.npz"):
        e.save(tmp_path / name)
        assert torch.equal(lx.load(tmp_path / name).weights, e.weights)
        assert torch.equal(lx.load(str(tmp_path / name)).weights, e.weights)


def test_a_dot_in_the_name_is_no_suffix(tanh_net, x, tmp_path):
    """sigma-0.1 and sigma-0.2 are two files."""
    one, two = (lx.explain(tanh_net, x, lx.c_lime(sigma), n_samples=40) for sigma in (0.1, 0.2))
    first, second = one.save(tmp_path / "sigma-0.1"), two.save(tmp_path / "sigma-0.2")
    assert first != second
    assert torch.equal(lx.load(first).weights, one.weights)
    assert torch.equal(lx.load(second).weights, two.weights)


def test_an_interrupted_save_leaves_the_old_file(tanh_net, x, tmp_path, monkeypatch):
    one, two = (lx.explain(tanh_net, x, lx.c_lime(), n_samples=40, seed=s) for s in (0, 1))
    path = one.save(tmp_path / "e.npz")
    whole = np.savez_compressed

    def broken(file, **arrays):
        whole(file, **{k: arrays[k] for k in list(arrays)[:2]})
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", broken)
    with pytest.raises(OSError, match="disk full"):
        two.save(path)
    assert torch.equal(lx.load(path).weights, one.weights)


def test_what_does_not_predict_still_saves(x, tmp_path):
    """A neighbourhood of one's own need not be affine in ξ."""

    class Curved:
        def draw(self, x, n, rng):
            return lx.Draw(torch.randn(n, 6, generator=rng, dtype=x.dtype), torch.ones(n, dtype=F64))

        def place(self, x, xi):
            return x.unsqueeze(1) + torch.sin(xi)

    e = lx.explain(lambda a: a.sum(1), x, lx.Method("curved", Curved(), lx.SquaredError()), n_samples=40)
    back = lx.load(e.save(tmp_path / "curved.npz"))
    assert torch.equal(back.weights, e.weights)
    with pytest.raises(ValueError, match=r"affine|loaded"):
        back.predict(x)


def test_repr(tanh_net, x):
    e = lx.explain(tanh_net, x, lx.c_lime(), n_samples=60)
    assert repr(e) == (
        f"Explanation(C-LIME, 5 instance(s), weights 6, median loss {float(e.loss.median()):.3g}, "
        f"median r2 {float(e.r2.median()):.3g})"
    )


def test_settings_record_the_call(tanh_net, x):
    e = lx.explain(tanh_net, x, lx.kernel_shap(baseline=0.5), n_samples=60, seed=4)
    assert (e.settings["n_samples"], e.settings["seed"], e.settings["target"]) == (60, 4, "None")
    assert "baseline=0.5" in e.settings["neighbourhood"]
    json.dumps(e.settings)


@pytest.mark.parametrize("shape", [(5,), (4, 6), (5, 5), (5, 3, 7)])
def test_predict_names_wrong_shapes(tanh_net, x, shape):
    e = lx.explain(tanh_net, x, lx.c_lime(), n_samples=60)
    with pytest.raises(ValueError, match="inputs must be"):
        e.predict(torch.zeros(shape))

"""What an explanation says about itself, and that it comes back from disk."""

import copy
import json
import math
import pickle
import re
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.linear_model import LogisticRegression

import locapprox as lx

F64 = torch.float64


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def test_intervals_are_normal_or_t(tanh_net, x, monkeypatch):
    from locapprox.fit import plan

    e = lx.explain(tanh_net, x, lx.c_lime(antithetic=False), n_samples=400)
    assert e.standard_error.isfinite().all()
    for level in (0.5, 0.95, 0.999):
        low, high = e.interval(level)
        q = stats.t.ppf((1 + level) / 2, 400 - 7)
        torch.testing.assert_close(high - e.weights, q * e.standard_error, rtol=1e-9, atol=1e-15)
        torch.testing.assert_close(e.weights - low, q * e.standard_error, rtol=1e-9, atol=1e-15)
    monkeypatch.setattr(plan, "MEMORY", 10)
    e = lx.explain(tanh_net, x, lx.c_lime(antithetic=False), n_samples=400)
    q = stats.t.ppf(0.975, 19)
    torch.testing.assert_close(e.interval()[1] - e.weights, q * e.standard_error, rtol=1e-9, atol=1e-15, equal_nan=True)
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
    if fresh.n_fixed == len(fresh.xi):  # all coalitions: nothing random
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


def test_positive_is_red_and_negative_is_blue_in_every_picture():
    """Of bars, and of both pictures of a map, where the largest and the least weight are."""
    x = torch.tensor([[[[1.0, -1.0]]]], dtype=F64)
    flat, image = (lx.explain(lambda a: a.flatten(1).sum(1), one, lx.occlusion()) for one in (x.flatten(1), x))
    bars = flat.plot(ax=plt.subplots()[1]).patches
    colours = {bar.get_width() > 0: bar.get_facecolor() for bar in bars}
    shown = [colours[True], colours[False]]
    for ax in (image.plot(ax=plt.subplots()[1]), lx.picture(image.on_input()[0], ax=plt.subplots()[1])):
        (drawn,) = ax.images
        shown += [drawn.cmap(drawn.norm(value)) for value in (1.0, -1.0)]
    for i, (red, _, blue, _) in enumerate(shown):
        assert (red > blue) == (i % 2 == 0)
    plt.close("all")


def test_names_are_drawn_as_they_are(x):
    """What stands between dollars is no formula."""
    names = [r"$\foo$", "c$", "a_b", "$x", "d", "e"]
    method = lx.Method(r"$\bar$", lx.Additive(lx.Normal(0.1)), lx.SquaredError())
    e = lx.explain(lambda a: a.sum(1).to_numpy(), pd.DataFrame(x.numpy(), columns=names), method, n_samples=50)
    for ax in (e.plot(ax=plt.figure().gca()), e.plot_points(ax=plt.figure().gca())):
        ax.figure.canvas.draw()  # where a formula is read
        shown = [label.get_text() for label in ax.get_yticklabels()] if len(ax.patches) else [ax.get_xlabel()]
        assert {text.replace("\\$", "$") for text in shown} <= set(names)
        assert ax.get_title().startswith(r"\$\bar\$")
    table = lx.faithfulness(lambda a: a.sum(1), x, {names[0]: lx.c_lime()}, {names[0]: lx.c_lime()}, n_samples=50)
    table.plot(ax=plt.figure().gca()).figure.canvas.draw()


def test_points_of_one_feature_are_drawn(x):
    e = lx.explain(lambda a: a.sum(1), x[:, :1], lx.c_lime(), n_samples=40)
    ax = e.plot_points()
    drawn = ax.collections[0].get_offsets()
    np.testing.assert_array_equal(drawn[:, 0], drawn[:, 1])
    np.testing.assert_array_equal(drawn[:, 0], e.points(0, 500)[1].flatten())


@pytest.mark.parametrize("several", [False, True])
def test_none_of_the_instances(several, three_outputs, x, tmp_path):
    e = lx.explain(three_outputs, x, lx.c_lime(), n_samples=40, target=range(3) if several else 1)
    for none in (e[:0], e[5:2], e[[]], lx.load(e[:0].save(tmp_path / "none"))):
        assert len(none) == 0
        assert none.predict(x[:0]).shape == (0, *e.predict(x).shape[1:])
        assert none.interval()[0].shape == (0, *e.weights.shape[1:])
        assert none.to_frame().columns.tolist() == e.to_frame().columns.tolist()
        agree(lx.concat([none, e]), e, exactly=False) if none._inside.problem else None
    assert e[:0].validate(10).shape == (0, *e.loss.shape[1:])


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
    for field in ("weights", "intercept", "standard_error", "loss", "r2", "degrees_of_freedom", "n_samples", "x"):
        assert torch.equal(getattr(back, field), getattr(e, field)), field
        assert getattr(back, field).dtype == getattr(e, field).dtype, field
    for field in ("feature_names", "settings"):
        assert getattr(back, field) == getattr(e, field), field
    for field in ("several", "per_entry", "link"):
        assert getattr(back._inside, field) == getattr(e._inside, field), field
    assert (back.method.name, back.method.loss) == (e.method.name, e.method.loss)
    for part in ("neighbourhood", "surrogate"):
        assert repr(getattr(back.method, part)) == repr(getattr(e.method, part))
    if name == "groups":
        with pytest.raises(ValueError, match="loaded"):
            back.on_input()
    else:
        assert torch.equal(back.on_input(), e.weights)
    for use in (back.points, lambda: lx.explain(three_outputs, frame, back.method, n_samples=50, target=target)):
        with pytest.raises(ValueError, match="loaded"):
            use()
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
        meta = json.loads(str(stored["meta"]))
        assert set(stored.files) == {*lx._explanation.ARRAYS, "x", "slopes", "origin", "meta"}
    assert (meta["format"], meta["method"]["name"]) == (1, e.method.name)


def test_padded_explanations_come_back(tanh_net, x, tmp_path):
    labels = torch.tensor(
        [[0, 1, 2, 2, 1, 0], [0, 1, 2, 3, 4, 0], [0, 1, 0, 1, 0, 1], [0, 0, 0, 1, 1, 1], [0, 1, 2, 3, 4, 5]]
    )
    e = lx.explain(tanh_net, x, lx.occlusion(features=labels))
    back = lx.load(e.save(tmp_path / "e"))
    torch.testing.assert_close(back.weights, e.weights, equal_nan=True, rtol=0, atol=0)
    torch.testing.assert_close(back.predict(x / 2), e.predict(x / 2), rtol=0, atol=1e-13)


def test_files_of_a_newer_version_and_other_files_are_refused(tanh_net, x, tmp_path):
    path = lx.explain(tanh_net, x, lx.occlusion()).save(tmp_path / "e.npz")
    whole = path.read_bytes()
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    newer = json.loads(str(arrays.pop("meta"))) | {"format": 2, "unheard": "of"}
    np.savez_compressed(path, meta=np.array(json.dumps(newer)), **arrays)
    with pytest.raises(ValueError, match=r"saved by a newer locapprox \(format 2; this one reads 1\): update it"):
        lx.load(path)
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "cut.npz").write_bytes(whole[:200])
    np.savez(tmp_path / "objects.npz", meta=np.array([{}], dtype=object))
    for name in ("other", "text", "cut", "objects"):
        with pytest.raises(ValueError, match=f"{name} is not an explanation that was saved, or it is damaged"):
            lx.load(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        lx.load(tmp_path / "none.npz")


@pytest.mark.parametrize("loss", [lx.SquaredError(), 2.0 * lx.SquaredError() + 0.5 * lx.GradientMatching()], ids=repr)
def test_files_of_version_0_1_are_read(loss, tanh_net, x, tmp_path):
    """They had no number of a format, one number of degrees, and the parts among the settings."""
    e = lx.explain(tanh_net, x, lx.Method("old", lx.Additive(lx.Normal(0.1)), loss), n_samples=50)
    path, kind = e.save(tmp_path / "e.npz"), type(loss).__name__
    written = f"{kind}(value={loss.value}, gradient={loss.gradient})"
    parts = {"neighbourhood": "Additive(distribution=…)", "loss": written, "surrogate": "Linear(intercept=True)"}
    with np.load(path, allow_pickle=False) as stored:
        arrays = {k: stored[k] for k in stored.files if k not in ("degrees_of_freedom", "n_samples", "meta")}
    meta = {"degrees": 43.0, "method": "old", "feature_names": None, "settings": e.settings | parts}
    meta |= {"several": False, "per_entry": True, "link": "identity"}
    np.savez_compressed(path, meta=np.array(json.dumps(meta)), **arrays)
    back = lx.load(path)
    assert (back.method.name, back.method.loss, back.settings) == ("old", loss, e.settings)
    assert repr(back.method.neighbourhood) == parts["neighbourhood"]
    assert back.degrees_of_freedom.tolist() == [43.0] * 5
    assert back.n_samples.tolist() == [50] * 5
    torch.testing.assert_close(back.predict(x / 2), e.predict(x / 2), rtol=0, atol=1e-13)
    half = stats.t.ppf(0.975, 43) * e.standard_error
    torch.testing.assert_close(back.interval()[1], e.weights + half, rtol=1e-12, atol=0, equal_nan=True)
    again = lx.load(back.save(tmp_path / "again"))
    torch.testing.assert_close(again.interval()[0], back.interval()[0], rtol=0, atol=0, equal_nan=True)


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
    assert [p.name for p in tmp_path.iterdir()] == ["e.npz"]


def test_several_writers_of_one_file_leave_one_of_theirs(tanh_net, x, tmp_path):
    """Eight threads: whoever reads meanwhile sees a whole file."""
    path = tmp_path / "e.npz"
    saved = [lx.explain(tanh_net, x, lx.c_lime(), n_samples=40, seed=seed) for seed in range(8)]
    saved[0].save(path)

    def write(e):
        for _ in range(15):
            e.save(path)

    with ThreadPoolExecutor(8) as pool:
        writers = [pool.submit(write, e) for e in saved]
        while not all(writer.done() for writer in writers):
            back = lx.load(path)
            assert any(torch.equal(back.weights, e.weights) for e in saved)
        assert [writer.exception() for writer in writers] == [None] * 8
    assert [p.name for p in tmp_path.iterdir()] == ["e.npz"]
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_folder_is_no_file(tanh_net, x, tmp_path):
    e = lx.explain(tanh_net, x, lx.occlusion())
    for name in ("there", "there.npz"):
        (tmp_path / name).mkdir()
        with pytest.raises(ValueError, match=rf"{name} is a folder: name a file in it, such as .*explanation\.npz$"):
            e.save(tmp_path / name)
        (tmp_path / name).rmdir()
    assert not list(tmp_path.iterdir())
    for name in ("", "."):
        with pytest.raises(ValueError, match=r"^path must name a file, got"):
            e.save(name)


def other_file(path, into, drop=(), add=(), **replaced):
    """The file at `path` with arrays left out, replaced or added, a member each."""
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files if name not in drop} | replaced
    np.savez_compressed(into, **arrays)
    with zipfile.ZipFile(into, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, content in add:
            archive.writestr(name, content)
    return into


@pytest.mark.parametrize("several", [False, True])
def test_arrays_that_do_not_fit_are_named(several, three_outputs, x, tmp_path):
    e = lx.explain(three_outputs, x, lx.c_lime(), n_samples=40, target=range(3) if several else 1)
    path = e.save(tmp_path / "e.npz")
    w = e.weights.numpy()
    for array, words in [
        ({"weights": w[..., :4]}, "its weights have shape .*, x .5, 6."),
        ({"weights": w[:3]}, "its weights have shape"),
        ({"x": x[:, :4].numpy()}, "its weights have shape"),
        ({"standard_error": w[..., :4]}, "standard_error has shape"),
        ({"loss": e.loss.numpy()[:2]}, "loss has shape"),
        ({"degrees_of_freedom": np.ones((5, 2))}, "degrees_of_freedom has shape"),
        ({"slopes": x.numpy()}, "slopes has shape"),
        ({"r2": e.r2.numpy().astype(complex)}, "r2 has shape .* of complex128"),
        ({"weights": w.astype("U8")}, "weights has shape"),
        ({"meta": np.array("{}")}, "it has no|KeyError"),
        ({"meta": np.array("[" * 20_000)}, "RecursionError|JSONDecodeError"),
    ]:
        other = other_file(path, tmp_path / "other.npz", **array)
        with pytest.raises(ValueError, match=rf"other\.npz is not an explanation .*damaged \(({words})"):
            lx.load(other)
    for name in lx._explanation.ARRAYS:
        with pytest.raises(ValueError, match=rf"damaged \((it has no {name}|KeyError)\)"):
            lx.load(other_file(path, tmp_path / "other.npz", drop=[name]))


def test_what_is_not_ours_is_not_inflated(tanh_net, x, tmp_path):
    """64 MB of zeros in 64 kB: in a member of another name, in one that is longer than its shape, or in one whose shape
    is not that of x."""
    e = lx.explain(tanh_net, x, lx.occlusion())
    path, size = e.save(tmp_path / "e.npz"), 2**26
    zeros = b"\0" * size
    header, wide = BytesIO(), BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (5,)})
    np.lib.format.write_array_header_1_0(wide, {"descr": "<f8", "fortran_order": False, "shape": (5, size // 40)})
    stray = other_file(path, tmp_path / "stray.npz", add=[("stray.npy", zeros)])
    longer = other_file(path, tmp_path / "long.npz", ["loss"], [("loss.npy", header.getvalue() + zeros)])
    wider = other_file(path, tmp_path / "wide.npz", ["loss"], [("loss.npy", wide.getvalue() + zeros)])
    text = other_file(path, tmp_path / "text.npz", ["meta"], [("meta.npy", wide.getvalue() + zeros)])
    tracemalloc.start()
    try:
        assert torch.equal(lx.load(stray).weights, e.weights)
        for bomb in (longer, wider, text):
            with pytest.raises(
                ValueError, match=rf"{bomb.name} is not an explanation .*damaged \((loss|meta) has shape"
            ):
                lx.load(bomb)
        assert tracemalloc.get_traced_memory()[1] < size / 16
    finally:
        tracemalloc.stop()


def test_a_damaged_file_is_refused_by_name_or_loads_as_it_was(tanh_net, x, tmp_path):
    """Every byte of a directory entry or of data may be wrong, and a file may end anywhere."""
    e = lx.explain(tanh_net, x, lx.occlusion())
    path = e.save(tmp_path / "e.npz")
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    damaged = [whole[:end] for end in rng.integers(0, len(whole), 60)] + [b"", whole * 2, whole[100:], b"PK"]
    for place, bit in zip(rng.integers(0, len(whole), 300), rng.integers(0, 8, 300), strict=True):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << bit
        damaged.append(bytes(flipped))
    refused = []
    for content in damaged:
        path.write_bytes(content)
        try:
            back = lx.load(path)
        except ValueError as error:
            refused.append(str(error))
        else:
            for name in lx._explanation.ARRAYS:
                torch.testing.assert_close(getattr(back, name), getattr(e, name), rtol=0, atol=0, equal_nan=True)
    ours = re.compile(r".*e\.npz (is not an explanation that was saved, or it is damaged|was saved by a newer)")
    assert all(ours.match(sentence) for sentence in refused)
    assert len(refused) > 250
    np.save(tmp_path / "array.npy", np.ones(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    with pytest.raises(ValueError, match=r"array\.npz is not an explanation"):
        lx.load(tmp_path / "array.npz")


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
    assert e.settings == {"n_samples": 60, "seed": 4, "target": "None"}
    assert "baseline=0.5" in repr(e.method)
    json.dumps(e.settings)
    assert e.n_samples.tolist() == [60] * 5  # six features: not all coalitions
    assert lx.explain(tanh_net, x, lx.kernel_shap(), n_samples=5000).n_samples.tolist() == [64] * 5


@pytest.mark.parametrize("shape", [(5,), (4, 6), (5, 5), (5, 3, 7)])
def test_predict_names_wrong_shapes(tanh_net, x, shape):
    e = lx.explain(tanh_net, x, lx.c_lime(), n_samples=60)
    with pytest.raises(ValueError, match="inputs must be"):
        e.predict(torch.zeros(shape))


# ---- copies


@pytest.mark.parametrize("surrogate", [lx.Linear(), lx.Logistic()], ids=["linear", "logistic"])
@pytest.mark.parametrize("kind", ["module", "frames"])
def test_explanations_can_be_pickled_and_copied(kind, surrogate, tanh_net, x):
    """With all that they can do: processes hand them to each other."""
    model, data = torch.nn.Sequential(tanh_net, torch.nn.Sigmoid()).eval(), x
    if kind == "frames":
        data = pd.DataFrame(x.numpy(), columns=list("abcdef"))
        model = LogisticRegression().fit(data, [0, 1, 0, 1, 1])
    where = lx.Multiplicative(lx.FairMasks(), features=[0, 0, 1, 1, 2, 2])
    method, target = lx.Method("own", where, lx.SquaredError(), surrogate), int(kind == "frames")
    e = lx.explain(model, data, method, n_samples=60, target=target)
    for other in (pickle.loads(pickle.dumps(e)), copy.deepcopy(e), pickle.loads(pickle.dumps(e[2:]))):
        of = e if len(other) == 5 else e[2:]
        agree(other, of)
        if surrogate == lx.Linear():  # which it still is
            test = lx.faithfulness(model, data[-len(of) :], other, lx.c_lime(), n_samples=60, target=target)
            assert len(test.table) == len(of)


# ---- some of the instances, and others besides

PADDED = torch.tensor(
    [[0, 1, 2, 2, 1, 0], [0, 1, 2, 3, 4, 0], [0, 1, 0, 1, 0, 1], [0, 0, 0, 1, 1, 1], [0, 1, 2, 3, 4, 5]]
)
BASES = torch.linspace(-1, 1, 30, dtype=F64).reshape(5, 6)
CUT = {
    "additive": (lx.c_lime(), 60, 1),
    "gradients": (lx.smoothgrad(0.3), 60, 1),
    "a target for each": (lx.smoothgrad(0.3), 60, [2, 0, 1, 1, 0]),
    "several scores": (lx.integrated_gradients(), 60, range(3)),
    "features and baselines for each": (lx.kernel_shap(baseline=BASES, features=PADDED), 64, [2, 0, 1, 1, 0]),
    "a weight for each": (lx.lime(width=3.0, features=[0, 2, 1, 1, 2, 0]), 40, lambda out: out[:, 0] - out[:, 2]),
}
PARTS = ("weights", "intercept", "standard_error", "loss", "r2", "degrees_of_freedom", "n_samples", "x")


def agree(one, two, exactly=True):
    """In all that an explanation says and does."""
    for part in PARTS:
        a, b = (getattr(e, part) for e in (one, two))
        if part in ("weights", "standard_error") and a.ndim == b.ndim:  # alone, an instance needs less padding
            d = min(a.shape[-1], b.shape[-1])
            assert all(c[..., d:].isnan().all() for c in (a, b))
            a, b = a[..., :d], b[..., :d]
        tolerance = {"rtol": 0, "atol": 0} if exactly else {"rtol": 1e-7, "atol": 1e-10}
        torch.testing.assert_close(a, b, equal_nan=True, msg=lambda m, part=part: f"{part}: {m}", **tolerance)
    inputs = torch.randn(len(one), 4, 6, generator=torch.Generator().manual_seed(0), dtype=F64)
    for use in (
        lambda e: e.predict(inputs),
        lambda e: e.validate(40, seed=3),
        lambda e: e.on_input(),
        lambda e: torch.stack(e.interval()),
        lambda e: torch.cat([e.points(i, 20)[1] for i in range(len(e))]),
    ):
        torch.testing.assert_close(use(one), use(two), rtol=1e-8, atol=1e-11, equal_nan=True)


@pytest.mark.parametrize("name", CUT)
@pytest.mark.filterwarnings("ignore:n_samples is small")
def test_some_of_the_instances_are_explained_as_alone(name, three_outputs, x):
    method, n, target = CUT[name]
    e = lx.explain(three_outputs, x, method, n_samples=n, target=target)
    assert len(e) == 5
    for index, rows in (
        (3, [3]),
        (-1, [4]),
        (slice(1, 4), [1, 2, 3]),
        ([4, 0], [4, 0]),
        (e.loss.ne(9).flatten()[:5], range(5)),
    ):
        rows = list(rows)
        some = e[index]
        assert (len(some), some.settings, some.method.name) == (len(rows), e.settings, e.method.name)
        own = [target[i] for i in rows] if isinstance(target, list) else target
        where = method.neighbourhood
        if isinstance(where, lx.Multiplicative) and isinstance(where.features, torch.Tensor):
            alone = lx.explain(
                three_outputs, x[rows], lx.kernel_shap(BASES[rows], PADDED[rows]), n_samples=n, target=own
            )
        else:
            alone = lx.explain(three_outputs, x[rows], method, n_samples=n, target=own)
        agree(some, alone, exactly=False)
        for part in PARTS:
            kept, taken = getattr(some, part), getattr(e, part)[rows]
            assert taken[..., kept.shape[-1] :].isnan().all() or taken.ndim == 1
            torch.testing.assert_close(kept, taken[..., : kept.shape[-1]], rtol=0, atol=0, equal_nan=True)
        agree(some[0], e[rows[0]])
    assert [len(one) for one in e] == [1] * 5
    with pytest.raises(TypeError, match="indexed by instances alone"):
        e[0, 1]
    with pytest.raises(IndexError):
        e[5]


@pytest.mark.parametrize("name", CUT)
@pytest.mark.filterwarnings("ignore:n_samples is small")
def test_parts_joined_are_the_whole(name, three_outputs, x, tmp_path):
    method, n, target = CUT[name]
    e = lx.explain(three_outputs, x, method, n_samples=n, target=target)
    agree(lx.concat([e[:2], e[2], e[3:]]), e)
    agree(lx.concat([e[[3, 1]], e[[0]]]), e[[3, 1, 0]])
    agree(lx.concat(list(e)), e)
    agree(lx.concat([e]), e)
    back = [lx.load(part.save(tmp_path / str(i))) for i, part in enumerate((e[:2], e[2:]))]
    if name.startswith("features"):  # files say how many instances a baseline was for, not which baselines
        with pytest.raises(ValueError, match="different neighbourhoods"):
            lx.concat(back)
        return
    whole = lx.concat(back)
    for part in PARTS:
        torch.testing.assert_close(getattr(whole, part), getattr(e, part), rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(whole.predict(x / 2), e.predict(x / 2), rtol=0, atol=1e-12)
    torch.testing.assert_close(whole[[4, 1]].predict(x[[4, 1]]), e.predict(x)[[4, 1]], rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="loaded"):
        whole.validate()


def test_explanations_of_parts_are_joined_as_if_explained_at_once(three_outputs, x):
    """Seeds do not depend on the instances, so one call and two give the same."""
    for target, first, second in ((1, 1, 1), ([2, 0, 1, 1, 0], [2, 0], [1, 1, 0]), (range(3), range(3), range(3))):
        whole = lx.explain(three_outputs, x, lx.smoothgrad(0.3), n_samples=60, target=target)
        cut = [(x[:2], first), (x[2:], second)]
        parts = [lx.explain(three_outputs, a, lx.smoothgrad(0.3), n_samples=60, target=t) for a, t in cut]
        joined = lx.concat(parts)
        agree(joined, whole, exactly=False)
        assert joined.settings == whole.settings | ({} if first == target else {"target": None})


def test_what_cannot_be_joined(three_outputs, x):
    e = lx.explain(three_outputs, x, lx.c_lime(), n_samples=40, target=0)
    frame = pd.DataFrame(x.numpy(), columns=list("abcdef"))
    others = {
        "methods": lx.explain(three_outputs, x, lx.vanilla_gradients(), target=0),
        "losses": lx.explain(
            three_outputs, x, lx.Method("C-LIME", lx.Additive(lx.Normal(0.1)), lx.GradientMatching()), target=0
        ),
        "names of features": lx.explain(three_outputs, frame, lx.c_lime(), n_samples=40, target=0),
        "scores": lx.explain(three_outputs, x, lx.c_lime(), n_samples=40, target=range(3)),
        "inputs": lx.explain(lambda a: a.flatten(1).sum(1), x.reshape(5, 2, 3), lx.c_lime(), n_samples=40),
    }
    for what, other in others.items():
        with pytest.raises(ValueError, match=f"explanations differ in their .*{what}"):
            lx.concat([e, other])
    with pytest.raises(ValueError, match="different neighbourhoods"):
        lx.concat([e, lx.explain(three_outputs, x, lx.c_lime(0.2), n_samples=40, target=0)])
    with pytest.raises(ValueError, match="explanations is empty"):
        lx.concat([])
    two = lx.concat([e, lx.explain(lambda a: three_outputs(a), x, lx.c_lime(), n_samples=50, seed=1, target=0)])
    assert two.settings == {"n_samples": None, "seed": None, "target": "0"}
    assert two.n_samples.tolist() == [40] * 5 + [50] * 5
    with pytest.raises(ValueError, match="validate needs the model"):  # of two models, neither
        two.validate()


def test_targets_that_name_the_same_output_in_several_ways(three_outputs, x):
    """Ints and ints for each are one kind of target; without any the weights join, and the model is of neither."""

    def model(a):
        return three_outputs(a)[:, :1]

    ways = (None, 0, np.zeros(5, int), [0] * 5)
    none, *others = (lx.explain(model, x, lx.c_lime(), n_samples=40, target=target) for target in ways)
    for one in others:
        for other in others:
            joined = lx.concat([one, other])
            torch.testing.assert_close(joined.validate(20), none.validate(20).repeat(2), rtol=1e-9, atol=0)
        for pair in ([none, one], [one, none]):
            assert torch.equal(lx.concat(pair).weights, torch.cat([none.weights] * 2))
            with pytest.raises(ValueError, match="validate needs the model"):
                lx.concat(pair).validate()
    assert lx.concat([none, none]).validate(20).shape == (10,)


def test_points_are_the_first_of_what_the_fit_saw(tanh_net, x):
    """A design that depends on n (enumerated sizes first) is that of the fit, cut off."""
    e = lx.explain(tanh_net, x, lx.kernel_shap(), n_samples=40)
    whole, some = e.points(1), e.points(1, n=9)
    assert len(whole[0].xi) == 40
    assert torch.equal(some[0].xi, whole[0].xi[:9])
    assert torch.equal(some[0].weight, whole[0].weight[:9])
    assert torch.equal(some[1], whole[1][:9])


def test_indices_are_of_instances(tanh_net, x):
    e = lx.explain(tanh_net, x, lx.c_lime(), n_samples=60)
    assert torch.equal(e[::-1].weights, e.weights.flip(0))
    assert torch.equal(e[pd.Series([4, 0])].weights, e.weights[[4, 0]])
    for bad in (None, ..., True, "a", (0, 1)):
        with pytest.raises(TypeError, match="indexed by instances alone"):
            e[bad]

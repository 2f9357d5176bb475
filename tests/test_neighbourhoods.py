"""Where ξ is put, against loops; kernels, against their formulas and the peers' functions."""

import math

import numpy as np
import pytest
import torch
from captum.attr._core.lime import get_exp_kernel_similarity_function

import locapprox as lx
from locapprox.fit.seeds import generator
from locapprox.neighbourhoods.base import described
from locapprox.neighbourhoods.distributions import Normal
from locapprox.neighbourhoods.kernels import ExponentialKernel

F64 = torch.float64


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def place_by_loops(x, xi, base, labels):
    """x_ξ[e] = b[e] + (x[e] − b[e]) ξ[label of e], entry by entry."""
    out = torch.empty(len(x), xi.shape[-2], *x.shape[1:], dtype=F64)
    for i in range(len(x)):
        for n in range(xi.shape[-2]):
            row = xi[i, n] if xi.ndim == 3 else xi[n]
            for e in np.ndindex(*x.shape[1:]):
                b = base[(i, *e)]
                out[(i, n, *e)] = b + (x[(i, *e)] - b) * row[labels[(i, *e)]]
    return out


# ---- placing

IMAGE_LABELS = torch.tensor([[0, 0, 1, 1], [0, 2, 2, 1], [3, 3, 2, 1]])
PLACEMENTS = {
    "entries": ((6,), None, 0.0),
    "groups": ((6,), [0, 2, 1, 1, 2, 0], 0.5),
    "permuted": ((6,), [3, 5, 1, 0, 2, 4], -1.0),
    "groups per instance": ((6,), torch.tensor([[0, 1, 2, 2, 1, 0], [2, 1, 0, 1, 2, 0], [0, 0, 1, 1, 2, 2]]), 0.5),
    "one baseline": ((6,), None, randn(6, seed=8)),
    "array baseline": ((6,), None, randn(6, seed=8).numpy()),
    "function": ((6,), [0, 2, 1, 1, 2, 0], lambda x: x.flip(1) / 2),
    "image": ((2, 3, 4), None, 0.25),
    "image, patches over channels": ((2, 3, 4), IMAGE_LABELS, 0.25),
    "image, patches of one channel axis": ((2, 3, 4), IMAGE_LABELS[None], randn(2, 3, 4, seed=8)),
    "image, patches per instance": (
        (2, 3, 4),
        torch.stack([IMAGE_LABELS, IMAGE_LABELS.flip(1), 3 - IMAGE_LABELS])[:, None],
        0.0,
    ),
}


def case(name):
    shape, features, baseline = PLACEMENTS[name]
    x = randn(3, *shape)
    if features is None:
        labels = torch.arange(math.prod(shape)).reshape(1, *shape)
    else:
        labels = torch.as_tensor(features)
        labels = labels if labels.ndim == x.ndim else labels[None]
        labels = labels.expand(len(labels), *shape)
    base = baseline(x) if callable(baseline) else torch.as_tensor(baseline, dtype=F64)
    return x, lx.Multiplicative(lx.FairMasks(), baseline, features), base.expand(x.shape), labels.expand(x.shape)


@pytest.mark.parametrize("name", PLACEMENTS)
def test_multiplicative_places_by_its_formula(name):
    x, where, base, labels = case(name)
    d = int(labels.max()) + 1
    for xi in (randn(4, d, seed=1), randn(3, 4, d, seed=2)):
        torch.testing.assert_close(where.place(x, xi), place_by_loops(x, xi, base, labels), rtol=0, atol=1e-14)
    assert where.draw(x, 9, rng()).xi.shape == (9, d)
    assert torch.equal(where.place(x, torch.ones(1, d, dtype=F64))[:, 0], base + (x - base))


@pytest.mark.parametrize("shape", [(6,), (2, 3, 4)])
def test_additive_places_by_its_formula(shape):
    x, d = randn(3, *shape), math.prod(shape)
    where = lx.Additive(Normal(0.1))
    xi = randn(4, d, seed=1)
    expected = torch.stack([torch.stack([x[i] + row.reshape(shape) for row in xi]) for i in range(3)])
    assert torch.equal(where.place(x, xi), expected)
    xi = randn(3, 4, d, seed=1)
    expected = torch.stack([torch.stack([x[i] + row.reshape(shape) for row in xi[i]]) for i in range(3)])
    assert torch.equal(where.place(x, xi), expected)


def smooth(a):
    a = a.flatten(1)
    return torch.tanh(a[:, 0] * a[:, 1]) + (a[:, 2:] ** 2).sum(1) + a[:, 3] * a[:, 0]


@pytest.mark.parametrize("name", PLACEMENTS)
def test_gradients_in_xi_are_finite_differences(name):
    x, where, _, labels = case(name)
    d = int(labels.max()) + 1
    xi = randn(1, d, seed=3)
    method = lx.Method("", _At(where, xi), lx.GradientMatching())
    e = lx.explain(smooth, x, method)
    step = 1e-6 * torch.eye(d, dtype=F64)
    up, down = (smooth(where.place(x, xi + s * step).flatten(0, 1)).view(3, d) for s in (1, -1))
    torch.testing.assert_close(e.weights.flatten(1), (up - down) / 2e-6, rtol=0, atol=1e-7)


class _At(lx.BaseNeighbourhood):
    """The placement of another neighbourhood, at one given ξ."""

    draws_at_once = True

    def __init__(self, where, xi):
        self.where, self.xi = where, xi

    def draw(self, x, n, rng):
        return lx.Draw(self.xi, torch.ones(len(self.xi), dtype=F64), n_fixed=len(self.xi))

    def at(self, x, instances):
        return _At(self.where.at(x, instances), self.xi)

    def place(self, x, xi):
        return self.where.place(x, xi)


METHODS = {
    "LIME": lambda **k: lx.lime(width=4.0, **k),
    "KernelSHAP": lx.kernel_shap,
    "Occlusion": lx.occlusion,
    "IG": lx.integrated_gradients,
    "GxI": lx.gradient_x_input,
}


@pytest.mark.parametrize("name", METHODS)
def test_labels_per_instance_are_explained_one_by_one(name):
    """Different numbers of groups, interleaved: NaN pads, and every instance has the numbers it has alone."""
    x = randn(4, 6)
    labels = np.array([[0, 1, 2, 2, 1, 0], [0, 1, 2, 3, 0, 4], [2, 1, 0, 1, 2, 0], [0, 1, 1, 0, 1, 0]])
    method = METHODS[name]
    together = lx.explain(smooth, x, method(features=labels), n_samples=64)
    assert together.weights.shape == (4, 5)
    for i in range(4):
        alone = lx.explain(smooth, x[i : i + 1], method(features=labels[i]), n_samples=64)
        d = labels[i].max() + 1
        for field in ("weights", "standard_error"):
            both = getattr(together, field)[i], getattr(alone, field)[0]
            torch.testing.assert_close(both[0][:d], both[1], rtol=0, atol=1e-10)
            assert both[0][d:].isnan().all()
        for field in ("intercept", "loss"):
            torch.testing.assert_close(getattr(together, field)[i], getattr(alone, field)[0], rtol=1e-8, atol=1e-12)
        torch.testing.assert_close(together.validate(50)[i], alone.validate(50)[0], rtol=1e-8, atol=1e-12)
        torch.testing.assert_close(
            together.predict(x * 0.3)[i], alone.predict(x[i : i + 1] * 0.3)[0], rtol=0, atol=1e-9
        )
        torch.testing.assert_close(together.on_input()[i], alone.on_input()[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", METHODS)
def test_a_background_sample_averages_the_model(name):
    """Weights are those of the mean over background rows z of f(z + (x − z) ⊙ ξ)."""
    x, background = randn(3, 6), randn(7, 6, seed=5)
    method, averaged = METHODS[name], lx.Background(background)
    if name in ("IG", "GxI"):
        fits = [lx.explain(smooth, x, method(baseline=z), n_samples=20) for z in background]
        expected = torch.stack([e.weights for e in fits]).mean(0)
    elif name == "LIME":  # the distance is averaged too: solve by hand
        where = method(baseline=averaged).neighbourhood
        xi = where.distribution.draw(6, 50, generator(0, where, "fit", x), F64).xi
        expected = []
        for row in x:
            placed = background[None] + (row - background) * xi[:, None]
            y = smooth(placed.flatten(0, 1)).view(50, 7).mean(1)
            w = torch.exp(-((placed - row) ** 2).sum(2).mean(1) / 16).sqrt()[:, None]
            design = torch.cat([xi, torch.ones(50, 1, dtype=F64)], dim=1)
            expected.append(torch.linalg.lstsq(w * design, w * y[:, None]).solution[:6, 0])
        expected = torch.stack(expected)
    else:  # linear in the outputs, same draw
        fits = [lx.explain(smooth, x, method(baseline=z), n_samples=40) for z in background]
        expected = torch.stack([e.weights for e in fits]).mean(0)
    n = {"LIME": 50, "KernelSHAP": 40}.get(name, 20)
    e = lx.explain(smooth, x, method(baseline=averaged), n_samples=n)
    torch.testing.assert_close(e.weights, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("rows", [3, 6], ids=["fewer rows than features", "as many"])
def test_a_tensor_of_the_shape_of_x_is_a_baseline_for_each_instance(name, rows):
    """Whatever x's shape: never a sample to average over, which is `Background`."""
    x, base, method = randn(rows, 6), randn(rows, 6, seed=5), METHODS[name]
    e = lx.explain(smooth, x, method(baseline=base), n_samples=40)
    for i in range(rows):
        alone = lx.explain(smooth, x[i : i + 1], method(baseline=base[i]), n_samples=40)
        torch.testing.assert_close(e.weights[i], alone.weights[0], rtol=0, atol=1e-10)
    by_function = METHODS[name](baseline=lambda some: torch.stack([base[(x == one).all(1)][0] for one in some]))
    by_function = lx.explain(smooth, x, by_function, n_samples=40)
    assert torch.equal(by_function.weights, e.weights)
    averaged = lx.explain(smooth, x, method(baseline=lx.Background(base)), n_samples=40)
    assert not torch.allclose(averaged.weights, e.weights, atol=1e-3)


@pytest.mark.parametrize("shape", [(7, 6), (1, 6), (3, 3, 6)])
def test_a_sample_must_say_that_it_is_one(shape):
    x, rows = randn(3, 6), randn(*shape, seed=5)
    with pytest.raises(ValueError, match=r"one per instance, \(3, 6\), .* or lx\.Background\(rows\) to average over"):
        lx.explain(smooth, x, lx.kernel_shap(baseline=rows))
    if rows.ndim == 2:
        assert lx.explain(smooth, x, lx.kernel_shap(baseline=lx.Background(rows.numpy()))).weights.shape == (3, 6)
    for bad in (randn(7, 5), randn(6)):
        with pytest.raises(ValueError, match=r"Background (has rows of shape \(5,\)|needs rows)"):
            lx.explain(smooth, x, lx.kernel_shap(baseline=lx.Background(bad)))


def test_a_background_of_one_row_is_that_baseline():
    x, row = randn(3, 6), randn(1, 6, seed=5)
    one, same = (lx.explain(smooth, x, lx.kernel_shap(baseline=b)) for b in (lx.Background(row), row[0]))
    torch.testing.assert_close(one.weights, same.weights, rtol=0, atol=1e-12)


# ---- kernels


@pytest.mark.parametrize("measured_in", ["x", "xi"])
@pytest.mark.parametrize("features", [None, [0, 2, 1, 1, 2, 0]])
def test_exponential_kernel_is_its_formula(measured_in, features):
    x, base = randn(3, 6), randn(6, seed=2)
    width = 1.7
    where = lx.Multiplicative(lx.FairMasks(), base, features, ExponentialKernel(width, measured_in))
    got = where.draw(x, 20, rng())
    placed = where.place(x, got.xi)
    weight = got.weight if measured_in == "x" else got.weight.expand(3, 20)  # one row for all instances
    for i in range(3):
        for n in range(20):
            if measured_in == "x":
                squared = sum((x[i, j] - placed[i, n, j]) ** 2 for j in range(6))
            else:
                squared = sum((1 - got.xi[n, j]) ** 2 for j in range(got.xi.shape[1]))
            assert float(weight[i, n]) == pytest.approx(math.exp(-squared / width**2), rel=1e-12)


def test_exponential_kernel_additive():
    x = randn(3, 6)
    got = lx.Additive(Normal(0.8), ExponentialKernel(1.3)).draw(x, 20, rng())
    expected = torch.exp(-got.xi.square().sum(1) / 1.3**2)
    torch.testing.assert_close(got.weight, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("width", [None, 2.0])
def test_a_kernel_on_xi_weighs_a_row_alike_for_all_instances(width):
    """One row of weights, and so one Gram matrix."""
    kernel, x = ExponentialKernel(width, measured_in="xi"), randn(4, 6)
    where = lx.Multiplicative(lx.FairMasks(), kernel=kernel).settled(x, 100)
    draw = where.draw(x, 100, rng())
    assert draw.weight.shape == (100,)
    scaled = lx.Multiplicative(
        lx.FairMasks(), kernel=ExponentialKernel(where.kernel.width or where.kernel.chosen[0].item())
    )
    alike = scaled.draw(torch.ones_like(x), 100, rng())  # D² in x is that in ξ where x₀ − b = 1
    torch.testing.assert_close(alike.weight, draw.weight.expand(4, -1), rtol=1e-12, atol=0)


def test_a_kernel_keeps_exact_rows_and_multiplies_weights():
    where = lx.Multiplicative(lx.ShapleyMasks(), kernel=ExponentialKernel(2.0))
    x = randn(2, 5)
    plain, got = lx.ShapleyMasks().draw(5, 32, rng(), F64), where.draw(x, 32, rng())
    finite = plain.weight.isfinite()
    assert got.weight[:, ~finite].isinf().all()
    expected = plain.weight * torch.exp(-(((1 - plain.xi)[None] * x[:, None]) ** 2).sum(-1) / 4)
    torch.testing.assert_close(got.weight[:, finite], expected[:, finite], rtol=1e-12, atol=0)
    assert (got.n_fixed, got.unit_size) == (plain.n_fixed, plain.unit_size)


def kernel_weights(kernel, x, base=0.0):
    where = lx.Multiplicative(lx.AllCoalitions(), base, kernel=kernel)
    return where.draw(x, 0, rng())


def test_the_paper_authors_constant():
    """exp(−D²/w²) on the input: width = w. Their LIME explainer uses it with w = 1."""
    x = randn(1, 5)
    got = kernel_weights(ExponentialKernel(1.0), x)
    distance = torch.cdist(x, x * got.xi)[0]
    torch.testing.assert_close(got.weight[0], torch.exp(-(distance**2)), rtol=1e-10, atol=0)


@pytest.mark.parametrize("width", [0.5, 1.0, 2.5])
def test_captums_constant(width):
    x, base = randn(1, 5), randn(5, seed=3)
    got = kernel_weights(ExponentialKernel(math.sqrt(2) * width), x, base)
    similarity = get_exp_kernel_similarity_function("euclidean", width)
    for xi, weight in zip(got.xi, got.weight[0], strict=True):
        placed = base + (x - base) * xi
        assert float(weight) == pytest.approx(
            float(similarity(x, placed, xi[None])), rel=1e-5
        )  # captum rounds to float32


def test_limes_constant():
    """lime's own kernel, on the distances its tabular explainer measures (masks: scale 1, x at ξ = 1)."""
    from lime.lime_tabular import LimeTabularExplainer
    from sklearn.metrics import pairwise_distances

    d = 5
    explainer = LimeTabularExplainer(np.random.default_rng(0).normal(size=(20, d)), mode="regression")
    got = kernel_weights(ExponentialKernel(math.sqrt(2) * 0.75 * math.sqrt(d), measured_in="xi"), randn(1, d))
    distances = pairwise_distances(got.xi.numpy(), np.ones((1, d)), metric="euclidean").ravel()
    np.testing.assert_allclose(got.weight.numpy(), explainer.base.kernel_fn(distances), rtol=1e-12)


@pytest.mark.parametrize("width", [None, 1.7])
@pytest.mark.parametrize("around", [False, True])
def test_limes_table_is_limes(around, width):
    """Its points have the mean and spread of those that lime draws; of ours, lime's own kernel gives the weights."""
    from lime.lime_tabular import LimeTabularExplainer

    data = randn(50, 5, seed=1) * torch.tensor([0.5, 1.0, 2.0, 3.0, 0.1]) + 4 * randn(5, seed=2)
    n, x = 20_000, data[:2]
    options = {"mode": "regression", "kernel_width": width, "discretize_continuous": False, "random_state": 0}
    explainer = LimeTabularExplainer(data.numpy(), sample_around_instance=around, **options)
    where = lx.LimeTabular.of_data(data, width, around)
    draw = where.draw(x, n, rng())
    xi, weight = draw.xi.expand(2, n, 5), draw.weight.expand(2, n)
    placed, scale = where.place(x, xi).numpy(), explainer.scaler.scale_
    for i in range(2):
        _, theirs = explainer._LimeTabularExplainer__data_inverse(x[i].numpy(), n)
        error = 4 * scale * (2 / n) ** 0.5  # of a difference of two means; of a spread it is less
        assert (np.abs(placed[i].mean(0) - theirs[1:].mean(0)) < error).all()
        assert (np.abs(placed[i].std(0) - theirs[1:].std(0)) < error).all()
        distance = np.linalg.norm((placed[i] - x[i].numpy()) / scale, axis=1)
        np.testing.assert_allclose(weight[i].numpy(), explainer.base.kernel_fn(distance), rtol=1e-9)


@pytest.mark.parametrize("surrogate", [lx.Linear(), lx.Linear(intercept=False)])
@pytest.mark.parametrize("loss", [lx.SquaredError(), lx.GradientMatching()])
def test_limes_table_is_fitted_in_its_own_z(surrogate, loss, monkeypatch):
    """All instances together if there is an intercept; what is found is the fit in ξ, whose rows differ."""
    torch.manual_seed(0)
    net, x = torch.nn.Sequential(torch.nn.Linear(5, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1)).double(), randn(4, 5)
    where = lx.LimeTabular(randn(5, seed=1), randn(5, seed=2).abs() + 0.5, width=3.0)
    sizes, fit = [], lx.Linear.fit
    monkeypatch.setattr(lx.Linear, "fit", lambda self, sample, of: sizes.append(len(sample.x)) or fit(self, sample, of))
    e = lx.explain(net, x, lx.Method("", where, loss, surrogate), n_samples=200, progress=False)
    assert sizes == ([4] if surrogate.intercept else [1] * 4)
    draw = where.draw(x, 200, generator(0, where, "fit", x))
    placed, weight = where.place(x, draw.xi), draw.weight
    leaf = placed.clone().requires_grad_()
    y = net(leaf)[..., 0]
    if loss == lx.GradientMatching():
        slopes = torch.autograd.grad(y.sum(), leaf)[0] * where.scale
        w = (weight[..., None] * slopes).sum(1) / weight.sum(1, keepdim=True)
        torch.testing.assert_close(e.weights, w, rtol=1e-9, atol=1e-12)
        c = ((weight * (y - (draw.xi @ w[..., None])[..., 0])).sum(1) / weight.sum(1)).detach()
        torch.testing.assert_close(e.intercept, c * surrogate.intercept, rtol=1e-9, atol=1e-12)
        return
    design = torch.cat([draw.xi, torch.ones_like(draw.xi[..., :1])], -1)[..., : 5 + surrogate.intercept]
    root = weight.sqrt()[..., None]
    theta = torch.linalg.lstsq(root * design, root * y.detach()[..., None]).solution[..., 0]
    torch.testing.assert_close(e.weights, theta[:, :5], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(e.intercept, theta[:, 5:].sum(1), rtol=1e-9, atol=1e-12)


def test_kernel_arguments():
    with pytest.raises(ValueError, match="width"):
        ExponentialKernel(0.0)


# ---- back to the input


def built_in():
    x = randn(3, 6)
    groups = [0, 2, 1, 1, 2, 0]
    per_instance = torch.tensor([[0, 1, 2, 2, 1, 0], [2, 1, 0, 1, 2, 0], [0, 0, 1, 1, 2, 2]])
    yield "additive", x, lx.c_lime(0.5)
    yield "entries", x, lx.kernel_shap(baseline=0.3)
    yield "groups", x, lx.lime(width=3.0, baseline=randn(6, seed=3), features=groups)
    yield "permuted", x, lx.kernel_shap(features=[3, 5, 1, 0, 2, 4])
    yield "per instance", x, lx.occlusion(features=per_instance)
    yield "function", x, lx.integrated_gradients(baseline=lambda x: x.flip(1) / 2, features=groups)
    yield "image", randn(3, 2, 3, 4), lx.lime(width=9.0, features=IMAGE_LABELS)
    yield "image entries", randn(2, 1, 2, 2), lx.gradient_x_input(baseline=0.1)
    yield "custom", x, lx.Method("custom", Rotated(), lx.SquaredError())
    yield "custom, fewer", x, lx.Method("custom", Subspace(), lx.SquaredError())


class Rotated:
    """Affine, not diagonal: x_ξ = x + ½ + Rᵀξ, with R of rank d; says nothing about to_input."""

    R = randn(6, 6, seed=11)

    def draw(self, x, n, rng):
        return lx.Draw(torch.randn(n, self.R.shape[0], generator=rng, dtype=x.dtype), torch.ones(n, dtype=F64))

    def place(self, x, xi):
        return x.unsqueeze(1) + 0.5 + xi @ self.R


class Subspace(Rotated):
    R = randn(2, 6, seed=12)


@pytest.mark.parametrize(("name", "x", "method"), list(built_in()), ids=[name for name, *_ in built_in()])
def test_the_surrogate_on_the_input_is_the_one_in_xi(name, x, method):
    """predict(place(x, ξ)) = w · ξ + intercept, for any ξ; and slopes are the least-norm ones."""
    e = lx.explain(smooth, x, method, n_samples=80)
    weights = e.weights.flatten(1)
    xi = randn(9, weights.shape[1], seed=4)
    expected = xi @ weights.mT + e.intercept
    placed = method.neighbourhood.place(x, xi)
    torch.testing.assert_close(e.predict(placed), expected.mT, rtol=0, atol=1e-9)
    torch.testing.assert_close(e.predict(placed[:, 3]), expected[3], rtol=0, atol=1e-9)
    torch.testing.assert_close(e.predict(placed.numpy()), expected.mT, rtol=0, atol=1e-9)
    # least norm: slopes lie in the span of the directions in which ξ moves the input
    slopes, _ = e._on_inputs()
    eye = torch.eye(weights.shape[1], dtype=F64)
    jacobian = (method.neighbourhood.place(x, eye) - method.neighbourhood.place(x, 0 * eye)).flatten(2)
    for s, j in zip(slopes.flatten(1), jacobian, strict=True):
        torch.testing.assert_close(s, torch.linalg.pinv(j) @ (j @ s), rtol=0, atol=1e-8)


def test_entries_at_the_baseline_have_no_slope():
    """x₀ = b there: no ξ moves them."""
    x = randn(2, 4)
    x[0, 1] = 0.0
    e = lx.explain(smooth, x, lx.kernel_shap(), n_samples=16)
    moved = x.clone()
    moved[0, 1] = 5.0
    torch.testing.assert_close(e.predict(moved)[0], e.predict(x)[0], rtol=0, atol=1e-12)
    assert e.predict(x).isfinite().all()


def test_on_input_copies_weights_onto_entries():
    x = randn(3, 6)
    for labels in ([0, 2, 1, 1, 2, 0], [3, 5, 1, 0, 2, 4]):
        e = lx.explain(smooth, x, lx.kernel_shap(features=labels), n_samples=64)
        assert torch.equal(e.on_input(), e.weights[:, labels])
    image = randn(2, 2, 3, 4)
    e = lx.explain(smooth, image, lx.occlusion(features=IMAGE_LABELS))
    for i in range(2):
        for c, r, k in np.ndindex(2, 3, 4):
            assert e.on_input()[i, c, r, k] == e.weights[i, IMAGE_LABELS[r, k]]
    e = lx.explain(smooth, image, lx.gradient_x_input())
    assert e.weights.shape == image.shape
    assert torch.equal(e.on_input(), e.weights)


def test_permuted_labels_only_rename():
    """Labels that permute the entries give the same numbers under other names."""
    x, labels = randn(3, 6), [3, 5, 1, 0, 2, 4]
    plain = lx.explain(smooth, x, lx.kernel_shap(), n_samples=64)
    named = lx.explain(smooth, x, lx.kernel_shap(features=labels), n_samples=64)
    torch.testing.assert_close(named.weights[:, labels], plain.weights, rtol=0, atol=1e-12)
    torch.testing.assert_close(named.on_input(), plain.on_input(), rtol=0, atol=1e-12)


def test_a_place_that_is_not_affine_does_not_predict():
    class Curved(Rotated):
        def place(self, x, xi):
            return x.unsqueeze(1) + torch.sin(xi @ self.R)

    e = lx.explain(smooth, randn(2, 6), lx.Method("curved", Curved(), lx.SquaredError()), n_samples=50)
    with pytest.raises(ValueError, match="not affine"):
        e.predict(randn(2, 6))


def test_channels_broadcast_as_the_expanded_labels_do():
    x = randn(2, 2, 3, 4)
    short = lx.explain(smooth, x, lx.kernel_shap(features=IMAGE_LABELS), n_samples=16)
    long = lx.explain(smooth, x, lx.kernel_shap(features=IMAGE_LABELS.expand(2, 3, 4)), n_samples=16)
    assert torch.equal(short.weights, long.weights)


# ---- draws


def test_a_draw_is_shared_and_its_own_instances_differ(draw_of):
    """A neighbourhood that draws per instance, (b, n, d), equals explaining one instance at a time."""

    class Own(lx.BaseNeighbourhood):
        draws_at_once = True

        def draw(self, x, n, rng):
            xi = torch.stack([randn(n, 6, seed=int(1000 * abs(float(row[0])))) for row in x])
            return lx.Draw(xi, xi[..., 0].exp())

        def place(self, x, xi):
            return x.unsqueeze(1) + xi

    x = randn(3, 6)
    method = lx.Method("own", Own(), lx.SquaredError())
    together = lx.explain(smooth, x, method, n_samples=40)
    for i in range(3):
        xi = randn(40, 6, seed=int(1000 * abs(float(x[i, 0]))))
        root = xi[:, :1].exp().sqrt()
        design = torch.cat([xi, torch.ones(40, 1, dtype=F64)], dim=1)
        expected = torch.linalg.lstsq(root * design, root * smooth(x[i] + xi)[:, None]).solution[:, 0]
        torch.testing.assert_close(together.weights[i], expected[:6], rtol=0, atol=1e-10)


def test_of_a_class_with_draw_and_place_nothing_else_is_read():
    class Mine:
        draws_at_once = takes_missing = True
        interpolates, spread, kind, blocks, at, batches, check, joined, advice, to_input = range(10)

        def draw(self, x, n, rng):
            return lx.Draw(torch.randn(n, 6, generator=rng, dtype=x.dtype), torch.ones(n, dtype=F64))

        def place(self, x, xi):
            return x.unsqueeze(1) + xi

    x, own = randn(3, 6), Mine()
    mine = described(own)
    assert (mine.draws_at_once, mine.takes_missing, mine.interpolates, mine.spread) == (False, False, None, None)
    assert mine.kind == Mine.__qualname__
    assert [len(block.xi) for block in mine.blocks(x, 2500, rng())] == [1024, 1024, 452]
    assert mine.at(x, torch.tensor([1])) is mine.joined(x, [mine]) is mine
    assert [batch.tolist() for batch in mine.batches(x)] == [[0, 1, 2]]
    assert mine.same_placement(described(own))
    assert not mine.same_placement(described(Mine()))
    e = lx.explain(smooth, x, lx.Method("mine", own, lx.SquaredError()), n_samples=2500)
    assert e.method.neighbourhood is own
    xi = torch.cat([block.xi for block in mine.blocks(x, 2500, generator(0, mine, "fit", x))])
    design = torch.cat([xi, torch.ones(2500, 1, dtype=F64)], dim=1)
    for i in range(3):
        expected = torch.linalg.lstsq(design, smooth(x[i] + xi)[:, None]).solution[:6, 0]
        torch.testing.assert_close(e.weights[i], expected, rtol=0, atol=1e-10)


def test_what_a_base_neighbourhood_overrides_is_used():
    """Its blocks, not its draw; its own weights on the input; its check."""
    seen = []

    class Mine(Rotated, lx.BaseNeighbourhood):
        def blocks(self, x, n, rng):
            for size in (10, n - 10):
                seen.append(size)
                yield self.draw(x, size, rng)

        def check(self, x):
            if len(x) > 3:
                raise ValueError("three at most")

        def on_input(self, x, weights):
            return weights @ self.R

        def per_entry(self, x, d):
            return False

    method = lx.Method("mine", Mine(), lx.SquaredError())
    e = lx.explain(smooth, randn(3, 6), method, n_samples=40)
    assert set(seen) == {10, 30}
    torch.testing.assert_close(e.on_input(), e.weights @ Rotated.R)
    assert e.feature_names is None
    with pytest.raises(ValueError, match="three at most"):
        lx.explain(smooth, randn(4, 6), method, n_samples=40)


def test_parts_of_single_instances_are_numbers_of_the_users_kind():
    x, labels = randn(3, 6), torch.tensor([[0, 1, 2, 2, 1, 0], [0, 1, 0, 1, 0, 1], [0, 0, 1, 1, 2, 2]])
    method = lx.kernel_shap(baseline=randn(3, 6, seed=5), features=labels)
    e = lx.explain(smooth, x, method, n_samples=8)
    some = e[[2, 0]].method.neighbourhood
    assert torch.equal(some.features, labels[[2, 0]])
    assert torch.equal(some.baseline, method.neighbourhood.baseline[[2, 0]])
    assert e[1].method.neighbourhood.features.shape == (1, 6)
    whole = lx.explain(smooth, x, lx.kernel_shap(baseline=0.5), n_samples=64)
    assert whole[1].method.neighbourhood is whole.method.neighbourhood


def test_the_nearest_points_far_from_the_origin():
    """‖a‖² + ‖b‖² − 2 a·b of entries around 1e8 has no correct digit below 1."""
    points = randn(60, 3)
    where, x = lx.NearestPoints(points + 1e8, 7), torch.full((1, 3), 1e8, dtype=torch.float64)
    nearest = (points + 1e8 - x).square().sum(1).argsort()[:7]
    xi = where.draw(x, 0, rng()).xi[0]
    assert torch.equal(xi[xi[:, 0].argsort()], (w := (points + 1e8 - x)[nearest])[w[:, 0].argsort()])


def test_joined_is_the_inverse_of_at():
    x, labels = randn(3, 6), torch.tensor([[0, 1, 2, 2, 1, 0], [0, 1, 0, 1, 0, 1], [0, 0, 1, 1, 2, 2]])
    for where in (
        lx.Multiplicative(lx.FairMasks(), randn(3, 6, seed=5), labels),
        lx.Multiplicative(lx.FairMasks(), lx.Background(randn(4, 6)), labels, lx.ExponentialKernel(2.0)),
        lx.Multiplicative(lx.FairMasks(), 0.5),
        lx.Additive(lx.Normal(torch.arange(1.0, 7.0))),
        lx.NearestPoints(randn(20, 6), 4),
    ):
        parts = [where.at(x, torch.tensor(i)) for i in ([1], [2, 0])]
        whole, order = parts[0].joined(x[[1]], parts[1:]), [1, 2, 0]
        draws = [part.draw(x[order], 20, rng()) for part in (where.at(x, torch.tensor(order)), whole)]
        assert torch.equal(draws[0].weight, draws[1].weight)
        placed = [part.place(x[order], draws[0].xi) for part in (where.at(x, torch.tensor(order)), whole)]
        assert torch.equal(*placed)
        assert whole.same_placement(where.at(x, torch.tensor(order)))
        with pytest.raises(ValueError, match="cannot be joined"):
            where.joined(x, [lx.Multiplicative(lx.FairMasks(), 0.25), lx.Additive(lx.Normal(0.1))])


def test_one_labelling_with_a_leading_axis_is_for_all(tanh_net, x):
    """captum's feature_mask is (1, …); 0.1 took it for the first instance's own, and left the others NaN."""
    labels = torch.tensor([0, 1, 1, 2, 0, 2])
    plain, leading = (lx.explain(tanh_net, x, lx.kernel_shap(features=f)) for f in (labels, labels[None]))
    assert torch.equal(plain.weights, leading.weights)
    assert leading.weights.isfinite().all()


def test_labels_with_different_counts_keep_the_contract(x):
    labels = torch.tensor([[0, 1, 2, 2, 1, 0], [0, 1, 2, 3, 4, 0], [0, 1, 0, 1, 0, 1], [0, 0, 0, 1, 1, 1], [0] * 6])
    lx.check_neighbourhood(lx.kernel_shap(features=labels).neighbourhood, x)

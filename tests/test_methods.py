"""The eight methods against the numbers they stand for: stored values, brute force, closed forms, peers."""

import contextlib
import io
import itertools
import math
import re

import numpy as np
import pytest
import torch
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.linear_model import LinearRegression
from torch import nn

import locapprox as lx
from locapprox.neighbourhoods.distributions import Normal

F64 = torch.float64


def gradient(model, x):
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(model(leaf).sum(), leaf)[0]


# ---- the authors' models and stored values


@pytest.mark.parametrize("name", ["who_linear", "who_ffnnA", "heloc_logistic", "heloc_ffnnA"])
class TestAuthors:
    def test_the_activation_is_the_one_that_gives_their_gradients(self, authors, name):
        a = authors(name)
        assert (gradient(a.model, a.x) - a.stored["captum_vg"]).abs().max() < 1e-5
        if name.endswith("ffnnA"):  # and the other one does not
            other = a.network(nn.ReLU if a.smooth else nn.Tanh)
            assert (gradient(other, a.x) - a.stored["captum_vg"]).abs().max() > 0.1

    @pytest.mark.parametrize(
        ("method", "key"),
        [
            (lx.vanilla_gradients(), "captum_vg"),
            (lx.gradient_x_input(), "captum_gxi"),
            (lx.occlusion(), "captum_oc"),
        ],
        ids=["vg", "gxi", "oc"],
    )
    def test_determined_methods_equal_the_stored_ones(self, authors, name, method, key):
        a = authors(name)
        gap = (lx.explain(a.model, a.x, method).weights - a.stored[key]).abs().max()
        print(f"MUST-SHOW {name} {method.name} vs {key}: {gap:.2e}")
        assert gap < 1e-5
        assert a.stored[key].abs().max() > 1e-2

    def test_integrated_gradients_against_100000_steps(self, authors, name):
        a = authors(name)
        model, x = a.network(type(a.model[1]) if len(a.model) > 2 else None).double(), a.x.double()
        steps = (torch.arange(100_000, dtype=F64) + 0.5) / 100_000
        reference = torch.zeros_like(x)
        instances = slice(None) if a.smooth else slice(0, 20)
        for t in steps.split(1000):
            where = (t[:, None, None] * x[instances]).flatten(0, 1)
            reference[instances] += x[instances] * gradient(model, where).view(len(t), -1, x.shape[1]).sum(0) / 100_000
        if a.smooth:
            for dtype in (torch.float32, F64):
                e = lx.explain(model.to(dtype), x.to(dtype), lx.integrated_gradients())
                gap = (e.weights - reference).abs().max()
                print(f"MUST-SHOW {name} IG, n = 1000, {dtype}, vs 100,000 steps: {gap:.2e}")
                assert gap < 1e-5
            assert (e.weights - reference).abs().max() < 1e-8
            assert (e.weights - a.stored["captum_ig"]).abs().max() < 1e-4
            return
        distance = []
        for n in (16, 64, 256, 1024):
            e = lx.explain(model, x[instances], lx.integrated_gradients(), n_samples=n)
            gap = (e.weights - reference[instances]).abs()
            distance.append(float(gap.mean()))
            print(f"MUST-SHOW {name} IG, n = {n}: mean {gap.mean():.2e}, max {gap.max():.2e}")
        assert distance[0] > 1e-5  # kinks: no spectral accuracy, error 1/n
        slope = np.polyfit(np.log([16, 64, 256, 1024]), np.log(distance), 1)[0]
        print(f"MUST-SHOW {name} IG: mean distance ~ n^{slope:.2f}")
        assert -1.4 < slope < -0.6


# ---- KernelSHAP


def brute_force_shapley(value, d):
    """φ_i = Σ_S |S|! (d − |S| − 1)! / d! (v(S ∪ i) − v(S)), with v a function of rows of masks."""
    masks = np.array(list(itertools.product([0.0, 1.0], repeat=d)))
    v = {tuple(m): float(y) for m, y in zip(masks.astype(int), value(masks), strict=True)}
    weight = [math.factorial(s) * math.factorial(d - s - 1) / math.factorial(d) for s in range(d)]
    phi = np.zeros(d)
    for mask, y in v.items():
        for i in range(d):
            if mask[i] == 0:
                phi[i] += weight[sum(mask)] * (v[(*mask[:i], 1, *mask[i + 1 :])] - y)
    return phi


def twelve(kind):
    """Models of twelve features: as locapprox sees it, and as a function of float64 arrays."""
    rng = np.random.default_rng(7)
    x, b = rng.normal(size=(2, 12)), rng.normal(size=12)
    if kind == "torch":
        model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 1)).double()
        for parameter in model.eval().parameters():
            parameter.data = torch.from_numpy(rng.normal(size=parameter.shape) * 0.5)
        return model, torch.from_numpy(x), b, lambda a: model(torch.from_numpy(a)).detach().numpy()[:, 0]
    if kind == "boosting":
        data = rng.normal(size=(300, 12))
        trees = GradientBoostingRegressor(n_estimators=40, max_depth=4, random_state=0)
        trees.fit(data, data[:, 0] * data[:, 1] + np.sin(2 * data[:, 2]) + data[:, 3] * (data[:, 4] > 0))
        return trees, x, b, trees.predict

    def function(a):
        return np.exp(0.3 * a[:, 0] * a[:, 5]) + a[:, 1] * a[:, 2] * a[:, 3] - np.abs(a[:, 11]) + a[:, 7:10].max(1)

    return function, x, b, function


KINDS = ["torch", "boosting", "function"]


class TestKernelShap:
    @pytest.mark.parametrize("kind", KINDS)
    def test_all_coalitions_give_shapley_values(self, kind):
        model, x, b, plain = twelve(kind)
        e = lx.explain(model, x, lx.kernel_shap(baseline=b), n_samples=2**12)
        for row, weights, intercept in zip(np.asarray(x), e.weights.numpy(), e.intercept.numpy(), strict=True):
            phi = brute_force_shapley(lambda masks, row=row: plain(b + (row - b) * masks), 12)
            print(f"MUST-SHOW KernelSHAP, 2^12 coalitions, {kind}: {np.abs(weights - phi).max():.2e}")
            np.testing.assert_allclose(weights, phi, rtol=0, atol=1e-10)
            np.testing.assert_allclose(intercept, plain(b[None])[0], rtol=0, atol=1e-12)
            assert np.abs(phi).max() > 0.1
        assert (e.standard_error == 0).all()

    def test_groups_and_a_background_sample(self):
        """Players are groups, and the value of a coalition is the mean over the background."""
        model, x, _, plain = twelve("function")
        labels = np.array([0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 4, 4])
        background = np.random.default_rng(1).normal(size=(9, 12))
        e = lx.explain(model, x, lx.kernel_shap(baseline=lx.Background(background), features=labels), n_samples=32)
        for row, weights in zip(x, e.weights.numpy(), strict=True):

            def value(masks, row=row):
                return [np.mean([plain((z + (row - z) * m[labels])[None])[0] for z in background]) for m in masks]

            np.testing.assert_allclose(weights, brute_force_shapley(value, 5), rtol=0, atol=1e-10)

    @pytest.mark.parametrize("n", [30, 31, 100, 777, 5000])
    def test_weights_sum_to_the_difference(self, n):
        worst = 0.0
        for kind in KINDS:
            model, x, b, plain = twelve(kind)
            few = pytest.warns(UserWarning, match="n_samples is small") if n < 46 else contextlib.nullcontext()
            with few:  # shrunk, but exact rows stay exact
                e = lx.explain(model, x, lx.kernel_shap(baseline=b), n_samples=n)
            difference = plain(np.asarray(x)) - plain(b[None])
            worst = max(worst, float(np.abs(e.weights.sum(1).numpy() - difference).max()))
            np.testing.assert_allclose(e.intercept.numpy(), plain(b[None])[0], rtol=0, atol=1e-12)
        print(f"MUST-SHOW KernelSHAP n = {n}: |sum of weights - (f(x) - f(b))| <= {worst:.2e}")
        assert worst < 1e-12

    def test_sum_in_float32(self, tanh_net, x):
        """The system is solved in float64: only the model's own rounding is left."""
        import copy

        model, single = copy.deepcopy(tanh_net).float(), x.float()
        e = lx.explain(model, single, lx.kernel_shap(), n_samples=40)
        difference = (model(single) - model(torch.zeros(1, 6)))[:, 0].detach().double()
        assert e.weights.dtype == F64
        torch.testing.assert_close(e.weights.sum(1), difference, rtol=0, atol=1e-6)

    def test_agrees_with_shap(self):
        """Our estimate and the mean of 10 runs of shap differ by no more than both errors; a wrong baseline does."""
        import shap

        model, x, b, plain = twelve("function")
        ours = lx.explain(model, x[:1], lx.kernel_shap(baseline=b), n_samples=400)
        explainer, runs = shap.KernelExplainer(plain, b[None]), []
        for seed in range(10):
            np.random.seed(seed)  # noqa: NPY002 (what shap reads)
            runs.append(explainer.shap_values(x[:1], nsamples=400, l1_reg=False, silent=True)[0])
        z = z_scores(ours, np.array(runs))
        print(f"MUST-SHOW KernelSHAP vs shap: rms z {rms(z):.2f}, max |z| {np.abs(z).max():.2f}")
        assert rms(z) < 1.6
        assert np.abs(z).max() < 4
        wrong = lx.explain(model, x[:1], lx.kernel_shap(baseline=0.0), n_samples=400)
        assert rms(z_scores(wrong, np.array(runs))) > 10

    def test_agrees_with_captum(self):
        from captum.attr import KernelShap

        model, x, b, _ = twelve("torch")
        ours = lx.explain(model, x[:1], lx.kernel_shap(baseline=b), n_samples=400)
        runs = []
        for seed in range(10):
            torch.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            peer = KernelShap(lambda a: model(a)[:, 0])
            kwargs = {"baselines": torch.from_numpy(b)[None], "n_samples": 400, "perturbations_per_eval": 400}
            runs.append(peer.attribute(x[:1], **kwargs).detach().numpy()[0])
        z = z_scores(ours, np.array(runs))
        print(f"MUST-SHOW KernelSHAP vs captum: rms z {rms(z):.2f}, max |z| {np.abs(z).max():.2f}")
        assert rms(z) < 1.6
        assert np.abs(z).max() < 4
        wrong = lx.explain(model, x[:1], lx.kernel_shap(baseline=0.0), n_samples=400)
        assert rms(z_scores(wrong, np.array(runs))) > 5


def z_scores(ours, runs):
    """(ours − mean of the runs) over the standard error of that difference; ours from the reported one."""
    variance = ours.standard_error[0].numpy() ** 2 + runs.var(0, ddof=1) / len(runs)
    return (ours.weights[0].numpy() - runs.mean(0)) / np.sqrt(variance)


def rms(z):
    return float(np.sqrt(np.mean(np.square(z))))


# ---- LIME, C-LIME, SmoothGrad


@pytest.mark.parametrize("kind", KINDS)
def test_lime_equals_weighted_linear_regression(kind, draw_of):
    model, x, b, plain = twelve(kind)
    method = lx.lime(width=3.0, baseline=b)
    e = lx.explain(model, x, method, n_samples=700, seed=5)
    xi = draw_of(method.neighbourhood, torch.as_tensor(x), 700, 5).xi.numpy()
    assert set(np.unique(xi)) == {0.0, 1.0}
    for i, row in enumerate(np.asarray(x)):
        placed = b + (row - b) * xi
        kernel = np.exp(-np.square(row - placed).sum(1) / 3.0**2)
        peer = LinearRegression().fit(xi, plain(placed), sample_weight=kernel)
        gap = np.abs(e.weights[i].numpy() - peer.coef_).max()
        print(f"MUST-SHOW LIME vs sklearn, {kind}: {gap:.2e}")
        assert gap < 1e-10
        assert abs(e.intercept[i].item() - peer.intercept_) < 1e-10


def quadratic():
    rng = torch.Generator().manual_seed(9)
    q = torch.randn(6, 6, generator=rng, dtype=F64)
    q, b = (q + q.mT) / 2, torch.randn(6, generator=rng, dtype=F64)
    return q, b, lambda a: torch.einsum("ni,ij,nj->n", a, q, a) + a @ b


def test_smoothgrad_of_a_quadratic_is_its_gradient_at_the_mean_draw(x, draw_of):
    q, b, f = quadratic()
    sigma = torch.tensor([0.1, 0.5, 1.0, 2.0, 0.3, 0.7], dtype=F64)
    method = lx.smoothgrad(sigma, sobol=False)
    e = lx.explain(f, x, method, n_samples=500, seed=3)
    xi = draw_of(method.neighbourhood, x, 500, 3).xi
    torch.testing.assert_close(e.weights, 2 * (x + xi.mean(0)) @ q + b, rtol=0, atol=1e-11)
    # its error is that of a mean of 500 independent gradients 2Qξ
    torch.testing.assert_close(
        e.standard_error, ((2 * xi @ q).std(0) / 500**0.5).expand_as(x), rtol=1e-9, atol=0
    )  # intercept: the mean output is met
    outputs = f((x[:, None] + xi).flatten(0, 1)).view(5, -1)
    torch.testing.assert_close(e.intercept + e.weights @ xi.mean(0), outputs.mean(1), rtol=0, atol=1e-10)


def test_c_lime_of_a_quadratic_is_its_gradient(x):
    """ξᵀQξ is even: with antithetic draws exactly uncorrelated with ξ, otherwise up to sampling error."""
    q, b, f = quadratic()
    e = lx.explain(f, x, lx.c_lime(0.5), n_samples=200)
    torch.testing.assert_close(e.weights, 2 * x @ q + b, rtol=0, atol=1e-11)
    e = lx.explain(f, x, lx.c_lime(sigma=0.5, antithetic=False), n_samples=2000)
    z = (e.weights - (2 * x @ q + b)) / e.standard_error
    assert 0.3 < rms(z.numpy()) < 1.6
    trace = 0.5**2 * q.trace()
    torch.testing.assert_close(e.intercept, f(x) + trace, rtol=0, atol=5 * float(e.loss.max() / 2000) ** 0.5)


def test_stein(x):
    """C-LIME and SmoothGrad estimate the same: on Σ xⱼ³ the weights 3 (x² + σ²); values estimate it more loosely."""
    sigma, expected = 0.6, 3 * (x**2 + 0.6**2)

    def cubes(a):
        return (a**3).sum(1)

    fits = [lx.explain(cubes, x, method(sigma), n_samples=4000) for method in (lx.c_lime, lx.smoothgrad)]
    for e in fits:
        z = (e.weights - expected) / e.standard_error
        assert rms(z.numpy()) < 1.6
        assert z.abs().max() < 4
        assert ((expected - 3 * x**2).abs() > 5 * e.standard_error).any()  # σ → 0 would be noticed
    assert (fits[0].standard_error > fits[1].standard_error).all()


# ---- are the reported errors errors?


@pytest.mark.parametrize("name", ["LIME", "C-LIME", "KernelSHAP", "SmoothGrad"])
def test_intervals_cover(name, tanh_net, x, given):
    """95 % intervals over 200 seeds cover the exact weights as often as a binomial of 95 % allows."""
    model, x = tanh_net, x[:1]
    if name == "LIME":
        method = lx.lime(width=2.5)
        where = lx.Multiplicative(lx.AllCoalitions(), kernel=lx.ExponentialKernel(2.5))
        truth = lx.explain(tanh_net, x, lx.Method("", where, lx.SquaredError())).weights
        n = 200
    elif name == "KernelSHAP":
        model, x, b, _ = twelve("torch")
        method, n, x = lx.kernel_shap(baseline=b), 200, x[:1]
        truth = lx.explain(model, x, method, n_samples=2**12).weights
    else:  # a product Gauss–Hermite rule in the six dimensions
        method = (lx.c_lime if name == "C-LIME" else lx.smoothgrad)(sigma=0.4)
        nodes, weights = np.polynomial.hermite_e.hermegauss(5)
        xi = 0.4 * torch.tensor(list(itertools.product(nodes, repeat=6)), dtype=F64)
        weight = torch.tensor(list(itertools.product(weights, repeat=6)), dtype=F64).prod(1)
        exact = lx.Method("", given(lx.Draw(xi, weight, n_fixed=len(xi))), lx.GradientMatching())
        truth, n = lx.explain(tanh_net, x, exact).weights, 300
    trials, covered, ratio = 200, [], []
    for seed in range(trials):
        e = lx.explain(model, x, method, n_samples=n, seed=seed)
        low, high = e.interval(0.95)
        covered.append(((low <= truth) & (truth <= high)).double().mean().item())
        ratio.append(((e.weights - truth) / e.standard_error).square().mean().item())
    coverage, error = np.mean(covered), np.std(covered) / trials**0.5
    print(f"MUST-SHOW coverage {name}: {coverage:.3f} ± {error:.3f}, rms z {np.mean(ratio) ** 0.5:.2f}")
    assert abs(coverage - 0.95) < 4 * error + 0.005


# ---- gradients, occlusion


def test_integrated_gradients_is_complete(tanh_net, relu_net, x):
    b = torch.linspace(-1, 1, 6, dtype=F64)
    for model, n, tolerance in ((tanh_net, 200, 1e-9), (relu_net, 1000, 2e-3)):
        e = lx.explain(model, x, lx.integrated_gradients(baseline=b), n_samples=n)
        difference = (model(x) - model(b[None]))[:, 0].detach()
        torch.testing.assert_close(e.weights.sum(1), difference, rtol=0, atol=tolerance)
    labels = [0, 1, 1, 2, 2, 0]
    grouped = lx.explain(tanh_net, x, lx.integrated_gradients(baseline=b, features=labels), n_samples=200).weights
    single = lx.explain(tanh_net, x, lx.integrated_gradients(baseline=b), n_samples=200).weights
    torch.testing.assert_close(grouped, single.new_zeros(5, 3).index_add(1, torch.tensor(labels), single))


def test_integrated_gradients_of_a_polynomial_is_exact(x):
    """f = Π of three entries: each gets a third of it; three nodes are exact up to degree 3."""

    def product(a):
        return a[:, 0] * a[:, 2] * a[:, 5]

    e = lx.explain(product, x, lx.integrated_gradients(), n_samples=3)
    expected = torch.zeros_like(x)
    expected[:, [0, 2, 5]] = product(x)[:, None] / 3
    torch.testing.assert_close(e.weights, expected, rtol=0, atol=1e-12)


def test_one_node_is_the_midpoint_rule(tanh_net, x):
    e = lx.explain(tanh_net, x, lx.integrated_gradients(), n_samples=1)
    torch.testing.assert_close(e.weights, x * gradient(tanh_net, x / 2), rtol=0, atol=1e-12)
    assert e.standard_error.isnan().all()  # one node has no coarser rule


def test_error_of_a_quadrature_bounds_its_error(relu_net, x):
    """Nested rules: the reported error is of the size of the true one (kinked integrands, 64 nodes)."""
    exact = lx.explain(relu_net, x, lx.integrated_gradients(), n_samples=1000).weights
    e = lx.explain(relu_net, x, lx.integrated_gradients(), n_samples=64)
    error = (e.weights - exact).abs()
    assert (e.standard_error > error).double().mean() > 0.5
    assert e.standard_error.mean() < 20 * error.mean()


def test_vanilla_gradients_and_gradient_x_input(tanh_net, relu_net, x):
    b = torch.linspace(-1, 1, 6, dtype=F64)
    for model in (tanh_net, relu_net):
        g = gradient(model, x)
        e = lx.explain(model, x, lx.vanilla_gradients())
        torch.testing.assert_close(e.weights, g, rtol=0, atol=1e-13)
        torch.testing.assert_close(e.intercept, model(x)[:, 0].detach(), rtol=0, atol=1e-13)
        e = lx.explain(model, x, lx.gradient_x_input())
        torch.testing.assert_close(e.weights, x * g, rtol=0, atol=1e-13)
        e = lx.explain(model, x, lx.gradient_x_input(baseline=b))
        torch.testing.assert_close(e.weights, (x - b) * g, rtol=0, atol=1e-13)
        torch.testing.assert_close(e.intercept + e.weights.sum(1), model(x)[:, 0].detach(), rtol=0, atol=1e-12)


def test_the_limits_are_limits(tanh_net, x):
    """σ → 0 and a → 1: the distance to the exact limit falls as σ² for pairs (and as 1 − a)."""
    limit = lx.explain(tanh_net, x, lx.vanilla_gradients()).weights
    gaps = []
    for sigma in (1e-1, 1e-2):
        method = lx.Method("", lx.Additive(Normal(sigma, antithetic=True)), lx.GradientMatching())
        gaps.append((lx.explain(tanh_net, x, method, n_samples=400).weights - limit).abs().mean())
    assert gaps[0] / gaps[1] == pytest.approx(100, rel=0.2)
    limit, gaps = lx.explain(tanh_net, x, lx.gradient_x_input()).weights, []
    for a in (0.99, 0.999):
        method = lx.Method("", lx.Multiplicative(lx.GaussLegendre(a, 1.0)), lx.GradientMatching())
        gaps.append((lx.explain(tanh_net, x, method, n_samples=8).weights - limit).abs().mean())
    assert gaps[0] / gaps[1] == pytest.approx(10, rel=0.05)


def test_occlusion_by_hand(tanh_net, x):
    b = torch.linspace(-1, 1, 6, dtype=F64)
    labels = torch.tensor([0, 1, 1, 2, 2, 0])
    full = tanh_net(x)[:, 0].detach()
    for features, count in ((None, 6), (labels, 3)):
        e = lx.explain(tanh_net, x, lx.occlusion(baseline=b, features=features))
        for j in range(count):
            entries = labels == j if features is not None else torch.arange(6) == j
            without = torch.where(entries, b, x)
            expected = full - tanh_net(without)[:, 0].detach()
            torch.testing.assert_close(e.weights[:, j], expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(e.intercept + e.weights.sum(1), full, rtol=0, atol=1e-12)


def test_determined_surrogates_have_no_loss_and_no_error(tanh_net, x):
    for method in (lx.vanilla_gradients(), lx.gradient_x_input(), lx.occlusion()):
        e = lx.explain(tanh_net, x, method)
        assert (e.loss == 0).all(), method.name
        assert (e.standard_error == 0).all(), method.name


def test_everything_equals_on_a_linear_model(x):
    """f = x · c + 1: additive methods give c, masking methods (x − b) c."""
    c = torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0, 0.25], dtype=F64)
    for name, method in lx.paper_methods().items():
        e = lx.explain(lambda a: a @ c + 1, x, method, n_samples=200)
        expected = c.expand_as(x) if name in ("C-LIME", "SmoothGrad", "Vanilla Gradients") else x * c
        torch.testing.assert_close(e.weights, expected, rtol=0, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}")


# ---- names and citations


def test_paper_methods():
    methods = lx.paper_methods()
    assert list(methods) == [m.name for m in methods.values()]
    assert set(methods) == {
        "LIME",
        "C-LIME",
        "KernelSHAP",
        "Occlusion",
        "Vanilla Gradients",
        "Gradient x Input",
        "SmoothGrad",
        "Integrated Gradients",
    }
    assert methods["LIME"].neighbourhood.kernel == lx.ExponentialKernel(1.0, "x")
    for name in ("C-LIME", "SmoothGrad"):
        assert methods[name].neighbourhood.distribution.sigma == 0.1
    assert methods["Vanilla Gradients"].neighbourhood.distribution == lx.PointMass(0.0)
    assert methods["Gradient x Input"].neighbourhood.distribution == lx.PointMass(1.0)
    assert methods["Integrated Gradients"].neighbourhood.distribution == lx.GaussLegendre(0.0, 1.0)
    matched = {"SmoothGrad", "Vanilla Gradients", "Gradient x Input", "Integrated Gradients"}
    for name, method in methods.items():
        assert method.loss == (lx.GradientMatching() if name in matched else lx.SquaredError()), name
        assert method.surrogate == lx.Linear(intercept=True)
        assert getattr(method.neighbourhood, "baseline", 0.0) == 0.0


@pytest.mark.parametrize(
    ("name", "key"),
    {
        "LIME": "ribeiro2016",
        "C-LIME": "agarwal2021",
        "KernelSHAP": "lundberg2017",
        "Occlusion": "zeiler2014",
        "Vanilla Gradients": "simonyan2014",
        "Gradient x Input": "shrikumar2016",
        "SmoothGrad": "smilkov2017",
        "Integrated Gradients": "sundararajan2017",
    }.items(),
)
def test_citation(name, key):
    text = lx.paper_methods()[name].citation()
    assert re.findall(r"@\w+\{(\w+),", text) == ["han2022", key]
    assert text.count("{") == text.count("}")
    own = lx.Method("mine", lx.Additive(Normal(1.0)), lx.SquaredError())
    assert re.findall(r"@\w+\{(\w+),", own.citation()) == ["han2022"]


REPRS = {
    "kernel=ExponentialKernel(width=0.75)": lx.lime(width=0.75),
    "Multiplicative(FairMasks(), kernel=ExponentialKernel())": lx.lime(),
    "Multiplicative(ShapleyMasks(), baseline=0.5)": lx.kernel_shap(baseline=0.5),
    "Multiplicative(LeaveOneOut(), features=[0, 0, 1])": lx.occlusion(features=[0, 0, 1]),
    "baseline=Background(Tensor(7×6))": lx.kernel_shap(baseline=lx.Background(torch.zeros(7, 6))),
    "baseline=Tensor(3×28×28), features=ndarray(28×28)": lx.lime(
        baseline=torch.zeros(3, 28, 28), features=np.zeros((28, 28), int)
    ),
    "Additive(Normal([0.1, 0.25], antithetic=None))": lx.c_lime(torch.tensor([0.1, 0.25], dtype=F64)),
    "Method('SmoothGrad', Additive(Normal(0.1, sobol=True)), GradientMatching(), reference=": lx.smoothgrad(),
    "Normal(2.0, antithetic=True)": lx.Method("", lx.Additive(Normal(2.0, antithetic=True)), lx.SquaredError()),
    "surrogate=Sparse(3, intercept=False)": lx.Method(
        "", lx.Additive(Normal(2.0)), lx.SquaredError(), lx.Sparse(3, intercept=False)
    ),
    "Loss(value=2.0, gradient=0.5)": lx.Method(
        "", lx.Additive(Normal(2.0)), 2.0 * lx.SquaredError() + 0.5 * lx.GradientMatching()
    ),
}


@pytest.mark.parametrize("shown", REPRS)
def test_what_differs_from_the_defaults_is_shown(shown):
    """On one line, arrays by their shapes; what has no default comes first, without its name."""
    text = repr(REPRS[shown])
    assert shown in text
    assert "\n" not in text
    assert len(text) < 200
    if "Tensor" not in text and "ndarray" not in text and "[0.1" not in text:
        names = {name: getattr(lx, name) for name in lx.__all__}
        assert repr(eval(text, names)) == text  # as one would write it


def test_printing_a_method():
    with contextlib.redirect_stdout(io.StringIO()) as out:
        print(lx.lime(width=0.75))
    assert out.getvalue() == repr(lx.lime(width=0.75)) + "\n"

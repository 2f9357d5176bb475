"""Instances with weights of their own: conjugate gradients against a matrix for each, and the latter in turn."""

import warnings

import pytest
import torch
from torch import nn

import locapprox as lx
from locapprox.fit import conjugate, own_weights
from locapprox.fit.minimise import minimise


def network(d):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(d, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1)).eval()


def lime(d, width):
    where = lx.Multiplicative(lx.FairMasks(), kernel=lx.ExponentialKernel(width * d**0.5))
    return lx.Method("LIME", where, lx.SquaredError())


def explained(d, n, width, b=6, **more):
    x = torch.randn(b, d, generator=torch.Generator().manual_seed(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return lx.explain(network(d), x, lime(d, width), n_samples=n, progress=False, **more)


@pytest.fixture
def directly(monkeypatch):
    """The same by a matrix for each instance."""

    def run(*args, **more):
        with monkeypatch.context() as patch:
            patch.setattr(own_weights, "LEAST", 10**9)
            return explained(*args, **more)

    return run


@pytest.fixture
def conjugated(monkeypatch):
    """How many instances took which way."""
    counts = {"conjugate": 0, "direct": 0}
    ways = {"conjugate": own_weights._conjugate, "direct": own_weights._direct}

    def counted(name):
        def run(*args):
            for part in ways[name](*args):
                counts[name] += len(part[0])
                yield part

        return run

    for name in ways:
        monkeypatch.setattr(own_weights, f"_{name}", counted(name))
    return counts


@pytest.mark.parametrize(
    ("d", "n", "width", "spread"),
    [(20, 400, 0.75, 0.02), (40, 1500, 0.65, 0.0062), (150, 1000, 0.75, 0.0029), (150, 310, 1.0, 0.0052)],
)
def test_conjugate_gradients_are_the_direct_solution(d, n, width, spread, directly, conjugated):
    """Weights to 1e-6 of a standard error (root mean square), errors to 1 or 2 %, their mean and the loss to 0.5 %."""
    found = explained(d, n, width)
    assert conjugated == {"conjugate": 6, "direct": 0}
    expected = directly(d, n, width)
    off = (found.weights - expected.weights) / expected.standard_error
    assert 0 < off.square().mean().sqrt() < 1e-6
    ratio = found.standard_error / expected.standard_error
    assert abs(ratio.mean() - 1) < 0.005
    assert ratio.std() < spread  # .0031 of the third where variances are not corrected
    torch.testing.assert_close(found.loss, expected.loss, rtol=0.005, atol=0)
    torch.testing.assert_close(found.degrees_of_freedom, expected.degrees_of_freedom)


def test_uneven_weights_are_solved_directly(directly, conjugated):
    found, expected = explained(30, 600, 0.35), directly(30, 600, 0.35)
    assert conjugated["direct"] == 12
    torch.testing.assert_close(found.weights, expected.weights, rtol=0, atol=0)
    torch.testing.assert_close(found.standard_error, expected.standard_error, rtol=0, atol=0)


def test_what_does_not_converge_is_solved_directly(monkeypatch, directly, conjugated):
    monkeypatch.setattr(conjugate, "STEPS", 2)
    found = explained(30, 600, 0.75)
    assert conjugated == {"conjugate": 0, "direct": 6}
    torch.testing.assert_close(found.weights, directly(30, 600, 0.75).weights, rtol=0, atol=0)


def test_an_instance_alone_and_several_outputs():
    """Shared is what the draw alone determines, so no instance knows of another."""
    net = nn.Sequential(nn.Linear(25, 32), nn.Tanh(), nn.Linear(32, 3)).eval()
    x = torch.randn(5, 25, generator=torch.Generator().manual_seed(2))
    together = lx.explain(net, x, lime(25, 0.75), n_samples=700, target=range(3), progress=False)
    alone = lx.explain(net, x[3:4], lime(25, 0.75), n_samples=700, target=1, progress=False)
    torch.testing.assert_close(together.weights[3, 1], alone.weights[0], rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(together.standard_error[3, 1], alone.standard_error[0], rtol=1e-6, atol=0)


@pytest.mark.parametrize(("n", "at_once"), [(300, 1), (300, 4 * 13**2), (2500, 2 * 13**2)])
def test_in_turn_is_all_at_once(n, at_once, monkeypatch):
    """Of few features, some instances at a time against matrices for all, in one block and in three."""
    x = torch.randn(7, 12, generator=torch.Generator().manual_seed(3))
    net, method, samples = network(12), lime(12, 0.4), []
    monkeypatch.setattr(own_weights, "MATRICES", at_once)
    monkeypatch.setattr("locapprox.fit.surrogates.minimise", lambda *a, **k: samples.append(a) or minimise(*a, **k))
    found = lx.explain(net, x, method, n_samples=n, progress=False)
    fit = minimise(*samples[0]).fit
    for name in ("weights", "intercept", "standard_error", "loss"):
        torch.testing.assert_close(getattr(found, name), getattr(fit, name).squeeze(1), rtol=1e-9, atol=1e-12)


def test_a_linear_function_has_no_error():
    """Steps end at round-off, and it is said that nothing is known of kinks."""
    a, x = torch.linspace(-1, 1, 30, dtype=torch.float64), torch.randn(4, 30, dtype=torch.float64)
    with pytest.warns(UserWarning, match="f is linear, but for round-off"):
        e = lx.explain(lambda z: 7 + z @ a, x, lime(30, 0.75), n_samples=500, progress=False)
    torch.testing.assert_close(e.weights, a * x, rtol=1e-9, atol=1e-11)
    assert e.standard_error.isnan().all()
    torch.testing.assert_close(e.loss, torch.zeros(4, dtype=torch.float64), rtol=0, atol=0)


@pytest.mark.parametrize("width", [0.4, 0.75])
def test_intervals_cover_by_conjugate_gradients(width):
    """95 % intervals of 25 weights in 60 draws of 400 rows, around the weights of 60,000."""
    reference, hits = explained(25, 60_000, width, b=4).weights, []
    for seed in range(60):
        lower, upper = explained(25, 400, width, b=4, seed=seed + 1).interval(0.95)
        hits.append(((lower <= reference) & (reference <= upper)).double().mean())
    assert 0.93 < torch.stack(hits).mean() < 0.97


def test_no_matrix_of_all_instances_is_held(monkeypatch):
    """The largest tensors are the outputs and weights of all rows."""
    from torch.utils._python_dispatch import TorchDispatchMode

    sizes = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            sizes.extend(
                one.numel() for one in (out if isinstance(out, tuple | list) else [out]) if torch.is_tensor(one)
            )
            return out

    x = torch.randn(600, 50)
    with Sizes(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lx.explain(lambda z: z.square().mean(1), x, lime(50, 0.6), n_samples=150, batch_size=150, progress=False)
    assert max(sizes) < 2 * own_weights.MATRICES < 600 * 51**2

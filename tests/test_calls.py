"""What a call of `explain` costs beside the model: waits for a device, baselines worked out, rows of a call."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import locapprox as lx
from locapprox.models.scores import rows_on_gpu

WAITS = {"_local_scalar_dense", "is_nonzero", "nonzero", "equal", "item"}  # of the host for a device


class Waits(TorchDispatchMode):
    """Counts operations whose result the host needs before it goes on."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket.__name__ in WAITS
        return func(*args, **(kwargs or {}))


NET = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double().eval()
X = torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
X[3, 2] = 0.0  # a null player: labels of every instance's own
FEATURES = torch.tensor([0, 0, 1, 2, 3, 3])


@pytest.mark.parametrize(
    "method",
    [
        lx.kernel_shap(),
        lx.kernel_shap(X[0], FEATURES),
        lx.kernel_shap(lx.Background(X[:2])),
        lx.lime(9.0),
        lx.c_lime(),
        lx.smoothgrad(),
        lx.integrated_gradients(),
        lx.occlusion(lambda x: x / 2),
    ],
    ids=["masks", "groups", "background", "kernel", "noise", "gradients", "path", "function"],
)
@pytest.mark.parametrize("target", [0, [0, 1] * 20], ids=["shared", "own"])
def test_the_host_waits_for_no_model_call(method, target):
    """As often in a few calls as in 240 (once more where answers come after the first), but for gradient sums."""

    def waits(batch_size):
        calls = []
        hook = NET.register_forward_hook(lambda *_: calls.append(1))
        with Waits() as mode:
            lx.explain(NET, X, method, n_samples=60, target=target, batch_size=batch_size, progress=False)
        hook.remove()
        return len(calls), mode.count

    waits(1000)  # what follows from the draw alone is kept
    (few, one), (many, other) = waits(1000), waits(10)
    assert many > 5 * few
    looks = many - few if method.name == "SmoothGrad" else 0  # whether weights are equal, in every chunk
    assert 0 <= other - one - looks <= 1


def test_a_baseline_is_worked_out_once(monkeypatch):
    """And when it is checked: of all instances and of one."""
    images, asked, blurred = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)), [], lx.Blurred.__call__
    monkeypatch.setattr(lx.Blurred, "__call__", lambda self, x: asked.append(len(x)) or blurred(self, x))

    def weights(baseline):
        method = lx.kernel_shap(baseline, lx.patches(images.shape, 2))
        return lx.explain(lambda a: a.flatten(1).square().sum(1), images, method, n_samples=100, batch_size=8).weights

    found = weights(lx.Blurred(1.0))
    assert asked == [4, 1, 4]
    assert torch.equal(found, weights(lx.Blurred(1.0)(images)))


def test_rows_of_a_call_on_a_gpu_are_a_share_of_its_memory():
    image = 4 * 3 * 224**2
    assert rows_on_gpu(140 * 2**30, image) == 140 * 2**20 // image == 243
    assert rows_on_gpu(2**30, image) == 8
    assert rows_on_gpu(140 * 2**30, 4 * 23) == 2**17


def test_small_draws_share_a_call():
    """X's instances have different numbers of null players, so draws of their own: one call answers them, as alone."""
    calls, x = [], X[:6].clone()
    for i in range(len(x)):
        x[i, :i] = 0
    model = lambda rows: calls.append(len(rows)) or NET(rows)  # noqa: E731
    for method, n in ((lx.kernel_shap(), 30), (lx.occlusion(), 1), (lx.lime(2.0), 30)):
        calls.clear()
        e = lx.explain(NET, x, method, n_samples=n, target=1, progress=False)
        shared = lx.explain(model, x, method, n_samples=n, target=1, progress=False)
        alone = lx.concat([lx.explain(NET, x[i : i + 1], method, n_samples=n, target=1) for i in range(len(x))])
        assert max(calls) == int(shared.n_samples.sum())
        assert len(calls) == 2  # and one row again
        for name in ("weights", "standard_error", "loss", "intercept"):
            for other in (e, shared):
                a, b = getattr(other, name), getattr(alone, name)
                torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12, equal_nan=True)
        calls.clear()
        lx.explain(model, x, method, n_samples=n, target=1, progress=False, batch_size=int(e.n_samples.max()))
        assert len(calls) > 2
        assert max(calls) <= int(e.n_samples.max())

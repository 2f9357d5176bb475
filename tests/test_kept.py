"""Draws that are kept between calls, and what follows from them: the same numbers, and nothing for ever."""

import gc
import weakref

import pytest
import torch
from torch import nn

import locapprox as lx
from locapprox.fit import sampling
from locapprox.fit.kept import RESULTS, Recent, keep, remembered

F64 = torch.float64
torch.manual_seed(0)
NET = nn.Sequential(nn.Linear(7, 16), nn.Tanh(), nn.Linear(16, 2)).double()
X = torch.rand(6, 7, dtype=F64) + 0.2
X[2, 3] = X[4, 1] = 0.0

METHODS = [
    *(lx.lime(), lx.c_lime(0.3), lx.kernel_shap(), lx.occlusion()),
    *(lx.vanilla_gradients(), lx.gradient_x_input(), lx.smoothgrad(0.3), lx.integrated_gradients()),
    lx.Method("both", lx.Additive(lx.Normal(0.2)), lx.SquaredError() + 0.5 * lx.GradientMatching()),
    lx.Method("half", lx.Multiplicative(lx.ShapleyMasks()), 0.5 * lx.SquaredError()),
    lx.Method("sparse", lx.Multiplicative(lx.ShapleyMasks()), lx.SquaredError(), lx.Sparse(3)),
    lx.Method("logistic", lx.Additive(lx.Normal(0.2)), lx.SquaredError(), lx.Logistic()),
    lx.Method("huber", lx.Additive(lx.Normal(0.2)), lx.Huber(0.1)),
]
NUMBERS = ("weights", "intercept", "standard_error", "loss", "r2")


def draws_apart(method):
    """Whether instances with null players have draws of their own: X has 7 and 6 features that move."""
    return isinstance(method.neighbourhood.distribution, lx.ShapleyMasks | lx.LeaveOneOut)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
@pytest.mark.parametrize("n", [20, 60, 1500])
def test_numbers_are_the_same_bits_at_every_call(method, n, monkeypatch):
    """Drawn anew each time, kept for the first time, and from what was kept; and what is kept is still the draw."""
    monkeypatch.setattr(sampling, "_recent", Recent())
    model = (lambda x: torch.sigmoid(NET(x))) if method.name == "logistic" else NET
    monkeypatch.setattr(sampling, "LARGEST", 0)
    first = lx.explain(model, X, method, n_samples=n, target=1, seed=3)
    monkeypatch.setattr(sampling, "LARGEST", 2**17)
    for _ in range(3):
        again = lx.explain(model, X, method, n_samples=n, target=1, seed=3)
        for name in NUMBERS:
            a, b = getattr(first, name), getattr(again, name)
            assert torch.equal(a.nan_to_num(-1), b.nan_to_num(-1)), name
    assert len(sampling._recent._values) == (0 if method.neighbourhood.kernel else 2 if draws_apart(method) else 1)


def test_a_second_call_draws_nothing(monkeypatch):
    monkeypatch.setattr(sampling, "_recent", Recent())
    drawn, draw = [], lx.ShapleyMasks.draw
    blocks = lx.ShapleyMasks.blocks
    monkeypatch.setattr(lx.ShapleyMasks, "draw", lambda *args: drawn.append(1) or draw(*args))
    monkeypatch.setattr(lx.ShapleyMasks, "blocks", lambda *args: drawn.append(1) or blocks(*args))
    lx.explain(NET, X[:1], lx.kernel_shap(), n_samples=100, target=0)
    assert drawn
    drawn.clear()
    lx.explain(NET, X[1:2], lx.kernel_shap(), n_samples=100, target=1)
    assert not drawn
    lx.explain(NET, X[:1], lx.kernel_shap(), n_samples=102, target=0)
    assert drawn


def test_a_users_draws_are_not_kept(monkeypatch):
    monkeypatch.setattr(sampling, "_recent", Recent())

    class Own:
        def draw(self, d, n, rng, dtype):
            return lx.Draw(torch.randn(n, d, generator=rng, dtype=dtype), torch.ones(n))

    class Shifted(lx.Additive):
        def place(self, x, xi):
            return super().place(x, xi) + 1

    for where in (lx.Additive(Own()), Shifted(lx.Normal(0.1)), lx.Additive(lx.Normal(0.1), lx.ExponentialKernel(2.0))):
        lx.explain(NET, X, lx.Method("own", where, lx.SquaredError()), n_samples=50, target=0)
    assert not sampling._recent._values
    lx.explain(NET, X, lx.c_lime(torch.full((7,), 0.1)), n_samples=50, target=0)  # a tensor has no value to go by
    assert not sampling._recent._values


@pytest.mark.parametrize("method", [lx.kernel_shap(), lx.c_lime(0.3)], ids=lambda m: m.name)
def test_what_is_kept_is_bounded_and_let_go(method, monkeypatch):
    """At once: memory that waits for the garbage collector, which counts objects, would grow with every seed."""
    monkeypatch.setattr(sampling, "_recent", Recent(together=3000))
    for _ in range(2):
        lx.explain(NET, X[:1], method, n_samples=101, target=0)
    ((_, (block,)), _) = next(iter(sampling._recent._values.values()))
    gone = [weakref.ref(part) for part in tensors(block.xi)]
    assert len(gone) > 10
    del block
    gc.disable()
    for n in range(60, 100):
        lx.explain(NET, X[:1], method, n_samples=n, target=0)
        assert sum(size for _, size in sampling._recent._values.values()) <= 3000
    left = [part for part in gone if part() is not None]
    gc.enable()
    assert not left


def tensors(kept):
    """A kept tensor and all that follows from it."""
    yield kept
    for value, _ in vars(kept).get(RESULTS, {}).values():
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, torch.Tensor):
                yield from tensors(part)


def test_matrices_of_many_features_are_not_kept(monkeypatch):
    """A design of 20 rows and 400 features is small, its Gram matrix is not."""
    monkeypatch.setattr(sampling, "_recent", Recent())
    lx.explain(lambda x: x.sum(1), torch.rand(1, 400), lx.c_lime(), n_samples=20)
    assert not sampling._recent._values


def test_a_users_surrogate_may_work_in_place(monkeypatch):
    monkeypatch.setattr(sampling, "_recent", Recent())

    class InPlace:
        def fit(self, sample, loss):
            for block in sample.blocks():
                block.xi.div_(0.3)
                sample.design(block, True).add_(1)
            return lx.Linear().fit(sample, loss)

    method = lx.c_lime(0.3)
    before = lx.explain(NET, X, method, n_samples=100, target=0).weights
    own = lx.Method("own", method.neighbourhood, method.loss, InPlace())
    one, two = (lx.explain(NET, X, own, n_samples=100, target=0).weights for _ in range(2))
    assert torch.equal(one, two)
    assert torch.equal(lx.explain(NET, X, method, n_samples=100, target=0).weights, before)


def test_recent_lets_go_what_was_asked_for_longest_ago():
    recent = Recent[str](together=6)
    for key in "abc":
        recent.put(key, key, 2)
    recent.get("a")
    recent.put("d", "d", 2)
    assert [recent.get(key) for key in "abcd"] == ["a", None, "c", "d"]


def test_results_are_remembered_of_kept_tensors_alone():
    asked = []

    @remembered
    def scaled(a, factor, other=None):
        asked.append(1)
        return a[:2], factor * a

    one, two = torch.arange(3.0), torch.arange(3.0)
    scaled(one, 2.0), scaled(one, 2.0)
    assert len(asked) == 2
    keep(one)
    part, double = scaled(one, 2.0)
    assert scaled(one, 2.0)[1] is double
    assert len(asked) == 3
    assert not part._is_view()  # which would keep `one` for ever
    scaled(one, 3.0), scaled(one, 2.0, two), scaled(one, 2.0, two)
    assert len(asked) == 6
    scaled(double, 2.0)
    assert scaled(double, 2.0)[1] is scaled(double, 2.0)[1]

"""What cannot fit is refused before it is asked for, with the way out."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

import locapprox as lx
from locapprox import _memory

CPU = torch.device("cpu")
PHOTO = torch.rand(1, 3, 224, 224)


def brightness(x):
    return x.mean((1, 2, 3))


@pytest.fixture
def small(monkeypatch):
    """A machine of 1 GiB."""
    _memory.memory.cache_clear()
    monkeypatch.setattr(_memory, "memory", lambda device: 2.0**30)


@pytest.mark.parametrize("name", lx.paper_methods())
def test_every_pixel_of_a_photo_as_a_feature(small, name):
    """A d × d matrix of 150,528 numbers is 181 GB; gradients need none."""
    method = lx.paper_methods()[name]
    if method.loss == lx.GradientMatching():
        assert lx.explain(brightness, PHOTO, method, n_samples=4).weights.shape == PHOTO.shape
        return
    with pytest.raises(MemoryError, match=r"GiB, and there are 1: group them \(features=lx.patches"):
        lx.explain(brightness, PHOTO, method)
    if name != "C-LIME":
        grouped = lx.Method(
            name, replace(method.neighbourhood, features=lx.patches((224, 224), 56)), method.loss, method.surrogate
        )
        if name != "LIME":  # whose kernel of width 1 is too narrow for photos
            assert lx.explain(brightness, PHOTO, grouped, n_samples=100).weights.shape == (1, 16)


def test_no_model_is_asked_before(small):
    rows = []
    with pytest.raises(MemoryError):
        lx.explain(lambda x: (rows.append(len(x)), brightness(x))[1], PHOTO, lx.c_lime())
    assert not rows


def test_logistic_surrogates_and_many_outputs(small):
    logistic = lx.Method("", lx.Additive(lx.Normal(0.1)), lx.GradientMatching(), lx.Logistic())
    with pytest.raises(MemoryError, match="solving for the weights of 150528 features"):
        lx.explain(brightness, PHOTO, logistic, n_samples=2)
    with pytest.raises(MemoryError, match=r"1000 × 150528 weights of 1 instances .*fewer outputs \(target=\)"):
        lx.explain(lambda x: x.flatten(1)[:, :1000], PHOTO, lx.vanilla_gradients(), target=range(1000))


def test_what_there_is():
    _memory.memory.cache_clear()
    there = _memory.memory(CPU)
    assert 2**28 < there < 2**46
    with pytest.raises(MemoryError, match=r"nothing would take .* GiB, and there are .*: go"):
        _memory.require_memory(int(there / 8 * 1.01), "nothing", CPU, "go")
    _memory.require_memory(int(there / 8 * 0.99), "nothing", CPU, "go")


def test_a_control_group_limits(tmp_path, monkeypatch):
    for text, expected in (("1073741824\n", 2.0**30), ("max\n", None)):
        file = tmp_path / "memory.max"
        file.write_text(text)
        monkeypatch.setattr(_memory, "CONTROL_GROUPS", (str(file), str(tmp_path / "none")))
        _memory.memory.cache_clear()
        found = _memory.memory(CPU)
        assert found == expected if expected else found > 2**28
    _memory.memory.cache_clear()


MEASURED = """
import resource, torch, warnings, locapprox as lx
warnings.simplefilter("ignore"); torch.set_num_threads(1)
x, w = torch.randn({b}, 1500), torch.randn(1500) / 40
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
lx.explain(lambda a: (a @ w).tanh(), x, lx.{method}, n_samples=5000, progress=False)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / 8)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "b", "own"), [("c_lime(.5)", 1, 0), ("kernel_shap()", 1, 0), ("occlusion()", 1, 0), ("lime(40.)", 3, 2)]
)
def test_the_prediction_is_about_what_is_used(method, b, own):
    code = MEASURED.format(b=b, method=method)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    predicted = (12 + 4 * own) * 1501**2
    assert 0.5 < float(run.stdout) / predicted < 2

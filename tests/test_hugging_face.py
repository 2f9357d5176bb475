"""Hugging Face models with random weights: what comes out is transformers' own computation."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

import locapprox as lx

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A small ResNet with its processor, saved as one downloads it."""
    folder = tmp_path_factory.mktemp("resnet")
    torch.manual_seed(0)
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    names = {0: "cat", 1: "dog", 2: "bird"}
    config = transformers.ResNetConfig(**sizes, id2label=names, label2id={v: k for k, v in names.items()})
    transformers.ResNetForImageClassification(config).save_pretrained(folder)
    processor = transformers.ViTImageProcessorPil(
        size={"height": 48, "width": 48}, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.25, 0.3]
    )
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def pictures():
    from PIL import Image

    rng = np.random.default_rng(0)
    grey = Image.fromarray(rng.integers(0, 256, (30, 50), dtype=np.uint8))
    return [Image.fromarray(rng.integers(0, 256, (60, 90, 3), dtype=np.uint8)), grey]


def test_the_model_sees_what_transformers_would_give_it(saved, pictures):
    model = lx.hugging_face(saved)
    x = model.images(pictures)
    assert x.shape == (2, 3, 48, 48)
    assert 0 <= x.min() < x.max() <= 1
    assert model.labels == ["cat", "dog", "bird"]
    theirs = transformers.AutoModelForImageClassification.from_pretrained(saved).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(saved)
    inputs = processor([one.convert("RGB") for one in pictures], return_tensors="pt")
    with torch.no_grad():
        expected = theirs(**inputs).logits.softmax(-1)
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("changed", [{"rescale_factor": 1 / 127.5}, {"do_rescale": False}, {"do_normalize": False}])
def test_pixels_are_0_to_1_whatever_the_model_was_trained_on(saved, pictures, changed):
    """Twice as large for the model, or 255 times: x stays, and the model gets what transformers gives it."""
    theirs = transformers.AutoModelForImageClassification.from_pretrained(saved).eval()
    processor = transformers.ViTImageProcessorPil(
        size={"height": 48, "width": 48}, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.25, 0.3], **changed
    )
    model = lx.ImageClassifier(theirs, processor)
    x = model.images(pictures)
    assert torch.equal(x, lx.hugging_face(saved).images(pictures))
    inputs = processor([one.convert("RGB") for one in pictures], return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(model(x), theirs(**inputs).logits.softmax(-1), rtol=1e-4, atol=1e-6)
    assert lx.hugging_face(saved).largest == 1  # so that nothing is multiplied


def test_what_is_no_picture_of_bytes_is_refused(saved, pictures):
    """Floats would be divided by 255 again, 16 bits clipped, and strings fetched."""
    from PIL import Image

    model = lx.hugging_face(saved)
    pixels = np.asarray(pictures[0])
    again = model.images([pixels, torch.from_numpy(pixels).permute(2, 0, 1)])
    assert torch.equal(again, model.images([pictures[0]] * 2))
    for wrong in (pixels / 255, torch.rand(3, 60, 90), pixels.astype(np.int64), Image.new("I;16", (9, 9))):
        with pytest.raises(ValueError, match=r"^picture 1 is of "):
            model.images([pictures[0], wrong])
    for wrong in ("https://example.org/cat.png", saved / "cat.png", b"cat.png", ["https://example.org/cat.png"], None):
        with pytest.raises(TypeError, match=r"^picture 0 must be a Pillow image or an array of bytes, got "):
            model.images([wrong])
    for wrong in ("https://example.org/cat.png", pictures[0]):
        with pytest.raises(TypeError, match=r"^pictures must be a list of images, got "):
            model.images(wrong)
    shifted = transformers.EfficientNetImageProcessorPil(rescale_offset=True)
    with pytest.raises(ValueError, match=r"^this processor makes pixels from .* not 0 … 1: prepare x yourself$"):
        lx.ImageClassifier(model.model, shifted).images(pictures)


def test_a_revision_is_pinned_and_pickles_are_not_read(saved, tmp_path, monkeypatch):
    asked = []
    for kind in (transformers.AutoModelForImageClassification, transformers.AutoImageProcessor):
        whole = kind.from_pretrained

        def recorded(name, whole=whole, **settings):
            asked.append(settings)
            return whole(name, **settings)

        monkeypatch.setattr(kind, "from_pretrained", recorded)
    lx.hugging_face(saved, revision="0123abc")
    lx.hugging_face(saved)
    assert [settings["revision"] for settings in asked] == ["0123abc"] * 2 + ["main"] * 2
    assert [settings.get("use_safetensors") for settings in asked] == [True, None] * 2
    assert not any(settings["trust_remote_code"] for settings in asked)
    shutil.copytree(saved, tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    model = lx.hugging_face(saved)
    torch.save(model.model.state_dict(), tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(OSError, match=r"model\.safetensors"):
        lx.hugging_face(tmp_path / "pickled")


def test_it_is_explained_like_any_other(saved, pictures):
    model = lx.hugging_face(saved)
    x = model.images(pictures)
    patches = lx.patches(x.shape, 12)
    e = lx.explain(model, x, lx.occlusion(features=patches), target=1)
    for i in range(2):
        without = x[i : i + 1].clone()
        without[..., 12:24, 24:36] = 0
        with torch.no_grad():
            drop = model(x[i : i + 1])[0, 1] - model(without)[0, 1]
        assert float(e.weights[i, 6]) == pytest.approx(float(drop), abs=1e-6)
    gradient = lx.explain(model, x, lx.vanilla_gradients(), target=1).weights
    leaf = x.clone().requires_grad_()
    expected = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)[0]
    torch.testing.assert_close(gradient, expected.double(), rtol=1e-4, atol=1e-8)


def test_a_model_that_is_not_there_says_so(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        lx.hugging_face(tmp_path / "nowhere")


RESNET50 = """
import resource, torch, transformers
import locapprox as lx
torch.manual_seed(0)
config = transformers.ResNetConfig(num_labels=1000)
processor = transformers.ConvNextImageProcessorPil(size={"shortest_edge": 224})
model = lx.ImageClassifier(transformers.ResNetForImageClassification(config), processor)
x = torch.rand(1, 3, 224, 224)
columns, rows = torch.arange(224) * 10 // 224, torch.arange(224) * 10 // 224
labels = rows[:, None] * 10 + columns
e = lx.explain(model, x, lx.occlusion(features=labels), target=0)
f = lx.explain(model, x, lx.smoothgrad(0.1), n_samples=2, target=0)
assert e.weights.shape == (1, 100) and f.weights.shape == (1, 3, 224, 224)
assert bool(torch.isfinite(e.weights).all())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_a_resnet_50_is_explained_within_4_gib():
    """At 224 × 224, by 100 segments and by pixels, in a process of its own: its peak memory."""
    run = subprocess.run([sys.executable, "-c", RESNET50], capture_output=True, text=True, check=True)
    assert int(run.stdout) * 1024 < 4 * 2**30

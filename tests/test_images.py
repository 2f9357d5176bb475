"""Images: patches, superpixels and baselines against captum, lime and written-out numbers; pictures against captum."""

from functools import partial

import numpy as np
import pytest
import torch
from captum.attr import FeatureAblation, InputXGradient, IntegratedGradients, KernelShap, Saliency
from captum.attr import visualization as captum_pictures
from lime import lime_image
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgba
from scipy.ndimage import gaussian_filter
from skimage import segmentation
from sklearn.linear_model import LinearRegression
from torch import nn

import locapprox as lx
from locapprox.images.pictures import scale, signed

RANDOM = torch.Generator().manual_seed(3)


@pytest.fixture(scope="module")
def cnn():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, 4, 3, stride=2), nn.ReLU(), nn.Flatten()
        )
        net.append(nn.Linear(net(torch.zeros(1, 3, 16, 16)).shape[1], 4)).append(nn.Softmax(-1))
    with torch.no_grad():
        net[5].weight *= 4
    return net.double().eval()


@pytest.fixture(scope="module")
def images():
    """Four smooth colour images of 16 × 16."""
    noise = torch.rand(4, 3, 16, 16, generator=RANDOM, dtype=torch.float64).numpy()
    smooth = torch.from_numpy(gaussian_filter(noise, 2, axes=(2, 3)))
    return (smooth - smooth.amin()) / (smooth.amax() - smooth.amin())


@pytest.fixture(scope="module")
def labels(images):
    return lx.superpixels(images, partial(segmentation.slic, n_segments=12, channel_axis=-1))


def test_patches_row_by_row_with_smaller_ones_at_the_edges():
    assert lx.patches((3, 5, 4), (2, 3)).tolist() == [[0, 0, 0, 1]] * 2 + [[2, 2, 2, 3]] * 2 + [[4, 4, 4, 5]]
    assert lx.patches((28, 28), 4).unique().tolist() == list(range(49))
    with pytest.raises(ValueError, match="size must be between 1 and the image's 5 × 4"):
        lx.patches((5, 4), 6)


def test_channels_apart():
    labels = lx.patches((4, 4), 2)
    apart = lx.per_channel(labels, 3)
    assert apart.shape == (3, 4, 4)
    assert torch.equal(apart, torch.stack([labels, labels + 4, labels + 8]))
    each = lx.per_channel(torch.stack([labels, labels // 2])[:, None], 2)
    assert torch.equal(
        each, torch.stack([torch.stack([labels, labels + 4]), torch.stack([labels // 2, labels // 2 + 2])])
    )


@pytest.mark.parametrize(
    "segment",
    [
        None,
        partial(segmentation.quickshift, kernel_size=3, max_dist=6, ratio=0.5),
        partial(segmentation.felzenszwalb, scale=5, min_size=10, channel_axis=-1),
        lambda image: np.arange(256).reshape(16, 16) // 64 * 5 + 2,  # 2, 7, 12, 17: gaps are closed up
    ],
    ids=["slic", "quickshift", "felzenszwalb", "own"],
)
def test_superpixels_are_numbered_without_gaps(images, segment):
    found = lx.superpixels(images, segment)
    assert found.shape == (4, 1, 16, 16)
    for row in found:
        assert row.unique().tolist() == list(range(int(row.max()) + 1))
        assert row.max() > 0
    if segment is not None and segment(np.zeros((16, 16, 3))).max() == 17:
        assert found[0, 0, :, 0].tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4


def test_segmentations_that_do_not_fit(images):
    with pytest.raises(ValueError, match="one segment in image 0"):
        lx.superpixels(images, lambda image: np.zeros((16, 16), int))
    with pytest.raises(ValueError, match=r"labels \(8, 8\) for image 0 of \(16, 16\)"):
        lx.superpixels(images, lambda image: np.zeros((8, 8), int))
    with pytest.raises(ValueError, match="images"):
        lx.superpixels(images[0])
    with pytest.raises(ValueError, match="features has shape"):
        lx.explain(lambda x: x.sum((1, 2, 3)), images, lx.occlusion(features=torch.zeros(8, 8, dtype=torch.long)))
    gap = lx.patches((16, 16), 8) * 2
    with pytest.raises(ValueError, match="2 comes where 1 should"):
        lx.explain(lambda x: x.sum((1, 2, 3)), images, lx.occlusion(features=gap))


def test_gradient_methods_are_captums_on_a_cnn(cnn, images):
    x, target = images.clone().requires_grad_(), torch.tensor([0, 1, 2, 3])
    theirs = {
        "Vanilla Gradients": Saliency(cnn).attribute(x, target, abs=False),
        "Gradient x Input": InputXGradient(cnn).attribute(x, target),
        "Integrated Gradients": IntegratedGradients(cnn).attribute(images, 0, target, n_steps=64),
    }
    for name, expected in theirs.items():
        ours = lx.explain(cnn, images, lx.paper_methods()[name], n_samples=64, target=target.tolist())
        assert torch.allclose(ours.weights, expected, atol=1e-12), name


@pytest.mark.parametrize("baseline", [0.0, lx.ChannelMean(), lx.Blurred(2.0)], ids=["constant", "mean", "blurred"])
def test_superpixel_occlusion_is_feature_ablation(cnn, images, labels, baseline):
    base = baseline if isinstance(baseline, float) else baseline(images)
    ours = lx.explain(cnn, images, lx.occlusion(baseline=baseline, features=labels), target=1)
    assert (repr(baseline) in repr(ours.method.neighbourhood)) == (baseline != 0.0)  # a default is not shown
    for i in range(len(images)):
        b = base if isinstance(base, float) else base[i : i + 1]
        theirs = FeatureAblation(cnn).attribute(images[i : i + 1], b, 1, feature_mask=labels[i : i + 1])
        assert torch.allclose(ours.on_input()[i], theirs[0], atol=1e-12)
    counts = labels.flatten(1).amax(1) + 1
    assert torch.equal((~ours.weights.isnan()).sum(1), counts)
    assert len(counts.unique()) > 1  # images with different numbers of superpixels in one batch


def test_kernel_shap_on_superpixels_agrees_with_captum(cnn, images, labels):
    x, mask = images[:1], labels[:1]
    d = int(mask.max()) + 1
    ours = lx.explain(cnn, x, lx.kernel_shap(features=mask), n_samples=2**d, target=1)
    assert bool((ours.standard_error == 0).all())  # enumerated: Shapley values themselves
    with torch.random.fork_rng():
        torch.manual_seed(0)
        runs = [
            KernelShap(cnn).attribute(
                x, target=1, feature_mask=mask, n_samples=400, perturbations_per_eval=400, return_input_shape=False
            )
            for _ in range(12)
        ]
    theirs = torch.cat(runs).double()
    z = (theirs.mean(0) - ours.weights[0]) / (theirs.std(0) / len(runs) ** 0.5)
    assert float(z.square().mean().sqrt()) < 2  # rms of d dependent t(11) variables: 1.1 expected


class CosineMasks:
    """lime's for images: fair masks weighted √exp(−D²/w²), D the cosine distance to the full mask, w = 0.25."""

    def draw(self, d, n, rng, dtype):
        xi = lx.FairMasks().draw(d, n, rng, dtype).xi
        distance = 1 - xi.double().mean(1).sqrt()
        return lx.Draw(xi, (-(distance**2) / 0.25**2 / 2).exp())


def test_lime_image_explainer_on_the_same_superpixels(cnn, images, labels):
    image, mask = images[:1], labels[:1]
    method = lx.Method("lime image", lx.Multiplicative(CosineMasks(), 0.0, mask), lx.SquaredError())
    ours = lx.explain(cnn, image, method, n_samples=4000, target=1)
    d = int(mask.max()) + 1

    def classify(batch):
        with torch.no_grad():
            return cnn(torch.from_numpy(batch).permute(0, 3, 1, 2)).numpy()

    theirs = []
    for seed in range(8):
        explained = lime_image.LimeImageExplainer(random_state=seed).explain_instance(
            image[0].permute(1, 2, 0).numpy(),
            classify,
            labels=(1,),
            hide_color=0,
            num_features=d,
            num_samples=500,
            segmentation_fn=lambda _: mask[0, 0].numpy(),
            model_regressor=LinearRegression(),
        )
        theirs.append([weight for _, weight in sorted(explained.local_exp[1])])
    theirs = np.array(theirs)
    error = np.hypot(theirs.std(0, ddof=1) / len(theirs) ** 0.5, ours.standard_error[0].numpy())
    z = (theirs.mean(0) - ours.weights[0].numpy()) / error
    assert np.sqrt((z**2).mean()) < 2


def test_baselines():
    x = torch.arange(32.0).reshape(1, 2, 4, 4)
    assert torch.equal(lx.ChannelMean()(x), torch.tensor([7.5, 23.5]).reshape(1, 2, 1, 1).expand(x.shape))
    kernel = np.exp(-(np.arange(-8, 9) ** 2) / (2 * 2.0**2))
    kernel /= kernel.sum()
    wide = np.pad(x[0, 0].numpy(), 8, mode="symmetric")
    rows = np.stack([np.convolve(r, kernel, "valid") for r in wide])
    expected = np.stack([np.convolve(c, kernel, "valid") for c in rows.T]).T
    assert np.allclose(lx.Blurred(2.0)(x)[0, 0].numpy(), expected, atol=1e-5)
    with pytest.raises(ValueError, match="sigma, in pixels, must be positive"):
        lx.Blurred(0.0)


def test_as_images():
    grey, colour = np.full((4, 6), 51, np.uint8), np.zeros((4, 6, 3), np.uint8)
    assert torch.equal(lx.as_images([grey, grey]), torch.full((2, 1, 4, 6), 0.2))
    colour[..., 2] = 255
    assert lx.as_images([colour])[0, :, 0, 0].tolist() == [0, 0, 1]
    kept = torch.rand(2, 3, 5, 6) * 300
    assert lx.as_images(kept) is kept  # floating values stay as they are
    for bad, words in [
        (kept.permute(0, 2, 3, 1), r"channels first.*permute\(0, 3, 1, 2\)"),
        (kept[0], r"must be \(b, channels, height, width\)"),
        ([grey, grey[:3]], r"image 0 is \(4, 6, 1\), image 1 \(3, 6, 1\)"),
        ([], "empty"),
        ([np.zeros((2, 4, 6, 3))], "image 0 must be"),
    ]:
        with pytest.raises(ValueError, match=words):
            lx.as_images(bad)
    with pytest.raises(ValueError, match=r"1 channels, the model takes 3: images.expand\(-1, 3"):
        lx.as_images([grey], channels=3)


def test_images_of_every_kind_have_the_numbers_they_show():
    """Palettes by their colours, 16 bits by 65,535, whatever the layout in memory; tensors in a list channels first."""
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)
    expected = torch.from_numpy(colour).permute(2, 0, 1)[None] / 255
    few = image.fromarray(colour // 128 * 255)  # eight colours: a palette holds them exactly
    assert torch.equal(lx.as_images([few.convert("P", palette=image.Palette.ADAPTIVE)]), lx.as_images([few]))
    assert lx.as_images([image.fromarray(colour).convert("CMYK")]).shape == (1, 3, 6, 9)
    assert lx.as_images([image.fromarray(colour).convert("LA")]).shape == (1, 2, 6, 9)
    deep = rng.integers(0, 65536, (6, 9), dtype=np.uint16)
    for given in ([image.fromarray(deep)], [deep], deep[None, None], deep[None, None].astype(">u2")):
        assert torch.equal(lx.as_images(given)[0, 0], torch.from_numpy(deep.astype(np.float32)) / 65535)
    tensors = list(expected.expand(2, -1, -1, -1))
    assert torch.equal(lx.as_images(tensors), expected.expand(2, -1, -1, -1))
    assert torch.equal(lx.as_images([tensors[0], colour]), expected.expand(2, -1, -1, -1))
    turned = np.ascontiguousarray(expected.numpy()[:, :, ::-1])[:, :, ::-1]
    for given in (turned, expected.numpy().astype(">f4"), expected.numpy().astype("longdouble")):
        assert torch.equal(lx.as_images(given).float(), expected)
    for given in (colour.astype(np.int64)[None], colour.astype(np.int32)):
        with pytest.raises(ValueError, match=r"the range of torch\.int.. is not known; give bytes"):
            lx.as_images([given] if given.ndim == 3 else given.transpose(0, 3, 1, 2))
    for given, words in [
        (
            [expected[0].numpy()],
            r"image 0 is \(3, 6, 9\): in a list tensors are \(channels, height, width\), and arrays",
        ),
        ([torch.from_numpy(colour)], r"image 0 is \(6, 9, 3\): in a list tensors"),
        ([image.fromarray(deep.astype(np.int32))], r"image 0: the range of torch.int32 is not known"),
        ([image.new("LAB", (9, 6))], "image 0 is of mode LAB"),
    ]:
        with pytest.raises(ValueError, match=words):
            lx.as_images(given)


def test_labels_of_every_kind(images):
    assert torch.equal(lx.patches((4, 5), np.int64(2)), lx.patches((4, 5), 2))
    assert torch.equal(lx.patches(np.array([4, 5]), np.array([2, 2])), lx.patches((4, 5), 2))
    full = np.arange(256).reshape(16, 16).astype(np.uint8)  # 256 labels: their number does not fit into a byte
    apart = lx.per_channel(full, np.int64(3))
    assert torch.equal(apart, lx.per_channel(torch.from_numpy(full.astype(int)), 3))
    assert apart[1, 0, 0] == 256
    by_array = lx.superpixels(images.numpy(), lambda a: a[..., 0] > a[..., 1])
    assert torch.equal(by_array, lx.superpixels(images, lambda a: a[..., 0] > a[..., 1]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_blurred_like_single(images, dtype):
    x = images.to(dtype)
    assert torch.equal(lx.Blurred(1.5)(x), lx.Blurred(1.5)(x.float()).to(dtype))


def test_pictures_of_lists_and_any_layout_in_memory(images):
    maps = torch.rand(4, 16, 16, generator=torch.Generator().manual_seed(0))
    turned = np.ascontiguousarray(maps.numpy()[:, ::-1])[:, ::-1]
    figures = [lx.pictures(images, {"a": given}) for given in (maps, turned, list(maps), maps.numpy().astype(">f4"))]
    figures += [lx.pictures(given, {"a": maps}) for given in (list(images), images.numpy()[..., ::-1][..., ::-1])]
    shown = [[ax.images[0].get_array().data for ax in figure.axes[:8]] for figure in figures]
    for one, first in ((a, b) for others in shown[1:] for a, b in zip(others, shown[0], strict=True)):
        np.testing.assert_array_equal(one, first)
    assert len(plt.get_fignums()) == len(figures)  # pyplot's, to be shown or closed by whoever asked for them
    plt.close("all")


def test_wrong_images_for_the_model(cnn, images):
    with pytest.raises(ValueError, match=r"channels first: x.permute\(0, 3, 1, 2\)"):
        lx.explain(cnn, images.permute(0, 2, 3, 1), lx.vanilla_gradients(), target=0)
    with pytest.raises(ValueError, match="as_images"):
        lx.explain(cnn, (255 * images).to(torch.uint8), lx.vanilla_gradients(), target=0)
    with pytest.raises(ValueError, match="channels"):
        lx.explain(cnn, images[:, :1], lx.vanilla_gradients(), target=0)
    with pytest.raises(ValueError, match="target is out of range"):
        lx.explain(cnn, images, lx.vanilla_gradients(), target=4)


def test_squared_error_on_pixels_with_few_samples(cnn, images):
    """768 weights from 400 rows: ridge by generalised cross-validation, which beats no explanation on fresh draws.

    The model's gradient is the yardstick: C-LIME's weights tend to it.
    """
    x = images[:2]
    with pytest.warns(UserWarning, match="n_samples"):
        few = lx.explain(cnn, x, lx.c_lime(0.1), n_samples=400, target=1)
    assert bool(torch.isfinite(few.weights).all())
    gradient = lx.explain(cnn, x, lx.smoothgrad(0.1), n_samples=4000, target=1).weights.flatten(1)
    left = (few.weights.flatten(1) - gradient).norm(dim=1) / gradient.norm(dim=1)
    enough = lx.explain(cnn, x, lx.c_lime(0.1), n_samples=6000, target=1).weights.flatten(1)
    exact = (enough - gradient).norm(dim=1) / gradient.norm(dim=1)
    assert bool((left < 1).all())
    assert bool((exact < left / 3).all())


@pytest.mark.parametrize("sign", ["all", "positive", "negative", "absolute_value"])
def test_signs_and_scale_are_captums(sign):
    w = torch.randn(3, 12, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 3
    ours = signed(w, sign)
    end = scale(ours, 5.0)
    theirs = captum_pictures._normalize_attr(w.sum(0).numpy(), sign, outlier_perc=5.0)
    assert np.allclose(np.clip(ours / end, -1, 1), -theirs if sign == "negative" else theirs)  # captum turns it round


def test_a_picture_shows_the_numbers():
    """The colour of each pixel is the colour map at weight / limit."""
    w = torch.tensor([[-1.0, 0.0], [0.5, 4.0]])
    figure, ax = plt.subplots()
    lx.picture(w, limit=2.0, ax=ax)
    shown = ax.images[0]
    expected = [shown.cmap(v) for v in (0.25, 0.5, 0.625, 1.0)]
    assert np.allclose(shown.to_rgba(w.numpy()).reshape(-1, 4), [to_rgba(c) for c in expected])
    lx.picture(w, image=torch.rand(3, 2, 2), ax=ax)
    assert len(ax.images) == 3
    assert ax.images[2].get_alpha() == 0.7
    plt.close(figure)


def test_a_row_per_image_and_a_column_per_method(cnn, images, labels):
    explained = {
        "Occlusion": lx.explain(cnn, images, lx.occlusion(features=labels), target=1),
        "Vanilla Gradients": lx.explain(cnn, images, lx.vanilla_gradients(), target=1),
    }
    figure = lx.pictures(images, explained, names=list("abcd"))
    axes = [ax for ax in figure.axes if ax.images and not ax.get_label().startswith("<colorbar")]
    assert len(axes) == 4 * 3
    assert [ax.get_title() for ax in axes[:3]] == ["image", "Occlusion", "Vanilla Gradients"]
    gradient = [ax.images[0] for ax in axes[2::3]]
    assert len({image.norm.vmax for image in gradient}) == 1  # one scale per method
    plt.close(figure)
    figure = lx.pictures(images.numpy(), {"Vanilla Gradients": explained["Vanilla Gradients"]}, shared=False)
    maps = explained["Vanilla Gradients"].weights.sum(1).numpy()
    ends = [ax.images[0].norm.vmax for ax in figure.axes[1:8:2]]
    assert ends == [scale(one) for one in maps]
    assert len(set(ends)) == 4
    plt.close(figure)
    with pytest.raises(ValueError, match="attributions: 'x' is"):
        lx.pictures(images, {"x": torch.zeros(4, 8, 8)})
    with pytest.raises(ValueError, match="empty"):
        lx.pictures(images, {})
    with pytest.raises(ValueError, match="sign must be one of"):
        lx.picture(torch.zeros(2, 2), sign="both")
    with pytest.raises(ValueError, match="outliers"):
        lx.picture(torch.zeros(2, 2), outliers=100.0)

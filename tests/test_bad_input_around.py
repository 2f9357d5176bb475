"""As test_bad_input, of everything around `explain`: every mistake has its sentence."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from test_bad_input import X, done, lx, network, total

V, T = ValueError, TypeError
IMAGES = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
MAPS = torch.rand(2, 4, 5, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(20).reshape(4, 5) // 4
MASKED = np.ma.masked_array(X.numpy(), X.numpy() > 0)


def perturbs(weights=X, **settings):
    """A call of perturbation_test, not yet made."""
    settings = {"draws": 3} | settings
    return lambda: lx.perturbation_test(total, X, {"w": weights}, **settings)


def asked(call, **settings):
    """Of its result, not yet asked."""
    return lambda: getattr(lx.perturbation_test(total, X, {"w": X, "v": -X}), call)(**settings)


def rows(images):
    return images.flatten(1).sum(1)


def normal(covariance):
    return lx.Method("own", lx.Additive(lx.CorrelatedNormal(covariance)), lx.SquaredError())


CASES = {
    # perturbation tests
    **{
        f"sigma {value!r}": (
            perturbs(replace="noise", sigma=value),
            V,
            "^sigma must be positive and finite, one number; got",
        )
        for value in ("0.1", None, [0.1], torch.tensor([0.1, 0.2]), float("nan"), float("inf"), 0.0, -1)
    },
    **{
        f"weights {name}": (perturbs(weights), T, "^explanations: 'w' must hold (real )?numbers")
        for name, weights in {
            "text": "abc",
            "none": None,
            "complex": X.to(torch.complex64),
            "objects": np.array(X.tolist(), dtype=object),
            "ragged": [[1.0], [1.0, 2.0]],
        }.items()
    },
    "weights masked": (perturbs(MASKED), V, "^explanations: 'w' is a masked array with masked entries"),
    "weights of nothing": (perturbs(X[:, :0]), V, r"^explanations: 'w' has shape \(3, 0\); expected 3 instances of 6"),
    "weights of other columns": (
        lambda: lx.perturbation_test(
            lambda a: a.sum(axis=1), pd.DataFrame(X.numpy()), {"w": pd.DataFrame(X.numpy(), columns=list("abcdef"))}
        ),
        V,
        "^explanations: 'w' is labelled otherwise than x",
    ),
    "a list of weights": (
        lambda: lx.perturbation_test(total, X, X.tolist()),
        T,
        r"^explanations must be a Method, an Explanation, an Explainer or an array, .*; got \[",
    ),
    "several outputs": (
        lambda: lx.perturbation_test(network(3).eval(), X, {"w": X}, target=range(3)),
        V,
        r"^target must choose one output for each instance, got range\(0, 3\)$",
    ),
    **{
        f"{call} at level {level!r}": (asked(call, level=level), V, "^level must be between 0 and 1, got ")
        for call, level in itertools.product(("curves", "summary", "compare"), (95, 1.5, 1, 0, -1, "0.95", None))
    },
    **{
        f"{call} up to {value!r}": (asked(call, up_to=value), V, "^up_to must be a whole number ≥ 1, got ")
        for call, value in itertools.product(("auc", "summary", "compare"), (0, -1, 2.5, "2"))
    },
    # parts of a method
    **{
        f"width {width}": (
            lambda width=width: lx.lime(width),
            V,
            r"^width must be between 1e-150 and 1e150, or math\.inf; got ",
        )
        for width in (1e200, 1e-200, 1e155, 1e-320)
    },
    "sigma of another layout": (
        lambda: lx.explain(rows, IMAGES, lx.c_lime(torch.rand(4, 5, 3) + 0.1)),
        V,
        r"^sigma has shape \(4, 5, 3\), an input \(3, 4, 5\): its entries would go to others$",
    ),
    **{
        f"covariance {name}": (lambda c=c: lx.explain(total, X, normal(c)), kind, match)
        for name, c, kind, match in [
            ("of one side", torch.eye(6) + torch.tensor([[0.9]]) * torch.ones(6, 6).triu(1), V, "must be symmetric; "),
            ("of NaN", torch.eye(6) * float("nan"), V, "covariance has NaN or infinite values$"),
            ("as text", "eye", T, "covariance must hold (real )?numbers"),
        ]
    },
    "a mean over unlike segments": (
        lambda: lx.explain_mean(
            total, X, lx.occlusion(features=[[0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 2, 2], [0, 1, 2, 1, 2, 2]])
        ),
        V,
        "^method labels the features of every instance differently: a mean over them has no meaning$",
    ),
    "a mean without a seed": (
        lambda: lx.explain_mean(total, X, lx.c_lime(), seed=None),
        V,
        "^seed must be a whole number",
    ),
    # what an explanation shows
    **{
        f"index {index!r}": (lambda index=index: done()[index], IndexError, "picks no instances of 3: ")
        for index in (3, 1.5, [0.5], [True, False], {})
    },
    "plot of none": (lambda: done()[:0].plot(), V, "^instance must be below 0 and score below 1; got 0 and 0$"),
    "plot of another score": (
        lambda: done().plot(score=1),
        V,
        "^instance must be below 3 and score below 1; got 0 and 1$",
    ),
    **{
        f"top {top!r}": (lambda top=top: done().plot(top=top), V, "^top must be a whole number ≥ 1, got")
        for top in (0, -1, 2.5)
    },
    "points in another feature": (
        lambda: done().plot_points(features=(0, 9)),
        V,
        "^features must be below 6, the number",
    ),
    "points in one feature": (lambda: done().plot_points(features=(0,)), V, "^features must be two of the entries"),
    # images
    **{
        f"patches of {name}": (
            lambda shape=shape: lx.patches(shape, 2),
            V,
            "^shape must be an input's, .* as x.shape is; ",
        )
        for name, shape in {
            "images": IMAGES,
            "an array": IMAGES.numpy(),
            "a number": 7,
            "one": (4,),
            "halves": (4.5, 4),
        }.items()
    },
    **{
        f"patches by {size!r}": (
            lambda size=size: lx.patches((4, 5), size),
            V,
            r"^size must be a whole number, or two \(height, width\); got",
        )
        for size in (2.0, "2", None, (2, 2, 2), (2,), (2.5, 2))
    },
    **{
        f"{channels!r} channels": (
            lambda channels=channels: lx.per_channel(LABELS, channels),
            V,
            "^channels must be a whole number ≥ 1, got",
        )
        for channels in (2.5, 0, None)
    },
    "channels of halves": (lambda: lx.per_channel(LABELS / 2, 3), V, "^labels must be whole numbers$"),
    "channels of a row": (lambda: lx.per_channel(LABELS[0], 3), V, r"^labels must be \(height, width\), or .*\(5,\)$"),
    **{
        f"superpixels by {name}": (lambda segment=segment: lx.superpixels(IMAGES, segment), kind, match)
        for name, segment, kind, match in [
            ("NaN", lambda a: np.where(a[..., 0] > 0.5, np.nan, 1.0), V, "^segment's labels of image 0 must be whole"),
            ("halves", lambda a: np.round(a[..., 0]) / 2, V, "^segment's labels of image 0 must be whole numbers$"),
            ("none", lambda a: None, T, "^segment's labels of image 0 must hold (real )?numbers"),
            ("failure", lambda a: 1 / 0, V, "^segment failed on image 0: ZeroDivisionError: division by zero$"),
            ("a number", 5, T, "^segment must be a function from an image to its labels, got 5$"),
        ]
    },
    "superpixels of NaN": (
        lambda: lx.superpixels(IMAGES * float("nan")),
        V,
        "^x has NaN or infinite values; fill them",
    ),
    "superpixels of text": (lambda: lx.superpixels("cat.png"), T, "^x must hold (real )?numbers"),
    **{
        f"blurred by {sigma!r}": (
            lambda sigma=sigma: lx.Blurred(sigma),
            V,
            "^sigma, in pixels, must be positive and finite, one number; got",
        )
        for sigma in (0, "1", None, float("nan"), float("inf"), torch.tensor([1.0, 2.0]))
    },
    "blurred rows": (lambda: lx.Blurred(1.0)(X), V, r"^this baseline is of images .*got shape \(3, 6\)$"),
    "mean of rows": (lambda: lx.ChannelMean()(X[:1]), V, r"^this baseline is of images .*got shape \(1, 6\)$"),
    "images: masked": (
        lambda: lx.as_images(np.ma.masked_array(IMAGES.numpy(), IMAGES.numpy() > 0.5)),
        V,
        "^images is a masked array with masked entries",
    ),
    **{
        f"images: {name}": (lambda images=images: lx.as_images(images), T, match)
        for name, images, match in [
            ("text", "cat.png", "^images must be a tensor, an array or a list of images, got str$"),
            ("none", None, "^images must be a tensor, an array or a list of images, got NoneType$"),
            ("a list of text", ["cat.png"], "^image 0 must hold (real )?numbers"),
            ("complex", IMAGES.to(torch.complex64), "^images must hold (real )?numbers, got complex ones$"),
            ("objects", IMAGES.numpy().astype(object), "^images must hold (real )?numbers"),
        ]
    },
    **{
        f"pictures {name}": (lambda call=call: lx.pictures(*call[:2], **dict(call[2:])), kind, match)
        for name, call, kind, match in [
            ("of text", ("cat.png", MAPS), T, "^images must hold (real )?numbers"),
            ("of rows", (X, MAPS), V, r"^images must be \(b, channels, height, width\), got shape \(3, 6\)$"),
            ("of nothing", (IMAGES[:0], MAPS[:0]), V, "^images must be"),
            ("with text", (IMAGES, {"a": "map"}), T, "^attributions: 'a' must hold (real )?numbers"),
            ("with none", (IMAGES, {"a": None}), T, "^attributions: 'a' must hold (real )?numbers"),
            (
                "with complex",
                (IMAGES, {"a": MAPS.to(torch.complex64)}),
                T,
                "^attributions: 'a' must hold (real )?numbers",
            ),
            ("with one name", (IMAGES, MAPS, ("names", ["a"])), V, "^names has 1, there are 2 images$"),
            ("with outliers", (IMAGES, MAPS, ("outliers", "2")), V, "^outliers must be a percentage .*got '2'$"),
        ]
    },
    **{
        f"a picture's limit {limit!r}": (
            lambda limit=limit: lx.picture(MAPS[0], limit=limit),
            V,
            "^limit must be positive and finite, one number; got",
        )
        for limit in (0, -1, "1", float("nan"))
    },
    "a picture of text": (lambda: lx.picture("map"), T, "^weights must hold (real )?numbers"),
    "a picture of nothing": (
        lambda: lx.picture(MAPS[0, :0]),
        V,
        r"^weights must be \(height, width\) or .*got \(0, 5\)$",
    ),
    "a picture on another": (
        lambda: lx.picture(MAPS[0], IMAGES[0, :, :2]),
        V,
        r"^image is \(2, 5\), the weights are \(4, 5\)",
    ),
    "a picture of an explanation": (lambda: lx.picture(done()), T, "^weights must be one map, such as e.on_input"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_sentence(name):
    call, kind, match = CASES[name]
    with pytest.raises(kind, match=match) as caught:
        call()
    assert type(caught.value) is kind
    assert len(str(caught.value)) < 400

"""Images: features made of patches or superpixels, baselines that depend on the image, and a door for what users bring.

Nothing here enters the engine: features are labels for `Multiplicative(features=…)`, baselines functions of x. Images
are (b, channels, height, width).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from locapprox._parts import brief, positive, whole_number
from locapprox.models.inputs import all_finite, channels_last, floating, is_pillow

LARGEST = {torch.uint8: 255, torch.uint16: 65535, torch.bool: 1}
Segment = Callable[[np.ndarray], np.ndarray]  # (height, width, channels), scaled to 0 … 1 -> whole numbers (h, w)


def patches(shape: Iterable[Any], size: Any) -> Int[Tensor, "h w"]:
    """Labels of square (or size[0] × size[1]) patches, row by row; those at the right and lower edge may be smaller.

    `shape` is an input's: (height, width) or (channels, height, width). Channels belong together; see `per_channel`.
    """
    height, width = _two(shape, "shape must be an input's, (channels, height, width) or (height, width), as x.shape is")
    both = (size, size) if isinstance(size, int | np.integer) and not isinstance(size, bool) else size
    down, across = _two(both, "size must be a whole number, or two (height, width)", most=2)
    if not (1 <= down <= height and 1 <= across <= width):
        raise ValueError(f"size must be between 1 and the image's {height} × {width}, got {size}")
    rows, columns = (torch.arange(n, device="cpu") // one for n, one in ((height, down), (width, across)))
    return rows[:, None] * (int(columns[-1]) + 1) + columns


def _two(values: Any, sentence: str, most: int | None = None) -> list[int]:
    """The last two of two or more whole numbers."""
    try:
        two = [whole_number(value, "size") for value in values]
    except (TypeError, ValueError):
        two = []
    if not 2 <= len(two) <= (most or len(two)):
        raise ValueError(f"{sentence}; got {brief(values)}")
    return two[-2:]


def superpixels(x: Tensor | np.ndarray, segment: Segment | None = None) -> Int[Tensor, "b 1 h w"]:
    """One segmentation per image, labels 0 … d − 1, channels together.

    `segment` is any function from one image (height, width, channels), scaled to 0 … 1, to whole numbers of its height
    and width: `functools.partial(skimage.segmentation.slic, n_segments=100)` (the default, with 50), `quickshift` or
    `felzenszwalb`. Numbers that it leaves out are closed up.

    Raises:
        ValueError: naming the image whose segmentation fails, has another size, no whole numbers, or one segment.
        ImportError: scikit-image is needed for the default.
    """
    x = floating(x, "x")
    if x.ndim != 4 or x.numel() == 0:
        raise ValueError(f"x must be images (b, channels, height, width), got shape {tuple(x.shape)}")
    if not all_finite(x):
        raise ValueError("x has NaN or infinite values; fill them in first")
    segment = _slic() if segment is None else segment
    if not callable(segment):
        raise TypeError(f"segment must be a function from an image to its labels, got {segment!r}")
    rows = []
    for i, image in enumerate(x.cpu().double()):
        low, high = image.min(), image.max()
        try:
            given = segment(((image - low) / (high - low).clamp_min(1e-12)).permute(1, 2, 0).numpy())
        except Exception as error:
            raise ValueError(f"segment failed on image {i}: {type(error).__name__}: {error}") from error
        labels = _labels(given, f"segment's labels of image {i}").numpy()
        if labels.shape != image.shape[1:]:
            raise ValueError(f"segment gave labels {labels.shape} for image {i} of {tuple(image.shape[1:])}")
        names, closed = np.unique(labels, return_inverse=True)
        if len(names) == 1:
            raise ValueError(f"segment found one segment in image {i}: nothing to tell apart; ask for more segments")
        rows.append(torch.from_numpy(closed.reshape(1, *labels.shape)))
    return torch.stack(rows).to(x.device)


def _labels(given: Any, name: str) -> Tensor:
    labels = floating(given, name)
    if not bool((labels == labels.round()).all()):
        raise ValueError(f"{name} must be whole numbers")
    return labels.long()


def _slic() -> Segment:
    try:
        from skimage.segmentation import slic
    except ImportError as error:
        raise ImportError("superpixels needs scikit-image: pip install 'locapprox[images]', or pass segment") from error
    return lambda image: slic(image, n_segments=50, channel_axis=-1)


def per_channel(labels: Tensor | np.ndarray, channels: int | np.integer) -> Int[Tensor, "... c h w"]:
    """Every channel's patches or superpixels as features of their own: (h, w) becomes (c, h, w), (b, 1, h, w)
    (b, c, h, w)."""
    labels, channels = _labels(labels, "labels"), whole_number(channels, "channels")
    if labels.ndim < 2 or labels.numel() == 0:
        raise ValueError(f"labels must be (height, width), or (b, 1, height, width); got shape {tuple(labels.shape)}")
    labels = labels if labels.ndim == 4 else labels.unsqueeze(-3)
    count = labels.flatten(1).amax(1).reshape(-1, 1, 1, 1) + 1 if labels.ndim == 4 else labels.max() + 1
    return labels + count * torch.arange(channels, device=labels.device)[:, None, None]


@dataclass(frozen=True)
class ChannelMean:
    """A baseline: every channel's mean over the image."""

    def __call__(self, x: Tensor) -> Tensor:
        _check_images(x)
        return x.mean((-2, -1), keepdim=True).expand(x.shape)


@dataclass(frozen=True)
class Blurred:
    """A baseline: the image under a Gaussian filter of standard deviation `sigma` pixels, mirrored at the edges."""

    sigma: float

    def __post_init__(self) -> None:
        positive(self.sigma, "sigma, in pixels,")

    def __call__(self, x: Tensor) -> Tensor:
        from scipy.ndimage import gaussian_filter

        _check_images(x)
        values = x.detach().cpu()
        values = values.float() if values.dtype.itemsize < 4 else values  # scipy knows no half precision
        blurred = gaussian_filter(values.numpy(), self.sigma, mode="reflect", axes=(-2, -1))
        return torch.from_numpy(blurred).to(x)


def _check_images(x: Tensor) -> None:
    if x.ndim < 3:
        raise ValueError(f"this baseline is of images (b, …, height, width), got shape {tuple(x.shape)}")


def as_images(images: Any, channels: int | None = None) -> Float[Tensor, "b c h w"]:
    """Images as a float tensor (b, channels, height, width).

    Takes a tensor or array (b, channels, height, width), or a sequence of Pillow images, arrays (height, width) or
    (height, width, channels), or tensors (height, width) or (channels, height, width). Bytes (uint8) are divided by
    255, 16 bits (uint16) by 65535; floating values stay as they are. Palettes and other colour spaces become RGB.

    Raises ValueError or TypeError for channels elsewhere, other than `channels` channels, images of different sizes,
    and whole numbers of another type, whose range is not known.
    """
    if isinstance(images, Tensor | np.ndarray):
        x = _scaled(images, "images")
        if x.ndim != 4:
            raise ValueError(f"images must be (b, channels, height, width), got shape {tuple(x.shape)}")
        if channels_last(x.shape):
            raise ValueError(f"images are channels first; got {tuple(x.shape)}: use images.permute(0, 3, 1, 2)")
    else:
        if isinstance(images, str) or is_pillow(images) or not isinstance(images, Iterable):
            raise TypeError(f"images must be a tensor, an array or a list of images, got {type(images).__name__}")
        rows = [_rows(image, f"image {i}") for i, image in enumerate(images)]
        if not rows:
            raise ValueError("images is empty")
        for i, row in enumerate(rows):
            if row.shape != rows[0].shape:
                raise ValueError(
                    f"images differ in size: image 0 is {tuple(rows[0].shape)}, image {i} {tuple(row.shape)} (height, "
                    "width, channels); resize or crop them to one size, or explain them in separate calls"
                )
        x = torch.stack(rows).permute(0, 3, 1, 2)
    if channels is not None and x.shape[1] != channels:
        how = ": images.expand(-1, 3, -1, -1) makes grey ones of three equal channels" if x.shape[1] == 1 else ""
        raise ValueError(f"the images have {x.shape[1]} channels, the model takes {channels}{how}")
    return x


def _rows(image: Any, name: str) -> Float[Tensor, "h w c"]:
    """One image of a list, channels last."""
    if is_pillow(image) and image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.mode == "PA" or "transparency" in image.info else "RGB")
    elif is_pillow(image) and image.mode in ("CMYK", "YCbCr", "HSV"):
        image = image.convert("RGB")
    elif is_pillow(image) and image.mode == "LAB":
        raise ValueError(f"{name} is of mode LAB, which Pillow does not convert; make it RGB")
    x, first = _scaled(image, name), isinstance(image, Tensor)
    if x.ndim not in (2, 3):
        layout = "(channels, height, width)" if first else "(height, width, channels)"
        raise ValueError(f"{name} must be (height, width) or {layout}, got {tuple(x.shape)}")
    if x.ndim == 2:
        return x.unsqueeze(-1)
    if channels_last((1, *(x.shape if first else x.shape[::-1]))) and not is_pillow(image):
        raise ValueError(
            f"{name} is {tuple(x.shape)}: in a list tensors are (channels, height, width), and arrays (height, width, "
            "channels), as Pillow's are"
        )
    return x.permute(1, 2, 0) if first else x


def _scaled(image: Any, name: str) -> Tensor:
    """0 … 1 of bytes and 16 bits, what is floating as it is."""
    if isinstance(image, Tensor):
        x = image
    else:
        array = np.asarray(image)
        whole = array.dtype.kind in "biu" and not np.ma.is_masked(image)
        x = torch.from_numpy(array.astype(array.dtype.newbyteorder("="))) if whole else floating(image, name)
    if x.is_complex():
        raise TypeError(f"{name} must hold real numbers, got complex ones")
    if x.dtype in LARGEST:
        return x.float() / LARGEST[x.dtype]
    if not x.is_floating_point():
        raise ValueError(
            f"{name}: the range of {x.dtype} is not known; give bytes (uint8), or divide by the largest value"
        )
    return x

"""Images: features made of patches or superpixels, baselines that depend on the image, and a door for what users bring.

Nothing here enters the engine: features are labels for `Multiplicative(features=…)`, baselines functions of x. Images
are (b, channels, height, width).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from locapprox.models.inputs import channels_last

Segment = Callable[[np.ndarray], np.ndarray]  # (height, width, channels), scaled to 0 … 1 -> whole numbers (h, w)


def patches(shape: Sequence[int], size: int | tuple[int, int]) -> Int[Tensor, "h w"]:
    """Labels of square (or size[0] × size[1]) patches, row by row; those at the right and lower edge may be smaller.

    `shape` is an input's: (height, width) or (channels, height, width). Channels belong together; see `per_channel`.
    """
    height, width = shape[-2:]
    down, across = (size, size) if isinstance(size, int) else size
    if not (1 <= down <= height and 1 <= across <= width):
        raise ValueError(f"size must be between 1 and the image's {height} × {width}, got {size}")
    rows, columns = (torch.arange(n, device="cpu") // one for n, one in ((height, down), (width, across)))
    return rows[:, None] * (int(columns[-1]) + 1) + columns


def superpixels(x: Tensor, segment: Segment | None = None) -> Int[Tensor, "b 1 h w"]:
    """One segmentation per image, labels 0 … d − 1, channels together.

    `segment` is any function from one image (height, width, channels), scaled to 0 … 1, to whole numbers of its height
    and width: `functools.partial(skimage.segmentation.slic, n_segments=100)` (the default, with 50), `quickshift` or
    `felzenszwalb`. Numbers that it leaves out are closed up.

    Raises:
        ValueError: naming the image whose segmentation has another size, or one segment.
        ImportError: scikit-image is needed for the default.
    """
    if x.ndim != 4:
        raise ValueError(f"x must be images (b, channels, height, width), got shape {tuple(x.shape)}")
    segment = _slic() if segment is None else segment
    rows = []
    for i, image in enumerate(x.detach().cpu().double()):
        low, high = image.min(), image.max()
        labels = np.asarray(segment(((image - low) / (high - low).clamp_min(1e-12)).permute(1, 2, 0).numpy()))
        if labels.shape != image.shape[1:]:
            raise ValueError(f"segment gave labels {labels.shape} for image {i} of {tuple(image.shape[1:])}")
        names, closed = np.unique(labels, return_inverse=True)
        if len(names) == 1:
            raise ValueError(f"segment found one segment in image {i}: nothing to tell apart; ask for more segments")
        rows.append(torch.from_numpy(closed.reshape(1, *labels.shape)))
    return torch.stack(rows).to(x.device)


def _slic() -> Segment:
    try:
        from skimage.segmentation import slic
    except ImportError as error:
        raise ImportError("superpixels needs scikit-image: pip install 'locapprox[images]', or pass segment") from error
    return lambda image: slic(image, n_segments=50, channel_axis=-1)


def per_channel(labels: Int[Tensor, "... h w"], channels: int) -> Int[Tensor, "... c h w"]:
    """Every channel's patches or superpixels as features of their own; (b, 1, h, w) becomes (b, c, h, w)."""
    labels = labels if labels.ndim == 4 else labels.unsqueeze(-3)
    count = labels.flatten(1).amax(1).reshape(-1, 1, 1, 1) + 1 if labels.ndim == 4 else labels.max() + 1
    return labels + count * torch.arange(channels, device=labels.device)[:, None, None]


@dataclass(frozen=True)
class ChannelMean:
    """A baseline: every channel's mean over the image."""

    def __call__(self, x: Tensor) -> Tensor:
        return x.mean((-2, -1), keepdim=True).expand(x.shape)


@dataclass(frozen=True)
class Blurred:
    """A baseline: the image under a Gaussian filter of standard deviation `sigma` pixels, mirrored at the edges."""

    sigma: float

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise ValueError(f"sigma must be positive, in pixels; got {self.sigma}")

    def __call__(self, x: Tensor) -> Tensor:
        from scipy.ndimage import gaussian_filter

        blurred = gaussian_filter(x.detach().cpu().numpy(), self.sigma, mode="reflect", axes=(-2, -1))
        return torch.from_numpy(blurred).to(x)


def as_images(images: Any, channels: int | None = None) -> Float[Tensor, "b c h w"]:
    """Images as a float tensor (b, channels, height, width).

    Takes a tensor or array (b, channels, height, width), or a sequence of PIL images or arrays (height, width) or
    (height, width, channels). Bytes (uint8) are divided by 255; floating values stay as they are.

    Raises ValueError for channels last, other than `channels` channels, and images of different sizes.
    """
    if isinstance(images, Tensor | np.ndarray):
        x = images if isinstance(images, Tensor) else torch.from_numpy(images)
        if x.ndim != 4:
            raise ValueError(f"images must be (b, channels, height, width), got shape {tuple(x.shape)}")
        if channels_last(x.shape):
            raise ValueError(f"images are channels first; got {tuple(x.shape)}: use images.permute(0, 3, 1, 2)")
    else:
        arrays = [np.asarray(image) for image in images]
        if not arrays:
            raise ValueError("images is empty")
        arrays = [a[..., None] if a.ndim == 2 else a for a in arrays]
        for i, a in enumerate(arrays):
            if a.shape != arrays[0].shape:
                raise ValueError(
                    f"images differ in size: image 0 is {arrays[0].shape}, image {i} {a.shape} (height, width, "
                    "channels); resize or crop them to one size, or explain them in separate calls"
                )
            if a.ndim != 3:
                raise ValueError(f"image {i} must be (height, width) or (height, width, channels), got {a.shape}")
        x = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
    if channels is not None and x.shape[1] != channels:
        how = ": images.expand(-1, 3, -1, -1) makes grey ones of three equal channels" if x.shape[1] == 1 else ""
        raise ValueError(f"the images have {x.shape[1]} channels, the model takes {channels}{how}")
    if x.dtype == torch.uint8:
        return x.float() / 255
    return x if x.is_floating_point() else x.float()

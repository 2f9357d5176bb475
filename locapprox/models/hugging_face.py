"""Image classifiers of Hugging Face, with their preprocessing: images 0 … 1 in, probabilities out."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from locapprox.models.inputs import is_pillow

MISSING = "Hugging Face models need transformers and Pillow: pip install 'locapprox[hugging-face]'"


class ImageClassifier(nn.Module):
    """A model and its image processor, as a function of the pixels that one sees.

    The processor's resizing and cropping happen in `images`; its normalisation, (x − mean) / std per channel, in
    `forward`, so that weights and baselines refer to pixels 0 … 1, whatever the model was trained on.

    Main arguments:
        model: a transformers model whose outputs have `logits` (rows, classes).
        processor: its image processor.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Any, processor: Any) -> None:
        super().__init__()
        if not all(callable(part) for part in (model, processor)):
            raise TypeError(f"ImageClassifier needs a model and its image processor, got {model!r} and {processor!r}")
        self.model, self.processor = model, processor
        normalised = getattr(processor, "do_normalize", True)
        mean, std = (processor.image_mean, processor.image_std) if normalised else (0.0, 1.0)
        rescaled = getattr(processor, "do_rescale", True)
        self.largest = 255 * processor.rescale_factor if rescaled else 255.0  # what the model takes for a pixel of 1
        self.register_buffer("mean", torch.tensor(mean).reshape(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(-1, 1, 1))
        self.eval()

    @property
    def labels(self) -> list[str]:
        """The names of the classes, in the order of the outputs."""
        names: dict[int, str] = self.model.config.id2label
        return [names[i] for i in sorted(names)]

    def images(self, pictures: Any) -> Float[Tensor, "b c h w"]:
        """Pillow images (or arrays of bytes) of any size, resized and cropped as the model expects them, 0 … 1.

        Raises ValueError or TypeError for anything else: nothing is opened or fetched by a name.
        """
        if isinstance(pictures, str) or is_pillow(pictures) or not isinstance(pictures, Iterable):
            raise TypeError(f"pictures must be a list of images, got {type(pictures).__name__}")
        given = [_picture(one, f"picture {i}") for i, one in enumerate(pictures)]
        settings = {"do_normalize": False, "do_rescale": True, "rescale_factor": 1 / 255}
        pixels: Tensor = self.processor(given, **settings, return_tensors="pt")["pixel_values"]
        low, high = float(pixels.min()), float(pixels.max())
        if not -1e-3 <= low <= high <= 1 + 1e-3:
            raise ValueError(f"this processor makes pixels from {low:.3g} to {high:.3g}, not 0 … 1: prepare x yourself")
        return pixels.to(self.mean)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        pixels = x if self.largest == 1 else x * self.largest
        logits: Tensor = self.model((pixels - self.mean) / self.std).logits
        return logits.softmax(-1)


def _picture(image: Any, name: str) -> Any:
    """As processors take it: Pillow's in RGB, or bytes."""
    if is_pillow(image):
        if image.mode.startswith(("I", "F")):
            raise ValueError(
                f"{name} is of mode {image.mode}: make it 8 bits per channel first, for Pillow clips such values"
            )
        return image.convert("RGB")
    if not isinstance(image, Tensor | np.ndarray):
        raise TypeError(f"{name} must be a Pillow image or an array of bytes, got {type(image).__name__}")
    if image.dtype not in (torch.uint8, np.uint8):
        raise ValueError(f"{name} is of {image.dtype}: give bytes (uint8), 0 … 255, or a Pillow image")
    return image


def hugging_face(name: str | Path, revision: str | None = None) -> ImageClassifier:
    """An image classifier by its name on the Hub ("microsoft/resnet-50"), or from a folder it was saved to.

    `revision` pins a commit, branch or tag of the Hub: whoever owns a name may change what it holds. Weights are read
    from safetensors alone and no code of the repository is run; for a model of pickles, which can run anything, load
    it yourself if you trust it, and pass it to `lx.ImageClassifier(model, processor)`.

    Raises:
        ImportError: transformers is missing; it is an optional extra.
        OSError: no such model, no safetensors, or no network: the message of transformers says which.
    """
    try:
        from transformers import AutoImageProcessor, AutoModelForImageClassification
    except ImportError as error:
        raise ImportError(MISSING) from error
    source = {"revision": revision or "main", "trust_remote_code": False}
    model = AutoModelForImageClassification.from_pretrained(name, use_safetensors=True, **source)
    return ImageClassifier(model, AutoImageProcessor.from_pretrained(name, **source))

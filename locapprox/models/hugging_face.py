"""Image classifiers of Hugging Face, with their preprocessing: images 0 … 1 in, probabilities out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

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
        self.model, self.processor = model, processor
        normalised = getattr(processor, "do_normalize", True)
        mean, std = (processor.image_mean, processor.image_std) if normalised else (0.0, 1.0)
        self.register_buffer("mean", torch.tensor(mean).reshape(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(-1, 1, 1))
        self.eval()

    @property
    def labels(self) -> list[str]:
        """The names of the classes, in the order of the outputs."""
        names: dict[int, str] = self.model.config.id2label
        return [names[i] for i in sorted(names)]

    def images(self, pictures: Sequence[Any]) -> Float[Tensor, "b c h w"]:
        """Pillow images (or arrays of bytes) of any size, resized and cropped as the model expects them, 0 … 1."""
        pictures = [one.convert("RGB") if hasattr(one, "convert") else one for one in pictures]
        pixels: Tensor = self.processor(pictures, do_normalize=False, return_tensors="pt")["pixel_values"]
        return pixels.to(self.mean)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        logits: Tensor = self.model((x - self.mean) / self.std).logits
        return logits.softmax(-1)


def hugging_face(name: str | Path) -> ImageClassifier:
    """An image classifier by its name on the Hub ("microsoft/resnet-50"), or from a folder it was saved to.

    Raises:
        ImportError: transformers is missing; it is an optional extra.
        OSError: no such model, or no network: the message of transformers says which.
    """
    try:
        from transformers import AutoImageProcessor, AutoModelForImageClassification
    except ImportError as error:
        raise ImportError(MISSING) from error
    return ImageClassifier(
        AutoModelForImageClassification.from_pretrained(name), AutoImageProcessor.from_pretrained(name)
    )

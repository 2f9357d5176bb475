"""Images to train and explain models on: MNIST's 10,000 test images, and any folder (or zip) of images by class."""

import gzip
import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from tqdm.auto import tqdm

from experiments.data import EXPLAINED, Table, fetch
from experiments.files import digest
from experiments.runs import bar
from locapprox import as_images

MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist"
MNIST_TRAIN = 8000
ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")
NAMED = 5  # unreadable files that the message names


def mnist() -> Table:
    """The 10,000 images of MNIST's test half, (1, 28, 28) in 0 … 1: the first 8,000 to train on, the rest to test."""
    files = ["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"]
    paths = [fetch("mnist", file, MNIST) for file in files]
    images, labels = (np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8) for path in paths)
    x = as_images(torch.from_numpy(images[16:].reshape(-1, 1, 28, 28).copy()))
    y = torch.from_numpy(labels[8:].astype(np.float32))
    return _table("mnist", x[:MNIST_TRAIN], y[:MNIST_TRAIN], x[MNIST_TRAIN:], y[MNIST_TRAIN:], _digests(paths))


def cifar10() -> Table:
    """32 × 32 JPEGs in cifar10/cifar10-images.zip of $LOCAPPROX_DATA: an example of `folder`."""
    return folder(fetch("cifar10", "cifar10-images.zip", None), "cifar10")


def folder(path: Path, name: str | None = None) -> Table:
    """Images `split/class/file` with splits train and test, in a folder or a zip; (3, height, width) in 0 … 1.

    Classes are numbered in the order of their names. Files that cannot be read are left out, named and counted.

    Raises:
        FileNotFoundError: no such folder, or no train and test images in it.
        ValueError: images of different sizes.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist; give a folder, or a zip, with train/<class>/ and test/<class>/"
        )
    parts: dict[str, list[tuple[str, np.ndarray]]] = {"train": [], "test": []}
    broken = []
    for file, raw in bar(_files(path), f"read {path.name}"):
        split, kind = PurePosixPath(file).parts[-3:-1]
        if split not in parts:
            continue
        try:
            parts[split].append((kind, np.asarray(Image.open(io.BytesIO(raw)).convert("RGB"))))
        except (UnidentifiedImageError, OSError):
            broken.append(file)
    if broken:
        more = f" and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
        tqdm.write(f"{path}: {len(broken)} unreadable files left out: {', '.join(broken[:NAMED])}{more}")
    if not parts["train"] or not parts["test"]:
        raise FileNotFoundError(f"{path} has no images in train/<class>/ and test/<class>/ ({', '.join(ENDINGS)})")
    classes = sorted({kind for part in parts.values() for kind, _ in part})
    x = {split: as_images([image for _, image in part]) for split, part in parts.items()}
    y = {split: torch.tensor([classes.index(kind) for kind, _ in part]).float() for split, part in parts.items()}
    return _table(name or path.stem, x["train"], y["train"], x["test"], y["test"], _digests([path]), tuple(classes))


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """(split/class/file, bytes), by name."""
    if path.is_dir():
        for file in sorted(path.glob("*/*/*")):
            if file.suffix.lower() in ENDINGS:
                yield str(file.relative_to(path)), file.read_bytes()
        return
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            if name.lower().endswith(ENDINGS) and len(PurePosixPath(name).parts) >= 3:
                yield name, archive.read(name)


def _table(
    name: str,
    x: Tensor,
    y: Tensor,
    x_test: Tensor,
    y_test: Tensor,
    sha256: dict[str, str],
    classes: tuple[str, ...] = (),
) -> Table:
    """The explained images are drawn at random: the first few are of several classes even if the files are sorted."""
    some = torch.randperm(len(x_test), generator=torch.Generator().manual_seed(0))[:EXPLAINED]
    pixels = tuple(",".join(map(str, i)) for i in np.ndindex(*x.shape[1:]))
    return Table(name, "classification", x, y, x_test, y_test, x_test[some], pixels, sha256, classes)


def _digests(paths: list[Path]) -> dict[str, str]:
    """sha256 of files; of a folder, of its images' names and contents."""
    out = {}
    for path in paths:
        if path.is_dir():
            whole = hashlib.sha256()
            for file, raw in _files(path):
                whole.update(f"{file} {hashlib.sha256(raw).hexdigest()}\n".encode())
            out[path.name] = whole.hexdigest()
        else:
            out[path.name] = digest(path)
    return out

"""Tables to train and explain models on, each pinned by the sha256 of what it was read from."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pooch
import torch
from jaxtyping import Float
from sklearn import datasets
from torch import Tensor

EXPLAINED = 100
REPOSITORY = "https://raw.githubusercontent.com/AI4LIFE-GROUP/lfa/ab4ddc6687a73ca68e7c3412db978c9b6f7ebf2a"
AUTHORS = f"{REPOSITORY}/data/clean"
SHA256 = {
    "who-clean-train80-normalized.csv": "1d2199885becfbdb506aad39e36f860112d43298ccd9854eb62a56d257129304",
    "who-clean-test20-normalized.csv": "a1978bae3859bb2c4da370c2eb8c7bd0bb93604991353f8a1a8e6ed78deb78e8",
    "who-clean-test20-normalized-subset.csv": "547fc2ec00d9be64a6f6021ea15e41c391d9527174153e7c54a3ee90faa305d9",
    "heloc-clean-train80-normalized.csv": "580edae9172b8501c80e7069d00fd3d8128b0d46e513c4f3301729a166a83a48",
    "heloc-clean-test20-normalized.csv": "7421c6cfcebe0f62981a227e6ca7406333359a02542c9064c9d43bd5b03b9019",
    "heloc-clean-test20-normalized-subset.csv": "7007efdb436c06e730c5f564364ce62b98e051bec280473c94e882337fa2c0eb",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    "cifar10-images.zip": "af8e41a6408b8c31af0104470baefc9f6fb2a37fa64417126d8bd281f291e835",
}

Task = Literal["regression", "classification"]


@dataclass(frozen=True, eq=False)
class Table:
    """Inputs (rows, *input shape) and targets (rows,); for classification a target is the number of its class."""

    name: str
    task: Task
    x_train: Float[Tensor, "train ..."]
    y_train: Float[Tensor, " train"]
    x_test: Float[Tensor, "test ..."]
    y_test: Float[Tensor, " test"]
    x_explain: Float[Tensor, "explained ..."]
    features: tuple[str, ...]  # one name per entry of an input
    sha256: dict[str, str]  # of each file, or of scikit-learn's arrays
    class_names: tuple[str, ...] = ()

    @property
    def classes(self) -> int:
        """Number of classes; 0 for regression."""
        return 0 if self.task == "regression" else int(self.y_train.max()) + 1


def load(name: str) -> Table:
    """One of `TABLES`.

    Raises:
        ValueError: unknown name, or a file that is not the one whose sha256 is written here.
        FileNotFoundError: the file is neither in $LOCAPPROX_DATA nor can it be downloaded.
    """
    if name not in TABLES:
        raise ValueError(f"data must be one of {', '.join(TABLES)}; got {name!r}")
    return TABLES[name]()


def _authors(name: str, task: Task) -> Table:
    """A table of Han et al., min-max scaled by them; the target is the last column."""
    files = [f"{name}-clean-{part}-normalized{end}.csv" for part, end in _PARTS]
    frames = [_parsed(fetch(name, file)) for file in files]
    train, test, subset = (torch.from_numpy(frame.to_numpy(np.float32)) for frame in frames)
    return Table(
        name,
        task,
        x_train=train[:, :-1],
        y_train=train[:, -1],
        x_test=test[:, :-1],
        y_test=test[:, -1],
        x_explain=subset[:, :-1],
        features=tuple(" ".join(str(column).split()) for column in frames[0].columns[:-1]),
        sha256={file: SHA256[file] for file in files},
    )


@cache
def _parsed(path: Path) -> pd.DataFrame:
    """Read once: `fetch` has made sure of the content."""
    return pd.read_csv(path)


_PARTS = [("train80", ""), ("test20", ""), ("test20", "-subset")]


class NotDownloadedError(FileNotFoundError):
    """A file would have to be downloaded."""


_offline: ContextVar[bool] = ContextVar("offline", default=False)


@contextmanager
def offline() -> Iterator[None]:
    """Inside, `fetch` raises NotDownloadedError where it would download."""
    token = _offline.set(True)
    try:
        yield
    finally:
        _offline.reset(token)


def fetch(folder: str, file: str, origin: str | None = AUTHORS, sha256: str | None = None) -> Path:
    """The verified file: in $LOCAPPROX_DATA/folder if that is set, else in pooch's cache, downloaded if needed."""
    expected = sha256 or SHA256[file]
    local = os.environ.get("LOCAPPROX_DATA")
    if local:
        path = _absolute(local) / folder / file
        if not path.is_file():
            raise FileNotFoundError(f"LOCAPPROX_DATA has no {path}; copy it there, or unset LOCAPPROX_DATA to download")
        found = pooch.file_hash(str(path))
        if found != expected:
            raise ValueError(f"{path} is not the expected file: its sha256 is {found}, not {expected}")
        return path
    if origin is None:
        raise FileNotFoundError(f"{file} is not on the internet: set LOCAPPROX_DATA to a folder with {folder}/{file}")
    cache = pooch.os_cache("locapprox") / folder
    if _offline.get() and not ((cache / file).is_file() and pooch.file_hash(str(cache / file)) == expected):
        raise NotDownloadedError(f"{file} is not here yet; a run downloads it")
    try:
        return Path(pooch.retrieve(f"{origin}/{file}", expected, fname=file, path=cache, progressbar=False))
    except ValueError as error:  # pooch has removed what it downloaded
        raise ValueError(f"{origin}/{file} is not the expected file: {error}") from error
    except OSError as error:
        raise FileNotFoundError(
            f"{file} could not be downloaded ({type(error).__name__}: {error}). Either connect to the internet (it is "
            f"fetched once from {origin}), or set LOCAPPROX_DATA to a folder that has it as {folder}/{file}"
        ) from None  # the cause is four tracebacks long, and said


@cache
def _absolute(folder: str) -> Path:
    """Resolved once, so that a later change of directory does not move a relative folder."""
    return Path(folder).resolve()


def _embedded(name: str, task: Task, read: Callable[[], Any], image: bool = False) -> Table:
    """A table of scikit-learn: a fixed random 80/20 split; standardised on the training part, or scaled as an image."""
    bunch = read()
    x, y = np.asarray(bunch.data, dtype=np.float64), np.asarray(bunch.target, dtype=np.float64)
    digest = hashlib.sha256(x.tobytes() + y.tobytes()).hexdigest()
    order = np.random.default_rng(0).permutation(len(x))
    cut = len(x) * 4 // 5
    train, test = order[:cut], order[cut:]
    x = x.reshape(-1, 1, 8, 8) / 16 if image else (x - x[train].mean(0)) / x[train].std(0)
    if task == "regression":
        y = (y - y[train].mean()) / y[train].std()
    inputs, targets = torch.from_numpy(x).float(), torch.from_numpy(y).float()
    return Table(
        name,
        task,
        x_train=inputs[train],
        y_train=targets[train],
        x_test=inputs[test],
        y_test=targets[test],
        x_explain=inputs[test[:EXPLAINED]],
        features=tuple(bunch.feature_names),
        sha256={f"scikit-learn {name}": digest},
    )


TABLES: dict[str, Callable[[], Table]] = {
    "diabetes": partial(_embedded, "diabetes", "regression", datasets.load_diabetes),
    "breast_cancer": partial(_embedded, "breast_cancer", "classification", datasets.load_breast_cancer),
    "digits": partial(_embedded, "digits", "classification", datasets.load_digits, image=True),
    "who": partial(_authors, "who", "regression"),
    "heloc": partial(_authors, "heloc", "classification"),
}

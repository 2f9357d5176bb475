"""Explanations on disk: one .npz of arrays and a JSON text, versioned, nothing executable."""

import json
import math
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from zipfile import ZipFile

import numpy as np
import torch

from locapprox._method import Method
from locapprox._parts import whole_number
from locapprox.fit.links import LINKS, Link
from locapprox.fit.losses import Loss, RowLoss
from locapprox.fit.sampling import Sample
from locapprox.fit.surrogates import BaseSurrogate
from locapprox.neighbourhoods.base import BaseNeighbourhood

FORMAT = 1
ARRAYS = ("weights", "intercept", "standard_error", "loss", "r2", "degrees_of_freedom", "n_samples")
LONGEST = 2**28  # bytes of JSON: a million long names of features
KEYS = ("method", "feature_names", "settings", "several", "per_entry", "link")


@dataclass(frozen=True, eq=False, repr=False)
class Stored(BaseNeighbourhood, BaseSurrogate):
    """What a file keeps of a part: its repr."""

    description: str

    def __repr__(self) -> str:
        return self.description

    def draw(self, x: torch.Tensor, n: int, rng: torch.Generator) -> NoReturn:
        self._unknown()

    def place(self, x: torch.Tensor, xi: torch.Tensor) -> NoReturn:
        self._unknown()

    def check_loss(self, loss: RowLoss) -> None:
        """A file that has it was of a fit that minimised it."""

    def check_limit(self, loss: RowLoss) -> None:
        """As for its loss."""

    def fit(self, sample: Sample, loss: RowLoss) -> NoReturn:
        self._unknown()

    def on_input(self, x: torch.Tensor, weights: torch.Tensor) -> NoReturn:
        self._unknown()

    def steps(self, x: torch.Tensor, d: int) -> None:
        return None

    def _unknown(self) -> NoReturn:
        raise ValueError(
            f"a loaded explanation has no live parts: a file keeps only how it was made, by {self.description}; "
            "explain again for what needs them"
        )


@dataclass(frozen=True, repr=False)
class StoredLoss(RowLoss):
    """What a file keeps of a loss that is not quadratic."""

    description: str
    label: str

    def __repr__(self) -> str:
        return self.description

    @property
    def name(self) -> str:
        return self.label

    def terms(self, y: torch.Tensor, eta: torch.Tensor, link: Link) -> NoReturn:
        Stored(self.description)._unknown()


def read(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Arrays and JSON of a file that `save` wrote, in today's form; nothing else in it is read.

    Raises ValueError for other files, and for those of a newer version.
    """
    with npz(path).open("rb") as file:
        try:
            with ZipFile(file) as stored:
                meta = json.loads(_text(stored))
                found = whole_number(meta.get("format", 0), "format", least=0)
                arrays = _arrays(stored, meta) if found <= FORMAT else {}
            if found == 0:
                arrays, meta = _first_format(arrays, meta)
            if found <= FORMAT:
                _check(arrays, meta)
        except MemoryError:
            raise
        except Exception as error:
            why = error if isinstance(error, DamagedError) else type(error).__name__
            raise ValueError(f"{path} is not an explanation that was saved, or it is damaged ({why})") from error
    if found > FORMAT:
        raise ValueError(f"{path} was saved by a newer locapprox (format {found}; this one reads {FORMAT}): update it")
    return arrays, meta


class DamagedError(ValueError):
    """With what is wrong in a file."""


def _arrays(stored: ZipFile, meta: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Those that are ours, each of the size that x and the weights ask of it: known before anything is inflated."""
    x, weights = _shape(stored, "x"), _shape(stored, "weights")
    lead = (*x[:1], *(weights[1:2] if meta["several"] else ()))
    rest = weights[len(lead) :]
    if not x or weights[: len(lead)] != lead or (rest != x[1:] if meta["per_entry"] else len(rest) != 1):
        raise DamagedError(f"its weights have shape {weights}, x {x}")
    shapes = {"x": x, "weights": weights, "standard_error": weights, "intercept": lead, "loss": lead, "r2": lead}
    shapes |= {"degrees_of_freedom": x[:1], "n_samples": x[:1]}
    shapes |= {"slopes": (*x[:1], *(lead[1:] or (1,)), *x[1:]), "origin": x}
    ours = {name: shape for name, shape in shapes.items() if f"{name}.npy" in stored.namelist()}
    return {name: torch.from_numpy(_member(stored, name, "fi", shape)) for name, shape in ours.items()}


def _text(stored: ZipFile) -> str:
    if stored.getinfo("meta.npy").file_size > LONGEST:
        raise DamagedError("its JSON is too long")
    return str(_member(stored, "meta", "U", ()))


def _shape(stored: ZipFile, name: str) -> tuple[int, ...]:
    with stored.open(f"{name}.npy") as member:
        return _header(member)[0]


def _header(member: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    first, later = np.lib.format.read_array_header_1_0, np.lib.format.read_array_header_2_0
    shape, _, dtype = (first if np.lib.format.read_magic(member) == (1, 0) else later)(member)
    return shape, dtype


def _member(stored: ZipFile, name: str, kinds: str, shape: tuple[int, ...]) -> np.ndarray:
    """One array, if it is of such a kind and shape, and as long as these say."""
    with stored.open(f"{name}.npy") as member:
        found, dtype = _header(member)
        size = stored.getinfo(f"{name}.npy").file_size - member.tell()
        if dtype.kind not in kinds or found != shape or size != math.prod(shape) * dtype.itemsize:
            raise DamagedError(f"{name} has shape {found} and {size} bytes of {dtype}")
        member.seek(0)
        array: np.ndarray = np.lib.format.read_array(member, allow_pickle=False)
        return array


def _check(arrays: dict[str, Any], meta: dict[str, Any]) -> None:
    """Raise an error for what is not there, or of another kind."""
    missing = [name for name in ARRAYS if name not in arrays]
    missing += {"slopes", "origin"} - arrays.keys() if {"slopes", "origin"} & arrays.keys() else []
    missing += [name for name in KEYS if name not in meta]
    if missing:
        raise DamagedError(f"it has no {', '.join(missing)}")
    if meta["link"] not in LINKS or not isinstance(meta["settings"], dict):
        raise DamagedError("its link or its settings are none")
    read_method(meta["method"])
    names, size = meta["feature_names"], math.prod(arrays["x"].shape[1:])
    if names is not None and [type(name) for name in names] != [str] * size:
        raise DamagedError(f"it has {len(names)} names of {size} features")


def _first_format(arrays: dict[str, Any], meta: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Files without a version: one number of degrees, parts among the settings."""
    settings, b = meta["settings"], len(arrays["weights"])
    arrays["degrees_of_freedom"] = torch.full((b,), meta.pop("degrees"), dtype=torch.float64, device="cpu")
    arrays["n_samples"] = torch.full((b,), settings["n_samples"], device="cpu")
    parts = {name: settings.pop(name) for name in ("neighbourhood", "loss", "surrogate")}
    meta["method"] = {"name": meta["method"], **parts}
    return arrays, meta


def read_method(meta: dict[str, Any]) -> Method:
    """The method that a file describes; its neighbourhood and surrogate are only named."""
    loss = meta["loss"]
    if isinstance(loss, str):  # before format 1: Loss(value=1.0, gradient=0.0) and its kinds
        loss = [float(part.split("=")[1]) for part in loss.rstrip(")").split("(")[1].split(",")]
    loss = StoredLoss(str(loss["repr"]), str(loss["name"])) if isinstance(loss, dict) else Loss(*loss)
    return Method(meta["name"], Stored(meta["neighbourhood"]), loss, Stored(meta["surrogate"]))


def written_loss(loss: RowLoss) -> list[float] | dict[str, str]:
    """What a file keeps of a loss: the weights of a quadratic one, the repr and name of others."""
    return [loss.value, loss.gradient] if isinstance(loss, Loss) else {"repr": repr(loss), "name": loss.name}


def npz(path: str | Path) -> Path:
    """The path with .npz at its end; a dot inside the name is no suffix."""
    if not isinstance(path, str | Path) or not Path(path).name:
        raise ValueError(f"path must name a file, got {path!r}")
    path = Path(path)
    return path if path.suffix == ".npz" else path.with_name(path.name + ".npz")


def write(path: str | Path, arrays: dict[str, Any], meta: dict[str, Any]) -> Path:
    """All or nothing: a failure leaves the file that was there, and of several writers the last one's stays."""
    whole = npz(path)
    for folder in (Path(path), whole):
        if folder.is_dir():
            raise ValueError(f"{folder} is a folder: name a file in it, such as {folder / 'explanation.npz'}")
    part = whole.with_name(f"{whole.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            np.savez_compressed(file, meta=np.array(json.dumps({"format": FORMAT, **meta})), **arrays)
            file.flush()
            os.fsync(file.fileno())
        part.replace(whole)
    finally:
        part.unlink(missing_ok=True)
    return whole

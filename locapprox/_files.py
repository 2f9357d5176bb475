"""Explanations on disk: one .npz of arrays and a JSON text, versioned, nothing executable."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from locapprox._method import Method
from locapprox.fit.losses import Loss
from locapprox.fit.sampling import Sample
from locapprox.neighbourhoods.base import BaseNeighbourhood

FORMAT = 1


@dataclass(frozen=True, eq=False, repr=False)
class Stored(BaseNeighbourhood):
    """What a file keeps of a part: its repr."""

    description: str

    def __repr__(self) -> str:
        return self.description

    def draw(self, x: torch.Tensor, n: int, rng: torch.Generator) -> NoReturn:
        self._unknown()

    def place(self, x: torch.Tensor, xi: torch.Tensor) -> NoReturn:
        self._unknown()

    def fit(self, sample: Sample, loss: Loss) -> NoReturn:
        self._unknown()

    def on_input(self, x: torch.Tensor, weights: torch.Tensor) -> NoReturn:
        self._unknown()

    def _unknown(self) -> NoReturn:
        raise ValueError(
            f"a loaded explanation has no live parts: a file keeps only how it was made, by {self.description}; "
            "explain again for what needs them"
        )


def read(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Arrays and JSON of a file that `save` wrote, in today's form.

    Raises ValueError for other files, and for those of a newer version.
    """
    try:
        with np.load(npz(path), allow_pickle=False) as stored:
            meta = json.loads(str(stored["meta"]))
            found = meta.get("format", 0)
            ours = stored.files if found <= FORMAT else []
            arrays = {name: torch.from_numpy(stored[name]) for name in ours if name != "meta"}
        if found == 0:
            arrays, meta = _first_format(arrays, meta)
        if found <= FORMAT and not {"method", "settings", "several", "per_entry", "link"} <= meta.keys():
            raise KeyError("settings")
    except OSError:
        raise
    except Exception as error:
        raise ValueError(
            f"{path} is not an explanation that was saved, or it is damaged ({type(error).__name__})"
        ) from error
    if found > FORMAT:
        raise ValueError(f"{path} was saved by a newer locapprox (format {found}; this one reads {FORMAT}): update it")
    return arrays, meta


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
    return Method(meta["name"], Stored(meta["neighbourhood"]), Loss(*loss), Stored(meta["surrogate"]))


def npz(path: str | Path) -> Path:
    """The path with .npz at its end; a dot inside the name is no suffix."""
    path = Path(path)
    return path if path.suffix == ".npz" else path.with_name(path.name + ".npz")


def write(path: str | Path, arrays: dict[str, Any], meta: dict[str, Any]) -> Path:
    """All or nothing."""
    path = npz(path)
    part = path.with_name(path.name + ".part.npz")
    np.savez_compressed(part, meta=np.array(json.dumps({"format": FORMAT, **meta})), **arrays)
    part.replace(path)
    return path

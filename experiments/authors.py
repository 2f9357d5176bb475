"""The authors' eight checkpoints and the explanations they stored, fetched from their repository by hash.

authors.sha256 lists the files, at the paths of AI4LIFE-GROUP/lfa at the commit that `experiments.data` names; where
$LOCAPPROX_DATA is set they are read from its folder authors-repo.
"""

from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from experiments import networks
from experiments.data import REPOSITORY, NotDownloadedError, fetch, load

MODELS = [("who", name) for name in ("linear", "ffnnA", "ffnnB", "ffnnC")]
MODELS += [("heloc", name) for name in ("logistic", "ffnnA", "ffnnB", "ffnnC")]
CODES = {"LIME": "lime", "KernelSHAP": "ks", "Occlusion": "oc", "Integrated Gradients": "ig", "Gradient x Input": "gxi"}
CODES |= {"Vanilla Gradients": "vg", "SmoothGrad": "sg"}  # of captum's; of the framework's:
FRAMEWORK = CODES | {"Gradient x Input": "ig5", "Vanilla Gradients": "sg_gm3", "SmoothGrad": "sg_gm"}
SIGMAS = {0.3: "sg_gm5", 0.2: "sg_gm4", 0.1: "sg_gm", 0.05: "sg_gm2", 0.01: "sg_gm3"}
STARTS = {0.0: "ig", 0.5: "ig2", 0.65: "ig3", 0.8: "ig4", 0.95: "ig5"}


ABSENT = "the authors' files are neither in $LOCAPPROX_DATA/authors-repo nor, where that is not set, to be downloaded"


class AbsentError(FileNotFoundError):
    """The authors' files are not here, and cannot be downloaded."""


@cache
def hashes() -> dict[str, str]:
    """Path in their repository -> sha256."""
    lines = Path(__file__).with_suffix(".sha256").read_text(encoding="utf-8").splitlines()
    return {path: sha256 for sha256, path in map(str.split, lines)}


def files(data: str, model: str) -> dict[str, str]:
    """The same of what belongs to one model, all of it fetched."""
    places = (_weights(data, model), _explanations(data, model))
    mine = {path: sha256 for path, sha256 in hashes().items() if path.startswith(places)}
    for path in mine:
        _fetched(path)
    return mine


def _fetched(path: str) -> Path:
    folder, _, file = path.rpartition("/")
    try:
        return fetch(f"authors-repo/{folder}", file, f"{REPOSITORY}/{folder}", hashes()[path])
    except NotDownloadedError:
        raise
    except FileNotFoundError as error:
        raise AbsentError(ABSENT) from error


def _read(path: str) -> object:
    return torch.load(_fetched(path), weights_only=True, map_location="cpu")


def _task(data: str) -> str:
    return "classif" if load(data).classes else "regr"


def _weights(data: str, model: str) -> str:
    return f"models/model_checkpoints/{_task(data)}_{model}_{data}_ckpt.pth"


def _explanations(data: str, model: str) -> str:
    return f"experiments/results/explanations_{_task(data)}_{data}_{model}_n100"


@cache
def network(data: str, model: str) -> nn.Sequential:
    """Their checkpoint, (rows, features) -> (rows, 1), float32."""
    table, found = load(data), _read(_weights(data, model))
    assert isinstance(found, dict)
    net = networks.network(data, model, tuple(table.x_train.shape[1:]), table.classes)
    net.load_state_dict(found["model"])
    return net.requires_grad_(False).eval()


def points(data: str) -> Tensor:
    """The 100 inputs they explain."""
    return load(data).x_explain[:100]


def stored(data: str, model: str, name: str, kind: str = "attr") -> Tensor:
    """Their explanations `name` (captum_… existing methods, meta_… the framework), (100, features), or `bias`."""
    where = f"{_explanations(data, model)}/{name}/"
    found = _read(next(path for path in hashes() if path.startswith(where) and f"/{kind}_" in path))
    assert isinstance(found, Tensor)
    return found.detach().double()

"""The authors' eight checkpoints and the explanations they stored, from $LOCAPPROX_DATA/authors-repo.

The folder is a copy of their repository (AI4LIFE-GROUP/lfa at the commit that `experiments.data` names), at its paths.
"""

import os
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from experiments import networks
from experiments.data import load

MODELS = [("who", name) for name in ("linear", "ffnnA", "ffnnB", "ffnnC")]
MODELS += [("heloc", name) for name in ("logistic", "ffnnA", "ffnnB", "ffnnC")]
CODES = {"LIME": "lime", "KernelSHAP": "ks", "Occlusion": "oc", "Integrated Gradients": "ig", "Gradient x Input": "gxi"}
CODES |= {"Vanilla Gradients": "vg", "SmoothGrad": "sg"}  # of captum's; of the framework's:
FRAMEWORK = CODES | {"Gradient x Input": "ig5", "Vanilla Gradients": "sg_gm3", "SmoothGrad": "sg_gm"}
SIGMAS = {0.3: "sg_gm5", 0.2: "sg_gm4", 0.1: "sg_gm", 0.05: "sg_gm2", 0.01: "sg_gm3"}
STARTS = {0.0: "ig", 0.5: "ig2", 0.65: "ig3", 0.8: "ig4", 0.95: "ig5"}


def folder() -> Path:
    path = Path(os.environ.get("LOCAPPROX_DATA", "")) / "authors-repo"
    if "LOCAPPROX_DATA" not in os.environ or not path.is_dir():
        raise FileNotFoundError("the authors' files are read from $LOCAPPROX_DATA/authors-repo, which is not there")
    return path


def _read(path: Path) -> object:
    return torch.load(path, weights_only=True, map_location="cpu")


@cache
def network(data: str, model: str) -> nn.Sequential:
    """Their checkpoint, (rows, features) -> (rows, 1), float32."""
    table = load(data)
    kind = "classif" if table.classes else "regr"
    found = _read(folder() / "models" / "model_checkpoints" / f"{kind}_{model}_{data}_ckpt.pth")
    assert isinstance(found, dict)
    net = networks.network(data, model, tuple(table.x_train.shape[1:]), table.classes)
    net.load_state_dict(found["model"])
    return net.requires_grad_(False).eval()


def points(data: str) -> Tensor:
    """The 100 inputs they explain."""
    return load(data).x_explain[:100]


def stored(data: str, model: str, name: str, kind: str = "attr") -> Tensor:
    """Their explanations `name` (captum_… existing methods, meta_… the framework), (100, features), or `bias`."""
    task = "classif" if load(data).classes else "regr"
    where = folder() / "experiments" / "results" / f"explanations_{task}_{data}_{model}_n100" / name
    found = _read(next(iter(sorted(where.rglob(f"{kind}_*.pth")))))
    assert isinstance(found, Tensor)
    return found.detach().double()

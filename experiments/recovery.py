"""Section 5.2 of Han et al. (2022): do explanations of a linear and a logistic model recover its w, or w ⊙ x?

recovery.csv  distance of every explanation to w and to w ⊙ x, L1 and cosine, per instance: by the original library
              ("existing"), by the engine ("framework"), and by the engine with a logistic surrogate

Of the logistic model w are the coefficients of the logit. A linear surrogate of its probability has another scale, so
only cosines can show recovery; a logistic surrogate can recover w itself.

python -m experiments.recovery --data heloc --model logistic --out results/paper
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
import tyro
from jaxtyping import Float
from torch import Tensor, nn

import locapprox as lx
from experiments import networks, originals, runs
from experiments.correspondence import Config as Settings
from experiments.correspondence import compared, engine, problem, weights
from experiments.data import Table, load
from experiments.originals import Problem

LOGISTIC = "framework, logistic"


@dataclass(frozen=True)
class Config:
    """The paper's settings, on `seeds` trained models; the originals on the first model only."""

    data: str = "who"
    model: str = "linear"
    points: int = 100  # explained instances
    n_samples: int = 1000
    sigma: float = 0.1
    width: float = 1.0  # of LIME's kernel exp(−D²/width²), D on the input
    seeds: int = 5
    seed: int = 0

    def command(self, out: Path) -> str:
        return runs.command("recovery", self, out)


def main(config: Config, out: Path = Path("results/paper"), force: bool = False) -> Path:
    """Results go to out/recovery/data-model, networks to out/networks, captum's explanations to out/originals."""
    if config.model not in ("linear", "logistic"):
        raise ValueError(f"model must be linear or logistic, whose w is known; got {config.model!r}")
    table = load(config.data)
    folder = out / "recovery" / f"{config.data}-{config.model}"
    return runs.run(folder, config, table.sha256, lambda: compute(config, table, out), config.command(out), force)


def compute(config: Config, table: Table, out: Path) -> runs.Results:
    training = networks.recipe(config.data, config.model, seed=config.seed)
    found = networks.several(table, training, config.seeds, out / "networks")
    settings = Settings(config.data, config.model, config.points, config.n_samples, config.sigma, config.width)
    parts: list[pd.DataFrame] = []
    left_out: dict[str, str] = {}
    for number, trained in enumerate(found):
        p = problem(settings, table, trained.network.requires_grad_(False))
        if p.target is not None:
            raise ValueError(f"{config.data} has more than two classes: w is one vector per class")
        versions = {"framework": {name: weights(p, method, config.seed) for name, method in engine(p).items()}}
        if number == 0:
            versions["existing"] = originals.computed(p, config.seed, out / "originals")
        if config.model == "logistic":
            versions[LOGISTIC], left_out = logistic(p, config.seed)
        parts += [part.assign(training_seed=number) for part in recovery(p, versions)]
    frame = pd.concat(parts, ignore_index=True)
    frame.insert(0, "data", config.data)
    frame.insert(1, "model", config.model)
    return {"recovery": frame}, {**networks.notes(found), "explained": config.points, "left_out": left_out}


def logistic(p: Problem, seed: int) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Every method with a logistic surrogate; and those that have none, with the engine's reason."""
    found, left_out = {}, {}
    limit = lx.Method("Vanilla Gradients", lx.Additive(lx.Limit()), lx.SquaredError())
    for name, method in (engine(p) | {limit.name: limit}).items():
        try:
            found[name] = weights(p, replace(method, surrogate=lx.Logistic()), seed)
        except ValueError as error:
            left_out[name] = str(error)
    return found, left_out


def true_weights(net: nn.Module) -> Float[Tensor, " d"]:
    """w of f(x) = w · x + c, or of its logistic function."""
    (layer,) = (module for module in net.modules() if isinstance(module, nn.Linear))
    return layer.weight.detach()[0].double()


def recovery(p: Problem, versions: dict[str, dict[str, Tensor]]) -> Iterator[pd.DataFrame]:
    w = true_weights(p.model).expand(len(p.x), -1)
    for version, found in versions.items():
        for method, explained in found.items():
            for name, truth in {"w": w, "w*x": w * p.x.double()}.items():
                yield compared(explained.double(), truth, version=version, method=method, compared_with=name)


if __name__ == "__main__":
    torch.set_num_threads(1)
    tyro.cli(main, config=(tyro.conf.OmitArgPrefixes,))

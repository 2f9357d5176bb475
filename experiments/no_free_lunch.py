"""No explanation is best everywhere: every method on every neighbourhood (Han et al. 2022, theorem 3, measured).

matrix.csv   method × neighbourhood: error, optimum, regret with its interval over instances and replicate draws
verdict.csv  per method: the column in which it is farthest from the optimum, and whether it is at the optimum in all

python -m experiments.no_free_lunch --data who --model ffnnA --out results/paper
python -m experiments.no_free_lunch --data my.csv --target y --neighbourhoods my_code:Sphere
"""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import tyro
from torch import Tensor

import locapprox as lx
from experiments import networks, runs, user
from experiments.data import TABLES, Table, load
from experiments.experiment1 import Config as Settings
from experiments.experiment1 import engine, problem
from locapprox.faithfulness import explained, measured
from locapprox.models import Target
from locapprox.recommend import paired, runnable

AT_OPTIMUM = 1e-6  # of the best constant's loss: less is rounding (of float32 models, squared)


@dataclass(frozen=True)
class Config:
    """The eight methods, and yours, on each other's neighbourhoods."""

    data: str = "diabetes"  # a table of experiments.data, or a CSV file
    model: str = "mlp"  # a network of experiments.networks, or module:object, a function that returns your model
    target: str | None = None  # column of the CSV file
    neighbourhoods: tuple[str, ...] = ()  # module:object, each a Neighbourhood, a Method, or what makes one
    points: int = 30  # explained instances
    n_samples: int = 2000  # draws of each fit, and of each evaluation
    replicates: int = 5
    seeds: int = 5  # trained networks
    points_per_seed: int = 10  # explained by those after the first
    sigma: float = 0.1
    width: float = 1.0  # of LIME's kernel exp(−D²/width²), D on the input
    seed: int = 0

    def command(self, out: Path) -> str:
        parts = []
        for f in fields(self):
            value = getattr(self, f.name)
            if value != f.default:
                words = " ".join(value) if isinstance(value, tuple) else value
                parts.append(f" --{f.name.replace('_', '-')} {words}")
        return f"python -m experiments.no_free_lunch{''.join(parts)} --out {out}"


def main(config: Config, out: Path = Path("results/paper"), force: bool = False) -> Path:
    """Results go to out/no_free_lunch/data-model, trained networks to out/networks.

    Raises ValueError, TypeError or FileNotFoundError that names what is wrong with your table, model or neighbourhood.
    """
    table = load(config.data) if config.data in TABLES else user.table(config.data, config.target)
    own = {name: user.method(name, table.x_explain) for name in config.neighbourhoods}
    names = [method.name for method in own.values()]
    if len(set(names)) < len(names) or set(names) & set(lx.paper_methods()):
        raise ValueError(f"neighbourhoods have names that are taken: {', '.join(names)}")
    mine = [name for name in (*config.neighbourhoods, config.model) if ":" in name]
    sources = {**table.sha256, **{name: user.digest(name) for name in mine}}
    folder = out / "no_free_lunch" / f"{table.name}-{config.model.replace(':', '.')}"
    return runs.run(
        folder,
        config,
        sources,
        lambda: compute(config, table, list(own.values()), out / "networks"),
        config.command(out),
        force,
    )


def compute(config: Config, table: Table, own: list[lx.Method], cache: Path) -> runs.Results:
    if ":" in config.model:
        model, target = user.model(config.model, config.data, config.target, table)
        x = table.x_explain[: config.points]
        methods = lx.paper_methods() | {"LIME": lx.lime(config.width), "C-LIME": lx.c_lime(config.sigma)}
        methods |= {"SmoothGrad": lx.smoothgrad(config.sigma)}
        tables = [measure(config, model, x, methods, target, own)]
        notes: dict[str, Any] = {}
    else:
        found = networks.several(
            table, networks.recipe(table.name, config.model, seed=config.seed), config.seeds, cache
        )
        tables = []
        for number, trained in enumerate(found):
            points = config.points_per_seed if number else config.points
            settings = Settings(table.name, config.model, points, sigma=config.sigma, width=config.width)
            p = problem(settings, table, trained.network)
            tables.append(measure(config, p.model, p.x, engine(p), p.target, own))
        notes = {"metrics": [t.metrics for t in found], "training": [asdict(t.training) for t in found]}
    whole = {name: joined([each[name] for each, _ in tables]) for name in ("matrix", "verdict")}
    for part in whole.values():
        part.insert(0, "data", table.name)
        part.insert(1, "model", config.model)
    return whole, {**notes, "explained": config.points, "own": [m.name for m in own], "left_out": tables[0][1]}


def measure(
    config: Config, model: Any, x: Tensor, methods: dict[str, lx.Method], target: Target, own: list[lx.Method]
) -> tuple[dict[str, pd.DataFrame], dict[str, str]]:
    """matrix and verdict of one model; and the methods that it cannot be explained by."""
    methods = methods | {method.name: method for method in own}
    methods, left_out = runnable(model, x, methods, target)
    frames = []
    for seed in range(config.seed, config.seed + config.replicates):
        fitted = explained(model, x, methods, target, config.n_samples, seed)
        frames.append(measured(model, x, fitted, methods, target, config.n_samples, seed).assign(replicate=seed))
    matrix = summarised(pd.concat(frames))
    return {"matrix": matrix, "verdict": verdict(matrix)}, left_out


def joined(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """One table of all trained networks; a user's own model is the only one, number 0."""
    return pd.concat([frame.assign(training_seed=i) for i, frame in enumerate(frames)], ignore_index=True)


def summarised(frame: pd.DataFrame) -> pd.DataFrame:
    """Per method and neighbourhood: means over instances and replicates, and the regret's 95 % interval.

    `lost` is the regret as a share of the best constant's loss.
    """
    rows = []
    for (method, where, loss), part in frame.groupby(["method", "neighbourhood", "loss"], sort=False):
        series = part.set_index(["instance", "replicate"])["regret"]
        regret, half = paired(series, 0.95)
        means = part[["error", "optimum", "violation", "constant"]].mean()
        lost = regret / means["constant"] if means["constant"] > 0 else np.nan
        rows.append(
            {
                "method": method,
                "neighbourhood": where,
                "loss": loss,
                **means,
                "regret": regret,
                "low": regret - half,
                "high": regret + half,
                "lost": lost,
            }
        )
    return pd.DataFrame(rows)


def verdict(matrix: pd.DataFrame) -> pd.DataFrame:
    """A method is at the optimum of a column if the interval of its regret reaches zero (up to rounding)."""
    rows = []
    for method, part in matrix.groupby("method", sort=False):
        least = (part["low"] / part["constant"]).fillna(0.0).reset_index(drop=True)
        worst = part.iloc[int(least.argmax())]
        beyond = int((least > AT_OPTIMUM).sum())
        rows.append(
            {
                "method": method,
                "columns": len(part),
                "beyond_optimum": beyond,
                "best_everywhere": beyond == 0,
                "worst_neighbourhood": worst["neighbourhood"],
                "lost": worst["lost"],
                "lost_low": least.max(),
            }
        )
    return pd.DataFrame(rows)


if __name__ == "__main__":
    torch.set_num_threads(1)
    tyro.cli(main, config=(tyro.conf.OmitArgPrefixes,))

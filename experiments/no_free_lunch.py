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
    notes: dict[str, Any] = {}
    target: Target
    if ":" in config.model:
        model, target = user.model(config.model, config.data, config.target, table)
        x = table.x_explain[: config.points]
        methods = lx.paper_methods() | {"LIME": lx.lime(config.width), "C-LIME": lx.c_lime(config.sigma)}
        methods |= {"SmoothGrad": lx.smoothgrad(config.sigma)}
    else:
        trained = networks.trained(table, networks.recipe(table.name, config.model, seed=config.seed), cache)
        settings = Settings(table.name, config.model, config.points, sigma=config.sigma, width=config.width)
        p = problem(settings, table, trained.network.requires_grad_(False))
        model, x, target, methods = p.model, p.x, p.target, engine(p)
        notes = {"metrics": trained.metrics, "training": asdict(trained.training)}
    methods |= {method.name: method for method in own}
    methods, left_out = runnable(model, x, methods, target)
    frames = []
    for seed in range(config.seed, config.seed + config.replicates):
        fitted = explained(model, x, methods, target, config.n_samples, seed)
        frames.append(measured(model, x, fitted, methods, target, config.n_samples, seed).assign(replicate=seed))
    matrix = summarised(pd.concat(frames))
    tables = {"matrix": matrix, "verdict": verdict(matrix)}
    for part in tables.values():
        part.insert(0, "data", table.name)
        part.insert(1, "model", config.model)
    return tables, {**notes, "explained": len(x), "own": [method.name for method in own], "left_out": left_out}


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

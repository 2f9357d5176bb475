"""No explanation is best everywhere: every method on every neighbourhood (Han et al. 2022, theorem 3, measured).

matrix.csv   method × neighbourhood: error, optimum, what is lost on the typical instance, its interval, state and parts
verdict.csv  per method: in how many neighbourhoods it is worse than the optimum, equivalent, undecided; and where worst

python -m experiments.no_free_lunch --data who --model ffnnA --out results/paper
python -m experiments.no_free_lunch --data my.csv --target y --neighbourhoods my_code:Sphere
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import tyro
from torch import Tensor

import locapprox as lx
from experiments import networks, runs, user
from experiments.correspondence import Config as Settings
from experiments.correspondence import engine, problem
from experiments.data import TABLES, Table, load


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
        return runs.command("no_free_lunch", self, out)


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
        methods = lx.paper_methods() | {"LIME": lx.lime(config.width), "C-LIME": lx.c_lime(config.sigma, False)}
        methods |= {"SmoothGrad": lx.smoothgrad(config.sigma, sobol=False)}
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
        notes = networks.notes(found)
    whole = {name: joined([each[name] for each, _ in tables]) for name in ("matrix", "verdict")}
    for part in whole.values():
        part.insert(0, "data", table.name)
        part.insert(1, "model", config.model)
    return whole, {**notes, "explained": config.points, "own": [m.name for m in own], "left_out": tables[0][1]}


def measure(
    config: Config, model: Any, x: Tensor, methods: dict[str, lx.Method], target: Any, own: list[lx.Method]
) -> tuple[dict[str, pd.DataFrame], dict[str, str]]:
    """matrix and verdict of one model; and the methods that it cannot be explained by."""
    methods, left_out = runnable(model, x, methods | {method.name: method for method in own}, target)
    settings: dict[str, Any] = {"seed": config.seed, "replicates": config.replicates, "progress": not runs.in_worker()}
    found = lx.faithfulness(model, x, methods, methods, target=target, n_samples=config.n_samples, **settings)
    return results(found), left_out


def results(found: lx.Faithfulness) -> dict[str, pd.DataFrame]:
    """matrix and verdict."""
    matrix = found.summary().merge(found.parts(), on=["method", "neighbourhood"], validate="one_to_one")
    return {"matrix": matrix, "verdict": found.verdict()}


def runnable(
    model: Any, x: Tensor, methods: dict[str, lx.Method], target: Any
) -> tuple[dict[str, lx.Method], dict[str, str]]:
    """The methods that can explain the model, and why the others cannot: it has no gradients."""
    left_out = {}
    for name, method in methods.items():
        if method.loss.of_gradients:
            try:
                lx.explain(model, x, method, n_samples=2, target=target, progress=False)
            except TypeError as error:
                left_out[name] = str(error)
    return {name: method for name, method in methods.items() if name not in left_out}, left_out


def joined(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """One table of all trained networks; a user's own model is the only one, number 0."""
    return pd.concat([frame.assign(training_seed=i) for i, frame in enumerate(frames)], ignore_index=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    tyro.cli(main, config=(tyro.conf.OmitArgPrefixes,))

"""Times over the floor and against peers, memory, and evaluations for an accuracy: tables, and a page of plots.

python -m experiments.bench                       everything, about half an hour
python -m experiments.bench --only hundred lenet  some of the parts: cases of `cases.py`, memory, samples

Tables (long form) and index.html are in results/bench; what was measured stays until it is measured again.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch
import tyro

from experiments import files
from experiments.bench import memory, samples, times
from experiments.bench.cases import cases


@dataclass(frozen=True)
class Config:
    only: tuple[str, ...] = ()  # parts; default: all
    rounds: int = 7
    seeds: int = samples.SEEDS  # of estimated Shapley values
    list: bool = False  # the parts
    out: Path = Path("results/bench")
    networks: Path = Path("results/cache")


def parts(config: Config) -> Mapping[str, Callable[[], pd.DataFrame]]:
    """What measures each part."""
    found: dict[str, Callable[[], pd.DataFrame]] = {
        name: lambda make=make: times.measured(make(), config.rounds)  # type: ignore[misc]
        for name, make in cases(config.networks).items()
    }
    estimates = partial(samples.measured, config.out / "games", config.networks, config.seeds)
    return found | {"memory": memory.measured, "samples": estimates}


def shown(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """What a reader wants of a part."""
    if name == "memory":
        return table.pivot_table(index="method", columns="n", values="added MiB", sort=False).reset_index()
    if name == "samples":
        return samples.needed(table)
    return times.ratios(table)


def main(config: Config) -> None:
    from paper_figures import bench

    torch.set_num_threads(1)
    warnings.simplefilter("ignore", UserWarning)  # of standard errors, which nobody reads here
    every = parts(config)
    unknown = [name for name in config.only if name not in every]
    if config.list or unknown:
        print(*every, sep="\n")
        if unknown:
            raise SystemExit(f"--only {' '.join(unknown)}: the parts are those above")
        return
    pd.options.display.float_format = "{:.3g}".format
    pd.options.display.width = 200
    for name in config.only or every:
        table = every[name]()
        files.write(config.out / f"{name}.csv", lambda part, table=table: table.to_csv(part, index=False))  # type: ignore[misc]
        print(f"\n{name}\n{shown(name, table).to_string(index=False)}", flush=True)
    print(f"\npage: {bench.page(config.out)}")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))

"""python -m experiments.paper: experiment 1 and no free lunch on WHO and HELOC with the paper's eight models."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
import tyro
from joblib import Parallel, delayed
from tqdm.auto import tqdm

from experiments import no_free_lunch
from experiments.experiment1 import Config
from experiments.experiment1 import main as experiment1
from paper_figures.__main__ import main as draw
from paper_figures.results import nearest, read, short_table

NETWORKS = ("ffnnC", "ffnnB", "ffnnA")  # the longest first
CONFIGS = [
    Config(data, model) for data, simple in (("heloc", "logistic"), ("who", "linear")) for model in (*NETWORKS, simple)
]
NO_FREE_LUNCH = [no_free_lunch.Config(config.data, config.model) for config in CONFIGS]

HEADING = """
L1 distance of every original to its own framework instance / to the nearest other instance
(≈: another is nearer, by less than sampling alone gives; ✗: by more). Pairs that coincide in theory do not count as
other: C-LIME and SmoothGrad (Stein's lemma), on linear models all methods with and all without a baseline.
"""


def main(out: Path = Path("results/paper"), jobs: int = 2, force: bool = False) -> None:
    """Experiment 1 and theorem 3 of Han et al. (2022): about five minutes on two cores."""
    run_all([*CONFIGS, *NO_FREE_LUNCH], out, jobs, force)


def run_all(configs: Sequence[Config | no_free_lunch.Config], out: Path, jobs: int, force: bool) -> None:
    """Every config in its own process with one thread; then the figures, and what they show."""
    tasks = (delayed(_single_threaded)(config, out, force) for config in configs)
    finished = Parallel(n_jobs=jobs, return_as="generator_unordered")(tasks)
    for folder in tqdm(finished, "experiments", total=len(configs), unit="model", delay=2):
        tqdm.write(f"finished {folder}")
    report(out)


def report(out: Path) -> None:
    page, experiment = draw(out), read(out)
    table = nearest(experiment)
    with pd.option_context("display.width", 250, "display.max_columns", None, "display.max_colwidth", None):
        print(HEADING)
        print(short_table(table).to_string())
        others = table[table["verdict"] != "nearest"]
        if len(others):
            print("\nWhere the own instance is not the nearest (noise: what sampling alone gives):\n")
            print(others.to_string(index=False, float_format=lambda value: f"{value:.3g}"))
    print(f"\nFigures: {page.parent} (open {page})")


def _single_threaded(config: Config | no_free_lunch.Config, out: Path, force: bool) -> Path:
    torch.set_num_threads(1)
    if isinstance(config, no_free_lunch.Config):
        return no_free_lunch.main(config, out, force)
    return experiment1(config, out, force)


if __name__ == "__main__":
    tyro.cli(main)

"""python -m experiments.demo: experiment 1 and no free lunch on tables of scikit-learn; no network, a few minutes."""

from pathlib import Path

import tyro

from experiments import no_free_lunch
from experiments.experiment1 import Config
from experiments.paper import run_all

# The kernel's width is √d, d entries per input: the paper's 1 leaves masks of these tables hardly any weight.
CONFIGS = [
    Config(data, model, points=30, width=width, reference_points=5, reference_steps=20_000)
    for data, models, width in (
        ("digits", ("cnn", "logistic"), 8.0),
        ("breast_cancer", ("mlp", "logistic"), 5.5),
        ("diabetes", ("mlp", "linear"), 3.2),
    )
    for model in models
]
NO_FREE_LUNCH = [no_free_lunch.Config(config.data, config.model, width=config.width) for config in CONFIGS]


def main(out: Path = Path("results/demo"), jobs: int = 2, force: bool = False) -> None:
    """A linear or logistic model and an MLP or CNN on diabetes, breast cancer and digits."""
    run_all([*CONFIGS, *NO_FREE_LUNCH], out, jobs, force)


if __name__ == "__main__":
    tyro.cli(main)

"""python -m experiments.demo: the paper's experiments, small, on tables of scikit-learn; no network, under two minutes.

The options are those of `python -m experiments.paper`.
"""

from pathlib import Path

import tyro

from experiments import correspondence, image_models, no_free_lunch, perturbations, recovery
from experiments.paper import Options, run_all

# The kernel's width is √d, d entries per input: the paper's 1 leaves masks of these tables hardly any weight.
POINTS = 15
WIDTH = {"digits": 8.0, "breast_cancer": 5.5, "diabetes": 3.2}
MODELS = [
    ("digits", "cnn"),
    ("digits", "logistic"),
    ("breast_cancer", "mlp"),
    ("breast_cancer", "logistic"),
    ("diabetes", "mlp"),
    ("diabetes", "linear"),
]
CONFIGS = [
    *[
        correspondence.Config(
            name,
            model,
            points=POINTS,
            width=WIDTH[name],
            reference_points=5,
            reference_steps=10_000,
            seeds=2,
            points_per_seed=3,
        )
        for name, model in MODELS
    ],
    *[
        recovery.Config(name, model, points=POINTS, width=WIDTH[name], seeds=2)
        for name, model in (("diabetes", "linear"), ("breast_cancer", "logistic"))
    ],
    *[
        perturbations.Config(name, model, points=POINTS, width=WIDTH[name], draws=10, seeds=2)
        for name, model in MODELS
        if name != "digits"
    ],
    *[
        no_free_lunch.Config(name, model, points=POINTS, width=WIDTH[name], replicates=3, seeds=1)
        for name, model in MODELS
    ],
    image_models.Config(
        "digits", "cnn", 2, points=POINTS, n_samples=1000, replicates=2, patches=(1, 4), points_studied=5
    ),
]

if __name__ == "__main__":
    raise SystemExit(run_all(CONFIGS, tyro.cli(Options, default=Options(Path("results/demo"))), with_theory=False))

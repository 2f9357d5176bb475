"""python -m experiments.paper_images: experiment 4 on MNIST and CIFAR-10, and the page; options of experiments.paper.

About 28 minutes on two cores, 7 of them to train the network for CIFAR-10.
"""

import tyro

from experiments import image_models
from experiments.paper import Options, run_all

CONFIGS = [
    image_models.Config("cifar10", "resnet", points=12, replicates=2, patches=(2, 8)),
    image_models.Config("mnist", "lenet"),
]

if __name__ == "__main__":
    raise SystemExit(run_all(CONFIGS, tyro.cli(Options), with_theory=False))

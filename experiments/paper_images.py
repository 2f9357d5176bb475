"""python -m experiments.paper_images: experiment 4 on MNIST and CIFAR-10, and the page; options of experiments.paper.

About 28 minutes on two cores, 7 of them to train the network for CIFAR-10.
"""

import tyro

from experiments import experiment4
from experiments.paper import Options, run_all

CONFIGS = [
    experiment4.Config("cifar10", "resnet", points=12, replicates=2, patches=(2, 8)),
    experiment4.Config("mnist", "lenet"),
]

if __name__ == "__main__":
    raise SystemExit(run_all(CONFIGS, tyro.cli(Options), with_theory=False))

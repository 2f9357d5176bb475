"""python -m experiments.differences [row ...]: the numbers of each row."""

import sys

import torch

from experiments.differences import ROWS

torch.set_num_threads(1)
for name in sys.argv[1:] or ROWS:
    try:
        print(f"{name}: " + "; ".join(f"{what} = {number:.3g}" for what, number in ROWS[name]().items()))
    except (ModuleNotFoundError, FileNotFoundError) as error:
        print(f"{name}: {error}")

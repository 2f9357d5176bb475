"""shapiq's OddSHAP on the games of `experiments.bench`, in an environment of its own (Python 3.12 or newer):

nox -s oddshap      writes results/bench/games/oddshap.csv, which `make bench` reads
"""

import csv
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from experiments.bench.values import looked_up

GRID = tuple(round(2 ** (k / 2)) for k in range(12, 27))  # 64 … 8,192
SEEDS = 4


def main(folder: Path) -> None:
    from shapiq.approximator import OddSHAP  # type: ignore[import-not-found]

    rows = []
    for path in sorted([*folder.glob("*.npz"), *folder.glob("*.joblib")]):
        kept: Any = np.load(path) if path.suffix == ".npz" else joblib.load(path)
        exact = kept["exact"]
        d, v = len(exact), looked_up(kept["v"]) if path.suffix == ".npz" else kept["v"]
        game, instance = path.stem.rsplit("-", 1)
        for n in (n for n in GRID if 2 * d < n < 2**d):
            for seed in range(SEEDS):
                values = OddSHAP(n=d, random_state=seed).approximate(n, lambda masks, v=v: v(masks.astype(np.float32)))
                found = np.array([values[(i,)] for i in range(d)])
                error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
                rows.append((game, d, instance, "shapiq OddSHAP", n, seed, error))
        print(path.stem, file=sys.stderr)
    with (folder / "oddshap.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["game", "d", "instance", "estimator", "evaluations", "seed", "error"])
        writer.writerows(rows)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "results/bench/games"))

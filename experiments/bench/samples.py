"""How many evaluations an accuracy takes: the error of estimated Shapley values against their number.

The error is ‖φ̂ − φ‖ / ‖φ‖, its root mean square over seeds, the median over instances. What other environments computed
on the same games (`python -m experiments.bench.oddshap`) is read beside it.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import locapprox as lx
from experiments.bench.games import TABLES, TREES, Game, games, stem
from experiments.runs import bar

GRID = tuple(round(2 ** (k / 2)) for k in range(12, 31))  # 64 … 32,768
SEEDS = 4
LEVELS = (0.05, 0.01)

Estimate = Callable[[Game, int, int], np.ndarray]


def _engine(surrogate: lx.Surrogate, game: Game, n: int, seed: int) -> np.ndarray:
    def model(masks: np.ndarray) -> np.ndarray:
        return np.asarray(game.v(masks), float)

    method = lx.kernel_shap(surrogate=surrogate)
    e = lx.explain(model, np.ones((1, game.d)), method, n_samples=n, seed=seed, progress=False)
    return e.weights[0].numpy()


def _shap_kernel(game: Game, n: int, seed: int) -> np.ndarray:
    import shap

    np.random.seed(seed)  # noqa: NPY002 (shap draws from numpy's global state)
    explainer = shap.KernelExplainer(game.v, np.zeros((1, game.d)))
    return np.asarray(explainer.shap_values(np.ones((1, game.d)), nsamples=n, l1_reg=False, silent=True))[0]


def _shap_permutation(game: Game, n: int, seed: int) -> np.ndarray:
    import shap

    explainer = shap.PermutationExplainer(game.v, shap.maskers.Independent(np.zeros((1, game.d))), seed=seed)
    return np.asarray(explainer(np.ones((1, game.d)), max_evals=max(n, 2 * game.d + 1), silent=True).values)[0]


def _captum(game: Game, n: int, seed: int) -> np.ndarray:
    from captum.attr import KernelShap

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        method = KernelShap(lambda rows: torch.from_numpy(np.asarray(game.v(rows.numpy()))))
        return method.attribute(torch.ones(1, game.d), n_samples=n, perturbations_per_eval=n)[0].double().numpy()


ESTIMATORS: dict[str, tuple[Estimate, int]] = {  # and the largest n
    "locapprox Linear": (lambda game, n, seed: _engine(lx.Linear(), game, n, seed), 32_768),
    "locapprox Walsh": (lambda game, n, seed: _engine(lx.Walsh(), game, n, seed), 4096),
    "shap KernelExplainer": (_shap_kernel, 32_768),
    "shap PermutationExplainer": (_shap_permutation, 32_768),
    "captum KernelShap": (_captum, 4096),
}


def measured(folder: Path, cache: Path, seeds: int = SEEDS) -> pd.DataFrame:
    """A row per game, instance, estimator, number of evaluations and seed."""
    found = []
    for game in games(folder, cache):
        asked = [(who, n, s) for who, (_, most) in ESTIMATORS.items() for n in grid(game.d, most) for s in range(seeds)]
        for who, n, seed in bar(asked, f"{game.name}, instance {game.instance}"):
            error = np.linalg.norm(ESTIMATORS[who][0](game, n, seed) - game.exact) / np.linalg.norm(game.exact)
            found.append((game.name, game.d, game.instance, who, n, seed, error))
    columns = ["game", "d", "instance", "estimator", "evaluations", "seed", "error"]
    return pd.concat([pd.DataFrame(found, columns=columns), *others(folder)])


def grid(d: int, most: int) -> list[int]:
    """Fewer than all coalitions, more than players."""
    return [n for n in GRID if 2 * d < n <= most and n < 2**d]


def others(folder: Path) -> list[pd.DataFrame]:
    """What was computed elsewhere, where games are called as their files are."""
    names = {stem(name): name for name in (*TABLES, TREES)}
    found = [pd.read_csv(path) for path in sorted(folder.glob("*.csv"))]
    return [frame.assign(game=frame["game"].map(names)) for frame in found]


def curves(table: pd.DataFrame) -> pd.DataFrame:
    """The error by game, estimator and evaluations."""
    square = table.assign(error=table["error"] ** 2)
    of_instance = (
        square.groupby(["game", "d", "estimator", "evaluations", "instance"], sort=False)["error"].mean() ** 0.5
    )
    return of_instance.groupby(["game", "d", "estimator", "evaluations"], sort=False).median().reset_index()


def needed(table: pd.DataFrame, levels: Iterable[float] = LEVELS) -> pd.DataFrame:
    """Evaluations at which the error falls below a level, between those tried on log scales; NaN where it does not.

    And the slope of the error on log scales: −1/2 of independent draws.
    """
    rows = []
    for (game, who), part in curves(table).groupby(["game", "estimator"], sort=False):
        n, error = np.log(part["evaluations"].to_numpy(float)), np.log(part["error"].to_numpy().clip(1e-16))
        slope = np.polyfit(n, error, 1)[0] if len(n) > 1 else np.nan
        row = {"game": game, "estimator": who, "slope": slope}
        for level in levels:
            below = np.flatnonzero(error <= np.log(level))
            row[f"evaluations to {level:.0%}"] = _crossing(n, error, np.log(level), below[0]) if len(below) else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def _crossing(n: np.ndarray, error: np.ndarray, level: float, first: int) -> float:
    if first == 0:
        return float(np.exp(n[0]))
    (n0, n1), (e0, e1) = n[first - 1 : first + 1], error[first - 1 : first + 1]
    return float(np.exp(n0 + (e0 - level) / (e0 - e1) * (n1 - n0)))

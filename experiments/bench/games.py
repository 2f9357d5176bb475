"""Games whose Shapley values are known, to count the evaluations that an accuracy takes.

Up to 23 players v is asked for every coalition and the values come from their definition; of 64 pixels and boosted
trees from shap's TreeExplainer, which is exact for one baseline.
"""

from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
import torch
from scipy.special import comb
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from experiments import files
from experiments.bench.cases import net, rows, table
from experiments.bench.values import Margin, Values, looked_up
from experiments.runs import bar

INSTANCES = 3
GROUPS = 12


@dataclass(frozen=True, eq=False)
class Game:
    """One instance's v, and its Shapley values."""

    name: str
    instance: int
    d: int
    v: Values
    exact: np.ndarray


def shapley(v: np.ndarray, d: int) -> np.ndarray:
    """φ_i = Σ_{S ∌ i} (v(S ∪ i) − v(S)) / (d C(d − 1, |S|)) of all 2ᵈ values; bit i of the index is player i."""
    size = np.zeros(1, np.int8)
    for _ in range(d):
        size = np.concatenate([size, size + 1])
    weight = 1 / (d * comb(d - 1, np.arange(d)))
    found = []
    for i in range(d):
        without, with_ = v.reshape(-1, 2, 2**i).transpose(1, 0, 2).astype(float)
        found.append(((with_ - without) * weight[size.reshape(-1, 2, 2**i)[:, 0]]).sum())
    return np.array(found)


def everything(value: Values, d: int) -> np.ndarray:
    """v of all coalitions."""
    parts = []
    for start in range(0, 2**d, step := 2**18):
        index = np.arange(start, min(start + step, 2**d))
        parts.append(value((index[:, None] >> np.arange(d) & 1).astype(np.float32)))
    return np.concatenate(parts).astype(np.float32)


def value_of(kind: str, data: str, instance: int, groups: int | None, cache: Path) -> tuple[Values, int]:
    """A model's output where the columns of absent players are at the data's mean."""
    x, mean = rows(data, INSTANCES)[instance].numpy(), table(data).x_train.mean(0).numpy()
    columns = np.arange(len(x)) if groups is None else np.arange(len(x)) * groups // len(x)
    if kind == "boosting":
        some = table(data)
        model = HistGradientBoostingRegressor(random_state=0).fit(some.x_train.numpy(), some.y_train.numpy())
        predict = model.predict
    else:
        network = net(data, kind, cache)

        def predict(given: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                return network(torch.from_numpy(given.astype(np.float32)))[:, 0].numpy()

    return lambda masks: predict(mean + (x - mean) * masks[:, columns]), int(columns.max()) + 1


TABLES = {  # model, data, groups of columns
    "network C, d = 12": ("ffnnC", "heloc", GROUPS),
    "boosting, d = 12": ("boosting", "heloc", GROUPS),
    "WHO network C, d = 19": ("ffnnC", "who", None),
    "network C, d = 23": ("ffnnC", "heloc", None),
    "boosting, d = 23": ("boosting", "heloc", None),
}
TREES = "boosting, d = 64"


def stem(name: str) -> str:
    """Of the files of a game."""
    return name.replace(", d = ", "-").replace(" ", "-")


def of_table(name: str, instance: int, folder: Path, cache: Path) -> Game:
    kind, data, groups = TABLES[name]
    path = folder / f"{stem(name)}-{instance}.npz"
    kept = files.stored(path)
    if kept is None:
        value, d = value_of(kind, data, instance, groups, cache)
        v = everything(value, d)
        files.store(path, kept := {"v": v, "exact": shapley(v, d)})
    return Game(name, instance, len(kept["exact"]), looked_up(kept["v"]), kept["exact"])


def of_trees(instance: int, folder: Path) -> Game:
    import shap
    from sklearn.datasets import load_digits

    path = folder / f"{stem(TREES)}-{instance}.joblib"
    if not path.exists():
        data = load_digits()
        model = HistGradientBoostingClassifier(random_state=0).fit(data.data[200:], data.target[200:] % 2)
        v = Margin(model, data.data[instance], data.data.mean(0).round())
        explainer = shap.TreeExplainer(model, v.baseline[None], feature_perturbation="interventional")
        exact = np.asarray(explainer.shap_values(v.x[None]))[0]
        gap = v(np.ones((1, 64))) - v(np.zeros((1, 64)))
        if not np.allclose(exact.sum(), gap, rtol=1e-5):
            raise ArithmeticError(f"shap's values of the trees sum to {exact.sum()}, not {gap}")
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, lambda part: joblib.dump({"v": v, "exact": exact}, part))
    kept = joblib.load(path)
    return Game(TREES, instance, 64, kept["v"], kept["exact"])


def games(folder: Path, cache: Path) -> list[Game]:
    """All, kept in the folder once they are known."""
    asked = bar([(name, i) for name in (*TABLES, TREES) for i in range(INSTANCES)], "games")
    return [of_trees(i, folder) if name == TREES else of_table(name, i, folder, cache) for name, i in asked]

"""Reading result files, and what they say about the paper's claims."""

import json
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from paper_figures.style import FAMILIES, METHODS

ROUNDING = 1e-6  # distances that differ by less differ by rounding only
ORDER = ("linear", "logistic", "mlp", "cnn", "ffnnA", "ffnnB", "ffnnC", "lenet", "resnet")
EXPERIMENTS = (
    *("correspondence", "recovery", "perturbations", "no_free_lunch", "authors_models", "changes", "image_models"),
)


@dataclass(frozen=True, eq=False)
class Runs:
    """The finished runs of one experiment, data by data, simple models first."""

    experiment: str
    tables: dict[str, pd.DataFrame]  # by name of the file: all runs one below the other
    manifests: list[dict[str, Any]]

    @cached_property
    def runs(self) -> list[tuple[str, str]]:
        """(data, model) of every run."""
        frame = next(iter(self.tables.values()))[["data", "model"]].drop_duplicates()
        return list(frame.itertuples(index=False, name=None))

    def of(self, table: str, data: str, model: str) -> pd.DataFrame:
        return self._by_run[table][data, model]

    @cached_property
    def _by_run(self) -> dict[str, dict[Any, pd.DataFrame]]:
        return {name: dict(iter(frame.groupby(["data", "model"], sort=False))) for name, frame in self.tables.items()}

    @property
    def commands(self) -> list[str]:
        return [manifest["command"] for manifest in self.manifests]


def read(results: Path, experiment: str = "correspondence") -> Runs:
    """Raises FileNotFoundError if nothing is finished there."""
    found = [path.parent for path in results.glob(f"{experiment}/*/manifest.json")]
    if not found:
        raise FileNotFoundError(
            f"{results}/{experiment} has no finished run; python -m experiments.{experiment} makes one"
        )
    folders = sorted(found, key=_place)
    manifests = [json.loads((f / "manifest.json").read_text(encoding="utf-8")) for f in folders]
    names = sorted(name.removesuffix(".csv") for name in manifests[0]["files"] if name.endswith(".csv"))
    tables = {name: pd.concat([pd.read_csv(f / f"{name}.csv") for f in folders], ignore_index=True) for name in names}
    return Runs(experiment, tables, manifests)


def _place(folder: Path) -> tuple[str, int, str]:
    data, _, model = folder.name.rpartition("-")
    return data, ORDER.index(model) if model in ORDER else len(ORDER), model


@cache
def _published() -> pd.DataFrame:
    return pd.read_csv(Path(__file__).with_name("published.csv"), keep_default_na=False)


def published(experiment: str, data: str, model: str, quantity: str | None = None) -> pd.DataFrame:
    """What the authors' eight checkpoints and stored explanations give: method, other, quantity and value."""
    frame = _published()
    chosen = (frame["experiment"] == experiment) & (frame["data"] == data) & (frame["model"] == model)
    return frame[chosen if quantity is None else chosen & (frame["quantity"] == quantity)]


def coincide(model: str, a: str, b: str) -> bool:
    """Whether the theory gives both the same weights.

    On any f, C-LIME and SmoothGrad: Cov(ξ, f(x₀ + ξ)) = σ² E ∇f(x₀ + ξ) for Gaussian ξ (Stein). On a linear f, all
    methods without a baseline (w) and all with one (w ⊙ x₀).
    """
    same_family = (a in FAMILIES["local"]) == (b in FAMILIES["local"])
    return {a, b} == {"C-LIME", "SmoothGrad"} or (model == "linear" and same_family)


def matrix(distances: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Mean over instances: original methods × engine instances."""
    frame = distances[distances["metric"] == metric]
    means = frame.pivot_table(index="existing", columns="engine", values="value", aggfunc="mean")
    return means.loc[list(METHODS), list(METHODS)]


def nearest(experiment: Runs, metric: str = "L1") -> pd.DataFrame:
    """For every original: its own engine instance against the nearest other one that does not coincide in theory.

    On the first network of each model. `noise` is the distance that sampling alone gives if both have one expectation:
    √(½ (e² + o²)), e and o the distances between two runs of the engine and of the original. The verdict is "nearest"
    (up to rounding), or "within sampling error" where another instance is nearer by less than `noise`, or "no".
    `networks` counts the trained networks on which the own instance is nearest or within that noise.
    """
    rows = []
    for data, model in experiment.runs:
        distances = experiment.of("distances", data, model)
        repeats = experiment.of("repeats", data, model).query("metric == @metric")
        noise = repeats.groupby(["method", "side"])["value"].mean().pow(2).groupby("method").mean().pow(0.5).to_dict()
        means = {seed: matrix(part, metric).T.to_dict() for seed, part in distances.groupby("training_seed")}
        for name in METHODS:
            sampling = noise.get(name, 0.0)
            found = []
            for of in means.values():
                others = (m for m in METHODS if m != name and not coincide(model, name, m))
                other = min(others, key=of[name].__getitem__)
                found.append((of[name][name], other, of[name][other]))
            own, other, there = found[0]
            excess = own - there
            verdict = "nearest" if excess <= ROUNDING else "within sampling error" if excess <= sampling else "no"
            agree = sum(a - b <= max(ROUNDING, sampling) for a, _, b in found)
            rows.append((data, model, name, own, sampling, other, there, verdict, f"{agree} of {len(found)}"))
    columns = ["data", "model", "method", "own", "noise", "next", "next_distance", "verdict", "networks"]
    return pd.DataFrame(rows, columns=columns)

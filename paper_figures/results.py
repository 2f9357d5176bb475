"""Reading result files, and what they say about the paper's claim."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from paper_figures.style import FAMILIES, METHODS

ROUNDING = 1e-6  # distances that differ by less differ by rounding only
ORDER = ("linear", "logistic", "mlp", "cnn", "ffnnA", "ffnnB", "ffnnC")


@dataclass(frozen=True, eq=False)
class Experiment1:
    """The finished runs below results/experiment1, data by data, simple models first."""

    tables: dict[str, pd.DataFrame]  # distances, repeats, limits, ig_convergence: all runs one below the other
    manifests: list[dict[str, Any]]

    @property
    def runs(self) -> list[tuple[str, str]]:
        return [(m["config"]["data"], m["config"]["model"]) for m in self.manifests]

    def of(self, table: str, data: str, model: str) -> pd.DataFrame:
        frame = self.tables[table]
        return frame[(frame["data"] == data) & (frame["model"] == model)]


def read(results: Path) -> Experiment1:
    """Raises FileNotFoundError if nothing is finished there."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in results.glob("experiment1/*/manifest.json")]
    if not found:
        raise FileNotFoundError(
            f"{results}/experiment1 has no finished run; python -m experiments.experiment1 makes one"
        )
    manifests = sorted(found, key=lambda m: (m["config"]["data"], ORDER.index(m["config"]["model"])))
    folders = [results / "experiment1" / f"{m['config']['data']}-{m['config']['model']}" for m in manifests]
    names = ("distances", "repeats", "limits", "ig_convergence")
    tables = {n: pd.concat([pd.read_csv(f / f"{n}.csv") for f in folders], ignore_index=True) for n in names}
    return Experiment1(tables, manifests)


@dataclass(frozen=True, eq=False)
class NoFreeLunch:
    """The finished runs below results/no_free_lunch, by name."""

    tables: dict[str, pd.DataFrame]  # matrix, verdict: all runs one below the other
    manifests: list[dict[str, Any]]

    @property
    def runs(self) -> list[tuple[str, str]]:
        frame = self.tables["verdict"][["data", "model"]].drop_duplicates()
        return list(frame.itertuples(index=False, name=None))

    def of(self, table: str, data: str, model: str) -> pd.DataFrame:
        frame = self.tables[table]
        return frame[(frame["data"] == data) & (frame["model"] == model)]


def read_no_free_lunch(results: Path) -> NoFreeLunch:
    """Raises FileNotFoundError if nothing is finished there."""
    manifests = sorted(results.glob("no_free_lunch/*/manifest.json"))
    if not manifests:
        raise FileNotFoundError(
            f"{results}/no_free_lunch has no finished run; python -m experiments.no_free_lunch makes one"
        )
    tables = {
        name: pd.concat([pd.read_csv(path.with_name(f"{name}.csv")) for path in manifests], ignore_index=True)
        for name in ("matrix", "verdict")
    }
    return NoFreeLunch(tables, [json.loads(path.read_text(encoding="utf-8")) for path in manifests])


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


def nearest(experiment: Experiment1, metric: str = "L1") -> pd.DataFrame:
    """For every original: its own engine instance against the nearest other one that does not coincide in theory.

    `noise` is the distance that sampling alone gives if both have one expectation: √(½ (e² + o²)), e and o the
    distances between two runs of the engine and of the original. The verdict is "nearest" (up to rounding), or "within
    sampling error" where another instance is nearer by less than `noise`, or "no".
    """
    rows = []
    for data, model in experiment.runs:
        means = matrix(experiment.of("distances", data, model), metric).T.to_dict()
        repeats = experiment.of("repeats", data, model).query("metric == @metric")
        noise = repeats.groupby(["method", "side"])["value"].mean().pow(2).groupby("method").mean().pow(0.5).to_dict()
        for name in METHODS:
            distances = means[name]
            other = min((m for m in METHODS if m != name and not coincide(model, name, m)), key=distances.__getitem__)
            excess = distances[name] - distances[other]
            sampling = noise.get(name, 0.0)
            verdict = "nearest" if excess <= ROUNDING else "within sampling error" if excess <= sampling else "no"
            rows.append((data, model, name, distances[name], sampling, other, distances[other], verdict))
    return pd.DataFrame(rows, columns=["data", "model", "method", "own", "noise", "next", "next_distance", "verdict"])


def short_table(table: pd.DataFrame) -> pd.DataFrame:
    """One row per model: "own / nearest other" for every method, "≈" or "✗" where the own one is not the nearest."""
    mark = {"nearest": "", "within sampling error": " ≈", "no": " ✗"}
    cells = [
        f"{own:.2g} / {other:.2g}{mark[verdict]}"
        for own, other, verdict in zip(table["own"], table["next_distance"], table["verdict"], strict=True)
    ]
    wide = table.assign(cell=cells).pivot_table(
        index=["data", "model"], columns="method", values="cell", aggfunc="first", sort=False
    )
    return wide[list(METHODS)]

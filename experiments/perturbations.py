"""Section 5.3 of Han et al. (2022), crossed: perturbation tests of every method, ranked by w and by w ⊙ (x₀ − b).

Published, every method is ranked by what it reports, so the five that multiply by the input differ from the other three
in two things at once. Here every explanation is laid out both ways, on several trained networks.

curves.csv   mean change when the k features said to matter least (bottom) or most (top) are perturbed
auc.csv      its mean over k per instance: over all k, and over k ≤ 11 as published
cross.csv    effect of the layout and of the neighbourhood, and their interaction, with intervals
verdict.csv  whether the winners are one family when methods report as they do, and what separates them when crossed

python -m experiments.perturbations --data who --model ffnnA --out results/paper
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import tyro
from scipy import stats
from torch import Tensor

import locapprox as lx
from experiments import networks, runs
from experiments.correspondence import Config as Settings
from experiments.correspondence import engine, problem
from experiments.data import Table, load
from experiments.originals import Problem

ADDITIVE = ("Vanilla Gradients", "SmoothGrad", "C-LIME")  # they report w; the other five report w ⊙ (x₀ − b)
TESTS = tuple((kind, replace) for kind in ("bottom", "top") for replace in ("baseline", "noise"))
PUBLISHED_K = 11
AVERAGE = -1  # training_seed of averages over training seeds
BY = ["kind", "replace"]


@dataclass(frozen=True)
class Config:
    """The paper's settings, on `seeds` trained networks."""

    data: str = "who"
    model: str = "ffnnA"
    points: int = 100  # explained instances
    n_samples: int = 1000
    sigma: float = 0.1  # of the explanations' noise, and of the tests'
    width: float = 1.0  # of LIME's kernel exp(−D²/width²), D on the input
    draws: int = 20  # of noise; the paper's 100
    seeds: int = 5
    seed: int = 0

    def command(self, out: Path) -> str:
        return runs.command("perturbations", self, out)


def main(config: Config, out: Path = Path("results/paper"), force: bool = False) -> Path:
    """Results go to out/perturbations/data-model, trained networks to out/networks."""
    table = load(config.data)
    folder = out / "perturbations" / f"{config.data}-{config.model}"
    return runs.run(
        folder, config, table.sha256, lambda: compute(config, table, out / "networks"), config.command(out), force
    )


def compute(config: Config, table: Table, cache: Path) -> runs.Results:
    found = networks.several(table, networks.recipe(config.data, config.model, seed=config.seed), config.seeds, cache)
    settings = Settings(config.data, config.model, config.points, config.n_samples, config.sigma, config.width)
    parts = []
    for number, trained in enumerate(found):
        p = problem(settings, table, trained.network.requires_grad_(False))
        parts += [part.assign(training_seed=number) for part in changes(p, config)]
    frame = pd.concat(parts, ignore_index=True)
    frame["native"] = (frame["ranked_by"] == "w") == frame["method"].isin(ADDITIVE)
    auc = areas(frame)
    tables = {"curves": curves(frame), "auc": auc, "cross": cross(auc), "verdict": verdict(auc)}
    for part in tables.values():
        part.insert(0, "data", config.data)
        part.insert(1, "model", config.model)
    return tables, {**networks.notes(found), "explained": config.points}


def layouts(p: Problem, n_samples: int, seed: int) -> dict[tuple[str, str], Tensor]:
    """(method, layout) -> weights (b, d): slopes w on the input, and contributions w ⊙ (x₀ − b)."""
    out, gap = {}, (p.x - p.baseline).double()
    for name, method in engine(p).items():
        e = lx.explain(p.model, p.x, method, n_samples=n_samples, target=p.target, seed=seed, progress=False)
        w = e.weights.double()
        if name in ADDITIVE:
            out[name, "w"], out[name, "w*x"] = w, w * gap
        else:
            out[name, "w"], out[name, "w*x"] = torch.where(gap == 0, 0.0, w / gap), w
    return out


def changes(p: Problem, config: Config) -> Iterator[pd.DataFrame]:
    """The change of the prediction per method, layout, k and instance, for the four tests."""
    every = layouts(p, config.n_samples, config.seed)
    method_of, layout_of = ({str(key): key[i] for key in every} for i in (0, 1))
    for kind, replace in TESTS:
        test = lx.perturbation_test(
            p.model,
            p.x,
            {str(key): w for key, w in every.items()},
            kind=kind,  # type: ignore[arg-type]
            replace=replace,  # type: ignore[arg-type]
            baseline=p.baseline,
            sigma=config.sigma,
            draws=config.draws,
            target=p.target,
            seed=config.seed,
        )
        frame = test.changes
        key = frame.pop("method")
        yield frame.assign(kind=kind, replace=replace, method=key.map(method_of), ranked_by=key.map(layout_of))


def curves(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean over instances with a 95 % t interval."""
    by = ["training_seed", *BY, "method", "ranked_by", "native", "k"]
    table = frame.groupby(by, sort=False)["change"].agg(["mean", "sem", "count"]).reset_index()
    half = table.pop("sem") * stats.t.ppf(0.975, table.pop("count") - 1)
    return table.assign(low=table["mean"] - half, high=table["mean"] + half)


def areas(frame: pd.DataFrame) -> pd.DataFrame:
    """The mean of each curve over k, and over k ≤ 11."""
    by = ["training_seed", *BY, "method", "ranked_by", "native", "instance"]
    whole = frame.groupby(by, sort=False)["change"].mean().rename("auc")
    first = frame[frame["k"] <= PUBLISHED_K].groupby(by, sort=False)["change"].mean().rename("auc11")
    return pd.concat([whole, first], axis=1).reset_index()


def effects(part: pd.DataFrame) -> dict[str, pd.Series]:
    """Contrasts of the 2 × 2 table layout × neighbourhood, per instance; families count alike, whatever their size.

    scaling: w minus w ⊙ (x₀ − b); neighbourhood: additive minus multiplicative; interaction: how much more scaling
    changes additive methods than multiplicative ones.
    """
    cell = part.assign(additive=part["method"].isin(ADDITIVE)).pivot_table(
        index="instance", columns=["additive", "ranked_by"], values="auc", aggfunc="mean"
    )
    aw, ax, mw, mx = (cell[key] for key in ((True, "w"), (True, "w*x"), (False, "w"), (False, "w*x")))
    return {
        "scaling": (aw + mw - ax - mx) / 2,
        "neighbourhood": (aw + ax - mw - mx) / 2,
        "interaction": (aw - ax) - (mw - mx),
    }


def cross(auc: pd.DataFrame) -> pd.DataFrame:
    """Effects per training seed and their average: 95 % t intervals over instances, and over training seeds."""
    rows = []
    for (kind, replace), test in auc.groupby(BY, sort=False):
        found = {seed: effects(part) for seed, part in test.groupby("training_seed", sort=True)}
        for effect in ("scaling", "neighbourhood", "interaction"):
            series = {seed: values[effect] for seed, values in found.items()}
            for seed, values in series.items():
                rows.append((kind, replace, effect, seed, *interval(values.to_numpy()), np.nan, np.nan))
            averaged = pd.concat(series, axis=1).mean(axis=1).to_numpy()  # the same instances for every network
            over_seeds = interval(np.array([values.mean() for values in series.values()]))
            rows.append((kind, replace, effect, AVERAGE, *interval(averaged), *over_seeds[1:]))
    columns = [*BY, "effect", "training_seed", "value", "low", "high", "seeds_low", "seeds_high"]
    return pd.DataFrame(rows, columns=columns)


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean, and its 95 % t interval (NaN of one value)."""
    mean, n = float(values.mean()), len(values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        half = float(stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / n**0.5) if n > 1 else np.nan
    return mean, mean - half, mean + half


def verdict(auc: pd.DataFrame) -> pd.DataFrame:
    """Who wins by mean AUC (low for bottom, high for top features), natively and crossed.

    native_split: the three methods that report w are all better, or all worse, than the five that report w ⊙ (x₀ − b).
    crossed_split_by: "layout" if all 8 methods under one layout are better than all 8 under the other; "neighbourhood"
    if all additive methods are better than all multiplicative ones under both layouts, or all worse; else "neither".
    better: the layout or the family that wins.
    """
    rows = []
    for (kind, replace, seed), test in auc.groupby([*BY, "training_seed"], sort=False):
        means = test.groupby(["method", "ranked_by"])["auc"].mean() * (1 if kind == "bottom" else -1)
        w, wx = means.xs("w", level="ranked_by"), means.xs("w*x", level="ranked_by")
        additive = w.index.isin(ADDITIVE)
        native = split(w[additive], wx[~additive])
        layout = split(w, wx)
        family = {split(part[additive], part[~additive]) for part in (w, wx)}
        by, better = "neither", ""
        if layout:
            by, better = "layout", "w" if layout < 0 else "w*x"
        elif len(family) == 1 and 0 not in family:
            by, better = "neighbourhood", "additive" if family == {-1} else "multiplicative"
        rows.append((kind, replace, seed, native != 0, by, better))
    return pd.DataFrame(rows, columns=[*BY, "training_seed", "native_split", "crossed_split_by", "better"])


def split(a: pd.Series, b: pd.Series) -> int:
    """−1 if every value of a is below every one of b, 1 if above, 0 if neither."""
    return -1 if a.max() < b.min() else 1 if a.min() > b.max() else 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    tyro.cli(main, config=(tyro.conf.OmitArgPrefixes,))

"""Section 5.3 of Han et al. (2022), crossed: perturbation tests of every method, ranked by w and by w ⊙ (x₀ − b).

Published, every method is ranked by what it reports, so the five that multiply by the input differ from the other three
in two things at once. Here every explanation is laid out both ways, on several trained networks. And where x_j = b_j,
w ⊙ (x₀ − b) is 0 whatever the slope, which those five then do not know: each test is done on the *determined* features
alone (x_j ≠ b_j; the others are neither ranked nor perturbed), and on *all*, as published, with slopes 0 there.

curves.csv   of all features: mean change when the k said to matter least (bottom) or most (top) are perturbed
auc.csv      its mean over k per instance: over all k, and over k ≤ 11 as published
cross.csv    layout × neighbourhood: the four cells, the effect of each, and their interaction, with intervals
verdict.csv  whether the winners are one family when methods report as they do, and what separates them when crossed

python -m experiments.perturbations --data who --model ffnnA --out results/paper
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
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
LAYOUTS, FAMILIES = ("w", "w*x"), ("additive", "multiplicative")
CELLS = tuple(f"{family} {layout}" for family in FAMILIES for layout in LAYOUTS)
FEATURES = ("determined", "all")
BY = ["features", "kind", "replace"]
SAME = 0.01  # of their mean: areas that differ by less are the same


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
    """(method, layout) -> weights (b, d): slopes w (NaN where not determined), contributions w ⊙ (x₀ − b)."""
    out, gap = {}, (p.x - p.baseline).double()
    for name, method in engine(p).items():
        e = lx.explain(p.model, p.x, method, n_samples=n_samples, target=p.target, seed=seed, progress=False)
        w = e.weights.double()
        if name in ADDITIVE:
            out[name, "w"], out[name, "w*x"] = w, w * gap
        else:
            out[name, "w"], out[name, "w*x"] = torch.where(gap == 0, torch.nan, w / gap), w
    return out


def changes(p: Problem, config: Config) -> Iterator[pd.DataFrame]:
    """The prediction's change per method, layout, k and instance: four tests, of determined and of all features."""
    every = layouts(p, config.n_samples, config.seed)
    method_of, layout_of = ({str(key): key[i] for key in every} for i in (0, 1))
    for features, (kind, replace) in product(FEATURES, TESTS):
        test = lx.perturbation_test(
            p.model,
            p.x,
            {str(key): w.nan_to_num(0.0) for key, w in every.items()},
            kind=kind,  # type: ignore[arg-type]
            replace=replace,  # type: ignore[arg-type]
            baseline=p.baseline,
            sigma=config.sigma,
            ranked=p.x != p.baseline if features == "determined" else None,
            draws=config.draws,
            target=p.target,
            seed=config.seed,
        )
        frame = test.changes
        key = frame.pop("method")
        of = {"features": features, "kind": kind, "replace": replace}
        yield frame.assign(**of, method=key.map(method_of), ranked_by=key.map(layout_of))


def curves(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean over instances with a 95 % t interval."""
    by = ["training_seed", *BY, "method", "ranked_by", "native", "k"]
    return t_intervals(frame[frame["features"] == "all"], by, "change")


def areas(frame: pd.DataFrame) -> pd.DataFrame:
    """The mean of each curve over k, and over k ≤ 11."""
    by = ["training_seed", *BY, "method", "ranked_by", "native", "instance"]
    whole = frame.groupby(by, sort=False)["change"].mean().rename("auc")
    first = frame[frame["k"] <= PUBLISHED_K].groupby(by, sort=False)["change"].mean().rename("auc11")
    return pd.concat([whole, first], axis=1).reset_index()


def effects(part: pd.DataFrame) -> pd.DataFrame:
    """Per instance the cells of the 2 × 2 table layout × neighbourhood, whatever the size of a family, and contrasts.

    scaling: w minus w ⊙ (x₀ − b); neighbourhood: additive minus multiplicative, each averaged over the other, which is
    no statement about either where the interaction is as large: how much more scaling changes additive methods.
    """
    family = np.where(part["method"].isin(ADDITIVE), "additive ", "multiplicative ")
    cells = part.assign(effect=family + part["ranked_by"]).pivot_table("auc", "instance", "effect")
    aw, ax, mw, mx = (cells[name] for name in CELLS)
    contrasts = {
        "scaling": (aw + mw - ax - mx) / 2,
        "neighbourhood": (aw + ax - mw - mx) / 2,
        "interaction": (aw - ax) - (mw - mx),
    }
    return cells.assign(**contrasts).melt(ignore_index=False, var_name="effect").reset_index()


def cross(auc: pd.DataFrame) -> pd.DataFrame:
    """Cells and effects per training seed and their average: 95 % t intervals over instances, and over networks."""
    tests = auc.groupby([*BY, "training_seed"], sort=False)
    parts = pd.concat({key: effects(part) for key, part in tests}, names=[*BY, "training_seed"])
    every = parts.reset_index([*BY, "training_seed"])
    by = [*BY, "effect"]
    averaged = every.groupby([*by, "instance"], sort=False)["value"].mean()  # the same instances for every network
    rows = pd.concat([every, averaged.reset_index().assign(training_seed=AVERAGE)])
    table = t_intervals(rows, [*by, "training_seed"], "value").rename(columns={"mean": "value"})
    means = every.groupby([*by, "training_seed"], sort=False)["value"].mean().reset_index()
    networks = t_intervals(means, by, "value").drop(columns="mean").assign(training_seed=AVERAGE)
    networks = networks.rename(columns={"low": "seeds_low", "high": "seeds_high"})
    return table.merge(networks, "left", [*by, "training_seed"])


def t_intervals(frame: pd.DataFrame, by: list[str], value: str) -> pd.DataFrame:
    """Mean of each group with its 95 % t interval (NaN of one value)."""
    table = frame.groupby(by, sort=False)[value].agg(["mean", "sem", "count"]).reset_index()
    half = table.pop("sem") * stats.t.ppf(0.975, table.pop("count") - 1)
    return table.assign(low=table["mean"] - half, high=table["mean"] + half)


def verdict(auc: pd.DataFrame) -> pd.DataFrame:
    """Who wins by mean AUC (low for bottom, high for top features), natively and crossed.

    native_split: the three methods that report w are all better, or all worse, than the five that report w ⊙ (x₀ − b).
    layout, neighbourhood: what is better, if all 8 methods under one layout are better than all 8 under the other; if
    all additive methods under both layouts are better than all multiplicative ones under both. layout_within,
    neighbourhood_within: the same in each family, and under each layout, alone, the same way in both. Empty: neither.

    Where f is linear nothing but the layout can separate methods: "cannot say" of the neighbourhood, if all methods
    have the same mean AUC under a layout (within 1 %).
    """
    rows = []
    for (*test, seed), part in auc.groupby([*BY, "training_seed"], sort=False):
        kind = test[BY.index("kind")]
        means = part.groupby(["method", "ranked_by"])["auc"].mean() * (1 if kind == "bottom" else -1)
        w, wx = means.xs("w", level="ranked_by"), means.xs("w*x", level="ranked_by")
        additive = w.index.isin(ADDITIVE)
        a, m = ([layout[of] for layout in (w, wx)] for of in (additive, ~additive))
        found = {
            "layout": better(LAYOUTS, (w, wx)),
            "layout_within": better(LAYOUTS, a, m),
            "neighbourhood": better(FAMILIES, (pd.concat(a), pd.concat(m))),
            "neighbourhood_within": better(FAMILIES, *zip(a, m, strict=True)),
        }
        if any(float(np.ptp(layout)) < SAME * abs(float(layout.mean())) for layout in (w, wx)):
            found |= dict.fromkeys(("neighbourhood", "neighbourhood_within"), "cannot say")
        rows.append(
            {**dict(zip(BY, test, strict=True)), "training_seed": seed, "native_split": split(a[0], m[1]) != 0, **found}
        )
    return pd.DataFrame(rows)


def better(names: tuple[str, str], *pairs: Sequence[pd.Series]) -> str:
    """The name of what has the lower values throughout in every pair, or ""."""
    found = {split(*pair) for pair in pairs}
    return names[0] if found == {-1} else names[1] if found == {1} else ""


def split(a: pd.Series, b: pd.Series) -> int:
    """−1 if every value of a is below every one of b, 1 if above, 0 if neither."""
    return -1 if a.max() < b.min() else 1 if a.min() > b.max() else 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    tyro.cli(main, config=(tyro.conf.OmitArgPrefixes,))

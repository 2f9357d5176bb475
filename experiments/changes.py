"""What differs from the authors' published code, and what each difference does to the numbers, measured.

changes.csv  change, quantity, the number in the authors' way, the number in ours, unit, note

python -m experiments.changes --data heloc --model ffnnA --out results/paper
"""

import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import tyro
from scipy.stats import spearmanr
from torch import Tensor, nn

import locapprox as lx
from experiments import files, networks, runs
from experiments.correspondence import Config as Settings
from experiments.correspondence import engine, l1, over_uniform, problem, weights
from experiments.data import Table, load
from experiments.originals import Problem
from experiments.perturbations import ADDITIVE, FAMILIES, PUBLISHED_K, TESTS, areas, changes, verdict
from experiments.perturbations import Config as Perturbation

Row = dict[str, Any]
MANY = 20_000  # samples of a fit that stands for the converged one
BATCH, EPOCHS, TRAINED_ON = 128, 50, 0.8  # the authors' fit: Adam, a fifth of the samples held out
GRID: dict[str, tuple[Any, ...]] = {  # of their schedules
    "learning rate": (1.0, 0.5),
    "factor": (0.5, 0.1),
    "milestones": ([30, 40], [40, 45]),
}
SGD_POINTS = 3


@dataclass(frozen=True)
class Config:
    data: str = "heloc"
    model: str = "ffnnA"
    points: int = 100  # explained instances
    n_samples: int = 1000
    sigma: float = 0.1
    width: float = 1.0
    draws: int = 20
    seed: int = 0

    def command(self, out: Path) -> str:
        return runs.command("changes", self, out)


def main(config: Config, out: Path = Path("results/paper"), force: bool = False) -> Path:
    """Results go to out/changes/data-model, trained networks to out/networks."""
    table, theirs = load(config.data), authors(config)
    sources = table.sha256 if theirs is None else {**table.sha256, theirs.name: files.digest(theirs)}
    folder = out / "changes" / f"{config.data}-{config.model}"
    return runs.run(
        folder, config, sources, lambda: compute(config, table, out / "networks"), config.command(out), force
    )


def compute(config: Config, table: Table, cache: Path) -> runs.Results:
    trained = networks.trained(table, networks.recipe(config.data, config.model, seed=config.seed), cache)
    settings = Settings(config.data, config.model, config.points, config.n_samples, config.sigma, config.width)
    p = problem(settings, table, trained.network)
    rows = [*kernels(p), *stored(config, table), *descent(p), *limits(p), *confound(p, config)]
    rows += checkpoint(config, table, trained, cache)
    frame = pd.DataFrame(rows, columns=["change", "quantity", "authors", "ours", "unit", "note"])
    frame.insert(0, "data", config.data)
    frame.insert(1, "model", config.model)
    return {"changes": frame}, networks.notes([trained])


def unweighted(p: Problem) -> lx.Method:
    """Least squares on fair masks, all weights 1."""
    return lx.Method("fair masks", lx.Multiplicative(lx.FairMasks(), p.baseline, p.labels), lx.SquaredError())


def relative(a: Tensor, b: Tensor) -> float:
    """Mean L1 distance of a to b, in per cent of b's mean norm."""
    return 100 * float(l1(a, b).mean() / b.abs().sum(1).mean())


def kernels(p: Problem) -> Iterator[Row]:
    """A (B,) weight times a (B, 1) squared residual is (B, B), whose sum is the unweighted one times Σ weight."""
    rng = torch.Generator().manual_seed(0)
    weight, residual = (torch.rand(64, generator=rng, dtype=torch.float64) for _ in range(2))
    published = (weight * residual[:, None].square()).sum() / weight.sum()
    plain, meant = residual.square().sum(), (weight * residual.square()).sum() / weight.mean()
    yield {
        "change": "kernels",
        "quantity": "the authors' loss ÷ the unweighted one, ÷ the weighted one",
        "authors": float(published / plain),
        "ours": float(published / meant),
        "unit": "ratio",
        "note": "64 random weights and residuals",
    }
    plain_weights = weights(p, unweighted(p), n=MANY)
    for name in ("LIME", "KernelSHAP"):
        yield {
            "change": "kernels",
            "quantity": f"distance of the unweighted fit to {name}",
            "authors": relative(plain_weights, weights(p, engine(p)[name], n=MANY)),
            "ours": 0.0,
            "unit": "% of the norm",
            "note": f"{MANY} samples each",
        }


def authors(config: Config) -> Path | None:
    """The authors' stored checkpoint and explanations, where $LOCAPPROX_DATA has them."""
    folder = os.environ.get("LOCAPPROX_DATA")
    path = Path(folder or "") / "authors" / f"{config.data}_{config.model}.npz"
    return path if folder and path.is_file() else None


def stored(config: Config, table: Table) -> Iterator[Row]:
    """The authors' stored explanations of their own checkpoint, where $LOCAPPROX_DATA/authors has them."""
    path = authors(config)
    if path is None:
        return
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    net = networks.network(config.data, config.model, tuple(table.x_train.shape[1:]), table.classes).eval()
    net.load_state_dict({name[6:]: value for name, value in arrays.items() if name.startswith("model/")})
    p = problem(Settings(config.data, config.model, len(arrays["X"]), width=config.width), table, net)
    plain = weights(p, unweighted(p), n=MANY)
    for name, key in {"LIME": "meta_lime", "KernelSHAP": "meta_ks"}.items():
        theirs, meant = arrays[f"explanation/{key}"].double(), weights(p, engine(p)[name], n=MANY)
        yield {
            "change": "kernels",
            "quantity": f"distance of their stored {name} to the unweighted fit (left) and to the weighted one (right)",
            "authors": float(l1(theirs, plain).mean()),
            "ours": float(l1(theirs, meant).mean()),
            "unit": "mean L1",
            "note": f"{len(theirs)} points of their checkpoint",
        }


def descent(p: Problem) -> Iterator[Row]:
    """Their fit (Adam, 50 epochs, four fifths of the samples) against least squares on all of the same samples."""
    few = p.x[:SGD_POINTS]
    distance, norm, seconds = 0.0, 0.0, 0.0
    for i, x in enumerate(few):
        masks = torch.randint(0, 2, (p.n_samples, len(x)), generator=torch.Generator().manual_seed(i)).float()
        y = p.score(p.baseline + masks * (x - p.baseline), None if p.target is None else int(p.target[i]))
        rows = torch.cat([masks, torch.ones(len(masks), 1)], 1).double()
        best = torch.linalg.lstsq(rows, y[:, None].double()).solution[:-1, 0]
        start = time.perf_counter()
        theirs = adam(masks, y)
        seconds += (time.perf_counter() - start) / SGD_POINTS
        distance, norm = distance + float((theirs - best).abs().sum()), norm + float(best.abs().sum())
    start = time.perf_counter()
    weights(p, unweighted(p))
    ours = (time.perf_counter() - start) / len(p.x)
    share = {"authors": 100 * distance / norm, "ours": 0.0, "unit": "% of the norm"}
    note = f"{SGD_POINTS} points, the best of their eight settings"
    yield {"change": "descent", "quantity": "distance to least squares on the same samples", **share, "note": note}
    speed = {"authors": seconds, "ours": ours, "unit": "s per explanation"}
    yield {"change": "descent", "quantity": "time of the fit; ours with model calls and errors", **speed, "note": note}


def adam(masks: Tensor, y: Tensor) -> Tensor:
    """Of the settings of their `GRID` the weights that are best on the samples held out, each after its last epoch."""
    kept = int(TRAINED_ON * len(masks))
    found = []
    for setting in itertools.product(*GRID.values()):
        w, c = descended(masks[:kept], y[:kept], *setting)
        found.append((float(nn.functional.mse_loss(masks[kept:] @ w + c, y[kept:])), w))
    return min(found, key=lambda one: one[0])[1].double()


def descended(masks: Tensor, y: Tensor, rate: float, factor: float, milestones: list[int]) -> tuple[Tensor, Tensor]:
    """Their training loop from Xavier's start: weights and intercept after 50 epochs."""
    rng = torch.Generator().manual_seed(0)
    w, c = torch.empty(1, masks.shape[1]), torch.zeros((), requires_grad=True)
    w = nn.init.xavier_uniform_(w, generator=rng)[0].requires_grad_()
    optimizer = torch.optim.Adam([w, c], rate)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, factor)
    for _ in range(EPOCHS):
        for i in torch.randperm(len(masks), generator=rng).split(BATCH):
            optimizer.zero_grad()
            nn.functional.mse_loss(masks[i] @ w + c, y[i]).backward()
            optimizer.step()
        scheduler.step()
    return w.detach(), c.detach()


def limits(p: Problem) -> Iterator[Row]:
    exact = {name: weights(p, engine(p)[name]) for name in ("Vanilla Gradients", "Gradient x Input")}
    near = {
        "Vanilla Gradients": ("σ = 0.01 instead of σ → 0", weights(p, lx.smoothgrad(0.01, sobol=False))),
        "Gradient x Input": ("a = 0.95 instead of a → 1", weights(p, over_uniform(p, 0.95))),
    }
    for name, (what, found) in near.items():
        off = {"authors": relative(found, exact[name]), "ours": 0.0, "unit": "% of the norm"}
        yield {"change": "limits", "quantity": f"{name}: {what}", **off, "note": f"{p.n_samples} samples"}


def confound(p: Problem, config: Config) -> Iterator[Row]:
    """What k ≤ 11 changes, and what the layout w or w ⊙ x explains, of the four perturbation tests."""
    settings = Perturbation(config.data, config.model, config.points, draws=config.draws, width=config.width)
    frame = pd.concat(list(changes(p, settings)), ignore_index=True).assign(training_seed=0)
    frame["native"] = (frame["ranked_by"] == "w") == frame["method"].isin(ADDITIVE)
    found = areas(frame)
    native = (
        found[found["native"] & (found["features"] == "all")]
        .groupby(["kind", "replace", "method"])[["auc", "auc11"]]
        .mean()
    )
    others = {test: float(spearmanr(native.xs(test, level=("kind", "replace"))).statistic) for test in TESTS}
    least = min(others, key=others.__getitem__)
    yield {
        "change": "k",
        "quantity": f"rank correlation of the methods by k ≤ {PUBLISHED_K} and by all k, least of the four tests",
        "authors": others[least],
        "ours": 1.0,
        "unit": "Spearman's ρ",
        "note": f"{' '.join(least)}, d = {p.groups}",
    }
    judged = verdict(found[found["features"] == "determined"])
    yield {
        "change": "scaling",
        "quantity": "tests that separate the groups as published (left); that w against w ⊙ x alone separates (right)",
        "authors": float(judged["native_split"].sum()),
        "ours": float((judged["layout"] != "").sum()),
        "unit": "of 4 tests",
        "note": f"features with x_j ≠ 0; by the neighbourhood: {judged['neighbourhood'].isin(FAMILIES).sum()}",
    }


def checkpoint(config: Config, table: Table, honest: networks.Trained, cache: Path) -> Iterator[Row]:
    chosen = networks.trained(table, networks.recipe(config.data, config.model, "test", config.seed), cache)
    for name, value in chosen.metrics.items():
        yield {
            "change": "checkpoint",
            "quantity": f"test {name} of the checkpoint chosen on the test set (left), on a validation split (right)",
            "authors": value,
            "ours": honest.metrics[name],
            "unit": name,
            "note": f"seeds {chosen.training.seed} and {honest.training.seed}",
        }


if __name__ == "__main__":
    torch.set_num_threads(1)
    tyro.cli(main, config=(tyro.conf.OmitArgPrefixes,))

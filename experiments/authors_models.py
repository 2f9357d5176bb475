"""Sections 5.1 to 5.3 of Han et al. (2022) on the authors' own checkpoints and points: the same numbers, cell by cell.

explanations.csv  stored explanations ("existing": captum's; "framework": the authors' fits) against ours, by quantity
distances.csv     every stored original × every engine instance, L1 and cosine, per explained instance
curves.csv        perturbation tests, mean over instances per k ≤ 11: the stored weights by the authors' procedure
                  (`theirs`, with `sem`), the same by `lx.perturbation_test` (`tested`), and our weights (`ours`)

Quantities: "relative difference" is the largest over instances of max |a − b| ÷ max |b|, b stored (for Occlusion ÷ f(x)
where that is larger: its weights are differences of outputs). What captum sampled is held against a converged fit of
ours, by the standard errors that ours has at as many samples: "rms z" and "within 1.96" over the "judged" share of
weights, those that are not fixed at 0 by the baseline and whose error is known. "share of the norm": mean L1 ÷ mean
norm.

captum's kernel of width 1, which the stored LIME has, is exp(−D²/2): `lx.lime(2**0.5)`. Their framework's is exp(−D²).

python -m experiments.authors_models --data heloc --model ffnnC --out results/paper
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
import tyro
from jaxtyping import Float
from torch import Tensor

import locapprox as lx
from experiments import authors, runs
from experiments.authors import CODES, FRAMEWORK
from experiments.changes import unweighted
from experiments.correspondence import Config as Settings
from experiments.correspondence import distances, engine, l1, problem, weights
from experiments.data import Table, load
from experiments.originals import SAMPLED, Problem
from experiments.perturbations import PUBLISHED_K, TESTS
from experiments.recovery import recovery

WITH_C_LIME = FRAMEWORK | {"C-LIME": "sg_mse"}


@dataclass(frozen=True)
class Config:
    """The paper's settings."""

    data: str = "who"
    model: str = "linear"
    points: int = 100  # explained instances
    n_samples: int = 1000
    converged: int = 10_000  # samples of a fit that stands for the expectation
    sigma: float = 0.1
    width: float = 1.0  # of LIME's kernel exp(−D²/width²), D on the input
    draws: int = 20  # of noise; the paper's 100
    seed: int = 0

    def command(self, out: Path) -> str:
        return runs.command("authors_models", self, out)


def main(config: Config, out: Path = Path("results/paper"), force: bool = False) -> Path:
    """Results go to out/authors_models/data-model.

    Raises AbsentError if the authors' files are neither in $LOCAPPROX_DATA nor can be downloaded.
    """
    table = load(config.data)
    sources = table.sha256 | authors.files(config.data, config.model)
    folder = out / "authors_models" / f"{config.data}-{config.model}"
    return runs.run(folder, config, sources, lambda: compute(config, table), config.command(out), force)


def compute(config: Config, table: Table) -> runs.Results:
    settings = Settings(
        config.data, config.model, config.points, config.n_samples, sigma=config.sigma, width=config.width
    )
    p = problem(settings, table, authors.network(config.data, config.model))
    theirs = {
        version: {name: stored(config, f"{prefix}_{code}") for name, code in codes.items()}
        for version, prefix, codes in (("existing", "captum", CODES), ("framework", "meta", WITH_C_LIME))
    }
    as_captum = replace(p, width=2**0.5 * p.width)
    ours = {name: weights(as_captum, method, config.seed) for name, method in engine(as_captum).items()}
    fits = {name: explained(as_captum, engine(as_captum)[name], config, config.converged) for name in SAMPLED}
    best = ours | {name: e.weights for name, e in fits.items()}
    rows = [
        *existing(as_captum, theirs["existing"], best, fits, config),
        *framework(p, theirs["framework"], best, config),
    ]
    if config.model in ("linear", "logistic"):
        rows += recovered(p, theirs | {"ours": ours})
    tables = {
        "explanations": pd.DataFrame(rows, columns=["version", "method", "quantity", "value"]),
        "distances": distances(as_captum, theirs["existing"], config.seed),
        "curves": curves(p, theirs["existing"], ours, config),
    }
    for frame in tables.values():
        frame.insert(0, "data", config.data)
        frame.insert(1, "model", config.model)
    return tables, {"explained": len(p.x)}


Row = tuple[str, str, str, float]


def explained(p: Problem, method: lx.Method, config: Config, n: int) -> lx.Explanation:
    return lx.explain(p.model, p.x, method, n_samples=n, seed=config.seed, progress=False)


def stored(config: Config, name: str) -> Tensor:
    return authors.stored(config.data, config.model, name)[: config.points]


def existing(
    p: Problem,
    theirs: dict[str, Tensor],
    best: dict[str, Tensor],
    fits: dict[str, lx.Explanation],
    config: Config,
) -> Iterator[Row]:
    """captum's stored explanations: those that sample nothing against ours, the others by our standard errors."""
    for name, found in theirs.items():
        least = p.score(p.x, None).abs()[:, None] if name == "Occlusion" else torch.zeros(1)
        yield "existing", name, "relative difference", relative(best[name], found, least)
        if name not in SAMPLED:
            continue
        method = captum_kernel_shap() if name == "KernelSHAP" else engine(p)[name]
        error = explained(p, method, config, p.n_samples).standard_error.hypot(fits[name].standard_error)
        moved = torch.ones_like(p.x, dtype=torch.bool) if name == "SmoothGrad" else p.x != p.baseline
        known = moved & (error > 0)
        z = ((found - best[name]) / error)[known]
        yield "existing", name, "judged", float(known.sum() / moved.sum())
        if len(z):
            yield "existing", name, "rms z", float(z.square().mean().sqrt())
            yield "existing", name, "within 1.96", float((z.abs() <= 1.96).double().mean())


def framework(p: Problem, theirs: dict[str, Tensor], best: dict[str, Tensor], config: Config) -> Iterator[Row]:
    """The authors' own fits against converged ones of ours, and of masks without weights."""
    best = best | {"LIME": weights(p, engine(p)["LIME"], config.seed, config.converged)}
    plain = weights(p, unweighted(p), config.seed, config.converged)
    for name, found in theirs.items():
        yield (
            "framework",
            name,
            "share of the norm",
            float(l1(found, best[name]).mean() / best[name].abs().sum(1).mean()),
        )
        if name in ("LIME", "KernelSHAP"):
            nearer = l1(found, plain) < l1(found, best[name])
            yield "framework", name, "nearer to the unweighted fit", float(nearer.double().mean())


def recovered(p: Problem, versions: dict[str, dict[str, Tensor]]) -> Iterator[Row]:
    """Medians of the distances to w and to w ⊙ x."""
    frame = pd.concat(recovery(p, versions))
    medians = frame.groupby(["version", "method", "metric", "compared_with"], sort=False)["value"].median()
    for row in medians.reset_index().to_dict("records"):
        yield row["version"], row["method"], f"{row['metric']} to {row['compared_with']}", row["value"]


def relative(a: Tensor, b: Tensor, least: Tensor) -> float:
    gap, scale = (a - b).abs(), torch.maximum(b.abs(), least).amax(1)
    return float(torch.where(gap.amax(1) == 0, 0.0, gap.amax(1) / scale).max())


def captum_kernel_shap() -> lx.Method:
    """KernelSHAP as captum draws it, for its standard errors: sizes by the Shapley weights, null players as well."""
    return lx.Method("captum's KernelSHAP", CaptumMasks(), lx.SquaredError())


class CaptumMasks(lx.BaseNeighbourhood):
    """No and all features, interpolated; then masks of weight 1, of size k with p ∝ 1 / (k (d − k)). Baseline 0."""

    draws_at_once = True

    def draw(self, x: Tensor, n: int, rng: torch.Generator) -> lx.Draw:
        d = x[0].numel()
        k = torch.arange(1, d)
        size = 1 + torch.multinomial(1 / (k * (d - k)), n - 2, replacement=True, generator=rng)
        masks = torch.rand(n - 2, d, generator=rng).argsort(1) < size[:, None]
        ends = torch.tensor([[0.0], [1.0]]).expand(2, d)
        weight = torch.ones(n)
        weight[:2] = torch.inf
        return lx.Draw(torch.cat([ends, masks.float()]).to(x), weight.to(x), n_fixed=2)

    def place(self, x: Tensor, xi: Tensor) -> Tensor:
        return x[:, None] * xi


def curves(p: Problem, theirs: dict[str, Tensor], ours: dict[str, Tensor], config: Config) -> pd.DataFrame:
    frames = []
    for kind, how in TESTS:
        named = {f"tested {m}": w for m, w in theirs.items()} | {f"ours {m}": ours[m] for m in theirs}
        test = lx.perturbation_test(
            p.model,
            p.x,
            named,
            kind=kind,  # type: ignore[arg-type]
            replace=how,  # type: ignore[arg-type]
            sigma=config.sigma,
            draws=config.draws,
            ties="argsort",
            seed=config.seed,
        )
        means = test.changes.groupby(["method", "k"])["change"].mean()
        for method, w in theirs.items():
            change = published_curve(p, w, kind, how, config)
            frame = pd.DataFrame({"theirs": change.mean(1), "sem": change.std(1) / change.shape[1] ** 0.5})
            frame.insert(0, "k", range(1, PUBLISHED_K + 1))
            frame["tested"], frame["ours"] = (
                means[f"{side} {method}"][frame["k"]].array for side in ("tested", "ours")
            )
            frames.append(frame.assign(method=method, kind=kind, replace=how))
    return pd.concat(frames, ignore_index=True)


def published_curve(p: Problem, w: Tensor, kind: str, how: str, config: Config) -> Float[Tensor, "k b"]:
    """The mean absolute change after the k least or largest |w|, in argsort's order, are set to 0 or given noise."""
    place = w.abs().argsort(1, descending=kind == "top").argsort(1)
    rng = torch.Generator().manual_seed(config.seed)
    noise = config.sigma * torch.randn(config.draws, *p.x.shape, generator=rng)
    elsewhere = p.x + noise if how == "noise" else torch.zeros(1, *p.x.shape)
    at = torch.stack([torch.where(place < k, elsewhere, p.x) for k in range(1, PUBLISHED_K + 1)])
    moved = p.score(at.flatten(0, -2), None).reshape(at.shape[:-1]) - p.score(p.x, None)
    return moved.abs().mean(1)


if __name__ == "__main__":
    torch.set_num_threads(1)
    tyro.cli(main, config=(tyro.conf.OmitArgPrefixes,))

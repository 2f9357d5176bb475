"""Image models: what the paper measures on tables, with patches as features; by patch size and baseline too.

matrix.csv, verdict.csv  every method on every neighbourhood, as `experiments.no_free_lunch`
curves.csv, areas.csv    bottom-k, top-k, deletion and insertion of patches, and the areas under the curves
study.csv                for other patch sizes and baselines: what each method loses at worst, deletion and insertion
recommend.csv            `locapprox.recommend` where patches are switched off at random
maps.csv                 the attributions of a few images, pixel by pixel, and the images

python -m experiments.image_models --data mnist --out results/paper
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
import tyro
from jaxtyping import Float, Int
from torch import Tensor, nn

import locapprox as lx
from experiments import image_networks, networks, no_free_lunch, runs
from experiments.data import Table, load

BaselineName = Literal["zero", "mean", "blurred"]
ADDITIVE = ("C-LIME", "Vanilla Gradients", "SmoothGrad")  # they report slopes w; the others contributions
TESTS = ("bottom", "top", "deletion", "insertion")
PER_WEIGHT = 4  # draws of C-LIME for each pixel: with fewer, its least error on a neighbourhood is not known well


@dataclass(frozen=True)
class Config:
    """One network, explained by patches (LIME, KernelSHAP, Occlusion) and by pixels (the others)."""

    data: str = "mnist"  # or digits, cifar10
    model: str = "lenet"
    patch: int = 4  # pixels
    baseline: BaselineName = "zero"
    points: int = 30  # explained images
    n_samples: int = 2000  # of each fit and each evaluation; C-LIME takes four per pixel if that is more
    nodes: int = 100  # of Integrated Gradients
    replicates: int = 3
    sigma: float = 0.1
    patches: tuple[int, ...] = (2, 7)  # other patch sizes
    baselines: tuple[BaselineName, ...] = ("mean", "blurred")  # other baselines
    points_studied: int = 10
    shown: int = 6  # images of the picture
    seed: int = 0

    def command(self, out: Path) -> str:
        return runs.command("image_models", self, out)


@dataclass(frozen=True, eq=False)
class Problem:
    """Images of one network, and the class it predicts for each."""

    model: nn.Module
    x: Float[Tensor, "b c h w"]
    target: Int[Tensor, " b"]
    config: Config

    def first(self, n: int) -> "Problem":
        return Problem(self.model, self.x[:n], self.target[:n], self.config)

    def base(self, name: BaselineName) -> Any:
        choices = {"zero": 0.0, "mean": lx.ChannelMean(), "blurred": lx.Blurred(self.x.shape[-1] / 8)}
        return choices[name]

    def gap(self, baseline: BaselineName) -> Tensor:
        """x₀ − b."""
        base = self.base(baseline)
        return self.x - (base(self.x) if callable(base) else base)

    def methods(self, patch: int, baseline: BaselineName) -> dict[str, lx.Method]:
        """The eight; LIME's kernel is as wide as images are distant from their baselines (root mean square)."""
        base, c = self.base(baseline), self.config
        masks: dict[str, Any] = {"baseline": base, "features": lx.patches(self.x.shape, patch)}
        width = float(self.gap(baseline).double().square().flatten(1).sum(1).mean().sqrt())
        methods = [lx.lime(width, **masks), lx.kernel_shap(**masks), lx.occlusion(**masks)]
        methods += [lx.integrated_gradients(base), lx.gradient_x_input(base)]
        methods += [lx.vanilla_gradients(), lx.smoothgrad(c.sigma, sobol=False)]
        methods += [lx.c_lime(c.sigma, antithetic=False)]
        return {method.name: method for method in methods}

    def n_samples(self, method: str) -> int:
        if method == "Integrated Gradients":
            return self.config.nodes
        return max(self.config.n_samples, PER_WEIGHT * self.x[0].numel() if method == "C-LIME" else 0)

    def explained(self, methods: dict[str, lx.Method], seed: int) -> dict[str, lx.Explanation]:
        found: dict[str, lx.Explanation] = {}
        for name, method in runs.bar(methods.items(), f"{self.config.data}: explanations"):
            settings: dict[str, Any] = {"n_samples": self.n_samples(name), "target": self.target, "seed": seed}
            found[name] = lx.explain(self.model, self.x, method, **settings, progress=False)
        return found


def main(config: Config, out: Path = Path("results/paper"), force: bool = False) -> Path:
    """Results go to out/image_models/data-model, trained networks to out/networks."""
    if config.baseline not in get_args(BaselineName):
        raise ValueError(f"baseline must be one of {', '.join(get_args(BaselineName))}; got {config.baseline!r}")
    table = images(config.data)
    folder = out / "image_models" / f"{config.data}-{config.model}"
    compute_ = partial(compute, config, table, out / "networks")
    return runs.run(folder, config, table.sha256, compute_, config.command(out), force)


def images(name: str) -> Table:
    """Raises ValueError if there are no such images."""
    if name != "digits" and name not in image_networks.LOADERS:
        raise ValueError(f"data must be digits, {' or '.join(image_networks.LOADERS)}; got {name!r}")
    return load(name) if name == "digits" else image_networks.LOADERS[name]()


def trained(config: Config, cache: Path, table: Table | None = None) -> networks.Trained:
    """The network of these images, from the cache if it is there."""
    table = images(config.data) if table is None else table
    if config.data == "digits":
        return networks.trained(table, networks.recipe("digits", config.model), cache)
    return image_networks.trained(table, image_networks.RECIPES[config.data], cache)


def compute(config: Config, table: Table, cache: Path) -> runs.Results:
    found = trained(config, cache, table)
    x = table.x_explain[: config.points]
    p = Problem(found.network.requires_grad_(False), x, found.network(x).argmax(1), config)
    methods = p.methods(config.patch, config.baseline)
    first = p.explained(methods, config.seed)
    measured = measure(p, methods, methods, config.replicates)
    lost = no_free_lunch.results(measured)
    curves, areas = perturbed(p, first, config.patch, config.baseline)
    answer = recommended(p)
    tables = {
        **{name: part.assign(training_seed=0) for name, part in lost.items()},
        "curves": curves,
        "areas": areas,
        "study": pd.concat(study(p, lost["matrix"], areas), ignore_index=True),
        "recommend": answer.table,
        "maps": maps(p.first(config.shown), first, table),
    }
    for part in tables.values():
        part.insert(0, "data", config.data)
        part.insert(1, "model", config.model)
    return tables, {**networks.notes([found]), "explained": len(x), "recommend": answer.summary()}


def measure(p: Problem, parts: dict[str, Any], methods: dict[str, lx.Method], replicates: int) -> lx.Faithfulness:
    """Methods, or explanations by them, on every neighbourhood, over replicate draws."""
    numbers = {name: p.n_samples(name) for name in methods}
    settings: dict[str, Any] = {"target": p.target, "seed": p.config.seed, "replicates": replicates}
    settings["progress"] = not runs.in_worker()
    return lx.faithfulness(p.model, p.x, parts, methods, n_samples=numbers, **settings)


def perturbed(
    p: Problem, found: dict[str, lx.Explanation], patch: int, baseline: BaselineName
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Curves and areas. A patch weighs what its pixels weigh together; methods as they report themselves ("native"),
    and those that report slopes also as contributions, w ⊙ (x₀ − b)."""
    given = {(name, "native"): e.weights for name, e in found.items()}
    gap = p.gap(baseline)
    given |= {(name, "w*x"): found[name].weights * gap for name in ADDITIVE if name in found}
    curves, areas = [], []
    for kind in TESTS:
        for (name, ranked_by), weights in given.items():
            test = lx.perturbation_test(
                p.model,
                p.x,
                {name: weights},
                kind=kind,  # type: ignore[arg-type]
                baseline=p.base(baseline),
                features=lx.patches(p.x.shape, patch),
                target=p.target,
                draws=5,  # of an order where weights are equal
                seed=p.config.seed,
            )
            labels = {"kind": kind, "ranked_by": ranked_by}
            curves.append(test.curves().assign(**labels))
            areas.append(test.summary().assign(**labels))
    return pd.concat(curves, ignore_index=True), pd.concat(areas, ignore_index=True)


def study(p: Problem, matrix: pd.DataFrame, areas: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Per setting and method: the most it loses (as a share of the best constant's loss), deletion and insertion.

    C-LIME, whose neighbourhood and weights depend on neither, is left out where it would be fitted again.
    """
    c = p.config
    settings = [(patch, c.baseline) for patch in c.patches] + [(c.patch, baseline) for baseline in c.baselines]
    yield worst(matrix, areas).assign(patch=c.patch, baseline=c.baseline, images=c.points)
    few = p.first(c.points_studied)
    for patch, baseline in settings:
        methods = few.methods(patch, baseline)
        methods.pop("C-LIME")
        found = few.explained(methods, c.seed)
        part = measure(few, found, methods, 1).summary(), perturbed(few, found, patch, baseline)[1]
        yield worst(*part).assign(patch=patch, baseline=baseline, images=c.points_studied)


def worst(matrix: pd.DataFrame, areas: pd.DataFrame) -> pd.DataFrame:
    lost = matrix.sort_values("lost", ascending=False).groupby("method", sort=False).first()[["lost", "neighbourhood"]]
    native = areas[areas["ranked_by"] == "native"].pivot_table(index="method", columns="kind", values="mean")
    renamed = lost.rename(columns={"lost": "worst_lost", "neighbourhood": "worst_neighbourhood"})
    return renamed.join(native[["deletion", "insertion"]]).reset_index()


def recommended(p: Problem) -> lx.Recommendation:
    """Where patches are switched off at random, each with probability ½."""
    few, c = p.first(p.config.points_studied), p.config
    methods = few.methods(c.patch, c.baseline)
    methods.pop("C-LIME")  # needs four draws per pixel
    where = lx.Multiplicative(lx.FairMasks(), few.base(c.baseline), lx.patches(few.x.shape, c.patch))
    settings: dict[str, Any] = {"target": few.target, "seed": c.seed, "n_samples": c.n_samples, "replicates": 3}
    return lx.recommend(few.model, few.x, where, methods=methods, **settings, progress=not runs.in_worker())


def maps(p: Problem, found: dict[str, lx.Explanation], table: Table) -> pd.DataFrame:
    """Pixel by pixel: the images, and each method's weights on them, channels added up."""
    layers = {"image": p.x} | {name: e.on_input()[: len(p.x)].sum(1, keepdim=True) for name, e in found.items()}
    frames = []
    names = table.class_names or tuple(map(str, range(table.classes)))
    for name, values in layers.items():
        axes = [range(size) for size in values.shape]
        index = pd.MultiIndex.from_product(axes, names=["instance", "channel", "row", "column"])
        frame = index.to_frame(index=False).assign(map=name)
        frame["value"] = [float(f"{value:.4g}") for value in values.flatten().tolist()]
        frames.append(frame)
    predicted = np.array([names[int(label)] for label in p.target])
    whole = pd.concat(frames, ignore_index=True)
    return whole.assign(predicted=predicted[whole["instance"]])


if __name__ == "__main__":
    torch.set_num_threads(1)
    tyro.cli(main, config=(tyro.conf.OmitArgPrefixes,))

"""Section 5.1 of Han et al. (2022): every method by its original library against its instance of the framework.

distances.csv       every original × every engine instance, L1 and cosine, per explained instance
repeats.csv         distance between two runs of the same sampled method with different seeds: its sampling error
limits.csv          SmoothGrad(σ) to captum's Vanilla Gradients; ∇ over Uniform(a, 1) to its Gradient × Input
ig_convergence.csv  Integrated Gradients with n Gauss–Legendre nodes to a midpoint rule, in float64

python -m experiments.correspondence --data who --model ffnnA --out results/paper
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
import tyro
from jaxtyping import Float
from torch import Tensor, nn

import locapprox as lx
from experiments import networks, originals, runs
from experiments.data import Table, load
from experiments.originals import SAMPLED, Problem

SIGMAS = (0.3, 0.2, 0.1, 0.05, 0.01)
STARTS = (0.0, 0.5, 0.65, 0.8, 0.95)
NODES = (4, 8, 16, 32, 64, 125, 250, 500, 1000)
EVERY = 5  # every fifth instance runs twice more for its sampling error: captum takes 0.2 s for each


@dataclass(frozen=True)
class Config:
    """The paper's settings."""

    data: str = "who"
    model: str = "linear"
    points: int = 100  # explained instances
    n_samples: int = 1000
    sigma: float = 0.1
    width: float = 1.0  # of LIME's kernel exp(−D²/width²), D on the input
    reference_points: int = 20  # instances of the convergence of Integrated Gradients
    reference_steps: int = 100_000
    select_on: Literal["validation", "test"] = (
        "validation"  # the paper keeps the checkpoint that is best on the test set
    )
    seeds: int = 5  # trained networks
    points_per_seed: int = 10  # explained by those after the first: captum takes 0.4 s for each
    seed: int = 0

    def command(self, out: Path) -> str:
        return runs.command("correspondence", self, out)


def main(config: Config, out: Path = Path("results/paper"), force: bool = False) -> Path:
    """Results go to out/correspondence/data-model, trained networks to out/networks."""
    table = load(config.data)
    folder = out / "correspondence" / f"{config.data}-{config.model}"
    return runs.run(folder, config, table.sha256, lambda: compute(config, table, out), config.command(out), force)


def compute(config: Config, table: Table, out: Path) -> runs.Results:
    training = networks.recipe(config.data, config.model, config.select_on, config.seed)
    found = networks.several(table, training, config.seeds, out / "networks")
    problems = [
        problem(config if i == 0 else replace(config, points=config.points_per_seed), table, t.network)
        for i, t in enumerate(found)
    ]
    p, theirs = problems[0], [originals.computed(q, config.seed, out / "originals") for q in problems]
    frames = [
        distances(q, t, config.seed).assign(training_seed=i)
        for i, (q, t) in enumerate(zip(problems, theirs, strict=True))
    ]
    tables = {
        "distances": pd.concat(frames, ignore_index=True),
        "repeats": repeats(p, config.seed, out / "originals"),
        "limits": limits(p, theirs[0], config.seed),
        "ig_convergence": ig_convergence(p, config),
    }
    for frame in tables.values():
        frame.insert(0, "data", config.data)
        frame.insert(1, "model", config.model)
    return tables, {**networks.notes(found), "explained": len(p.x), "features": p.groups}


def problem(config: Config, table: Table, net: nn.Sequential) -> Problem:
    net.requires_grad_(False)
    x = table.x_explain[: config.points]
    target = networks.explained_class(net, x)
    return Problem(net, x, target, feature_groups(x), config.n_samples, config.sigma, config.width)


def feature_groups(x: Tensor) -> Tensor:
    """One group per column of a table; 2×2 patches of an image."""
    if x.ndim == 2:
        return torch.arange(x.shape[1])
    rows, columns = (torch.arange(size) // 2 for size in x.shape[-2:])
    return (rows[:, None] * (x.shape[-1] // 2) + columns).expand(x.shape[1:])


def engine(p: Problem) -> dict[str, lx.Method]:
    """`lx.paper_methods()` with this problem's σ, width and groups, in the order of `ORIGINALS`."""
    masks: dict[str, Any] = {"baseline": p.baseline, "features": p.labels}
    methods = [
        lx.lime(p.width, **masks),
        lx.kernel_shap(**masks),
        lx.occlusion(**masks),
        lx.integrated_gradients(**masks, rule=lx.GaussLegendre()),
        lx.gradient_x_input(**masks),
        lx.vanilla_gradients(),
        lx.smoothgrad(p.sigma, sobol=False),
        lx.c_lime(p.sigma, antithetic=False),
    ]
    return {method.name: method for method in methods}


def weights(p: Problem, method: lx.Method, seed: int = 0, n: int | None = None) -> Float[Tensor, "b d"]:
    e = lx.explain(p.model, p.x, method, n_samples=n or p.n_samples, target=p.target, seed=seed, progress=False)
    return p.sum_groups(e.weights) if e.weights.shape[1:] == p.x.shape[1:] else e.weights.double()


def distances(p: Problem, theirs: Mapping[str, Tensor], seed: int) -> pd.DataFrame:
    framework = {name: weights(p, method, seed) for name, method in engine(p).items()}

    def rows() -> Iterator[pd.DataFrame]:
        for existing, original in theirs.items():
            for name, ours in framework.items():
                yield compared(original, ours, existing=existing, engine=name)

    return pd.concat(rows(), ignore_index=True)


def repeats(p: Problem, seed: int, cache: Path) -> pd.DataFrame:
    few = replace(p, x=p.x[::EVERY], target=None if p.target is None else p.target[::EVERY])

    def rows() -> Iterator[pd.DataFrame]:
        a, b = (originals.computed(few, s, cache) for s in (seed + 1, seed + 2))
        for name in SAMPLED:
            yield compared(a[name], b[name], method=name, side="existing")
            ours = (weights(few, engine(few)[name], s) for s in (seed + 1, seed + 2))
            yield compared(*ours, method=name, side="engine")

    return pd.concat(rows(), ignore_index=True)


def limits(p: Problem, theirs: Mapping[str, Tensor], seed: int) -> pd.DataFrame:
    """The last point of each series is the exact limit."""
    gradient, product = (theirs[name] for name in ("Vanilla Gradients", "Gradient x Input"))

    def rows() -> Iterator[pd.DataFrame]:
        for sigma in (*SIGMAS, 0.0):
            method = lx.smoothgrad(sigma, sobol=False) if sigma else lx.vanilla_gradients()
            yield compared(weights(p, method, seed), gradient, limit="SmoothGrad", parameter=sigma)
        for a in (*STARTS, 1.0):
            yield compared(weights(p, over_uniform(p, a), seed), product, limit="Gradient x Input", parameter=a)

    return pd.concat(rows(), ignore_index=True)


def over_uniform(p: Problem, a: float) -> lx.Method:
    """Gradient matching with one number ~ Uniform(a, 1) in all entries of ξ; a = 1 is Gradient × Input itself."""
    if a == 1:
        return lx.gradient_x_input(p.baseline, p.labels)
    where = lx.Multiplicative(lx.GaussLegendre(a, 1.0), p.baseline, p.labels)
    return lx.Method(f"Uniform({a}, 1)", where, lx.GradientMatching())


def ig_convergence(p: Problem, config: Config) -> pd.DataFrame:
    """Largest difference of a weight to the midpoint rule with `reference_steps` steps."""
    few = config.reference_points
    target = None if p.target is None else p.target[:few]
    p = replace(p, model=copy.deepcopy(p.model).double(), x=p.x[:few].double(), target=target)
    reference = midpoint(p, config.reference_steps)
    frames = []
    for n in NODES:
        error = (weights(p, engine(p)["Integrated Gradients"], n=n) - reference).abs().amax(1)
        frames.append(pd.DataFrame({"n": n, "instance": range(len(p.x)), "value": error.numpy()}))
    return pd.concat(frames, ignore_index=True)


def midpoint(p: Problem, steps: int) -> Float[Tensor, "b d"]:
    """(x − b) ⊙ mean of ∇f(b + t (x − b)) over t = (i + ½)/steps, one instance at a time."""
    rows = []
    for i, x in enumerate(p.x):
        total = torch.zeros_like(x)
        for t in ((torch.arange(steps, dtype=x.dtype) + 0.5) / steps).split(10_000):
            on_path = p.baseline + t.reshape(-1, *[1] * x.ndim) * (x - p.baseline)
            with torch.enable_grad():
                y = p.score(on_path.requires_grad_(), None if p.target is None else int(p.target[i]))
            total += torch.autograd.grad(y.sum(), on_path)[0].sum(0)
        rows.append((x - p.baseline) * total / steps)
    return p.sum_groups(torch.stack(rows))


def compared(a: Float[Tensor, "b d"], b: Float[Tensor, "b d"], **labels: Any) -> pd.DataFrame:
    """Tidy L1 and cosine distance of each instance's weights."""
    values = {"L1": l1(a, b), "cosine": cosine(a, b)}
    return pd.concat(
        [
            pd.DataFrame({**labels, "metric": metric, "instance": range(len(a)), "value": value.numpy()})
            for metric, value in values.items()
        ],
        ignore_index=True,
    )


def l1(a: Float[Tensor, "b d"], b: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
    return (a - b).abs().sum(1)


def cosine(a: Float[Tensor, "b d"], b: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
    """1 − cos(a, b) = ½‖a/‖a‖ − b/‖b‖‖², which does not cancel; 0 if both vanish, ½ if one does."""
    a, b = (torch.nn.functional.normalize(v.double(), dim=1, eps=1e-300) for v in (a, b))
    return (a - b).square().sum(1) / 2


if __name__ == "__main__":
    torch.set_num_threads(1)
    tyro.cli(main, config=(tyro.conf.OmitArgPrefixes,))

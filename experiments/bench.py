"""How long explanations take: over bare model evaluations, and against captum, shap and lime in their best settings.

Everything runs in one process on one thread, in turns (A B C, A B C, …), and is compared by ratios of process times,
medians over the rounds, because machines are noisy. Peers that loop over instances are timed on fewer of them, which is
said; the engine is timed on the same ones then. "Same accuracy" is the engine at the smallest n whose error is not
above the peer's: errors are distances to the engine's own solution at n = 200,000, summed over features.
"""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import tyro
from torch import Tensor, nn

import locapprox as lx
from experiments import files, networks, originals
from experiments.data import Table, load

GRID = [2**k for k in range(5, 18)]
REFERENCE = 200_000


@dataclass(frozen=True)
class Config:
    data: str = "heloc"  # any table of experiments.data; breast_cancer needs no download
    model: str = "ffnnC"
    instances: int = 100  # for the ratio to bare evaluations
    peer_instances: int = 5  # for peers, which loop over instances
    n_samples: int = 1000
    rounds: int = 9


def floor(net: nn.Module, rows: Tensor, gradient: bool) -> Callable[[], None]:
    """The model's evaluations alone, in the chunk size that is fastest here."""

    def run(size: int) -> None:
        with torch.set_grad_enabled(gradient):
            for chunk in rows.split(size):
                if gradient:
                    leaf = chunk.clone().requires_grad_()
                    torch.autograd.grad(net(leaf).sum(), leaf)
                else:
                    net(chunk)

    sizes = (2000, 4000, 8000, 16000, 32000)
    best = min(sizes, key=lambda size: min(_seconds(lambda: run(size)) for _ in range(5)))
    return lambda: run(best)


def peers(table: Table, net: nn.Module, x: Tensor, n: int) -> dict[tuple[str, str], Callable[[int], np.ndarray]]:
    """(library, method) -> weights of x as a function of the seed."""
    import shap
    from lime.lime_tabular import LimeTabularExplainer

    labels = torch.arange(x.shape[1])
    problem = originals.Problem(net, x, None, labels, n, sigma=0.1, width=1.0)
    found: dict[tuple[str, str], Callable[[int], np.ndarray]] = {
        ("captum", name): lambda seed, name=name: originals.ORIGINALS[name](problem, seed).numpy()  # type: ignore[misc]
        for name in ("KernelSHAP", "LIME", "SmoothGrad", "Integrated Gradients")
    }

    def predict(rows: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return net(torch.from_numpy(rows).to(x.dtype))[:, 0].numpy()

    kernel = shap.KernelExplainer(predict, np.zeros((1, x.shape[1])))

    def shap_values(seed: int) -> np.ndarray:
        np.random.seed(seed)  # noqa: NPY002 (shap draws from numpy's global state)
        return kernel.shap_values(x.numpy(), nsamples=n, l1_reg=False, silent=True)

    found["shap", "KernelSHAP"] = shap_values
    train = table.x_train.numpy()

    def lime_values(seed: int) -> np.ndarray:
        explainer = LimeTabularExplainer(train, mode="regression", discretize_continuous=False, random_state=seed)
        rows = []
        for one in x.numpy():
            parts = explainer.explain_instance(one, predict, num_features=x.shape[1], num_samples=n).as_map()
            rows.append([weight for _, weight in sorted(next(iter(parts.values())))])
        return np.array(rows)

    found["lime", "lime tabular"] = lime_values
    return found


def engine(net: nn.Module, x: Tensor, method: lx.Method, n: int, seed: int = 0) -> np.ndarray:
    return lx.explain(net, x, method, n_samples=n, seed=seed, progress=False).weights.numpy()


def _seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def interleaved(work: dict[str, Callable[[], object]], rounds: int) -> pd.DataFrame:
    """Process seconds, one column per piece of work and one row per round, after a warm-up."""
    for run in work.values():
        run()
    return pd.DataFrame([{name: _seconds(run) for name, run in work.items()} for _ in range(rounds)])


def over_evaluations(config: Config, net: nn.Module, x: Tensor) -> pd.DataFrame:
    """The engine's time, with standard errors and loss, over that of its model evaluations alone."""
    methods = lx.paper_methods()
    names = {"KernelSHAP": False, "C-LIME": False, "LIME": False, "SmoothGrad": True}
    rows = x.repeat(config.n_samples, 1)
    rows = rows + 0.1 * torch.randn(rows.shape, generator=torch.Generator().manual_seed(0))
    work: dict[str, Callable[[], object]] = {
        "evaluations": floor(net, rows, gradient=False),
        "gradients": floor(net, rows, gradient=True),
    }
    work |= {name: lambda name=name: engine(net, x, methods[name], config.n_samples) for name in names}  # type: ignore[misc]
    seconds = interleaved(work, config.rounds)
    return pd.DataFrame(
        {
            "method": name,
            "milliseconds": 1e3 * seconds[name].median(),
            "over bare evaluations": (seconds[name] / seconds["gradients" if gradient else "evaluations"]).median(),
        }
        for name, gradient in names.items()
    )


def against_peers(config: Config, table: Table, net: nn.Module, x: Tensor) -> pd.DataFrame:
    """Peer time over engine time at the same number of samples, and at the same accuracy."""
    methods = lx.paper_methods() | {"lime tabular": _lime_tabular(table)}
    found = peers(table, net, x, config.n_samples)
    results = []
    for (library, name), values in found.items():
        method, seeds = methods[name], itertools.count()
        exact = engine(net, x, method, REFERENCE if name != "Integrated Gradients" else 3000, seed=10**6)
        error = np.mean([_distance(values(next(seeds)), exact) for _ in range(3)])
        enough = config.n_samples
        for n in GRID:
            if (
                n > 2 * x.shape[1]
                and np.mean([_distance(engine(net, x, method, n, s), exact) for s in range(3)]) <= error
            ):
                enough = n
                break
        work: dict[str, Callable[[], object]] = {
            "peer": lambda values=values, seeds=seeds: values(next(seeds)),  # type: ignore[misc]
            "engine": lambda method=method: engine(net, x, method, config.n_samples),  # type: ignore[misc]
            "enough": lambda method=method, enough=enough: engine(net, x, method, enough),  # type: ignore[misc]
        }
        seconds = interleaved(work, max(3, config.rounds // 3))
        results.append(
            {
                "peer": library,
                "method": name,
                "peer / engine, same samples": (seconds["peer"] / seconds["engine"]).median(),
                "peer / engine, same accuracy": (seconds["peer"] / seconds["enough"]).median(),
                "peer's error (L1)": error,
                "engine's samples for it": enough,
                "peer milliseconds": 1e3 * seconds["peer"].median(),
            }
        )
    return pd.DataFrame(results)


def _lime_tabular(table: Table) -> lx.Method:
    """lime's ridge (α = 1 on n rows) is least squares here; its default neighbourhood is around the data's mean."""
    return lx.Method("lime tabular", lx.LimeTabular.of_data(table.x_train), lx.SquaredError())


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).sum(1).mean())


def main(config: Config, out: Path = Path("results/bench"), cache: Path = Path("results/cache")) -> None:
    torch.set_num_threads(1)
    table = load(config.data)
    net = networks.trained(table, networks.recipe(config.data, config.model), cache).network
    pd.options.display.float_format = "{:.3g}".format
    print(f"{config.data} {config.model}: {config.instances} instances × {config.n_samples} samples, one thread")
    first = over_evaluations(config, net, table.x_explain[: config.instances])
    print(first.to_string(index=False), "\n")
    print(f"peers, on {config.peer_instances} instances, and the engine on the same:")
    second = against_peers(config, table, net, table.x_explain[: config.peer_instances])
    print(second.to_string(index=False))
    for name, frame in {"over_evaluations": first, "against_peers": second}.items():
        files.write(out / f"{name}.csv", lambda part, frame=frame: frame.to_csv(part, index=False))  # type: ignore[misc]
    print(f"tables: {out}")


if __name__ == "__main__":
    config = tyro.cli(Config, description=__doc__)
    main(config)

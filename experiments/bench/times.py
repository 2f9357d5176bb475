"""The engine and its peers over the floor: the model's evaluations at the very inputs that a method asks about.

Two floors: the evaluations alone, in calls of the size that is fastest here, and the evaluations with what puts ξ
around the input (`place`), which no implementation is spared. Gradients count as evaluations do. Peers that loop over
instances are timed on a few of them, and their time is multiplied.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

import locapprox as lx
from experiments.bench.cases import Case
from experiments.bench.peers import peers
from experiments.runs import bar

SIZES = (1, 8, 32, 128, 512, 2000, 4000, 8000, 16_000, 32_000)  # rows per call
LEAST = 0.005  # seconds of one measurement; shorter work is repeated
UNSTEADY = 0.3  # of a floor's median: a wider quartile range is said


def seconds(work: Callable[[], Any], times: int = 1) -> float:
    start = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - start) / times


def interleaved(work: Mapping[str, Callable[[], Any]], rounds: int, description: str = "") -> pd.DataFrame:
    """Process seconds in turns, a column per piece of work and a row per round, after a warm-up."""
    times = {}
    for name, run in work.items():
        run()
        times[name] = max(1, round(LEAST / max(seconds(run), 1e-6)))
    return pd.DataFrame(
        [{name: seconds(run, times[name]) for name, run in work.items()} for _ in bar(range(rounds), description)]
    )


def fastest(work: Callable[[int], Any], sizes: tuple[int, ...]) -> Callable[[], Any]:
    """The work in calls of the size that is fastest here."""
    if len(sizes) == 1:
        return partial(work, sizes[0])
    work(sizes[-1])
    best = min(sizes, key=lambda size: min(seconds(partial(work, size)) for _ in range(2)))
    return partial(work, best)


def asked(e: lx.Explanation) -> Tensor:
    """The inputs that the engine asked the model about, those apart that it only tries it with."""
    shape = e.x.shape[1:]
    return torch.cat([e.points(i)[1].reshape(-1, *shape) for i in range(len(e))])


def evaluate(case: Case, rows: Tensor, gradient: bool) -> Any:
    """One call of the model."""
    if not isinstance(case.model, nn.Module):
        return case.model.predict(rows.numpy())
    with torch.set_grad_enabled(gradient):
        if not gradient:
            return case.model(rows)
        leaf = rows.detach().requires_grad_()
        return torch.autograd.grad(case.model(leaf)[:, 0].sum(), leaf)


def floors(case: Case, name: str) -> dict[str, Callable[[], Any]]:
    """Evaluations alone and with placing; of the last there is none where one draw is not all (a background)."""
    method, n = case.methods[name], case.n(name)
    gradient = method.loss.of_gradients
    inputs = asked(engine(case, name)())
    sizes = tuple(size for size in SIZES if size < len(inputs)) or (1,)
    whole = [len(inputs)] if len(inputs) <= SIZES[-1] else []

    def alone(size: int) -> None:
        for part in inputs.split(size):
            evaluate(case, part, gradient)

    found = {"evaluations": fastest(alone, (*sizes[-6:], *whole))}
    x = torch.as_tensor(case.x)
    where: Any = method.neighbourhood
    draw = where.settled(x, n).draw(x, n, torch.Generator().manual_seed(0))
    if case.background is not None or draw.xi.ndim == 3:
        return found

    def placed(size: int) -> None:
        step, per = max(1, size // len(draw.xi)), min(size, len(draw.xi))
        for i in range(0, len(x), step):
            some = slice(i, i + step)
            for xi in draw.xi.split(per):
                place(where.at(x, some), x[some], xi)

    def place(here: Any, x: Tensor, xi: Tensor) -> None:
        if not gradient:
            evaluate(case, here.place(x, xi).flatten(0, 1), gradient)
            return
        leaf = xi.expand(len(x), -1, -1).detach().requires_grad_()
        torch.autograd.grad(case.model(here.place(x, leaf).flatten(0, 1))[:, 0].sum(), leaf)

    return found | {"evaluations and placing": fastest(placed, (*sizes[-6:], *whole))}


def engine(case: Case, name: str) -> Callable[[], lx.Explanation]:
    model = case.model if isinstance(case.model, nn.Module) else case.model.predict
    target, method, n = case.target, case.methods[name], case.n(name)
    return lambda: lx.explain(model, case.x, method, n_samples=n, target=target, progress=False)


def measured(case: Case, rounds: int) -> pd.DataFrame:
    """A row per method, who computed it and round: process seconds for all instances of the case."""
    parts = []
    for name in case.methods:
        work = {**floors(case, name), "locapprox": engine(case, name)}
        scale = dict.fromkeys(work, 1.0)
        if case.peers:
            for (library, of), (sizes, few, run) in peers(case).items():
                if of == name:
                    work[library], scale[library] = fastest(run, sizes), len(case.x) / few
        found = interleaved(work, rounds, f"{case.name}: {name}")
        long = (found * pd.Series(scale)).reset_index(names="round").melt("round", var_name="who", value_name="seconds")
        parts.append(long.assign(case=case.name, method=name, instances=len(case.x), n=case.n(name)))
    return pd.concat(parts)[["case", "instances", "method", "n", "who", "round", "seconds"]]


def ratios(table: pd.DataFrame) -> pd.DataFrame:
    """Medians over the rounds: the engine over each floor, peers over the engine, milliseconds beyond evaluations."""
    rows = []
    for (case, method, instances, n), part in table.groupby(["case", "method", "instances", "n"], sort=False):
        wide = part.pivot_table(index="round", columns="who", values="seconds", sort=False)
        own = wide["locapprox"]
        row = {"case": case, "method": method, "instances": instances, "n": n, "milliseconds": 1e3 * own.median()}
        for kind in ("evaluations", "evaluations and placing"):
            if kind in wide:
                row[f"over {kind}"] = (own / wide[kind]).median()
        row["ms beyond evaluations"] = 1e3 * (own - wide["evaluations"]).median()
        peers = [who for who in wide if who not in ("locapprox", "evaluations", "evaluations and placing")]
        row |= {f"{who} / locapprox": (wide[who] / own).median() for who in peers}
        bare = wide["evaluations"]
        row["unsteady"] = bool((bare.quantile(0.75) - bare.quantile(0.25)) / bare.median() > UNSTEADY)
        rows.append(row)
    return pd.DataFrame(rows)

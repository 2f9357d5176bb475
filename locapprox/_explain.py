"""explain(): a surrogate around every instance."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from locapprox._explanation import Explanation, Inside
from locapprox._method import Method
from locapprox._notices import errors_unsaid
from locapprox._parts import child_seeds, whole_number
from locapprox._problem import Problem
from locapprox.fit.rounds import Fits, Task, in_rounds
from locapprox.fit.stopping import Stop, Tolerance, as_stops
from locapprox.fit.surrogates import described_surrogate
from locapprox.models.inputs import Array
from locapprox.models.scores import Target
from locapprox.neighbourhoods.base import described

N_SAMPLES = 1000
MOST_ROUNDS = 100  # max_samples by default, in first rounds


def explain(
    model: Any,
    x: Array,
    method: Method,
    *,
    n_samples: int = N_SAMPLES,
    tol: float | Tolerance | None = None,
    until: Stop | None = None,
    max_samples: int | None = None,
    target: Target = None,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = True,
) -> Explanation:
    """Fit a surrogate to the model around every instance of x.

    Main arguments:
        model: a `torch.nn.Module`, a scikit-learn estimator (`predict_proba`, else `predict`), or a function of x's own
            kind of array.
        x: instances, (b, *input shape): a tensor, an array or a DataFrame, always with a batch axis.
        method: one of the eight (`lx.lime()`, …) or your own `lx.Method`.
        n_samples: draws per instance. Occlusion and point masses ignore it; KernelSHAP enumerates if it is ≥ 2ᵈ.

    To stop when the answer is certain, instance by instance; n_samples is then the first of growing rounds of draws:
        tol: every standard error ≤ tol · the instance's largest |w|, or an `lx.Tolerance(relative=…, absolute=…)`.
        until: a decision that must be certain: `lx.Order(top=5)` or `lx.Signs()`. With both, both must hold.
        max_samples: draws per instance at most, by default 100 · n_samples; a warning says where they do not suffice.
            `e.n_samples` has what was drawn, `e.converged` where it suffices.

    Other arguments:
        target: which of several outputs: an int, one int per instance (a list or array), a range (several at once), or
            a function from the outputs to one score per row.
        seed: of the draw, which all instances share unless the neighbourhood draws per instance.
        batch_size: rows per model call; by default up to 32,768, fewer where inputs or layers are wide.
        progress: show a bar if it takes longer than two seconds.

    Raises:
        ValueError, TypeError: naming the argument that is wrong.
        MemoryError: if the model runs out of memory; lower batch_size.
    """
    check_method(method)
    stops = as_stops(tol, until)
    if max_samples is not None and not stops:
        raise ValueError("max_samples is for tol and until: without them, n_samples are drawn")
    return explained(Problem(model, x, target, batch_size), method, n_samples, seed, progress, stops, max_samples)


def explained(
    problem: Problem,
    method: Method,
    n_samples: int = N_SAMPLES,
    seed: int = 0,
    progress: bool = False,
    stops: Sequence[Stop] = (),
    max_samples: int | None = None,
) -> Explanation:
    """As `explain`, of a problem."""
    n_samples, seed = whole_number(n_samples, "n_samples"), whole_number(seed, "seed", least=0)
    most = MOST_ROUNDS * n_samples if max_samples is None else whole_number(max_samples, "max_samples")
    if most < n_samples:
        raise ValueError(f"max_samples must be at least n_samples={n_samples}, the first round of draws; got {most}")
    where, surrogate = described(method.neighbourhood), described_surrogate(method.surrogate)
    here = problem.check(where, n_samples)
    method = method if here is where else replace(method, neighbourhood=here)
    task = Task(problem, here, surrogate, method.loss)
    settings = {"n_samples": n_samples, "seed": seed, "target": repr(problem.target), **here.settings()}

    def bar(what: str = "") -> AbstractContextManager[Any]:
        return tqdm(desc=method.name + what, unit="row", delay=2, leave=False) if progress else nullcontext()

    with problem.evaluating():
        if stops:
            fits, converged = in_rounds(task, n_samples, seed, bar, stops, most)
            asked = " and ".join(map(repr, stops))
            settings |= {"until": asked, "max_samples": most, "converged": converged.tolist()}
        else:
            with bar() as shown:
                fits = task.fits(n_samples, seed, shown)
    return assembled(task, method, fits, settings)


def assembled(task: Task, method: Method, fits: Fits, settings: dict[str, Any]) -> Explanation:
    """Fits as an explanation."""
    problem, d = task.problem, fits.weights.shape[-1]
    per_entry = task.where.per_entry(problem.x, d)
    layout = problem.x.shape[1:] if per_entry else torch.Size([d])
    r2 = 1 - fits.loss / fits.constant_loss

    def shaped(values: Tensor) -> Tensor:
        return values if problem.several else values[:, 0]

    return Explanation(
        weights=shaped(fits.weights).unflatten(-1, layout),
        intercept=shaped(fits.intercept),
        standard_error=shaped(fits.standard_error).unflatten(-1, layout),
        loss=shaped(fits.loss),
        r2=shaped(r2),
        degrees_of_freedom=fits.degrees_of_freedom,
        n_samples=fits.n_samples,
        x=problem.x,
        method=method,
        feature_names=problem.names if per_entry else None,
        settings=settings,
        _inside=Inside(problem, problem.several, per_entry, task.surrogate.link, names=problem.names),
    )


def explain_mean(
    model: Any,
    x: Array,
    method: Method,
    *,
    n_samples: int = N_SAMPLES,
    replicates: int = 10,
    target: Target = None,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = True,
) -> tuple[Tensor, Tensor]:
    """The mean explanation over the instances, and its standard error from replicate draws.

    Instances share a draw, so their errors do not average out (the error of a mean over 100 instances is 7–8 times what
    independent draws would give) and `standard_error` cannot be combined over instances: the mean is computed on
    `replicates` draws, with seeds spawned from `seed`, and the error taken from their spread
    (t with replicates − 1 degrees).
    Other arguments and errors as of `explain`.
    """
    check_method(method)
    replicates, seed = whole_number(replicates, "replicates", least=2), whole_number(seed, "seed", least=0)
    problem = Problem(model, x, target, batch_size)
    where = described(method.neighbourhood)
    problem.check(where)
    if not where.shares_features(problem.x):
        raise ValueError("method labels the features of every instance differently: a mean over them has no meaning")
    seeds = child_seeds(seed, replicates)
    shown = tqdm(seeds, f"{method.name}: replicates", delay=2, leave=False, disable=not progress)
    with errors_unsaid():
        means = [explained(problem, method, n_samples, one).weights.nanmean(0) for one in shown]
    stacked = torch.stack(means)
    return stacked.mean(0), stacked.std(0) / replicates**0.5


def check_method(method: Any) -> None:
    if not isinstance(method, Method):
        raise TypeError(f"method must be a Method such as lx.lime(), got {method!r}")

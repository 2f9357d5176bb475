"""explain(): a surrogate around every instance."""

from contextlib import nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from locapprox._explanation import Explanation, Inside
from locapprox._method import Method
from locapprox._notices import errors_unsaid
from locapprox._parts import child_seeds, whole_number
from locapprox._problem import Problem
from locapprox.fit.contract import fitted
from locapprox.fit.losses import Loss
from locapprox.fit.nulls import on_all
from locapprox.fit.result import Fit
from locapprox.fit.sampling import samples
from locapprox.fit.surrogates import described_surrogate
from locapprox.models.inputs import Array
from locapprox.models.scores import Target
from locapprox.neighbourhoods.base import described

N_SAMPLES = 1000


def explain(
    model: Any,
    x: Array,
    method: Method,
    *,
    n_samples: int = N_SAMPLES,
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
    return explained(Problem(model, x, target, batch_size), method, n_samples, seed, progress)


def explained(
    problem: Problem, method: Method, n_samples: int = N_SAMPLES, seed: int = 0, progress: bool = False
) -> Explanation:
    """As `explain`, of a problem."""
    n_samples, seed = whole_number(n_samples, "n_samples"), whole_number(seed, "seed", least=0)
    where, surrogate = described(method.neighbourhood), described_surrogate(method.surrogate)
    here = problem.check(where, n_samples)
    method = method if here is where else replace(method, neighbourhood=here)
    shown = tqdm(desc=method.name, unit="row", delay=2, leave=False) if progress else nullcontext()
    held = method.loss.of_gradients and (surrogate.keeps_gradients or not isinstance(method.loss, Loss))
    fits: list[Part] = []
    with problem.evaluating(), shown as bar:
        for sample in samples(problem, here, n_samples, seed, "fit", bar, held, surrogate.nulls_leave):
            fit = on_all(fitted(surrogate, sample, method.loss), sample)
            fits.append(Part(sample.instances, sample.drawn, fit))
    settings = {"n_samples": n_samples, "seed": seed, "target": repr(problem.target), **here.settings()}
    return assembled(problem, method, fits, settings)


class Part(NamedTuple):
    """The fit of some instances; what it was fitted to is let go."""

    instances: Tensor
    n_samples: int
    fit: Fit


def assembled(problem: Problem, method: Method, fits: list[Part], settings: dict[str, Any]) -> Explanation:
    """The fits of all batches of instances as one explanation."""

    def whole(name: str) -> Tensor:
        """NaN where an instance has fewer features than another."""
        parts: list[tuple[Tensor, Tensor]] = [(part.instances, getattr(part.fit, name)) for part in fits]
        shape = torch.Size(max(part.shape[axis] for _, part in parts) for axis in range(1, parts[0][1].ndim))
        out = parts[0][1].new_full((len(problem.x), *shape), torch.nan)
        for instances, part in parts:
            where: list[Any] = [instances, *(slice(size) for size in part.shape[1:])]
            out[tuple(where)] = part
        return out if problem.several else out[:, 0]

    weights, standard_error, loss = whole("weights"), whole("standard_error"), whole("loss")
    n_samples = torch.zeros(len(problem.x), dtype=torch.long, device="cpu")
    degrees = torch.zeros(len(problem.x), dtype=torch.float64, device="cpu")
    for instances, drawn, fit in fits:
        n_samples[instances.cpu()] = drawn
        degrees[instances.cpu()] = torch.as_tensor(fit.degrees_of_freedom, dtype=torch.float64, device="cpu")
    d = weights.shape[-1]
    per_entry = described(method.neighbourhood).per_entry(problem.x, d)
    layout = problem.x.shape[1:] if per_entry else torch.Size([d])
    return Explanation(
        weights=weights.unflatten(-1, layout),
        intercept=whole("intercept"),
        standard_error=standard_error.unflatten(-1, layout),
        loss=loss,
        r2=1 - loss / whole("constant_loss"),
        degrees_of_freedom=degrees,
        n_samples=n_samples,
        x=problem.x,
        method=method,
        feature_names=problem.names if per_entry else None,
        settings=settings,
        _inside=Inside(
            problem, problem.several, per_entry, described_surrogate(method.surrogate).link, names=problem.names
        ),
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

"""explain(): the one place that validates, batches and seeds."""

from contextlib import nullcontext
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from locapprox.explanation import Explanation
from locapprox.method import Method
from locapprox.models import Array, Scores, Target, as_tensor, evaluation_mode, missing, whole_number
from locapprox.sampling import samples
from locapprox.streaming import Fit

PARTS = ("weights", "intercept", "standard_error", "loss", "constant_loss")


def explain(
    model: Any,
    x: Array,
    method: Method,
    n_samples: int = 1000,
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
    if not isinstance(method, Method):
        raise TypeError(f"method must be a Method such as lx.lime(), got {method!r}")
    n_samples, seed = whole_number(n_samples, "n_samples"), whole_number(seed, "seed", least=0)
    batch_size = None if batch_size is None else whole_number(batch_size, "batch_size")
    names = [str(c) for c in x.columns] if isinstance(x, pd.DataFrame) else None
    shown = tqdm(desc=method.name, unit="row", delay=2, leave=False) if progress else nullcontext()
    with torch.inference_mode(False), evaluation_mode(model), shown as bar:
        inputs = check_instances(as_tensor(x, model), names, method)
        scores = Scores(model, inputs, x, target, batch_size)
        fits = []
        held = getattr(method.surrogate, "keeps_gradients", False) and method.loss.gradient > 0
        for sample in samples(method.neighbourhood, inputs, scores, n_samples, seed, "fit", bar, held):
            fits.append((sample.instances, method.surrogate.fit(sample, method.loss)))
    whole = {name: joined(fits, name, len(inputs), scores.several) for name in PARTS}
    d = whole["weights"].shape[-1]
    per_entry = getattr(method.neighbourhood, "features", None) is None and d == inputs[0].numel()
    layout = inputs.shape[1:] if per_entry else torch.Size([d])
    return Explanation(
        weights=whole["weights"].unflatten(-1, layout),
        intercept=whole["intercept"],
        standard_error=whole["standard_error"].unflatten(-1, layout),
        loss=whole["loss"],
        r2=1 - whole["loss"] / whole["constant_loss"],
        degrees=min(fit.degrees for _, fit in fits),
        x=inputs,
        method=method.name,
        feature_names=names if per_entry else None,
        settings={
            "n_samples": n_samples,
            "seed": seed,
            "target": repr(target),
            "neighbourhood": repr(method.neighbourhood),
            "loss": repr(method.loss),
            "surrogate": repr(method.surrogate),
        },
        several=scores.several,
        per_entry=per_entry,
        link=getattr(method.surrogate, "link", "identity"),
        source=(method, model, x, target, batch_size),
    )


def joined(fits: list[tuple[Tensor, Fit]], name: str, n: int, several: bool) -> Tensor:
    """One tensor from the fits of all batches of instances; NaN where an instance has fewer features than another."""
    parts = [(instances, getattr(fit, name)) for instances, fit in fits]
    shape = torch.Size(max(part.shape[axis] for _, part in parts) for axis in range(1, parts[0][1].ndim))
    out = parts[0][1].new_full((n, *shape), torch.nan)
    for instances, part in parts:
        out[(instances, *(slice(size) for size in part.shape[1:]))] = part
    return out if several else out[:, 0]


def explain_mean(
    model: Any, x: Array, method: Method, n_samples: int = 1000, replicates: int = 10, seed: int = 0, **settings: Any
) -> tuple[Tensor, Tensor]:
    """The mean explanation over the instances, and its standard error from replicate draws.

    Instances share a draw, so their errors do not average out (the error of a mean over 100 instances is 7–8 times what
    independent draws would give) and `standard_error` cannot be combined over instances: the mean is computed on
    `replicates` draws, seeded seed, seed + 1, …, and the error taken from their spread (t with replicates − 1 degrees).
    Other settings as in `explain`.
    """
    replicates = whole_number(replicates, "replicates", least=2)
    means = [
        explain(model, x, method, n_samples, seed=seed + r, **settings).weights.nanmean(0) for r in range(replicates)
    ]
    stacked = torch.stack(means)
    return stacked.mean(0), stacked.std(0) / replicates**0.5


def check_instances(x: Tensor, names: list[str] | None, method: Method) -> Tensor:
    if x.ndim < 2:
        raise ValueError(f"x needs a batch axis first: got shape {tuple(x.shape)}; pass x[None] for one instance")
    if x.numel() == 0:
        raise ValueError(f"x is empty: shape {tuple(x.shape)}")
    where = missing(x, names)
    if where and not getattr(method.neighbourhood, "removes_missing", False):
        raise ValueError(f"x has NaN or infinite values in feature(s) {where}; fill them in first")
    getattr(method.neighbourhood, "check", lambda x: None)(x)
    return x

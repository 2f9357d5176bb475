"""Anything that explains: functions, other people's numbers, and what evaluations take."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from locapprox._explain import N_SAMPLES, explained
from locapprox._explanation import Explanation, Inside
from locapprox._method import Method
from locapprox._names import aligned, index_of, names_of
from locapprox._notices import errors_unsaid
from locapprox._parts import Concise
from locapprox._problem import Problem
from locapprox.fit.surrogates import described_surrogate
from locapprox.models.inputs import Array, as_numbers
from locapprox.models.scores import NoGradientError
from locapprox.neighbourhoods.base import BaseNeighbourhood, described


@dataclass(frozen=True, eq=False, repr=False)
class Explainer(Concise):
    """A function (model, x, target) -> maps laid out like x, of whatever kind.

    `is_function_approximation` is False for maps that are not weights of a surrogate of the model (guided
    backpropagation, an edge detector): `faithfulness` refuses those. `like` is the Method whose units the maps have:
    one on an additive neighbourhood for slopes (Saliency), one on a multiplicative for contributions (Integrated
    Gradients, with its baseline).
    """

    name: str
    function: Callable[[Any, Any, Any], Any]
    is_function_approximation: bool = True
    like: Method | None = None

    def __post_init__(self) -> None:
        if not callable(self.function) or not isinstance(self.is_function_approximation, bool):
            raise TypeError(f"Explainer(name, function, is_function_approximation, like): got {self!r}")

    def __call__(self, model: Any, x: Array, target: Any = None) -> Tensor:
        """Maps of x's shape. Raises ValueError naming the explainer if it fails or they are not."""
        try:
            given = self.function(model, x, target)
        except Exception as error:
            raise ValueError(f"explainer {self.name!r} failed: {type(error).__name__}: {error}") from error
        try:
            maps = as_numbers(aligned(given, names_of(x), index_of(x), "maps"), "maps")
        except TypeError as error:
            raise TypeError(
                f"explainer {self.name!r} must return maps of numbers, got {type(given).__name__}"
            ) from error
        if tuple(maps.shape) != tuple(np.shape(x)):
            raise ValueError(
                f"explainer {self.name!r} must return maps of x's shape {tuple(np.shape(x))}, got {tuple(maps.shape)}"
            )
        return maps


def as_explanation(values: Any, x: Array, like: Method, *, name: str = "given", intercept: Any = None) -> Explanation:
    """Anybody's numbers as an Explanation with the placement whose units they have.

    Main arguments:
        values: one weight per feature of `like`, (instances, d), or maps laid out like x, with one value on all entries
            of a feature.
        like: the Method in whose units the values are: `lx.kernel_shap(baseline=b)` for contributions f(x) − f(b)
            (shap's values, Integrated Gradients), `lx.smoothgrad()` for slopes (captum's Saliency).

    Other arguments:
        intercept: of the surrogate w · ξ + intercept, one per instance; NaN if it is not known. Then the surrogate does
            not predict, but `faithfulness` refits it.

    A DataFrame's rows and columns are put into the order of x's, or refused if they are others. Errors, loss and r2 are
    NaN: nobody knows them. Raises ValueError or TypeError naming what does not fit.
    """
    if not isinstance(like, Method):
        raise TypeError(f"like must be the Method whose units the values have, such as lx.kernel_shap(); got {like!r}")
    problem, where = Problem(None, x), described(like.neighbourhood)
    here = problem.check(where)
    like, where = like if here is where else replace(like, neighbourhood=here), here
    inputs, b = problem.x, len(problem.x)
    maps = isinstance(values, pd.DataFrame) and values.shape == inputs.shape  # or its columns are features
    weights = _weights(aligned(values, problem.names if maps else None, problem.index, "values"), inputs, where)
    per_entry = where.per_entry(inputs, inputs[0].numel())
    unknown = torch.full((b,), torch.nan, dtype=torch.float64, device=inputs.device)
    try:
        constant = unknown if intercept is None else _float64(intercept, inputs, "intercept").expand(b).clone()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"intercept must be a number, or one for each of {b} instances; got {intercept!r}") from error
    return Explanation(
        weights=weights,
        intercept=constant,
        standard_error=torch.full_like(weights, torch.nan),
        loss=unknown,
        r2=unknown,
        degrees_of_freedom=unknown.cpu(),
        n_samples=torch.zeros(b, dtype=torch.long, device="cpu"),
        x=inputs,
        method=replace(like, name=name),
        feature_names=problem.names if per_entry else None,
        settings={"n_samples": 0, "seed": 0, "target": "None"},
        _inside=Inside(None, False, per_entry, described_surrogate(like.surrogate).link, names=problem.names),
    )


def _weights(values: Any, x: Tensor, where: BaseNeighbourhood) -> Tensor:
    """(b, d) or x's shape: one weight per feature, from such or from maps laid out like x."""
    weights = _float64(values, x, "values")
    per_entry, maps = where.per_entry(x, x[0].numel()), weights.shape == x.shape
    if not maps and (per_entry or weights.ndim != 2 or len(weights) != len(x)):
        raise ValueError(
            f"values have shape {tuple(weights.shape)}, x {tuple(x.shape)}: give maps of x's shape, or one weight "
            "per instance and feature"
        )
    on_input = weights if maps else where.on_input(x, weights.unsqueeze(1))[:, 0]
    if not bool(torch.isfinite(on_input).all()):
        raise ValueError("values have NaN or infinite numbers")
    if per_entry:
        return weights
    by_feature = where.from_input(x, on_input)  # NaN pads instances with fewer features
    if maps:
        return by_feature
    return weights.where(by_feature.isfinite(), torch.nan) if by_feature.shape == weights.shape else weights


def _float64(values: Any, like: Tensor, name: str) -> Tensor:
    """A copy."""
    return as_numbers(values, name).to(like.device, torch.float64)


def named(parts: Any, argument: str) -> dict[str, Any]:
    """One part or several by name: a dict as it is; Methods, Explainers and Explanations by their names."""
    if isinstance(parts, Mapping):
        out = dict(parts)
    else:
        several = parts if isinstance(parts, Sequence) and not isinstance(parts, str | Explanation) else [parts]
        names = [_name(part, argument) for part in several]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{argument} has several of the name {', '.join(twice)}; give a dict of names")
        out = dict(zip(names, several, strict=True))
    if not out:
        raise ValueError(f"{argument} is empty")
    return out


def _name(part: Any, argument: str) -> str:
    if isinstance(part, Explanation):
        return part.method.name
    if isinstance(part, Method | Explainer):
        return part.name
    if isinstance(part, Tensor | np.ndarray):
        return "given"
    raise TypeError(
        f"{argument} must be a Method, an Explanation, an Explainer or an array, a list of them or a dict of names; "
        f"got {part!r:.80}"
    )


@contextmanager
def naming(what: str, name: str) -> Iterator[None]:
    """Errors say which part they are about."""
    try:
        yield
    except (TypeError, ValueError) as error:
        kind = next(kind for kind in (NoGradientError, TypeError, ValueError) if isinstance(error, kind))
        raise kind(f"{what} {name!r}: {error}") from error


def as_explanation_of(
    problem: Problem, name: str, part: Any, n_samples: int, seed: int, like: Method | None
) -> Explanation:
    """A part's explanation of the problem: a Method fitted, an Explainer's and arrays in the units of a Method."""
    if isinstance(part, Explanation):
        return part
    if isinstance(part, Method):
        with errors_unsaid():
            return explained(problem, part, n_samples, seed)
    if isinstance(part, Explainer) and not part.is_function_approximation:
        raise TypeError("its maps approximate no function, so they have no surrogate error")
    if isinstance(part, Explainer):
        like, part = part.like or like, _asked(part, problem)
    elif not isinstance(part, Tensor | np.ndarray):
        raise TypeError(f"methods must be Methods, Explanations, Explainers or arrays, got {part!r}")
    if like is None:
        raise TypeError(
            "nothing says what its numbers are weights of: name the Method whose units they have, by "
            "lx.as_explanation(values, x, like=…), Explainer(…, like=…) or the argument like="
        )
    return as_explanation(part, problem.given, like, name=name)


def as_maps(
    parts: Mapping[str, Any], problem: Problem | None, n_samples: int = N_SAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Every part as numbers for each instance: Explanations and arrays as they are, others asked about the problem."""
    out = {}
    for name, part in parts.items():
        if isinstance(part, Method | Explainer) and problem is None:
            raise TypeError(f"{name!r} is a {type(part).__name__}: to run it the model is needed (model=, target=)")
        with naming("method", name):
            if isinstance(part, Method) and problem is not None:
                with errors_unsaid():
                    part = explained(problem, part, n_samples, seed)
            elif isinstance(part, Explainer) and problem is not None:
                part = _asked(part, problem)
        out[name] = part
    return out


def _asked(explainer: Explainer, problem: Problem) -> Tensor:
    with problem.evaluating():
        return explainer(problem.model, problem.given, problem.target)

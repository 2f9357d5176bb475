"""Explanations of some instances each, as one."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from locapprox._explanation import Explanation
from locapprox._files import ARRAYS
from locapprox._parts import alike
from locapprox.neighbourhoods.base import Neighbourhood


def concat(explanations: Iterable[Explanation]) -> Explanation:
    """One explanation of the instances of several, in their order; all by one method, of inputs of one shape.

    What differs between their settings becomes None. Raises ValueError naming what cannot be joined.
    """
    if isinstance(explanations, Explanation) or not isinstance(explanations, Iterable):
        raise TypeError(f"explanations must be a list of Explanations, got {type(explanations).__name__}")
    explanations = list(explanations)
    if not explanations:
        raise ValueError("explanations is empty")
    wrong = [type(e).__name__ for e in explanations if not isinstance(e, Explanation)]
    if wrong:
        raise TypeError(f"explanations must be Explanations, got {', '.join(wrong)}")
    first, others = explanations[0], explanations[1:]
    for e in others:
        same = {
            "methods": e.method.name == first.method.name and alike(e.method.surrogate, first.method.surrogate),
            "losses": e.method.loss == first.method.loss,
            "names of features": e._inside.names == first._inside.names,
            "scores": e.intercept.shape[1:] == first.intercept.shape[1:],
            "inputs": e.x.shape[1:] == first.x.shape[1:] and e._inside.per_entry == first._inside.per_entry,
        }
        if not all(same.values()):
            raise ValueError(f"explanations differ in their {', '.join(k for k, v in same.items() if not v)}")
    d = max(e.weights.shape[-1] for e in explanations)

    def joined(name: str) -> Tensor:
        parts = [getattr(e, name) for e in explanations]
        if name in ("weights", "standard_error") and not first._inside.per_entry:
            parts = [torch.nn.functional.pad(part, (0, d - part.shape[-1]), value=torch.nan) for part in parts]
        return torch.cat(parts)

    inside, problems = first._inside, [e._inside.problem for e in explanations]
    live = [p for p in problems if p is not None]
    affine = [e._inside.affine for e in explanations if e._inside.affine is not None]
    return replace(
        first,
        **{name: joined(name) for name in (*ARRAYS, "x")},  # type: ignore[arg-type]
        method=replace(first.method, neighbourhood=_joined_neighbourhood(explanations)),
        settings={name: _joined_setting([e.settings.get(name) for e in explanations]) for name in first.settings},
        _inside=replace(
            inside,
            problem=live[0].joined(live[1:]) if len(live) == len(problems) else None,
            affine=_cat(affine) if len(affine) == len(explanations) else None,
        ),
    )


def _joined_setting(values: Sequence[Any]) -> Any:
    """Lists have one for each instance."""
    if all(isinstance(value, list) for value in values):
        return [one for value in values for one in value]
    return values[0] if all(value == values[0] for value in values) else None


def _cat(affine: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.cat([slopes for slopes, _ in affine]), torch.cat([origin for _, origin in affine])


def _joined_neighbourhood(explanations: Sequence[Explanation]) -> Neighbourhood:
    """The first one's own object if it holds nothing for single instances."""
    first, others = explanations[0], explanations[1:]
    whole = first._where.joined(first.x, [e._where for e in others])
    return first.method.neighbourhood if whole is first._where else whole

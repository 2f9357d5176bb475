"""Between the features of an instance and what is drawn: null players have no entry of ξ, and ξ may have an origin."""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from locapprox.fit.result import Fit
from locapprox.fit.sampling import Sample
from locapprox.neighbourhoods.base import NULL


def features(sample: Sample) -> int:
    """Of an instance, drawn or not."""
    return sample.d if sample.places is None else sample.places.shape[1]


def on_all(fit: Fit, sample: Sample) -> Fit:
    """The fit with weight 0 ± 0 of null players, by the dummy axiom, and NaN where an instance has no such feature; its
    intercept in ξ."""
    if sample.origin is not None:
        shift = (fit.weights @ sample.origin.to(fit.weights)[..., None]).squeeze(-1)
        fit = replace(fit, intercept=fit.intercept - shift)
    if sample.places is None:
        return fit
    weights, error = (lifted(part, sample.places) for part in (fit.weights, fit.standard_error))
    return replace(fit, weights=weights, standard_error=error)


def lifted(drawn: Float[Tensor, "b k e"], places: Int[Tensor, "b d"]) -> Float[Tensor, "b k d"]:
    """From entries of ξ to features: 0 for null players, NaN for what is no feature of an instance."""
    where = places[:, None].expand(-1, drawn.shape[1], -1)
    other = torch.where(where == NULL, 0.0, torch.nan).to(drawn)
    return torch.where(where >= 0, drawn.gather(2, where.clamp_min(0)), other)


def of_drawn(weights: Float[Tensor, "b k d"], sample: Sample) -> Float[Tensor, "b k e"]:
    """The weights of the features that are drawn."""
    if sample.places is None:
        return weights[..., : sample.d]
    d = sample.places.shape[1]
    where = sample.places[:, None].expand(-1, weights.shape[1], -1)
    known = torch.where(where >= 0, weights[..., :d], 0.0)
    return known.new_zeros(*known.shape[:2], sample.d).scatter_add(2, where.clamp_min(0), known)


def width(weights: Tensor) -> int:
    """Features of the instance that has most: what follows is padding."""
    known = (~weights.isnan()).flatten(0, -2).any(0).nonzero()
    return int(known.max()) + 1 if len(known) else weights.shape[-1]

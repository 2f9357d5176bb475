"""What a standard error rests on: where it rests on too little, it is NaN, and a warning says why.

A spread is seen in the units of the draw that make it. If unit u moves an estimate by δ_u, Σ δ² / max δ² and
(Σ δ²)² / Σ δ⁴ count the units that carry the error: q for a kink that q of the draws meet, few at any n where tails are
heavy. Draws that all tell the same know nothing of kinks and steps that fewer than 3 in n of them would meet.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from locapprox._notices import warn_of_errors
from locapprox.fit.sampling import Sample

SHOWN = 5  # instances named in a warning
MOST_UNSEEN = 39  # nodes below which kinks hide each other: of ReLU networks 10 cover .78–.95, 20 .87–.95, 50 .92–.96


def needed(units: int) -> float:
    """Of (Σ c)² / Σ c², c the squared influence of a unit: few of few, four from 80 on, ten from 1,000 on."""
    return max(2.5, min(4.0, units / 20), min(10.0, units / 100))


def needed_of_each(units: int) -> float:
    """Of Σ δ² / max δ², δ the share of a unit in a mean gradient: fifteen from 1,200 units on."""
    return max(2.5, min(15.0, units / 80))


class Estimate(NamedTuple):
    """Standard errors of θ (of the weights, where the intercept's is not known), the loss, the t's degrees.

    `carriers`: units that carry the error, for every weight or for all of them; 0 where none moved anything, NaN if not
    known. Below `least` of them the error is not known.
    """

    standard_error: Float[Tensor, "*b p"]
    loss: Float[Tensor, "*b"]
    degrees_of_freedom: float
    carriers: Float[Tensor, "*b q"] | None = None
    least: float = 0.0

    def of(self, shape: tuple[int, int]) -> "Estimate":
        """Of b instances and k scores, where there were b k problems."""
        parts = {name: part.unflatten(0, shape) for name, part in self._asdict().items() if isinstance(part, Tensor)}
        return self._replace(**parts)


def carriers(total: Tensor, largest: Tensor) -> Tensor:
    """Σ δ² / max δ², 0 where no unit moved anything."""
    return torch.where(largest > 0, total / largest, 0.0)


def known(estimate: Estimate, units: int, sample: Sample) -> Float[Tensor, "b k p"]:
    """The standard errors, NaN where too few units carry them; a warning each where none does and where few do."""
    error, carry = estimate.standard_error, estimate.carriers
    if carry is None or units == 0:
        return error
    if not bool((carry < max(estimate.least, 1.0)).any()):  # a unit that moves anything counts 1 or more
        return error
    still, few = (carry == 0).expand_as(error), (carry < estimate.least).expand_as(error)
    if sample.places is not None:  # what nothing moves has no error
        still = still & (sample.places >= 0).any(1)[:, None, None]
    few = few & ~still & (error > 0)  # a weight that is held at a value has an error of 0
    if bool(still.any()):
        warn_of_errors(
            f"f is linear, but for round-off, over all {units} draws of {named(still, sample)} (or constant, or its "
            "gradient is, in some feature). Weights are right if it is so everywhere there, but of kinks and steps "
            f"that fewer than 3 in {units} draws meet nothing is known, so standard errors are NaN: use more "
            "n_samples or a wider neighbourhood to look for them"
        )
    if bool(few.any()):
        warn_of_errors(
            f"a few of the {units} draws make most of the spread of f around {named(few, sample)} (rare kinks or "
            "steps, heavy tails, or a small n_samples), too few for an error: standard errors there are NaN. Use more "
            "n_samples, a wider neighbourhood, or explain a bounded output (a probability, log f)"
        )
    return torch.where(still | few, torch.nan, error)


def half_width(
    error: Float[Tensor, "b k d"], degrees: Float[Tensor, " b"], level: float, simultaneous: bool | str
) -> Float[Tensor, "b k d"]:
    """Of intervals by Student's t that cover one weight, or (Bonferroni) all of an instance and score, or of the batch,
    with the probability `level`; weights that are not known, or are exact, do not count."""
    from scipy.special import stdtrit

    axes = {False: (), True: (2,), "features": (2,), "all": (0, 1, 2)}
    if simultaneous not in axes:
        raise ValueError(f'simultaneous must be False, True, "features" or "all", got {simultaneous!r}')
    together = axes[simultaneous]
    count = (error > 0).sum(together, keepdim=True).clamp_min(1) if together else torch.ones_like(error[..., :1])
    beyond = (1 - level) / 2 / count.double()
    return torch.from_numpy(-stdtrit(degrees.numpy()[:, None, None], beyond.cpu().numpy())).to(error) * error


def resolved(error: Tensor, smooth: Tensor, nodes: int, sample: Sample) -> Tensor:
    """Errors of a quadrature, NaN with a warning where f is not smooth between few nodes."""
    if nodes >= MOST_UNSEEN or bool(smooth.all()):
        return error
    warn_of_errors(
        f"f has kinks between the {nodes} nodes of the quadrature around {named(~smooth, sample)}, more perhaps than "
        f"so few show: standard errors there are NaN. Use n_samples ≥ {MOST_UNSEEN}"
    )
    return torch.where(smooth, error, torch.nan)


def named(lost: Tensor, sample: Sample) -> str:
    """The instances of which something is lost."""
    which = sample.instances.cpu()[lost.flatten(1).any(1).cpu()].tolist()
    more = f" and {len(which) - SHOWN} more" if len(which) > SHOWN else ""
    return f"instance{'s' if len(which) > 1 else ''} {', '.join(map(str, which[:SHOWN]))}{more}"

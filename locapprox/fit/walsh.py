"""A surrogate of the odd part of f under complementary masks: Shapley values from fewer evaluations."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from locapprox._memory import require_memory
from locapprox._notices import warn_of_errors
from locapprox._parts import Concise
from locapprox.fit.evidence import Estimate, known, needed
from locapprox.fit.length_scales import most_likely
from locapprox.fit.losses import Loss, RowLoss, SquaredError
from locapprox.fit.odd import Left, Process
from locapprox.fit.pairs import Pairs, pairs
from locapprox.fit.result import Fit
from locapprox.fit.sampling import Sample
from locapprox.fit.surrogates import BaseSurrogate, Linear
from locapprox.neighbourhoods.base import BaseNeighbourhood
from locapprox.neighbourhoods.masks import ShapleyMasks
from locapprox.neighbourhoods.placements import Multiplicative

THETA = (0.0125, 0.025, 0.05, 0.1, 0.2, 0.4)
LINEAR = 10.0  # the share s of the linear term
LEAST = 3  # pairs for each parameter that was estimated, or errors are not known
ROUND_OFF = 1e-9  # of the largest u: what smaller residuals are
CHOSEN_ON = 1024  # pairs that choose θ
LIKELIHOOD_ON = 512  # pairs in the marginal likelihood


@dataclass(frozen=True, repr=False)
class Walsh(Concise, BaseSurrogate):
    """Shapley values by a Gaussian process on the odd part of f, for SquaredError on the masks of `ShapleyMasks`.

    Shapley values depend on u(S) = (v(S) − v(Sᶜ)) / 2 alone. u is taken as a draw of a process of odd functions
    (`fit/odd`): a linear term and sinh(Σ θ_i χ_i χ′_i), χ = ±1, in which interactions of 3, 5, … features fade with
    tanh θ of each. Given u at the pairs of masks that were drawn, its mean interpolates them, and the weights are the
    Shapley values of that mean, in closed form: the linear g that minimises the Shapley kernel's loss on all 2ᵈ masks,
    estimated with a richer one. θ → 0 is `Linear`. The weights sum to f(x) − f(baseline) exactly.

    θ is one of six numbers, the one whose leave-one-out error is least for the instance and score; with `per_feature`
    also a θ for each feature, by marginal likelihood (a Cholesky factorisation of up to 512 pairs for each of some 20
    steps and every instance), if its leave-one-out error is less still.

    `loss` and `r2` are those of the linear g, every sampled pair left out in turn, as of `Linear`. Standard errors are
    the process' own, in a scale from the residuals of pairs left out: their mean square, or that by their influence on
    the weight if it is larger, times m / (m − q) for m pairs, q = d / 2, or 2d with a θ for each feature, for what was
    estimated. 95 % intervals covered .92 to .99 in the trials that q was chosen by (networks and boosted trees of 12 to
    23 features), all weights together, and up to .99 where nearly all masks are drawn. NaN, with a warning, below
    m = 3d, or 6d.
    """

    per_feature: bool = True

    nulls_leave = True

    def check_loss(self, loss: RowLoss) -> None:
        if not isinstance(loss, Loss) or loss != SquaredError():
            raise TypeError(f"surrogate Walsh minimises SquaredError(), not the {loss.name}: use Linear()")

    def check_neighbourhood(self, neighbourhood: BaseNeighbourhood) -> None:
        where = neighbourhood
        if not isinstance(where, Multiplicative) or not isinstance(where.distribution, ShapleyMasks) or where.kernel:
            raise TypeError(
                "surrogate Walsh is for Shapley values, on the neighbourhood of kernel_shap(): "
                f"Multiplicative(ShapleyMasks(), …) without a kernel; got {neighbourhood!r}. Use Linear()"
            )

    def fit(self, sample: Sample, loss: Any) -> Fit:
        self.check_neighbourhood(sample.neighbourhood)
        blocks = list(sample.blocks())
        units = sum(block.units for block in blocks)
        if units == 0:  # an enumeration
            return Linear().fit(sample, loss)
        m = sum(len(block.xi) for block in blocks) // 2
        way_out = "use fewer n_samples, or Linear()"
        require_memory(6 * m**2, f"a process through {m} pairs of masks", sample.x.device, way_out)
        whole = pairs(sample, blocks)
        drawn, size = whole.scaled()
        weights, error = (drawn.odd.new_empty(len(drawn.odd), sample.d) for _ in range(2))
        mean_loss, carriers = (torch.empty_like(size) for _ in range(2))
        for process, i in processes(drawn, self.per_feature):
            weights[i], error[i], mean_loss[i, 0], carriers[i, 0] = shapley_values(process, drawn, i)
        degrees = float(max(1, len(drawn.chi) - 1 - sample.d))
        estimate = Estimate(error * size, (mean_loss * size.square())[:, 0], degrees, carriers, needed(units))
        if bool(error.isnan().any()):
            warn_of_errors(
                f"n_samples is small: {len(drawn.chi) - 1} different pairs of masks are too few for standard errors "
                f"of some instances: NaN. Use n_samples ≥ {(13 if self.per_feature else 7) * sample.d}"
            )
        estimate, shape = estimate.of((len(sample.x), sample.k)), (len(sample.x), sample.k)
        return Fit(
            (weights * size).unflatten(0, shape),
            (whole.even - whole.odd)[:, 0].unflatten(0, shape),
            known(estimate, units, sample),
            estimate.loss,
            whole.constant_loss().unflatten(0, shape),
            degrees,
        )


def processes(drawn: Pairs, per_feature: bool) -> Iterator[tuple[Process, Int[Tensor, " i"]]]:
    """The process whose leave-one-out error is least, and the problems that it is for."""
    some = drawn.some(CHOSEN_ON)
    few = some.some(LIKELIHOOD_ON)

    def left_out(process: Process, odd: Tensor) -> Tensor:
        return some.mean(process.fit(some.chi, some.noise, odd).residual.square())

    shared = [Process(torch.full_like(drawn.chi[0], theta), LINEAR) for theta in THETA]
    least, which = torch.stack([left_out(process, some.odd) for process in shared]).min(0)
    for i in (least > 0).nonzero()[:, 0] if per_feature else ():
        own = most_likely(few.chi, few.noise, few.odd[i], shared[int(which[i])])
        if bool(left_out(own, some.odd[i][None]) < least[i]):
            which[i] = -1
            yield own, i[None]
    for j, process in enumerate(shared):
        if bool((which == j).any()):
            yield process, (which == j).nonzero()[:, 0]


def shapley_values(process: Process, drawn: Pairs, i: Int[Tensor, " i"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of problems i: the weights, their errors, the loss of the linear g, and how many pairs carry the errors."""
    odd, even, d = drawn.odd[i], drawn.even[i], len(process.theta)
    left = process.fit(drawn.chi, drawn.noise, odd)
    weights = left.shapley + (2 * odd[:, :1] - left.shapley.sum(1, keepdim=True)) / d  # round-off
    leverage = torch.where(drawn.fixed, 0.0, (drawn.chi * left.influence.mT).sum(1) / 2)
    residual = odd - weights @ drawn.chi.mT / 2 + leverage * left.residual
    error, carriers = errors(process, left, odd, drawn)
    return weights, error, drawn.mean(residual.square() + even.square()), carriers


def errors(process: Process, left: Left, odd: Float[Tensor, "i m"], drawn: Pairs) -> tuple[Tensor, Tensor]:
    """See `Walsh`."""
    square, influence = left.residual[:, 1:].square(), left.influence[:, 1:].square()
    precision, (m, d) = left.precision[1:], drawn.chi[1:].shape
    each = (square * precision).mean(1, keepdim=True)
    own = square @ influence.mT / (influence / precision).sum(1)
    scales = len(process.theta.unique())
    factor = m / (m - (d + 3 * scales) / 2) if m > LEAST * (d + scales) else torch.nan
    variance = torch.maximum(each, own) * left.variance * factor
    share = square * influence.sum(0)
    carriers = share.sum(1).square() / share.square().sum(1)
    still = square.amax(1) <= (ROUND_OFF * odd.abs().amax(1)).square()
    return variance.sqrt(), torch.where(still, 0.0, carriers)

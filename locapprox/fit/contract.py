"""What a surrogate must do, checked."""

from typing import Any

import torch
from torch import Tensor

from locapprox._parts import OURS, calling
from locapprox._problem import Problem
from locapprox.fit.losses import GradientMatching, Loss, RowLoss, SquaredError
from locapprox.fit.result import Fit
from locapprox.fit.sampling import Sample, samples
from locapprox.fit.surrogates import BaseSurrogate, DescribedSurrogate, Surrogate, described_surrogate
from locapprox.neighbourhoods.base import BaseNeighbourhood
from locapprox.neighbourhoods.contract import ContractError, global_state, require
from locapprox.neighbourhoods.distributions import Normal
from locapprox.neighbourhoods.kernels import ExponentialKernel
from locapprox.neighbourhoods.masks import ShapleyMasks
from locapprox.neighbourhoods.placements import Additive, Multiplicative

INSTANCES, FEATURES, SCORES, ROWS = 3, 4, 2, 1500
NOISE = Additive(Normal(0.5), ExponentialKernel(1.5))


def check_surrogate(surrogate: Surrogate) -> None:
    """Raise ValueError naming the first clause of the contract that the surrogate breaks.

    It is fitted to two probabilities, sigmoids of a line with a wiggle, in weighted Gaussian noise of several blocks.
    `fit` returns an lx.Fit of the shapes (instances, scores, features), float64; its numbers are finite, errors and
    losses not negative (or NaN: unknown); it gives the same again, and for an instance alone what it gives among
    others; the constant's loss is the weighted variance of f; global random state stays as it was. Under gradient
    matching the same, and on coalitions the empty and the full one are interpolated; or a ValueError or TypeError says
    that it cannot.
    """
    require(callable(getattr(surrogate, "fit", None)), "a surrogate needs a method fit", "surrogate")
    _check_fit(surrogate, SquaredError())
    _check_exact(surrogate)
    try:
        _fitted(surrogate, GradientMatching(), slice(0, 1))
    except ContractError:
        raise
    except (TypeError, ValueError):
        return
    _check_fit(surrogate, GradientMatching())


def _model(x: Tensor) -> Tensor:
    slopes = torch.tensor([[1.0, -0.5, 0.3, 0.0], [0.0, 0.8, -0.2, 0.4]], dtype=x.dtype, device=x.device)
    return torch.sigmoid(x @ slopes.mT + 0.1 * torch.sin(3 * x[:, :1]))


def _sample(instances: slice, where: BaseNeighbourhood = NOISE) -> Sample:
    x = torch.linspace(-1, 1, INSTANCES * FEATURES, dtype=torch.float64, device="cpu")
    x = x.reshape(INSTANCES, FEATURES)[instances]
    problem = Problem(_model, x, range(SCORES))
    return next(samples(problem, where, ROWS, 0, "fit"))


def _fitted(surrogate: Surrogate, loss: Loss, instances: slice) -> Fit:
    sample = _sample(instances)
    fit = fitted(described_surrogate(surrogate), sample, loss)
    _check_numbers(fit, sample)
    return fit


def fitted(surrogate: BaseSurrogate, sample: Sample, loss: RowLoss) -> Fit:
    """The surrogate's fit of a sample, held to the contract if it is a user's; what fails says whose it is."""
    with calling(f"{surrogate.kind}.fit"):
        fit: Any = surrogate.fit(sample, loss)
    if not type(surrogate).__module__.startswith(OURS) or isinstance(surrogate, DescribedSurrogate):
        _check_numbers(fit, sample, f"surrogate {surrogate.kind}")
    return fit  # type: ignore[no-any-return]


def _check_numbers(fit: Any, sample: Sample, whose: str = "surrogate") -> None:
    require(isinstance(fit, Fit), f"fit must return an lx.Fit, got {type(fit).__name__}", whose)
    b, k, d = len(sample.x), sample.k, sample.d
    shapes = {"weights": (b, k, d), "standard_error": (b, k, d), "intercept": (b, k), "loss": (b, k)}
    for name, shape in {**shapes, "constant_loss": (b, k)}.items():
        part = getattr(fit, name)
        require(isinstance(part, Tensor), f"{name} must be a tensor, got {type(part).__name__}", whose)
        require(tuple(part.shape) == shape, f"{name} must be {shape}, got {tuple(part.shape)}", whose)
        require(part.dtype == sample.dtype, f"{name} must be {sample.dtype}, got {part.dtype}", whose)
    require(fit.weights.isfinite().all() and fit.intercept.isfinite().all(), "weights are finite", whose)
    for name in ("standard_error", "loss", "constant_loss"):
        require(not (getattr(fit, name) < 0).any(), f"{name} must not be negative", whose)


def _check_fit(surrogate: Surrogate, loss: Loss) -> None:
    before = global_state()
    fit = _fitted(surrogate, loss, slice(None))
    again, alone = _fitted(surrogate, loss, slice(None)), _fitted(surrogate, loss, slice(1, 2))
    repeated = torch.allclose(fit.weights, again.weights, rtol=1e-9, atol=1e-11)  # LAPACK's round-off is of the day
    require(repeated, "the same sample must give the same fit", "surrogate")
    same = torch.allclose(fit.weights[1:2], alone.weights, rtol=1e-5, atol=1e-6)
    require(same, "an instance alone must be fitted as among others", "surrogate")
    require(global_state() == before, "fit must not touch the global random state", "surrogate")
    if loss == SquaredError():
        sample = _sample(slice(None))
        y = torch.cat([sample.values(block)[1] for block in sample.blocks()], -1)
        weight = torch.cat([block.weight for block in sample.blocks()], -1)[:, None]
        mean = (weight * y).sum(-1, keepdim=True) / weight.sum(-1, keepdim=True)
        variance = (weight * (y - mean).square()).sum(-1) / weight.sum(-1)
        right = torch.allclose(fit.constant_loss, variance, rtol=1e-6)
        require(right, "constant_loss must be the loss of the best constant, the weighted variance of f", "surrogate")


def _check_exact(surrogate: Surrogate) -> None:
    """Rows to interpolate are met, or refused."""
    sample = _sample(slice(None), Multiplicative(ShapleyMasks()))
    try:
        fit = surrogate.fit(sample, SquaredError())
    except (TypeError, ValueError):
        return
    block = next(iter(sample.blocks()))
    eta = fit.weights @ block.exact.mT + fit.intercept[..., None]
    met = torch.allclose(described_surrogate(surrogate).link(eta)[0], sample.values(block)[0], atol=1e-5)
    require(met, "rows to interpolate (block.exact) must be met, or fit must raise ValueError", "surrogate")

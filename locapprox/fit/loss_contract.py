"""What a loss must do, checked."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from locapprox._parts import OURS, calling
from locapprox.fit.links import LOGISTIC
from locapprox.fit.losses import BaseLoss, GradientMatching, Loss, OnGradients, RowLoss, SquaredError
from locapprox.neighbourhoods.contract import require

QUADRATIC = (Loss, SquaredError, GradientMatching)
STEP = 1e-4  # of finite differences, a share of the residual
POINTS = 31


def check_loss(loss: Any) -> None:
    """Raise ValueError naming the first clause of the contract that the loss breaks.

    `rho` returns ρ, ρ′ and ρ″ of every entry alone, of the residual's shape, dtype and device, finite for residuals
    from ±10⁻³ to ±10⁶; ρ(0) = 0 is its least value; ρ is convex (ρ′ never falls, ρ″ ≥ 0); ρ′ and ρ″ are its
    derivatives, by finite differences. For `CrossEntropy` the same of its terms in η.
    """
    if isinstance(loss, OnGradients):
        return check_loss(loss.of)
    size = torch.logspace(-3, 6, POINTS, dtype=torch.float64, device="cpu")
    if isinstance(loss, BaseLoss):
        residual = torch.cat([-size.flip(0), torch.zeros_like(size[:1]), size])
        _check_shapes(loss, residual)
        at_zero = _rho(loss, torch.zeros_like(size[:1]))
        require(at_zero[0] == 0, f"ρ(0) must be 0, got {float(at_zero[0]):.3g}", "loss")
        _check_derivatives(lambda r: _rho(loss, r), residual)
        rho = _rho(loss, residual)[0]
        return require((rho >= 0).all(), "ρ(0) = 0 must be the least value of ρ", "loss")
    require(isinstance(loss, RowLoss), f"a loss derives from lx.BaseLoss, got {loss!r}", "loss")
    eta = torch.linspace(-9, 9, POINTS, dtype=torch.float64, device="cpu")
    for y in (0.0, 0.3, 1.0):
        _check_derivatives(lambda eta, y=y: _of_eta(loss, eta, y), eta)  # type: ignore[misc]
    return None


def checked_loss(given: Any) -> RowLoss:
    """The loss, held to its contract if it is a user's; TypeError for what is none."""
    if not isinstance(given, RowLoss):
        raise TypeError(
            "loss must be SquaredError(), GradientMatching() or a sum of them, another loss of the library, or your "
            f"own that derives from lx.BaseLoss; got {given!r}"
        )
    if isinstance(given, Loss) and type(given) not in QUADRATIC:
        raise TypeError(
            f"loss {type(given).__name__} derives from lx.Loss, which is quadratic whatever it overrides: derive from "
            "lx.BaseLoss and write rho"
        )
    if not type(given).__module__.startswith(OURS):
        check_loss(given)
    return given


def _rho(loss: BaseLoss, residual: Tensor) -> Any:
    with calling(f"{type(loss).__name__}.rho"):
        return loss.rho(residual)


def _of_eta(loss: RowLoss, eta: Tensor, y: float) -> tuple[Tensor, Tensor, Tensor]:
    terms = loss.terms(torch.full_like(eta, y), eta, LOGISTIC)
    return terms.loss, -2 * terms.score(torch.ones_like(eta)), 2 * terms.curvature


def _check_shapes(loss: BaseLoss, residual: Tensor) -> None:
    for dtype in (torch.float64, torch.float32):
        rows = residual.to(dtype)
        given: Any = _rho(loss, rows)
        three = isinstance(given, tuple) and len(given) == 3
        require(three, f"rho must return the tuple (ρ, ρ′, ρ″), got {type(given).__name__}", "loss")
        table = _rho(loss, rows[1:].reshape(2, -1))
        for name, part, of_table in zip(("ρ", "ρ′", "ρ″"), given, table, strict=True):
            require(isinstance(part, Tensor), f"{name} must be a tensor, got {type(part).__name__}", "loss")
            same = part.shape == rows.shape and part.dtype == dtype and part.device == rows.device
            kind = f"{tuple(part.shape)} of {part.dtype} on {part.device}"
            require(same, f"{name} must have the residual's shape, dtype and device; got {kind}", "loss")
            require(part.isfinite().all(), f"{name} must be finite for residuals from ±1e-3 to ±1e6", "loss")
            alone = of_table.shape == (2, len(rows) // 2) and torch.allclose(of_table.flatten(), part[1:])
            require(alone, f"{name} of a residual must not depend on the others", "loss")


def _check_derivatives(function: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]], at: Tensor) -> None:
    """A difference quotient of a convex function lies between its derivatives at the two ends; so does that of ρ′, but
    for a step of ρ″ between them."""
    half = STEP * at.abs().clamp_min(1e-3)
    (low, first_low, second_low), (_, first, second), (high, first_high, second_high) = map(
        function, (at - half, at, at + half)
    )
    require((second >= 0).all(), "ρ must be convex: ρ″ ≥ 0", "loss")
    require((first.diff() >= -1e-9 * first[1:].abs()).all(), "ρ must be convex: ρ′ must not fall", "loss")
    slope, rounded = (high - low) / (2 * half), 1e-15 * torch.maximum(high.abs(), low.abs()) / half
    room = 1e-6 * torch.maximum(first_low.abs(), first_high.abs()) + rounded
    right = (slope >= first_low - room) & (slope <= first_high + room)
    require(right.all(), _where("ρ′ is not the derivative of ρ", at, right), "loss")
    bend, rounded = (first_high - first_low) / (2 * half), 1e-15 * first.abs() / half
    ends = torch.stack([second_low, second, second_high])
    room = 1e-3 * ends.amax(0) + rounded
    right = (bend >= ends.amin(0) - room) & (bend <= ends.amax(0) + room)
    require(right.all(), _where("ρ″ is not the derivative of ρ′", at, right), "loss")


def _where(what: str, at: Tensor, right: Tensor) -> str:
    return f"{what} at a residual of {float(at[~right][0]):.3g}" if not bool(right.all()) else what

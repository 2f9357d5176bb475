"""Errors of a fit by Newton steps: those of least squares, by one more step for every unit that is left out.

H is the Hessian of half the summed loss at the minimum, M its inverse on the changes that keep the exact rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.linalg import vector_norm

from locapprox.fit.errors import jackknife_error
from locapprox.fit.evidence import Estimate, needed
from locapprox.fit.jackknife import UNDETERMINED, by_place, sums_of
from locapprox.fit.jackknife import leave_out as residuals_without
from locapprox.fit.rows import Point, Rows
from locapprox.fit.solve import eliminate, particular

MOST_STEPS = 200
STRAIGHT = 1e-8  # of reweighted least squares' weight: less curvature is none


@dataclass(frozen=True, eq=False)
class Curvature:
    """Row i adds a_i x xᵀ + c_i xᵀ + x c_iᵀ + b_i I_d to the Hessian, c_i and I_d on the d weights."""

    X: Float[Tensor, "n p"]
    a: Float[Tensor, "B n"]
    c: Float[Tensor, "B n d"] | None
    b: Float[Tensor, "B n"] | None

    def times(self, step: Float[Tensor, "B n p"]) -> Float[Tensor, "B n p"]:
        """Every row's own matrix times a vector of its own."""
        along = (step * self.X).sum(-1)
        out = (self.a * along)[..., None] * self.X
        if self.c is not None and self.b is not None:
            d = self.c.shape[-1]
            out = out + (self.c * step[..., :d]).sum(-1, keepdim=True) * self.X
            out[..., :d] += self.c * along[..., None] + self.b[..., None] * step[..., :d]
        return out


def curvature(here: Point) -> Curvature:
    """Of half the summed loss, row by row: of JᵀJ − Σ r ∇²g, not of JᵀJ alone, which f that is not of the class makes
    too large."""
    rows = here.rows
    of_x = rows.weight * here.terms.curvature
    if here.slopes is None:
        return Curvature(rows.X, of_x, None, None)
    residual, slope, curve, third = here.slopes
    w, weight = here.theta[:, : residual.shape[-1]], rows.slopes * rows.weight
    of_x = of_x + weight * (w.square().sum(-1, keepdim=True) * curve.square())
    of_x = of_x - weight * third * (residual @ w[..., None]).squeeze(-1)
    cross = (weight * curve)[..., None] * (slope[..., None] * w[:, None] - residual)
    return Curvature(rows.X, of_x, cross, weight * slope.square())


def losses(rows: Rows, theta: Float[Tensor, "B n p"]) -> Float[Tensor, "B n"]:
    """Every row's loss under a θ of its own."""
    eta = (theta * rows.X).sum(-1)
    loss = rows.terms(eta).loss
    if rows.G is not None:
        w, slope = theta[..., : rows.G.shape[-1]], rows.link(eta)[1]
        residual = torch.addcmul(rows.G, slope[..., None], w, value=-1)
        loss = loss + rows.slopes * vector_norm(residual, dim=-1).square()
    return loss


class Newton(NamedTuple):
    """At a minimum: the Hessian by rows and in total, and M, its inverse on the changes that keep the exact rows."""

    here: Point
    of_rows: Curvature
    hessian: Float[Tensor, "B p p"]
    inverse: Float[Tensor, "B p p"]
    null: Float[Tensor, "p q"]  # an orthonormal basis of those changes

    @classmethod
    def at(cls, rows: Rows, theta: Float[Tensor, "B p"]) -> "Newton":
        """M is that of JᵀJ where the Hessian is not positive definite. Raises ValueError where θ is not determined."""
        here = rows.at(theta)
        hessian = here.normal(whole=True).gram
        null = particular(rows.exact, rows.no_change)[1].matrix
        indefinite = torch.linalg.cholesky_ex(null.mT @ hessian @ null).info > 0
        if bool(indefinite.any()):
            hessian = torch.where(indefinite[:, None, None], here.normal().gram, hessian)
        inverse = eliminate(hessian, torch.zeros_like(theta)[:, None], rows.exact, rows.no_change)[1]
        return cls(here, curvature(here), hessian, inverse, null)


def leave_out(rows: Rows, theta: Float[Tensor, "B p"], newton: Newton, n_fixed: int, unit_size: int) -> Estimate:
    """As for least squares, one Newton step for every unit that is left out.

    A row's share of the Hessian is h x xᵀ, h = w d²ℓ/dη², and of the gradient w dℓ/dη x: those of a row of least
    squares with weight h and residual −w (dℓ/dη) / h. What that residual grows by is by how much η falls. Where ρ is
    straight h is next to nothing, and the unit's leverage with it.
    """
    X, eta = rows.X[n_fixed:] if n_fixed else rows.X, theta @ rows.X.mT
    terms, weight = newton.here.terms, newton.of_rows.a
    least = (STRAIGHT * rows.weight * terms.bound).clamp_min(torch.finfo(eta.dtype).tiny)
    weight = torch.where(weight.abs() < least, least, weight)[:, n_fixed:]
    own = by_place((terms.score(rows.weight)[:, n_fixed:] / weight)[:, None], unit_size)
    without = residuals_without(X, weight, newton.inverse, own)
    sums = sums_of(X, weight, newton.inverse, own, without)
    eta[:, n_fixed:] -= (without - own).mT.flatten(1)
    loss = (rows.weight * rows.terms(eta).loss).sum(-1) / rows.weight.sum(-1)
    units = len(X) // unit_size
    moved = sums.distance > 1e-20 * (rows.weight * rows.y.square()).sum(-1, keepdim=True)
    carry = torch.where(moved, sums.distance.square() / sums.distance_square, 0.0)
    error = jackknife_error(sums, units, n_fixed > 0)[:, 0]
    degrees = max(1, units - 1 if n_fixed else units - theta.shape[-1])
    return Estimate(error, loss, float(degrees), carry, needed(units))


def leave_out_gradients(
    rows: Rows, theta: Float[Tensor, "B p"], newton: Newton, n_fixed: int, unit_size: int
) -> Estimate:
    """With gradient rows: the jackknife variance (U − 1)/U Σ (δ − δ̄)², (H − H_u) δ = score of u, and the loss of each
    unit at θ − δ. Of one unit nothing is known; NaN too where the others do not determine θ."""
    units = (len(rows.X) - n_fixed) // unit_size
    step, lost = (without_rows if unit_size == 1 else without_units)(newton, n_fixed, unit_size)
    lost |= units < 2
    squares = (step - step.mean(1, keepdim=True)).square_()
    variance = (units - 1) / units * squares.sum(1)
    moved = squares.amax(1).sqrt() > 1e-12 * theta.abs()
    at = theta[:, None].expand(-1, len(rows.X), -1).clone()
    at[:, n_fixed:].unflatten(1, (-1, unit_size)).sub_(step[:, :, None])
    loss = (rows.weight * losses(rows, at)).sum(-1) / rows.weight.sum(-1)
    error, loss = torch.where(lost[:, None], torch.nan, variance.sqrt()), torch.where(lost, torch.nan, loss)
    carry = torch.where(moved, squares.sum(1).square() / squares.square().sum(1), 0.0)
    return Estimate(error, loss, float(max(1, units - 1)), carry, needed(units))


def without_units(newton: Newton, n_fixed: int, unit_size: int) -> tuple[Float[Tensor, "B m p"], Bool[Tensor, " B"]]:
    """(H − H_u)⁻¹ times the score of every unit u, by conjugate gradients; where one of a problem's is not found."""
    onto = newton.null @ newton.null.mT

    def of_units(parts: Float[Tensor, "B n p"]) -> Float[Tensor, "B n p"]:
        """Summed over the rows of each unit, and given to all of them."""
        random = parts[:, n_fixed:].unflatten(1, (-1, unit_size)).sum(2).repeat_interleave(unit_size, 1)
        return torch.cat([torch.zeros_like(parts[:, :n_fixed]), random], 1)

    step, lost = conjugate_gradients(
        lambda v: (v @ newton.hessian - of_units(newton.of_rows.times(v))) @ onto,
        lambda v: v @ newton.inverse,
        of_units(newton.here.scores()) @ onto,
    )
    return step[:, n_fixed::unit_size], lost


def without_rows(newton: Newton, n_fixed: int, _: int = 1) -> tuple[Float[Tensor, "B m p"], Bool[Tensor, " B"]]:
    """As `without_units` of single rows, in closed form.

    With V of VᵀHV = I and VᵀDV = Λ diagonal, D = I_d on the weights, Vᵀ(H − H_i)V is I − b_i Λ less
    a x xᵀ + c xᵀ + x cᵀ of Vᵀx and Vᵀc: a diagonal matrix and one of rank two (Woodbury's identity).
    """
    of_rows, null, score = newton.of_rows, newton.null, newton.here.scores()[:, n_fixed:]
    assert of_rows.c is not None
    assert of_rows.b is not None
    d, (a, c, b) = of_rows.c.shape[-1], (part[:, n_fixed:] for part in (of_rows.a, of_rows.c, of_rows.b))
    factor = torch.linalg.cholesky(null.mT @ newton.hessian @ null)
    half = torch.linalg.solve_triangular(factor, null[:d].mT, upper=False)
    size, turn = torch.linalg.eigh(half @ half.mT)
    basis = null @ torch.linalg.solve_triangular(factor.mT, turn, upper=True)
    x, c, score = of_rows.X[n_fixed:] @ basis, c @ basis[:, :d], score @ basis
    rest = (b[..., None] * -size[:, None]).add_(1)
    lost = (rest <= UNDETERMINED).any(-1)
    x_, c_, step = x / rest, c / rest, score / rest
    xx, xc, cc, xs, cs = ((u * v).sum(-1) for u, v in ((x_, x), (x_, c), (c_, c), (x_, score), (c_, score)))
    across = 1 - xc
    determinant = across.square() - xx * (a + cc)
    lost |= determinant <= UNDETERMINED
    of_x, of_c = ((a + cc) * xs + across * cs) / determinant, (xx * cs + across * xs) / determinant
    step.addcmul_(of_x[..., None], x_).addcmul_(of_c[..., None], c_)
    return step @ basis.mT, lost.any(-1)


def conjugate_gradients(
    times: Callable[[Tensor], Tensor], precondition: Callable[[Tensor], Tensor], right: Float[Tensor, "B n p"]
) -> tuple[Float[Tensor, "B n p"], Bool[Tensor, " B"]]:
    """A x = right for a positive definite A of every row's own; whether one of a problem's rows is not solved."""
    x = precondition(right)
    residual = right - times(x)
    z = precondition(residual)
    direction, size, scale = z, (residual * z).sum(-1), (right * x).sum(-1).abs()
    for _ in range(MOST_STEPS):
        onward = times(direction)
        bend = (direction * onward).sum(-1)
        moving = (size > 1e-18 * scale) & (bend > 0)  # A is not positive definite where it bends down
        if not bool(moving.any()):
            break
        step = torch.where(moving, size / bend, 0.0)[..., None]
        x, residual = x + step * direction, residual - step * onward
        z = precondition(residual)
        new = (residual * z).sum(-1)
        direction = torch.where(moving[..., None], z + (new / size)[..., None] * direction, direction)
        size = torch.where(moving, new, size)
    return x, (size > 1e-10 * scale).any(-1)

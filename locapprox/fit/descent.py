"""A loss minimised by damped Gauss–Newton and Newton steps on rows that are kept, for any link and convex ρ.

A step of a value row's loss ℓ(η) has the weight ρ″ s′², of gradient rows ∇f − s′(η) w the Jacobian s′ e_j + w_j s″ x.
Steps solve (JᵀJ + λ D) δ = Jᵀr, D the diagonal of JᵀJ (Marquardt 1963), or of reweighted least squares where ρ is
straight; after two of them, where ℓ is smooth, with the whole Hessian for JᵀJ where it is positive definite.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from locapprox._notices import warn
from locapprox.fit.links import IDENTITY, LOGISTIC
from locapprox.fit.losses import CrossEntropy, Loss
from locapprox.fit.rows import Point, Rows
from locapprox.fit.solve import eliminate, factor_of, particular, weighted_gram

MOST_STEPS = 200
GAUSS_NEWTON = 2  # of them before those with the whole Hessian
ROUNDED = 1e-6  # a Newton step whose gain may be lost in the loss's round-off
SMALL = 1e-7  # a Newton step that is the last
REWEIGHTED = 30  # steps of reweighted least squares before those of Newton


def start(rows: Rows) -> Float[Tensor, "B p"]:
    """Least squares on link⁻¹(y), rows weighted by the slope there: exact if f is of the class."""
    y = rows.y if rows.link == IDENTITY else rows.y.clamp(1e-3, 1 - 1e-3)
    eta, slope = rows.link.inverse(y)
    weight = rows.weight * slope.square()
    if rows.link == LOGISTIC and bool(((rows.exact_y <= 0) | (rows.exact_y >= 1)).any()):
        raise ValueError("a logistic surrogate cannot interpolate outputs outside (0, 1); explain a probability")
    rhs = (weight * eta) @ rows.X
    gram = weighted_gram(rows.X, weight)
    unit = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    ridge = 1e-10 * gram.diagonal(dim1=-2, dim2=-1).amax(-1)[:, None, None] * unit
    exact = rows.link.inverse(rows.exact_y)[0][:, None]
    theta = eliminate(gram + ridge, rhs[:, None], rows.exact, exact, 1.0)[0][:, 0]
    return theta if isinstance(rows.loss, Loss) else reweighted(rows, theta)


def reweighted(rows: Rows, theta: Float[Tensor, "B p"]) -> Float[Tensor, "B p"]:
    """Least squares with the weights ρ′(r)/r of the residuals before, as long as it gains."""
    value = rows.objective(theta)
    for _ in range(REWEIGHTED):
        gram, score, diagonal = rows.reweighted(theta)
        ridge = torch.diag_embed(1e-10 * diagonal.amax(-1, keepdim=True).expand_as(diagonal))
        step = eliminate(gram + ridge, score, rows.exact, rows.no_change)[0][:, 0]
        trial = rows.objective(theta + step)
        better = trial < value
        if not bool(better.any()):
            break
        theta, value = torch.where(better[:, None], theta + step, theta), torch.where(better, trial, value)
    return theta


def minimise(rows: Rows, theta: Float[Tensor, "B p"]) -> Float[Tensor, "B p"]:
    """From θ, by damped Newton steps; warns of problems that do not converge."""
    theta, stuck = descended(rows, theta)
    warn_of(stuck, rows)
    return theta


def warn_of(stuck: Bool[Tensor, " B"], rows: Rows) -> None:
    """Of problems that did not converge, if there are any."""
    if not bool(stuck.any()):
        return
    way_out = "is the output close to a step function? Widen the neighbourhood or use Linear()"
    if rows.link == IDENTITY:
        way_out = "use a loss that is curved more widely (delta, smoothing)"
    warn(
        f"the {rows.link.name} surrogate of {int(stuck.sum())} problem(s) did not converge in {MOST_STEPS} steps "
        f"under the {rows.loss.name}: {way_out}",
    )


def descended(rows: Rows, theta: Float[Tensor, "B p"]) -> tuple[Float[Tensor, "B p"], Bool[Tensor, " B"]]:
    """The minimum and which problems did not get there; those that have converged wait for few others."""
    found, left = theta.clone(), torch.arange(len(theta), device=theta.device)
    here, size, null = rows.at(theta), rows.size, particular(rows.exact, rows.no_change)[1].matrix
    damping, moving = torch.full_like(size, 1e-8), torch.ones_like(size, dtype=torch.bool)
    smooth = isinstance(rows.loss, Loss | CrossEntropy)
    first_whole = GAUSS_NEWTON if isinstance(rows.loss, Loss) else 0  # JᵀJ of the cross-entropy is the Hessian
    least = 1e-15 if isinstance(rows.loss, Loss) else 1e-10
    for step_number in range(MOST_STEPS):
        step, whole = step_from(here, damping, null, whole=smooth and step_number >= first_whole)
        there = here.rows.at(here.theta + step)
        better = there.loss <= here.loss
        whole &= damping <= 1e-10  # what such a step misses is of the order of its square
        share = step.abs().amax(-1) / (size + here.theta.abs().amax(-1))
        better |= whole & (share <= ROUNDED)
        small = share <= torch.where(whole, SMALL, 1e-10)
        ends = small | (better & (here.loss - there.loss <= 1e-15 * here.loss)) | (damping > 1e12)
        take = better & moving
        here = there if bool(take.all()) else here.rows.at(torch.where(take[:, None], there.theta, here.theta))
        damping = torch.where(better, damping / 10, damping * 10).clamp_min(least)
        moving &= ~ends
        if not bool(moving.any()):
            break
        if 2 * int(moving.sum()) <= len(moving):
            found[left], some = here.theta, moving.nonzero()[:, 0]
            here, size, damping, left = here.rows.of(some).at(here.theta[some]), size[some], damping[some], left[some]
            moving = moving[some]
    found[left] = here.theta
    return found, torch.zeros(len(found), dtype=torch.bool, device=found.device).index_copy(0, left, moving)


def step_from(
    here: Point, damping: Float[Tensor, " B"], null: Float[Tensor, "p q"], whole: bool
) -> tuple[Float[Tensor, "B p"], Bool[Tensor, " B"]]:
    """A damped step with the whole Hessian, where it is positive definite, or else with JᵀJ; and which it is."""
    gram, score, diagonal = here.normal(whole)
    floor = 1e-12 * diagonal.abs().amax(-1, keepdim=True) + torch.finfo(gram.dtype).tiny
    damped = gram + torch.diag_embed(damping[:, None] * (diagonal.abs() + floor))
    factor, scale, lost = factor_of(null.mT @ damped @ null if len(here.rows.exact) else damped)
    right = score[:, 0] @ null * scale
    step = (torch.cholesky_solve(right[..., None], factor)[..., 0] * scale) @ null.mT
    if whole and bool(lost.any()):
        some = lost.nonzero()[:, 0]
        other = here.rows.of(some).at(here.theta[some])
        step[some] = step_from(other, damping[some], null, whole=False)[0]
    elif bool(lost.any()):  # raises, and says why, where there is no step
        step = eliminate(damped, score, here.rows.exact, here.rows.no_change)[0][:, 0]
    return step, ~lost & whole

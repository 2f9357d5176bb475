"""Least squares with a logistic surrogate: damped Gauss–Newton on rows that are kept.

g(ξ) = s(η), η = w · ξ + intercept. One problem per instance and score, B = b k of them at once. The residual of a value
row is y − s(η), that of its gradient rows ∇f − s′(η) w; their Jacobians in θ are s′ x and s′ e_j + w_j s″ x. Steps
solve (JᵀJ + λ diag JᵀJ) δ = Jᵀr (Marquardt 1963). A row to interpolate fixes η = logit f(x_ξ), a linear condition,
eliminated as for a linear surrogate.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from locapprox._notices import warn
from locapprox.fit.logistic_errors import Newton, leave_out, leave_out_gradients
from locapprox.fit.logistic_rows import Rows, for_problems, kept_rows
from locapprox.fit.losses import Loss
from locapprox.fit.result import Fit
from locapprox.fit.sampling import Sample
from locapprox.fit.solve import eliminate, unit_near, weighted_gram

MOST_STEPS = 200
TOLERANCE = 1e-3  # of probabilities


def fit_logistic(sample: Sample, loss: Loss, intercept: bool) -> Fit:
    """The stated loss minimised over logistic g."""
    sample.check_memory()
    blocks, rows = kept_rows(sample, loss, intercept)
    size = rows.X[:, : sample.d].abs().amax()
    if float(size) == 0 and rows.G is not None:  # at a point gradients alone say what a unit of ξ is
        size = rows.G.abs().amax().clamp_min(torch.finfo(size.dtype).tiny).reciprocal()
    unit = float(unit_near(size))
    rows = rows.in_units(unit, sample.d)
    n_fixed, unit_size = sum(block.n_fixed for block in blocks), blocks[-1].unit_size
    units = sum(block.units for block in blocks)
    try:
        theta = minimise(rows, start(rows))
        newton = Newton.at(rows, theta)
    except ValueError as failure:
        why = why_undetermined(rows)
        if why is None:
            raise
        raise ValueError(why) from failure
    coarse = blocks[0].coarse_weight
    degrees = float(max(1, units - 1)) if units else torch.inf
    value = rows.objective(theta)
    if coarse is not None:
        other = replace(rows, weight=for_problems(coarse.to(sample.dtype), sample))
        error = (theta - minimise(other, theta)).abs()
    elif units == 0:
        error = torch.zeros_like(theta)
    elif rows.G is None:
        error, value = leave_out(rows, theta, newton, n_fixed, unit_size)
        if n_fixed == 0:
            degrees = float(max(1, len(rows.X) - theta.shape[-1]))
    else:
        error, value = leave_out_gradients(rows, theta, newton, n_fixed, unit_size)
    d, shape = sample.d, (len(sample.x), sample.k)
    constant = theta[:, d] if intercept else torch.zeros_like(theta[:, 0])
    parts = theta[:, :d] / unit, constant, error[:, :d] / unit, value, rows.constant_loss()
    w, c, standard_error, out_of_sample, of_constant = (part.unflatten(0, shape) for part in parts)
    return Fit(w, c, standard_error, out_of_sample, of_constant, degrees)


def why_undetermined(rows: Rows) -> str | None:
    """Why no θ is found, on outputs that no logistic function has, or on a step; None elsewhere."""
    if rows.y.numel() == 0:
        return None
    least, most = (float(y) for y in rows.y.aminmax())
    if least < -TOLERANCE or most > 1 + TOLERANCE:
        return (
            f"a logistic surrogate is for outputs between 0 and 1, and the model's go from {least:.3g} to {most:.3g}: "
            "explain a probability (a softmax or sigmoid in the model or in target=), or use Linear()"
        )
    if bool(((rows.y < TOLERANCE) | (rows.y > 1 - TOLERANCE)).all(-1).any()):
        return (
            "a logistic surrogate of outputs that are all but 0 or 1 in the draw has no finite weights: widen the "
            "neighbourhood, or use Linear()"
        )
    return None


def start(rows: Rows) -> Float[Tensor, "B p"]:
    """Least squares on logit y, rows weighted by the slope there: exact if f is of the class."""
    y = rows.y.clamp(1e-3, 1 - 1e-3)
    weight, eta = rows.weight * (y * (1 - y)).square(), y.logit()
    if bool(((rows.exact_y <= 0) | (rows.exact_y >= 1)).any()):
        raise ValueError("a logistic surrogate cannot interpolate outputs outside (0, 1); explain a probability")
    rhs = (weight * eta) @ rows.X
    gram = weighted_gram(rows.X, weight)
    unit = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    ridge = 1e-10 * gram.diagonal(dim1=-2, dim2=-1).amax(-1)[:, None, None] * unit
    return eliminate(gram + ridge, rhs[:, None], rows.exact, rows.exact_y.logit()[:, None], 1.0)[0][:, 0]


def minimise(
    rows: Rows, theta: Float[Tensor, "B p"], damping: Float[Tensor, "B 1 1"] | None = None, steps: int = MOST_STEPS
) -> Float[Tensor, "B p"]:
    """From θ, by damped Gauss–Newton; problems that have converged wait for no others."""
    damping = torch.full_like(theta[:, :1, None], 1e-6) if damping is None else damping
    value, unmoved = rows.objective(theta), rows.no_change
    moving = torch.ones_like(value, dtype=torch.bool)
    for step_number in range(steps):
        gram, score = rows.normal(theta)
        diagonal = gram.diagonal(dim1=-2, dim2=-1)
        floor = 1e-12 * diagonal.amax(-1, keepdim=True) + torch.finfo(gram.dtype).tiny
        damped = gram + damping * torch.diag_embed(diagonal + floor)
        step = eliminate(damped, score, rows.exact, unmoved)[0][:, 0]
        trial = rows.objective(theta + step)
        better = trial <= value
        small = step.abs().amax(-1) <= 1e-10 * (1 + theta.abs().amax(-1))
        done = small | (better & (value - trial <= 1e-15 * value)) | (damping[:, 0, 0] > 1e12)
        take = better & moving
        theta = torch.where(take[:, None], theta + step, theta)
        value = torch.where(take, trial, value)
        damping = torch.where(better[:, None, None], damping / 10, damping * 10).clamp_min(1e-15)
        moving &= ~done
        if not bool(moving.any()):
            return theta
        if 2 * int(moving.sum()) <= len(moving):
            others, left = moving.nonzero()[:, 0], steps - step_number - 1
            further = minimise(rows.of(others), theta[others], damping[others], left)
            return theta.index_copy(0, others, further)
    warn(
        f"the logistic surrogate of {int(moving.sum())} problem(s) did not converge in {MOST_STEPS} steps (is the "
        "output close to a step function?); widen the neighbourhood or use Linear()",
    )
    return theta

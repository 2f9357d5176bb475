"""A loss minimised by damped Gauss–Newton on rows that are kept, for any link and convex ρ.

g(ξ) = s(η), η = w · ξ + intercept. One problem per instance and score, B = b k of them at once. A step of a value row's
loss ℓ(η) has the weight ρ″ s′², of gradient rows ∇f − s′(η) w the Jacobian s′ e_j + w_j s″ x. Steps solve
(JᵀJ + λ D) δ = Jᵀr, D the diagonal of JᵀJ (Marquardt 1963), or of reweighted least squares where ρ is straight. A row
to interpolate fixes η = link⁻¹(f(x_ξ)), a linear condition, eliminated as in least squares.
"""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.linalg import vector_norm

from locapprox._notices import warn
from locapprox.fit.errors import GROUPS
from locapprox.fit.evidence import Estimate, known
from locapprox.fit.links import IDENTITY, LOGISTIC, Link
from locapprox.fit.losses import CrossEntropy, Loss, OnGradients, RowLoss
from locapprox.fit.newton_errors import Newton, leave_out, leave_out_gradients
from locapprox.fit.result import Fit
from locapprox.fit.rows import Kept, Point, Rows, kept_rows
from locapprox.fit.sampling import Sample
from locapprox.fit.solve import eliminate, factor_of, particular, unit_near, weighted_gram

MOST_STEPS = 200
GAUSS_NEWTON = 2  # of them before those with the whole Hessian

ROUNDED = 1e-6  # a Newton step whose gain may be lost in the loss's round-off
SMALL = 1e-7  # a Newton step that is the last
REWEIGHTED = 30  # steps of reweighted least squares before those of Newton
GRADIENTS = 2**18  # numbers in the gradients of the problems that are solved together: a processor's cache
TOLERANCE = 1e-3  # of probabilities


def fit_rows(sample: Sample, loss: RowLoss, link: Link, intercept: bool) -> Fit:
    """The stated loss minimised over g = link(w · ξ + intercept)."""
    sample.check_memory()
    fit = fit_kept(kept_rows(sample, loss, link, intercept))
    parts = fit.weights, fit.intercept, fit.standard_error, fit.loss, fit.constant_loss
    w, c, error, value, constant = (part.squeeze(1).unflatten(0, (len(sample.x), sample.k)) for part in parts)
    return Fit(w, c, error, value, constant, fit.degrees_of_freedom)


def fit_kept(kept: Kept) -> Fit:
    """Of B problems, one score each."""
    loss = kept.rows.loss
    return locations(kept, loss) if isinstance(loss, OnGradients) else regression(kept)


def regression(kept: Kept) -> Fit:
    """One problem for each of B."""
    rows, d = kept.rows, kept.rows.X.shape[1] - kept.intercept
    size = rows.X[:, :d].abs().amax() if rows.X.numel() else rows.weight.new_ones(())
    if float(size) == 0 and rows.G is not None:  # at a point gradients alone say what a unit of ξ is
        size = rows.G.abs().amax().clamp_min(torch.finfo(size.dtype).tiny).reciprocal()
    unit = float(unit_near(size))
    middle = middle_of(rows, kept.intercept)
    rows = rows.about(middle).in_units(unit, d)
    theta, estimate = estimated(replace(kept, rows=rows))
    error = known(estimate.of((len(kept.sample.x), -1)), kept.units, kept.sample).flatten(0, 1)
    constant = theta[:, d] + middle if kept.intercept else torch.zeros_like(middle)
    parts = theta[:, :d] / unit, constant, error[:, :d] / unit, estimate.loss, constant_loss(rows)
    return of_one_score(*parts, estimate.degrees_of_freedom)


def locations(kept: Kept, loss: OnGradients) -> Fit:
    """A linear g under a loss of its gradient: every weight is a location of its own, over the rows."""
    rows = kept.rows
    assert rows.G is not None
    if len(rows.exact):
        raise ValueError(f"{loss!r} interpolates no rows, which this draw has: use GradientMatching()")
    (B, _, d), weight = rows.G.shape, rows.weight.repeat_interleave(rows.G.shape[-1], 0)
    one = replace(rows, loss=loss.of).location(rows.G.mT.flatten(0, 1), weight)
    of_each = regression(replace(kept, rows=one, intercept=False))
    w, error, value = (part.reshape(B, d) for part in (of_each.weights, of_each.standard_error, of_each.loss))
    at_zero = one.objective(torch.zeros_like(of_each.intercept)).reshape(B, d).sum(-1)
    total = rows.weight.sum(-1)
    constant = (rows.weight * (rows.y - w @ rows.X[:, :d].mT)).sum(-1) / total
    constant = constant if kept.intercept else torch.zeros_like(constant)
    return of_one_score(w, constant, error, value.sum(-1), at_zero, of_each.degrees_of_freedom)


def of_one_score(w: Tensor, c: Tensor, error: Tensor, value: Tensor, constant: Tensor, degrees: float) -> Fit:
    """B problems as instances."""
    return Fit(w[:, None], c[:, None], error[:, None], value[:, None], constant[:, None], degrees)


def middle_of(rows: Rows, intercept: bool) -> Float[Tensor, " B"]:
    """What the intercept of a linear g is measured from."""
    if rows.link != IDENTITY or not intercept or rows.y.shape[-1] == 0:
        return torch.zeros_like(rows.weight.sum(-1))
    return rows.y.median(-1).values


def estimated(kept: Kept) -> tuple[Float[Tensor, "B p"], Estimate]:
    """θ, its standard errors and the loss on fresh draws."""
    rows, n_fixed, unit_size = kept.rows, kept.n_fixed, kept.unit_size
    if rows.G is not None and len(rows.y) > (size := max(1, GRADIENTS // rows.G[0].numel())):
        return together([estimated(kept.of(i)) for i in torch.arange(len(rows.y), device=rows.y.device).split(size)])
    if not rows.X.numel():  # the rows to interpolate are all there are
        theta = start(rows)
        return theta, Estimate(torch.zeros_like(theta), torch.zeros_like(theta[:, 0]), torch.inf)
    steps = isinstance(rows.loss, Loss | CrossEntropy)  # Newton's, for the units left out
    try:
        theta = minimise(rows, start(rows))
        newton = Newton.at(rows, theta) if steps else None
        if newton is None:  # ValueError where the rows do not determine θ
            eliminate(rows.reweighted(theta).gram, rows.reweighted(theta).score, rows.exact, rows.no_change)
    except ValueError as failure:
        why = why_undetermined(rows)
        if why is None:
            raise
        raise ValueError(why) from failure
    if kept.coarse is not None:
        other = replace(rows, weight=kept.coarse)
        return theta, Estimate((theta - minimise(other, theta)).abs(), rows.objective(theta), torch.inf)
    if kept.units == 0:
        return theta, Estimate(torch.zeros_like(theta), rows.objective(theta), torch.inf)
    if newton is None:
        return theta, delete_groups(kept, theta)
    by_unit = leave_out if rows.G is None else leave_out_gradients
    return theta, by_unit(rows, theta, newton, n_fixed, unit_size)


def together(parts: list[tuple[Float[Tensor, "_ p"], Estimate]]) -> tuple[Float[Tensor, "B p"], Estimate]:
    """Of some problems after others."""
    thetas, estimates = zip(*parts, strict=True)
    first, all_of = estimates[0], zip(*estimates, strict=True)
    joined = [torch.cat(part) if isinstance(part[0], Tensor) else part[0] for part in all_of]
    return torch.cat(thetas), type(first)(*joined)


def delete_groups(kept: Kept, theta: Float[Tensor, "B p"]) -> Estimate:
    """Where ρ is straight a Newton step says nothing of a unit left out: the loss is minimised anew without each of 20
    groups of units, the other random rows scaled up to make up for it."""
    rows, groups = kept.rows, min(GROUPS, kept.units)
    row = torch.arange(len(rows.X), device=theta.device)
    fixed = row < kept.n_fixed
    group = ((row - kept.n_fixed).div(kept.unit_size, rounding_mode="floor") % groups).where(~fixed, -1)
    left = len(row) - int((group == 0).sum())
    if groups < 2 or left + len(rows.exact) < theta.shape[-1]:
        warn(f"of {kept.units} independent draws no standard errors are known: NaN. Use more n_samples")
        unknown = torch.full_like(theta, torch.nan)
        return Estimate(unknown, unknown[:, 0], max(1.0, groups - 1.0))
    total, random = rows.weight.sum(-1), (rows.weight * ~fixed).sum(-1, keepdim=True)
    loss = (rows.weight * fixed * rows.terms(theta @ rows.X.mT).loss).sum(-1)
    found = []
    for g in range(groups):
        out = rows.weight * (group == g)
        scale = torch.where(fixed, 1.0, random / (random - out.sum(-1, keepdim=True)))
        found.append(minimise(replace(rows, weight=(rows.weight - out) * scale), theta))
        loss += (out * rows.terms(found[-1] @ rows.X.mT).loss).sum(-1)
    gaps = torch.stack(found) - torch.stack(found).mean(0)
    return Estimate(((groups - 1) / groups * gaps.square().sum(0)).sqrt(), loss / total, groups - 1.0)


def constant_loss(rows: Rows) -> Float[Tensor, " B"]:
    """The loss of the best constant g; 0 of no rows."""
    if not rows.X.numel():
        return torch.zeros_like(rows.weight.sum(-1))
    total = rows.weight.sum(-1)
    if not isinstance(rows.loss, Loss):
        constant = rows.location(rows.y, rows.weight)
        return constant.objective(minimise(constant, start(constant)))
    mean = (rows.weight * rows.y).sum(-1) / total
    loss = rows.loss.value * (rows.weight * (rows.y - mean[:, None]).square()).sum(-1) / total
    if rows.G is not None:
        loss = loss + rows.slopes * (rows.weight * vector_norm(rows.G, dim=-1).square()).sum(-1) / total
    return loss


def why_undetermined(rows: Rows) -> str | None:
    """Why no θ is found, on outputs that no logistic function has, or on a step; None elsewhere."""
    if rows.y.numel() == 0 or rows.link != LOGISTIC:
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

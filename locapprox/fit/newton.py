"""Fits on rows that are kept, for any link and convex ρ: the minimum, its standard errors and its loss.

g(ξ) = s(η), η = w · ξ + intercept. One problem per instance and score, B = b k of them at once. A row to interpolate
fixes η = link⁻¹(f(x_ξ)), a linear condition, eliminated as in least squares.
"""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.linalg import vector_norm

from locapprox._notices import warn
from locapprox.fit.descent import descended, minimise, start, warn_of
from locapprox.fit.errors import GROUPS
from locapprox.fit.evidence import Estimate, known
from locapprox.fit.links import IDENTITY, LOGISTIC, Link
from locapprox.fit.losses import CrossEntropy, Loss, OnGradients, RowLoss
from locapprox.fit.newton_errors import Newton, leave_out, leave_out_gradients
from locapprox.fit.result import Fit
from locapprox.fit.rows import Kept, Rows, kept_rows
from locapprox.fit.sampling import Sample
from locapprox.fit.solve import eliminate, unit_near

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
    """θ, its standard errors and the loss on fresh draws; of problems that do not converge no errors are known."""
    rows = kept.rows
    size = len(rows.y) if rows.G is None else GRADIENTS // max(1, rows.G[:1].numel())
    some = torch.arange(len(rows.y), device=rows.y.device).split(max(1, size))
    parts = [estimated_together(kept.of(i)) for i in some] if len(some) > 1 else [estimated_together(kept)]
    thetas, estimates, stuck = zip(*parts, strict=True)
    lost = torch.cat(stuck)
    warn_of(lost, rows)
    whole: list[Any] = [
        torch.cat(part) if isinstance(part[0], Tensor) else part[0] for part in zip(*estimates, strict=True)
    ]
    estimate = Estimate(*whole)
    error = torch.where(lost[:, None], torch.nan, estimate.standard_error)
    return torch.cat(thetas), estimate._replace(standard_error=error)


def estimated_together(kept: Kept) -> tuple[Float[Tensor, "B p"], Estimate, Bool[Tensor, " B"]]:
    """As `estimated`, without a warning; and which problems, or what their errors are from, did not converge."""
    rows, n_fixed, unit_size = kept.rows, kept.n_fixed, kept.unit_size
    if not rows.X.numel():  # the rows to interpolate are all there are
        theta = start(rows)
        nothing = torch.zeros_like(theta[:, 0])
        return theta, Estimate(torch.zeros_like(theta), nothing, torch.inf), nothing > 0
    steps = isinstance(rows.loss, Loss | CrossEntropy)  # Newton's, for the units left out
    try:
        theta, stuck = descended(rows, start(rows))
        newton = Newton.at(rows, theta) if steps else None
        if newton is None:  # ValueError where the rows do not determine θ
            eliminate(rows.reweighted(theta).gram, rows.reweighted(theta).score, rows.exact, rows.no_change)
    except ValueError as failure:
        why = why_undetermined(rows)
        if why is None:
            raise
        raise ValueError(why) from failure
    if kept.coarse is not None:
        other, also = descended(replace(rows, weight=kept.coarse), theta)
        return theta, Estimate((theta - other).abs(), rows.objective(theta), torch.inf), stuck | also
    if kept.units == 0:
        return theta, Estimate(torch.zeros_like(theta), rows.objective(theta), torch.inf), stuck
    if newton is None or kept.replicates:
        estimate, also = delete_groups(kept, theta)
        return theta, estimate, stuck | also
    by_unit = leave_out if rows.G is None else leave_out_gradients
    return theta, by_unit(rows, theta, newton, n_fixed, unit_size), stuck


def delete_groups(kept: Kept, theta: Float[Tensor, "B p"]) -> tuple[Estimate, Bool[Tensor, " B"]]:
    """Where ρ is straight a Newton step says nothing of a unit left out: the loss is minimised anew without each of 20
    groups of units (or of the draw's replicates), the other random rows scaled up to make up for it. And where one of
    these did not converge."""
    rows, groups = kept.rows, min(kept.replicates or GROUPS, kept.units)
    row = torch.arange(len(rows.X), device=theta.device)
    fixed = row < kept.n_fixed
    group = ((row - kept.n_fixed).div(kept.unit_size, rounding_mode="floor") % groups).where(~fixed, -1)
    left = len(row) - int((group == 0).sum())
    if groups < 2 or left + len(rows.exact) < theta.shape[-1]:
        warn(f"of {kept.units} independent draws no standard errors are known: NaN. Use more n_samples")
        unknown = torch.full_like(theta, torch.nan)
        return Estimate(unknown, unknown[:, 0], max(1.0, groups - 1.0)), torch.zeros_like(
            unknown[:, 0], dtype=torch.bool
        )
    total, random = rows.weight.sum(-1), (rows.weight * ~fixed).sum(-1, keepdim=True)
    loss = (rows.weight * fixed * rows.terms(theta @ rows.X.mT).loss).sum(-1)
    found, stuck = [], torch.zeros_like(total, dtype=torch.bool)
    for g in range(groups):
        out = rows.weight * (group == g)
        scale = torch.where(fixed, 1.0, random / (random - out.sum(-1, keepdim=True)))
        without, also = descended(replace(rows, weight=(rows.weight - out) * scale), theta)
        found.append(without)
        stuck |= also
        loss += (out * rows.terms(found[-1] @ rows.X.mT).loss).sum(-1)
    gaps = torch.stack(found) - torch.stack(found).mean(0)
    return Estimate(((groups - 1) / groups * gaps.square().sum(0)).sqrt(), loss / total, groups - 1.0), stuck


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

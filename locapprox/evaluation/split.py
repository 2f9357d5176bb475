"""Why a surrogate loses on a column, in three parts that add up to its regret.

A weight w of a feature that moves by x − b becomes a slope w / (x − b) wherever the placement is another. There is none
where x = b (a blind spot), and the weight's sampling error is divided, too. What is lost by neither is lost because f
is not linear: the part that the no-free-lunch theorem is about. With E the surrogate's error if its undetermined
weights were chosen best (those whose standard error alone loses over 1 % of the best constant's loss here), θ* the
column's best fit and δ what the weights are beside it,

    division = error − E,
    blind = E − loss(θ*) − R, with R = (Uᵀδ)ᵀ (UᵀMU)⁻¹ (Uᵀδ) / Σ weight and M = A⁻¹ (`Solution`, where rows are exact),
    nonlinear = regret − division − blind.

R is the least that holding δ along displacements U of ξ adds, where all else is free: U are those that features with
determined weights make.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from locapprox._explanation import Explanation
from locapprox.fit.minimise import Minimum
from locapprox.fit.ridge import Shrunk
from locapprox.fit.sampling import Sample
from locapprox.fit.solve import times, to_unit_diagonal
from locapprox.neighbourhoods.base import BaseNeighbourhood, described

DETERMINED = 0.01  # of the best constant's loss
SAME = 1e-10  # displacements whose squared difference is a smaller share of their square are the same
HELD = 2**24  # numbers in the matrices of one batch of instances


class Split(NamedTuple):
    """Two parts of the regret; NaN where a placement has no `steps`, or a given explanation no standard errors."""

    blind: Float[Tensor, " b"]
    division: Float[Tensor, " b"]


@dataclass(frozen=True, eq=False)
class Displacements:
    """Directions r of a column's ξ: the entries of `unit` in group r.

    One for each feature of the surrogate, or of the column if it has fewer (patches, for a surrogate of pixels).
    """

    group: Int[Tensor, "b d"]
    unit: Float[Tensor, "b d"]
    slope: Float[Tensor, "b d"]  # what the weights in the column's ξ change by, if what g says of r changes by 1
    known: Bool[Tensor, "b r"]  # whether the surrogate's own features make it, as Σ a_f step_f
    variance: Float[Tensor, "b r"]  # Σ a_f² error_f²; of one f, unless the column has fewer

    @classmethod
    def between(
        cls, own: tuple[Tensor, Tensor], column: tuple[Tensor, Tensor], error: Float[Tensor, "b f"], d: int
    ) -> "Displacements":
        """From the `steps` of the surrogate and of a column of d ξ, and the standard errors of f weights."""
        (step, label), (moved, to), f = own, column, error.shape[1]
        step, moved, r = step.to(error), moved.to(error), min(d, f)
        square = _total(step.square(), label, f)
        if d >= f:
            group = label.new_zeros(len(label), d).scatter(1, to, label)
            unit = _ratio(_total(moved * step, to, d), _total(moved.square(), to, d))
            slope = _total(_ratio(moved * step, square.gather(1, label)), to, d)
        else:
            group = torch.arange(d, device=to.device).expand(len(to), -1)
            unit = slope = torch.ones_like(group, dtype=error.dtype)
        of, v = group.gather(1, to), moved * unit.gather(1, to)
        a = _ratio(_total(step * v, label, f), square)
        missed, size = v - step * a.gather(1, label), _total(v.square(), of, r)
        known = (size > 0) & (_total(missed.square(), of, r) <= SAME * size)
        variance = torch.where(a == 0, 0.0, (a * error).square())
        return cls(group, unit, slope, known, _total(variance, label.new_zeros(len(label), f).scatter(1, label, of), r))

    def of(self, i: Tensor) -> "Displacements":
        """Of some of the instances."""
        return Displacements(self.group[i], self.unit[i], self.slope[i], self.known[i], self.variance[i])

    def total(self, entries: Float[Tensor, "b d"]) -> Float[Tensor, "b r"]:
        """Summed over each direction's entries."""
        return _total(entries, self.group, self.known.shape[1])

    def grouped(self, matrix: Tensor, by: Float[Tensor, "b d"]) -> Tensor:
        """diag(by) matrix diag(by), (g, d, d) -> (b, r, r), summed over directions' entries; or its diagonal's."""
        if matrix.ndim == 2:
            return self.total(matrix * by.square())
        (b, d), r = by.shape, self.known.shape[1]
        rows = matrix.new_zeros(b, r, d)
        rows.scatter_add_(1, self.group[:, :, None].expand(b, d, d), by[:, :, None] * matrix * by[:, None])
        return matrix.new_zeros(b, r, r).scatter_add_(2, self.group[:, None].expand(b, r, d), rows)


def split(best: Minimum, w: Float[Tensor, "b d"], e: Explanation, column: BaseNeighbourhood, sample: Sample) -> Split:
    """Of e's surrogates at a sample of a column, in whose ξ their weights are w."""
    own, i, d = described(e.method.neighbourhood), sample.instances, w.shape[1]
    weights, error = e.weights[i].flatten(1), e.standard_error[i].flatten(1)
    f, nothing = weights.shape[1], torch.zeros_like(w[:, 0])
    if own.same_placement(column):
        return Split(nothing, nothing)
    steps, there = own.at(e.x, i).steps(e.x[i], f), sample.neighbourhood.steps(sample.x, d)
    if steps is None or there is None or isinstance(best.inverse, Shrunk):
        return Split(nothing + torch.nan, nothing + torch.nan)
    if f == steps[0].shape[1] and torch.allclose(steps[0], torch.ones_like(steps[0])):
        return Split(nothing, nothing)  # weights are slopes
    if bool((e.n_samples > 0).any()):  # fitted: where no error is known, none of an exact fit, else all is undetermined
        unknown = torch.where(e.loss[i] > 0, torch.inf, 0.0).to(error)[:, None]
        error = torch.where(error.isnan(), unknown, error)
    at = Displacements.between(steps, there, error.where(~weights.isnan(), 0.0).to(w), d)  # padding has no error
    division, held = _parts(best, w, at)
    added = (best.problem.loss_of(best.refitted(w[:, None])) - best.problem.loss_of(best.theta))[:, 0]
    blind = torch.where(at.known.all(1) & (at.known.shape[1] == d), 0.0, added - division - held)
    return Split(blind, torch.where((at.known & at.variance.isnan()).any(1), torch.nan, division))


def _parts(best: Minimum, w: Float[Tensor, "b d"], at: Displacements) -> tuple[Tensor, Tensor]:
    """error − E and R."""
    sums, d = best.problem, w.shape[1]
    total, off = sums.w.expand(len(w)), w - best.fit.weights[:, 0]
    if isinstance(best.inverse, Tensor):
        A, uphill = _of_weights(best, w)
        M, chunk = best.inverse[:, :d, :d], max(1, HELD // d**2)
    else:  # gradient matching: diagonals, since A is a multiple of the identity
        A = (sums.loss.gradient * total)[:, None].expand(-1, d)
        uphill, M, chunk = A * off, 1 / A, len(w)
    limit, exact, found = DETERMINED * best.fit.constant_loss, len(best.exact.rows) > 0, []
    for i in torch.arange(len(w), device=w.device).split(chunk):
        some = at.of(i)
        curvature, spread = (some.grouped(_some(matrix, i), by) for matrix, by in ((A, some.slope), (M, some.unit)))
        alone = curvature.diagonal(dim1=-2, dim2=-1) if curvature.ndim == 3 else curvature
        undetermined = some.known & (some.variance * alone / total[i, None] > limit[i])
        free = _least(curvature, some.total(some.slope * uphill[i]), undetermined, exact)
        held = _least(spread, some.total(some.unit * off[i]), some.known & ~undetermined, exact)
        found.append(torch.stack([free, held]) / total[i])
    division, held = torch.cat(found, dim=1)
    return division, held


def _of_weights(best: Minimum, w: Float[Tensor, "b d"]) -> tuple[Float[Tensor, "g d d"], Float[Tensor, "b d"]]:
    """Half the second and first derivatives of the refitted surrogates' summed loss in their weights."""
    sums, d = best.problem, w.shape[1]
    gram, rhs = sums.system()
    theta = best.refitted(w[:, None])
    theta[..., d] -= sums.y0
    slope = (times(theta, gram) - rhs)[:, 0]
    at = best.exact.rows[:, :d].mean(0, keepdim=True) if len(best.exact.rows) else sums.x[:, :d] / sums.w[:, None]
    cross = gram[:, :d, d, None] * at[:, None]
    second = gram[:, :d, :d] - cross - cross.mT + gram[:, d, d, None, None] * at[:, :, None] * at[:, None]
    return second, slope[:, :d] - slope[:, d:] * at


def _some(matrices: Tensor, i: Tensor) -> Tensor:
    return matrices[i] if len(matrices) > 1 else matrices


def _least(K: Tensor, y: Float[Tensor, "b r"], some: Bool[Tensor, "b r"], singular: bool) -> Float[Tensor, " b"]:
    """yᵀ K⁻¹ y over some of the entries; K may be a diagonal, and singular where rows are exact."""
    if K.ndim == 2:
        return _ratio(y.square(), K).where(some, 0.0).sum(1)
    K = torch.where(some[:, :, None] & some[:, None], K, torch.diag_embed((~some).to(K)))
    scale = to_unit_diagonal(K)
    K, y = K * scale[:, :, None] * scale[:, None], (y * scale).where(some, 0.0)
    if singular:
        return torch.einsum("bi,bij,bj->b", y, torch.linalg.pinv(K, hermitian=True, rtol=1e-10), y)
    half: Tensor = torch.linalg.solve_triangular(torch.linalg.cholesky(K), y[..., None], upper=False)
    return half.square().sum((1, 2))


def _total(values: Float[Tensor, "b n"], label: Int[Tensor, "b n"], size: int) -> Float[Tensor, "b size"]:
    return values.new_zeros(len(values), size).scatter_add(1, label, values)


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """0 where b is 0."""
    return torch.where(b > 0, a / torch.where(b > 0, b, 1.0), 0.0)

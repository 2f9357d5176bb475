"""Errors by leaving every unit of the draw (a row, or rows drawn together) out in turn, without fitting again.

Shapes as in `solve`; u rows are a unit, m units are n rows.
"""

from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor

from locapprox.notices import warn
from locapprox.solve import PAIRS_UP_TO, Shrunk, quadratic, weighted_gram

UNDETERMINED = 1e-10  # 1 − leverage of a unit without which the others determine no fit; more is not rounding


def jackknife(
    X: Float[Tensor, "n p"],
    weight: Float[Tensor, "h n"],
    inverse: Float[Tensor, "g p p"] | Shrunk,
    rest: Float[Tensor, "b k n"],
    unit: int,
) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b k p"], Float[Tensor, "b k p"]]:
    """Σ w e², Σ δ and Σ δ² over units left out in turn: e their residuals then, δ = M Σ x w e what they add to θ.

    With a matrix for every score instead of every instance, scores are taken as instances. Of a `Shrunk` fit, whose
    bias nobody knows, Σ δ and Σ δ² are NaN; where the rest does not determine the fit, all three.
    """
    b, k, n = rest.shape
    if k > 1 and len(inverse.kept if isinstance(inverse, Shrunk) else inverse) == b * k:
        weight = weight.repeat_interleave(k, 0) if len(weight) > 1 else weight
        sums = jackknife(X, weight, inverse, rest.reshape(b * k, 1, n), unit)
        return sums[0].reshape(b, k), sums[1].reshape(b, k, -1), sums[2].reshape(b, k, -1)
    if unit == 2 and not isinstance(inverse, Shrunk) and len(inverse) == 1 and _sums_are_fixed(X, weight, inverse):
        y, half = rest.unflatten(-1, (-1, 2)), weight[:, ::2] / 2
        total, first, second = jackknife(X[::2] - X[1::2], half, inverse, y[..., 0] - y[..., 1], 1)
        return total + (y[..., 0] + y[..., 1]).square() @ half[0], first, second
    e, w = leave_out(X, weight, inverse, by_place(rest, unit)), by_place(weight, unit).flatten(1)[:, None]
    e_rows = e.flatten(2)
    if isinstance(inverse, Shrunk):
        total = (w * e_rows.square()).sum(-1)
        unknown = torch.full_like(total, torch.nan)[..., None].expand(-1, -1, X.shape[1])
        return total, unknown, unknown
    if len(inverse) > 1 and unit == 1 and X.shape[1] <= PAIRS_UP_TO:
        pull = w * e_rows
        sandwich = inverse[:, None] @ weighted_gram(X, pull.square())
        return (pull * e_rows).sum(-1), (pull @ X) @ inverse, (sandwich * inverse[:, None]).sum(-1)
    total, squares, columns = rest.new_zeros(b, k), e_rows.square(), by_place(X.mT, unit).flatten(1)
    first, second = rest.new_zeros(b, k, X.shape[1]), rest.new_zeros(b, k, X.shape[1])
    for g, m in enumerate(inverse):
        of = slice(None) if len(inverse) == 1 else slice(g, g + 1)
        own = w[min(g, len(w) - 1)]
        changes = (m @ columns) * own
        total[of], first[of] = squares[of] @ own[0], e_rows[of] @ changes.mT
        second[of] = squares[of] @ changes.square().mT
        changes = changes.unflatten(1, (unit, -1))
        for a, c in combinations(range(unit), 2):
            second[of] += 2 * (e[of, :, a] * e[of, :, c]) @ (changes[:, a] * changes[:, c]).mT
    return total, first, second


def _sums_are_fixed(X: Float[Tensor, "n p"], weight: Float[Tensor, "1 n"], inverse: Float[Tensor, "1 p p"]) -> bool:
    """Whether the sum of every pair of rows has no leverage, so that only its difference moves θ.

    So it is where masks come with their complements and the empty and the full one are interpolated, and for ±ξ without
    an intercept.
    """
    if not torch.equal(weight[:, ::2], weight[:, 1::2]):
        return False
    return bool((weight[:, ::2] * quadratic(X[::2] + X[1::2], inverse) <= 1e-12).all())


def leave_out(
    X: Float[Tensor, "n p"],
    weight: Float[Tensor, "h n"],
    inverse: Float[Tensor, "g p p"] | Shrunk,
    rest: Float[Tensor, "b k u m"],
) -> Float[Tensor, "b k u m"]:
    """Residuals of each unit of u rows under the fit without it: (I − X_u M X_uᵀ W_u)⁻¹ r_u.

    NaN, with a warning, where the other rows do not determine a fit (leverage 1).
    """
    unit = rest.shape[2]
    if unit == 1:
        own = inverse.products(X, 1)[..., 0, 0] if isinstance(inverse, Shrunk) else quadratic(X, inverse)
        spared = (weight * own).neg_().add_(1)
        return rest / _unless(spared < UNDETERMINED, spared)[:, None, None]
    rows = X.unflatten(0, (-1, unit))
    if isinstance(inverse, Shrunk):
        products = inverse.products(X, unit)
    else:
        products = (X @ inverse).unflatten(1, (-1, unit)) @ rows.mT
    hat = products * weight.unflatten(-1, (-1, unit))[:, :, None]
    grown, failed = torch.linalg.inv_ex(torch.eye(unit, dtype=X.dtype, device=X.device) - hat)
    grown = _unless((failed[..., None, None] != 0) | (grown.abs().amax((-2, -1), True) > 1 / UNDETERMINED), grown)
    grown = grown.permute(0, 3, 2, 1).contiguous().unsqueeze(1)  # (g, 1, column, row, m)
    left_out = grown[:, :, 0] * rest[:, :, :1]
    for c in range(1, unit):
        left_out.addcmul_(grown[:, :, c], rest[:, :, c : c + 1])
    return left_out


def _unless(lost: Tensor, values: Tensor) -> Tensor:
    if bool(lost.any()):
        warn(
            "some weights rest on a single draw (or pair): without it they are undetermined, so standard errors and "
            "loss are unknown: NaN. Use more n_samples, or fewer features"
        )
    return torch.where(lost, torch.nan, values)


def by_place(values: Float[Tensor, "*b n"], unit: int) -> Float[Tensor, "*b unit units"]:
    """The first rows of all units, then the second ones, …: each contiguous."""
    return values.unflatten(-1, (-1, unit)).mT.contiguous()

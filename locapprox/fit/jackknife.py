"""The jackknife: every unit of the draw (a row, or rows drawn together) left out in turn, without fitting again.

Shapes as in `solve`; u rows are a unit, m units are n rows. With M = (XᵀWX)⁻¹, leaving unit u out changes its residuals
from r_u to e_u = (I − H_u)⁻¹ r_u, H_u = X_u M X_uᵀ W_u its leverage, and θ by its influence −M X_uᵀ W_u e_u.

Errors from Σ δ² of these influences (HC3, MacKinnon and White 1985) are too large where rows are few: 95 % intervals
of 14 weights from 41 draws cover 98 %. With rᵀWe in place of eᵀWe (HC2) they cover 93 %. What is summed for errors is
half-way: δ of e ρ^¼, ρ = rᵀWe / eᵀWe, which is 1 − h of a row.
"""

from itertools import combinations
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from locapprox._notices import warn
from locapprox.fit.kept import remembered
from locapprox.fit.ridge import Shrunk
from locapprox.fit.solve import PAIRS_UP_TO, quadratic, weighted_gram

Inverse = Float[Tensor, "g p p"] | Shrunk

UNDETERMINED = 1e-10  # 1 − leverage of a unit without which the others determine no fit; more is not round-off


class Jackknife(NamedTuple):
    """Sums over the units left out: of eᵀWe; of the influence δ of e ρ^¼, and δ²; of c = eᵀW (e − r), and c².

    c = δᵀM⁻¹δ of the influence of e itself: p s² times Cook's (1977) distance.
    """

    loss: Float[Tensor, "b k"]
    influence: Float[Tensor, "b k p"]
    influence_square: Float[Tensor, "b k p"]
    distance: Float[Tensor, "b k"]
    distance_square: Float[Tensor, "b k"]

    @classmethod
    def of_none(cls, theta: Float[Tensor, "b k p"]) -> "Jackknife":
        zero, zeros = torch.zeros_like(theta[..., 0]), torch.zeros_like(theta)
        return cls(zero, zeros, zeros.clone(), zero.clone(), zero.clone())


def jackknife(
    X: Float[Tensor, "n p"],
    weight: Float[Tensor, "h n"],
    inverse: Inverse,
    residual: Float[Tensor, "b k n"],
    unit_size: int,
) -> Jackknife:
    """NaN where the other units do not determine the fit; of a `Shrunk` one, whose bias nobody knows, the loss alone is
    not."""
    b, k, _ = residual.shape
    if k > 1 and len(inverse) == b * k:
        return _a_matrix_for_every_score(X, weight, inverse, residual, unit_size)
    if unit_size == 2 and _pair_sums_have_no_leverage(X, weight, inverse):
        return _of_pair_differences(X, weight, inverse, residual)
    residual = by_place(residual, unit_size)
    return sums_of(X, weight, inverse, residual, leave_out(X, weight, inverse, residual))


def sums_of(
    X: Float[Tensor, "n p"],
    weight: Float[Tensor, "h n"],
    inverse: Inverse,
    residual: Float[Tensor, "b k u m"],
    left_out: Float[Tensor, "b k u m"],
) -> Jackknife:
    """Of residuals `by_place`, under the fit and under that without their unit."""
    unit_size, weight = residual.shape[2], _by_unit(weight, residual.shape[2])
    if isinstance(inverse, Shrunk):
        loss = (weight * left_out.flatten(2).square()).sum(-1)
        unknown = torch.full_like(loss, torch.nan)
        each = unknown[..., None].expand(-1, -1, X.shape[1])
        return Jackknife(loss, each, each, unknown, unknown)
    square, product = (
        (weight * (left_out * other).flatten(2)).unflatten(2, (unit_size, -1)).sum(2) for other in (left_out, residual)
    )
    kept = torch.where(square != 0, product / square, 0.0).abs()  # 1 − h of a row
    loss, distance = square.sum(-1), square - product
    left_out = left_out * kept.sqrt().sqrt()[:, :, None]
    way = _by_sandwich if len(inverse) > 1 and unit_size == 1 and X.shape[1] <= PAIRS_UP_TO else _by_influence
    return Jackknife(loss, *way(X, weight, inverse, left_out), distance.sum(-1), distance.square().sum(-1))


def _a_matrix_for_every_score(
    X: Tensor, weight: Tensor, inverse: Inverse, residual: Float[Tensor, "b k n"], unit_size: int
) -> Jackknife:
    """Scores are taken as instances."""
    b, k, n = residual.shape
    weight = weight.repeat_interleave(k, 0) if len(weight) > 1 else weight
    parts = jackknife(X, weight, inverse, residual.reshape(b * k, 1, n), unit_size)
    return Jackknife(*(part.reshape(b, k, *part.shape[2:]) for part in parts))


@remembered
def _pair_sums_have_no_leverage(X: Float[Tensor, "n p"], weight: Float[Tensor, "h n"], inverse: Inverse) -> bool:
    """Whether only the difference of every pair of rows moves θ.

    So it is where masks come with their complements and the empty and the full one are interpolated, and for ±ξ without
    an intercept.
    """
    shared = len(weight) == 1 and (isinstance(inverse, Shrunk) or len(inverse) == 1)
    if not shared or not torch.equal(weight[:, ::2], weight[:, 1::2]):
        return False
    return bool((weight[:, ::2] * leverage(X[::2] + X[1::2], inverse) <= 1e-12).all())


def leverage(X: Float[Tensor, "n p"], inverse: Inverse) -> Float[Tensor, "g n"]:
    """xᵀ M x of every row."""
    return inverse.leverage(X) if isinstance(inverse, Shrunk) else _leverage(X, inverse)


_leverage = remembered(quadratic)


@remembered
def _rest(X: Float[Tensor, "n p"], weight: Float[Tensor, "h n"], inverse: Inverse) -> Float[Tensor, "g n"]:
    """1 − h of every row."""
    return (weight * leverage(X, inverse)).neg_().add_(1)


@remembered
def _differences(X: Float[Tensor, "n p"]) -> Float[Tensor, "m p"]:
    return X[::2] - X[1::2]


@remembered
def _half(weight: Float[Tensor, "h n"]) -> Float[Tensor, "h m"]:
    return weight[:, ::2] / 2


def _of_pair_differences(X: Tensor, weight: Tensor, inverse: Inverse, residual: Tensor) -> Jackknife:
    """Half the weight on the difference of each pair, as one row; its sum adds to the loss as it is."""
    y, half = residual.unflatten(-1, (-1, 2)), _half(weight)
    parts = jackknife(_differences(X), half, inverse, y[..., 0] - y[..., 1], 1)
    return parts._replace(loss=parts.loss + (y[..., 0] + y[..., 1]).square() @ half[0])


def _by_sandwich(
    X: Float[Tensor, "n p"],
    weight: Float[Tensor, "h 1 n"],
    inverse: Float[Tensor, "b p p"],
    left_out: Float[Tensor, "b k 1 n"],
) -> tuple[Float[Tensor, "b k p"], Float[Tensor, "b k p"]]:
    """Single rows, a matrix for every instance: Σ δ² is the diagonal of M (Xᵀ diag(w e)² X) M."""
    score = weight * left_out[:, :, 0]
    sandwich = inverse[:, None] @ weighted_gram(X, score.square())
    return (score @ X) @ inverse, (sandwich * inverse[:, None]).sum(-1)


def _by_influence(
    X: Float[Tensor, "n p"],
    weight: Float[Tensor, "h 1 n"],
    inverse: Float[Tensor, "g p p"],
    left_out: Float[Tensor, "b k u m"],
) -> tuple[Float[Tensor, "b k p"], Float[Tensor, "b k p"]]:
    """One matrix at a time: the influence of a row with e = 1 is M x w; rows of a unit add up."""
    b, k, unit_size, _ = left_out.shape
    rows = left_out.flatten(2)
    squares = rows.square()
    first, second = (left_out.new_zeros(b, k, X.shape[1]) for _ in range(2))
    for g in range(len(inverse)):
        of = slice(None) if len(inverse) == 1 else slice(g, g + 1)
        influence, squared = _influence(X, inverse, weight, unit_size, g)
        first[of], second[of] = rows[of] @ influence.mT, squares[of] @ squared.mT
        influence = influence.unflatten(1, (unit_size, -1))
        for a, c in combinations(range(unit_size), 2):
            second[of] += 2 * (left_out[of, :, a] * left_out[of, :, c]) @ (influence[:, a] * influence[:, c]).mT
    return first, second


@remembered
def _influence(
    X: Float[Tensor, "n p"], inverse: Float[Tensor, "g p p"], weight: Float[Tensor, "h 1 n"], unit_size: int, g: int
) -> tuple[Float[Tensor, "p n"], Float[Tensor, "p n"]]:
    """That of every row under matrix g, and its square."""
    influence = (inverse[g] @ by_place(X.mT, unit_size).flatten(1)) * weight[min(g, len(weight) - 1)]
    return influence, influence.square()


def leave_out(
    X: Float[Tensor, "n p"],
    weight: Float[Tensor, "h n"],
    inverse: Inverse,
    residual: Float[Tensor, "b k u m"],
) -> Float[Tensor, "b k u m"]:
    """Residuals of each unit of u rows under the fit without it: (I − X_u M X_uᵀ W_u)⁻¹ r_u.

    NaN, with a warning, where the other rows do not determine a fit (leverage 1).
    """
    unit_size = residual.shape[2]
    if unit_size == 1:
        rest = _rest(X, weight, inverse)
        return residual / _unless(rest < UNDETERMINED, rest)[:, None, None]
    if isinstance(inverse, Shrunk):
        products = inverse.products(X, unit_size)
    else:
        products = (X @ inverse).unflatten(1, (-1, unit_size)) @ X.unflatten(0, (-1, unit_size)).mT
    hat = products * weight.unflatten(-1, (-1, unit_size))[:, :, None]
    factor, failed = torch.linalg.inv_ex(torch.eye(unit_size, dtype=X.dtype, device=X.device) - hat)
    factor = _unless((failed[..., None, None] != 0) | (factor.abs().amax((-2, -1), True) > 1 / UNDETERMINED), factor)
    factor = factor.permute(0, 3, 2, 1).contiguous().unsqueeze(1)  # (g, 1, column, row, m)
    left_out = factor[:, :, 0] * residual[:, :, :1]
    for c in range(1, unit_size):
        left_out.addcmul_(factor[:, :, c], residual[:, :, c : c + 1])
    return left_out


def _unless(lost: Tensor, values: Tensor) -> Tensor:
    if bool(lost.any()):
        warn(
            "some weights rest on a single draw (or pair): without it they are undetermined, so standard errors and "
            "loss are unknown: NaN. Use more n_samples, or fewer features"
        )
    return torch.where(lost, torch.nan, values)


def by_place(values: Float[Tensor, "*b n"], unit_size: int) -> Float[Tensor, "*b unit units"]:
    """The first rows of all units, then the second ones, …: each contiguous."""
    units: Tensor = values.unflatten(-1, (-1, unit_size))
    return units.mT.contiguous()


@remembered
def _by_unit(weight: Float[Tensor, "h n"], unit_size: int) -> Float[Tensor, "h 1 n"]:
    return by_place(weight, unit_size).flatten(1)[:, None]

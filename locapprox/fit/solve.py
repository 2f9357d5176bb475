"""Weighted least squares: Gram matrices, quadratic forms, exact rows by elimination.

Unknowns θ = [w, intercept]. Shapes: b instances, k scores, n rows, d features, p = d or d + 1 unknowns, s weightings of
the same rows (all of them, and each of 20 groups, say); g is 1 where all instances share a matrix, else b.
"""

from collections.abc import MutableMapping
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from locapprox.fit.kept import remembered

_PAIRS: MutableMapping[Tensor, Tensor] = WeakIdKeyDictionary()
MOST_PAIRS = 4  # designs whose pairs are held at a time
PAIRS_UP_TO = 64  # unknowns up to which per-instance Gram matrices come from one product with all feature pairs


@remembered
def design(xi: Float[Tensor, "n d"], intercept: bool, dtype: torch.dtype) -> Float[Tensor, "n p"]:
    """Rows [ξ, 1], or ξ without intercept."""
    xi = xi.to(dtype)
    return torch.cat([xi, xi.new_ones(len(xi), 1)], dim=1) if intercept else xi


def round_off(theta: Float[Tensor, "b k p"], X: Float[Tensor, "n p"]) -> Float[Tensor, "b k"]:
    """Below this a residual y − Xθ is zero: 16 p units of rounding of Σ |x_j θ_j|."""
    return 16 * X.shape[1] * torch.finfo(theta.dtype).eps * (theta.abs() @ _largest(X))


@remembered
def _largest(X: Float[Tensor, "n p"]) -> Float[Tensor, " p"]:
    return X.abs().amax(0) if len(X) else X.new_zeros(X.shape[1])


@remembered
def weighted_gram(X: Float[Tensor, "n p"], weight: Float[Tensor, "*g n"]) -> Float[Tensor, "*g p p"]:
    """Xᵀ diag(weight) X for every row of weights."""
    flat, p = weight.flatten(0, -2) if weight.ndim > 1 else weight[None], X.shape[1]
    if len(flat) == 1 or p > PAIRS_UP_TO:
        gram = torch.stack([(X * w[:, None]).mT @ X for w in flat])
    else:
        gram = (flat @ _pairs(X).mT)[:, _places(p, X.device)[0]]
    return gram.reshape(*weight.shape[:-1], p, p)


def quadratic(X: Float[Tensor, "n p"], M: Float[Tensor, "g p p"]) -> Float[Tensor, "g n"]:
    """xᵀ M x for every row x, with M symmetric."""
    if len(M) == 1 or X.shape[1] > PAIRS_UP_TO:
        return torch.stack([((X @ m) * X).sum(1) for m in M])
    _, upper, twice = _places(X.shape[1], X.device)
    return (M.flatten(1)[:, upper] * twice.to(M)) @ _pairs(X)


def _pairs(X: Float[Tensor, "n p"]) -> Float[Tensor, "pairs n"]:
    """x_i x_j for i ≤ j, a row for each: with it, Gram matrices for many weights are one matrix product.

    Kept as long as X is: a fit asks three times.
    """
    if X in _PAIRS:
        return _PAIRS[X]
    n, p = X.shape
    columns, out, start = X.mT.contiguous(), X.new_empty(p * (p + 1) // 2, n), 0
    for i in range(p):
        torch.mul(columns[i:], columns[i], out=out[start : start + p - i])
        start += p - i
    if len(_PAIRS) >= MOST_PAIRS:  # of designs that are kept
        _PAIRS.clear()
    _PAIRS[X] = out
    return out


@lru_cache(maxsize=16)
def _places(p: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Of a symmetric matrix: where entry (i, j) stands among the pairs, which entries are pairs, and 2 off diagonal."""
    i, j = torch.triu_indices(p, p, device=device)
    where = torch.empty(p, p, dtype=torch.long, device=device)
    where[i, j] = where[j, i] = torch.arange(len(i), device=device)
    return where.flatten(), i * p + j, torch.where(i == j, 1.0, 2.0)


def eliminate(
    gram: Float[Tensor, "g p p"],
    rhs: Float[Tensor, "b k p"],
    exact: Float[Tensor, "e p"],
    target: Float[Tensor, "b k e"],
    size: float = 0.0,
) -> tuple[Float[Tensor, "b k p"], Float[Tensor, "g p p"]]:
    """min ½ θᵀAθ − θᵀrhs with C θ = c: θ = θ₀ + N u, (NᵀAN) u = Nᵀ(rhs − A θ₀), N a basis of the null space of C."""
    if len(exact) == 0:
        inverse = inverse_of(gram)
        return times(rhs, inverse), inverse
    theta, null = particular(exact, target, size)
    if null.columns == 0:
        return theta, torch.zeros_like(gram)
    inverse = _inverse_within(gram, *null)
    return theta + times(rhs - times(theta, gram), inverse), inverse


@remembered
def _inverse_within(gram: Float[Tensor, "g p p"], *null: Tensor | None) -> Float[Tensor, "g p p"]:
    """N (NᵀAN)⁻¹ Nᵀ."""
    basis = Null(*null)  # type: ignore[arg-type]
    return basis.embedded(inverse_of(basis.restricted(gram)))


def times(rows: Float[Tensor, "b k p"], matrices: Float[Tensor, "g p p"]) -> Float[Tensor, "b k p"]:
    """rows @ matrices, as one product where there is one matrix for all."""
    return rows @ (matrices[0] if len(matrices) == 1 else matrices)


class Null(NamedTuple):
    """An orthonormal basis N of a null space, over the columns' units, as the Householder reflections that it ends.

    Never formed: with r rows to interpolate a product with N takes O(r) per entry, not O(p).
    """

    reflections: Float[Tensor, "p r"]
    tau: Float[Tensor, " r"]
    unit: Float[Tensor, " p"] | None = None

    @property
    def columns(self) -> int:
        return self.reflections.shape[0] - len(self.tau)

    @property
    def matrix(self) -> Float[Tensor, "p q"]:
        return self.times(torch.eye(self.columns, dtype=self.tau.dtype, device=self.tau.device))

    def times(self, a: Float[Tensor, "q c"]) -> Float[Tensor, "p c"]:
        """N a."""
        a = self._reflected(torch.cat([a.new_zeros(len(self.tau), a.shape[1]), a]), transpose=False)
        return a if self.unit is None else a / self.unit[:, None]

    def transposed_times(self, a: Float[Tensor, "p c"]) -> Float[Tensor, "q c"]:
        """Nᵀ a."""
        a = a if self.unit is None else a / self.unit[:, None]
        return self._reflected(a, transpose=True)[len(self.tau) :]

    def restricted(self, A: Float[Tensor, "g p p"]) -> Float[Tensor, "g q q"]:
        """Nᵀ A N of symmetric A."""
        return torch.stack([self.transposed_times(self.transposed_times(a).mT) for a in A])

    def embedded(self, A: Float[Tensor, "g q q"]) -> Float[Tensor, "g p p"]:
        """N A Nᵀ of symmetric A."""
        return torch.stack([self.times(self.times(a).mT) for a in A])

    def _reflected(self, a: Float[Tensor, "p c"], transpose: bool) -> Float[Tensor, "p c"]:
        return torch.ormqr(self.reflections, self.tau, a, True, transpose) if len(self.tau) else a


def particular(
    exact: Float[Tensor, "e p"], target: Float[Tensor, "b k e"], size: float = 0.0
) -> tuple[Float[Tensor, "b k p"], Null]:
    """The least-norm θ₀ with C θ₀ = c, and a basis of the null space of C, orthonormal: both in the columns' units.

    `size` is that of the outputs, of which c may be a small difference.
    """
    p = exact.shape[1]
    if len(exact) == 0:
        return target.new_zeros(*target.shape[:2], p), Null(target.new_zeros(p, 0), target.new_zeros(0))
    unit = _unit_of_columns(exact)
    if unit is not None:
        theta, null = particular(exact / unit, target, size)
        return theta / unit, null._replace(unit=unit)
    u, s, vh, null = _spaces(exact)
    theta = (target @ u / s) @ vh
    gap = float((theta @ exact.mT - target).abs().max()) if len(null.tau) < len(exact) else 0.0
    if gap > 1e-6 * float(target.abs().max()) + 1e-12 * size:
        raise ValueError(
            f"the rows with infinite weight cannot all be interpolated (off by {gap:.3g}): without an intercept the "
            "surrogate is 0 at ξ = 0 (use Linear(intercept=True)), and equal ξ need equal outputs"
        )
    return theta, null


@remembered
def _spaces(C: Float[Tensor, "e p"]) -> tuple[Tensor, Tensor, Tensor, Null]:
    """Its singular values that are not 0, with their vectors, and a basis of the null space."""
    u, s, vh = torch.linalg.svd(C, full_matrices=False)
    rank = int((s > s[0] * 1e-10).sum())
    return u[:, :rank], s[:rank], vh[:rank], Null(*torch.geqrf(vh[:rank].mT))


@remembered
def _unit_of_columns(C: Float[Tensor, "e p"]) -> Float[Tensor, " p"] | None:
    """See `unit_near`; None if all are 1."""
    columns = C.abs().amax(0)
    if columns.numel() == 0 or (float(columns.amin()) > 1 / 32 and float(columns.amax()) < 32):
        return None
    unit = unit_near(columns)
    return unit if bool((unit != 1).any()) else None


class UndeterminedError(ValueError):
    """Fewer weights are determined than asked for."""


@remembered
def inverse_of(A: Float[Tensor, "g p p"]) -> Float[Tensor, "g p p"]:
    """The inverse of positive definite matrices, scaled to unit diagonal first."""
    factor, scale, lost = factor_of(A)
    if bool(lost.any()):
        raise UndeterminedError(why_undetermined(A * scale[:, :, None] * scale[:, None, :]))
    return torch.cholesky_inverse(factor) * scale[:, :, None] * scale[:, None, :]


def factor_of(A: Float[Tensor, "g p p"]) -> tuple[Float[Tensor, "g p p"], Float[Tensor, "g p"], Bool[Tensor, " g"]]:
    """Cholesky's factor of matrices scaled to unit diagonal, the scale, and which have no inverse but round-off."""
    scale = to_unit_diagonal(A)
    factor, info = torch.linalg.cholesky_ex(A * scale[:, :, None] * scale[:, None, :])
    pivots = factor.diagonal(dim1=-2, dim2=-1).square().amin(-1)
    return factor, scale, (info > 0) | ~(pivots >= 100 * A.shape[-1] * torch.finfo(A.dtype).eps)


def why_undetermined(scaled: Float[Tensor, "g p p"]) -> str:
    """Why matrices of unit diagonal have no inverse."""
    p = scaled.shape[-1]
    if not bool(scaled.isfinite().all()):
        return "the draw's ξ or weights, or the outputs, are infinite, NaN, or too large to be squared: scale them down"
    rank = int(torch.linalg.matrix_rank(scaled, hermitian=True).min())
    what = f"{rank} of the {p} weights" if rank < p else f"the {p} weights no better than round-off"
    return f"n_samples is too small, or the draw too poor: its rows determine {what}"


def to_unit_diagonal(A: Float[Tensor, "g p p"]) -> Float[Tensor, "g p"]:
    """s with s_i A_ii s_i = 1; 1 where A_ii is 0."""
    diagonal = A.diagonal(dim1=-2, dim2=-1)
    return torch.where(diagonal > 0, diagonal, 1.0).rsqrt()


def unit_near(size: Tensor) -> Tensor:
    """The power of 1024 nearest to every size, 1 for 0: numbers between 1/32 and 32 stay what they are."""
    steps = torch.where(size > 0, size, 1.0).log2().div(10).round()
    return torch.ldexp(torch.ones_like(size), (10 * steps).int())


def binary(size: Tensor) -> Tensor:
    """The power of two at or below every size, which may be divided by without changing a digit; 1 for 0."""
    return torch.where(size > 0, torch.ldexp(torch.ones_like(size), torch.frexp(size).exponent - 1), 1.0)


def unit_of_weights(weight: Float[Tensor, "g n"]) -> Float[Tensor, "g 1"] | float:
    """What weights whose squares leave float64's range may be divided by; 1 where none do."""
    if weight.numel() == 0:
        return 1.0
    largest = weight.amax(-1, keepdim=True)
    if bool(largest.isinf().any()):  # rows to interpolate
        largest = torch.where(weight.isfinite(), weight, 0.0).amax(-1, keepdim=True)
    ordinary = (largest > 2.0**-100) & (largest < 2.0**100)
    return 1.0 if bool(ordinary.all()) else torch.where(ordinary, 1.0, binary(largest))


def part_of(parts: Tensor, i: slice | Tensor, b: int) -> Tensor:
    """The parts of instances i among b: there is one for all, or one or more for each."""
    return parts if len(parts) == 1 else parts.unflatten(0, (b, -1))[i].flatten(0, 1)

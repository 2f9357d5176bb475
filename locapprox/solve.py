"""Weighted least squares: normal equations that stream, exact rows by elimination, errors by leaving rows out.

Unknowns θ = [w, intercept]. Shapes: b instances, k scores, n rows, d features, p = d or d + 1 unknowns, s weightings of
the same rows (all of them, and each of 20 groups, say); g is 1 where all instances share a matrix, else b.
"""

from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

_PAIRS = WeakIdKeyDictionary()
PAIRS_UP_TO = 64  # unknowns up to which per-instance Gram matrices come from one product with all feature pairs


def design(xi: Float[Tensor, "n d"], intercept: bool, dtype: torch.dtype) -> Float[Tensor, "n p"]:
    """Rows [ξ, 1], or ξ without intercept."""
    xi = xi.to(dtype)
    return torch.cat([xi, xi.new_ones(len(xi), 1)], dim=1) if intercept else xi


def rounding(theta: Float[Tensor, "b k p"], X: Float[Tensor, "n p"]) -> Float[Tensor, "b k"]:
    """Below this a residual y − Xθ is zero: 16 p units of rounding of Σ |x_j θ_j|."""
    largest = X.abs().amax(0) if len(X) else X.new_zeros(X.shape[1])
    return 16 * X.shape[1] * torch.finfo(theta.dtype).eps * (theta.abs() @ largest)


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
) -> tuple[Float[Tensor, "b k p"], Float[Tensor, "g p p"]]:
    """min ½ θᵀAθ − θᵀrhs with C θ = c: θ = θ₀ + N u, (NᵀAN) u = Nᵀ(rhs − A θ₀), N a basis of the null space of C."""
    if len(exact) == 0:
        inverse = inverse_of(gram)
        return times(rhs, inverse), inverse
    theta, null = particular(exact, target)
    if null.shape[1] == 0:
        return theta, torch.zeros_like(gram)
    inverse = null @ inverse_of(null.mT @ gram @ null) @ null.mT
    return theta + times(rhs - times(theta, gram), inverse), inverse


def times(rows: Float[Tensor, "b k p"], matrices: Float[Tensor, "g p p"]) -> Float[Tensor, "b k p"]:
    """rows @ matrices, as one product where there is one matrix for all."""
    return rows @ (matrices[0] if len(matrices) == 1 else matrices)


def particular(
    exact: Float[Tensor, "e p"], target: Float[Tensor, "b k e"]
) -> tuple[Float[Tensor, "b k p"], Float[Tensor, "p q"]]:
    """The least-norm θ₀ with C θ₀ = c, and an orthonormal basis of the null space of C."""
    if len(exact) == 0:
        p = exact.shape[1]
        return target.new_zeros(*target.shape[:2], p), torch.eye(p, dtype=target.dtype, device=target.device)
    u, s, vh = torch.linalg.svd(exact, full_matrices=len(exact) < exact.shape[1])
    rank = int((s > s[0] * 1e-10).sum())
    theta = (target @ u[:, :rank] / s[:rank]) @ vh[:rank]
    gap = float((theta @ exact.mT - target).abs().max())
    if gap > 1e-6 * (1e-6 + float(target.abs().max())):
        raise ValueError(
            f"the rows with infinite weight cannot all be interpolated (off by {gap:.3g}): without an intercept the "
            "surrogate is 0 at ξ = 0 (use Linear(intercept=True)), and equal ξ need equal outputs"
        )
    return theta, vh[rank:].mT


def inverse_of(A: Float[Tensor, "g p p"]) -> Float[Tensor, "g p p"]:
    """The inverse of positive definite matrices, scaled to unit diagonal first."""
    scale = A.diagonal(dim1=-2, dim2=-1).clamp_min(torch.finfo(A.dtype).tiny).rsqrt()
    scaled = A * scale[:, :, None] * scale[:, None, :]
    factor, info = torch.linalg.cholesky_ex(scaled)
    pivots = factor.diagonal(dim1=-2, dim2=-1).square().amin(-1)
    if bool((info > 0).any()) or bool((pivots < 100 * A.shape[-1] * torch.finfo(A.dtype).eps).any()):
        rank = int(torch.linalg.matrix_rank(scaled, hermitian=True).min())
        raise ValueError(
            f"n_samples is too small, or the draw too poor: its rows determine {rank} of the {A.shape[-1]} weights; "
            "draw more, use fewer features (features=), a wider kernel, or another neighbourhood"
        )
    return torch.cholesky_inverse(factor) * scale[:, :, None] * scale[:, None, :]


class Shrunk(NamedTuple):
    """M = basis diag(1 / kept) basisᵀ for every one of B problems, g = 1 or B / k bases for all of them.

    Never formed: of a thousand instances with 3,072 weights it would have 75 GB.
    """

    basis: Float[Tensor, "g p q"]
    kept: Float[Tensor, "B q"]

    def of(self, i: slice, b: int) -> "Shrunk":
        return Shrunk(part_of(self.basis, i, b), part_of(self.kept, i, b))

    def products(self, X: Float[Tensor, "n p"], unit: int) -> Float[Tensor, "B units u u"]:
        """x_a · M x_c of the rows a and c of every unit."""
        rows = (X @ self.basis).unflatten(1, (-1, unit))  # (g, units, u, q)
        scale = self.kept.reciprocal().unflatten(0, (len(self.basis), -1)).mT  # (g, q, B / g)
        places = [[((rows[:, :, a] * rows[:, :, c]) @ scale) for c in range(unit)] for a in range(unit)]
        return torch.stack([torch.stack(row, -1) for row in places], -2).movedim(2, 1).flatten(0, 1)


def part_of(parts: Tensor, i: slice, b: int) -> Tensor:
    """The parts of instances i among b: there is one for all, or one or more for each."""
    return parts if len(parts) == 1 else parts.unflatten(0, (b, -1))[i].flatten(0, 1)


def ridge(
    gram: Float[Tensor, "g p p"],
    rhs: Float[Tensor, "b k p"],
    penalty: Float[Tensor, "g p"],
    square: Float[Tensor, "b k"],
    exact: Float[Tensor, "e p"],
    target: Float[Tensor, "b k e"],
    rows: float,
) -> tuple[Float[Tensor, "b k p"], Shrunk]:
    """min ½ θᵀAθ − θᵀrhs + ½ λ Σ penalty_j θ_j² with C θ = c, λ by generalised cross-validation.

    GCV(λ) = RSS(λ) / (1 − tr H(λ) / rows)² (Golub, Heath and Wahba 1979); RSS needs no rows but `square`, Σ w y².
    One decomposition serves all λ: with B = A + cP = LLᵀ and c L⁻¹PL⁻ᵀ = Q diag(μ) Qᵀ, A + tcP = LQ(1 − μ + tμ)QᵀLᵀ.
    """
    theta, null = particular(exact, target)
    pull = (rhs - times(theta, gram)) @ null
    square = square - 2 * (theta * rhs).sum(-1) + (times(theta, gram) * theta).sum(-1)
    a, p = null.mT @ gram @ null, null.mT @ (penalty[:, :, None] * null)
    trace = [m.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None] for m in (a, p)]
    p = p * trace[0] / trace[1]
    factor, info = torch.linalg.cholesky_ex(a + p)
    if bool((info > 0).any()):
        raise ValueError(
            "n_samples is too small: some features do not vary in the draw; draw more, or use fewer features"
        )
    mu, q = torch.linalg.eigh(
        torch.linalg.solve_triangular(factor, torch.linalg.solve_triangular(factor, p, upper=False).mT, upper=False)
    )
    mu = mu.clamp(0, 1)
    basis = torch.linalg.solve_triangular(factor.mT, q, upper=True)  # L⁻ᵀQ
    z = pull @ basis  # (b, k, q)
    t = torch.logspace(-8, 8, 81, dtype=z.dtype, device=z.device)[:, None]
    kept = 1 - mu[:, None] + t * mu[:, None]  # (g, t, q)
    hat = ((1 - mu[:, None]) / kept).sum(-1)  # (g, t)
    fit = z.square() @ ((2 - (1 - mu[:, None]) / kept) / kept).mT  # (b, k, t): of z / kept
    score = (square[..., None] - fit).clamp_min(0) / (1 - hat / rows).clamp_min(1e-3).square()[:, None]
    score = torch.where((hat > 0.9 * rows)[:, None], torch.inf, score)  # where nearly interpolating, GCV is 0 / 0
    score[..., -1] = score[..., -1].clamp_max(torch.finfo(score.dtype).max)
    best = score.argmin(-1)  # (b, k)
    chosen = t[best, 0][..., None]  # (b, k, 1)
    kept = 1 - mu[:, None] + chosen * mu[:, None]  # (b, k, q)
    basis = null @ basis  # (g, p, q)
    return theta + (z / kept) @ basis.mT, Shrunk(basis, kept.flatten(0, 1))


def jackknife(
    X: Float[Tensor, "n p"],
    weight: Float[Tensor, "h n"],
    inverse: Float[Tensor, "g p p"] | Shrunk,
    rest: Float[Tensor, "b k n"],
    unit: int,
) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b k p"], Float[Tensor, "b k p"]]:
    """Σ w e², Σ δ and Σ δ² over units left out in turn: e their residuals then, δ = M Σ x w e what they add to θ.

    With a matrix for every score instead of every instance, scores are taken as instances.
    """
    b, k, n = rest.shape
    if k > 1 and len(inverse.kept if isinstance(inverse, Shrunk) else inverse) == b * k:
        weight = weight.repeat_interleave(k, 0) if len(weight) > 1 else weight
        sums = jackknife(X, weight, inverse, rest.reshape(b * k, 1, n), unit)
        return sums[0].reshape(b, k), sums[1].reshape(b, k, -1), sums[2].reshape(b, k, -1)
    if unit == 2 and not isinstance(inverse, Shrunk) and len(inverse) == 1 and _sums_are_fixed(X, weight, inverse[0]):
        y, half = rest.unflatten(-1, (-1, 2)), weight[:, ::2] / 2
        total, first, second = jackknife(X[::2] - X[1::2], half, inverse, y[..., 0] - y[..., 1], 1)
        return total + (y[..., 0] + y[..., 1]).square() @ half[0], first, second
    e, w = leave_out(X, weight, inverse, by_place(rest, unit)), by_place(weight, unit).flatten(1)[:, None]
    e_rows = e.flatten(2)
    if isinstance(inverse, Shrunk):
        total = (w * e_rows.square()).sum(-1)
        unknown = torch.full_like(total, torch.nan)[..., None].expand(-1, -1, X.shape[1])
        return total, unknown, unknown
    if len(inverse) > 1 and unit == 1:
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


def _sums_are_fixed(X: Float[Tensor, "n p"], weight: Float[Tensor, "1 n"], inverse: Float[Tensor, "p p"]) -> bool:
    """Whether the rows to interpolate fix the sum of every pair of rows, so that only its difference moves θ.

    So they do where masks come with their complements, and the empty and the full one are interpolated.
    """
    sums = X[::2] + X[1::2]
    moves = (sums @ inverse).abs() <= 1e-12 * (sums.abs() @ inverse.abs())
    return torch.equal(weight[:, ::2], weight[:, 1::2]) and bool(moves.all())


def leave_out(
    X: Float[Tensor, "n p"],
    weight: Float[Tensor, "h n"],
    inverse: Float[Tensor, "g p p"] | Shrunk,
    rest: Float[Tensor, "b k u m"],
) -> Float[Tensor, "b k u m"]:
    """Residuals of each unit of u rows under the fit without it: (I − X_u M X_uᵀ W_u)⁻¹ r_u."""
    unit = rest.shape[2]
    if unit == 1:
        own = inverse.products(X, 1)[..., 0, 0] if isinstance(inverse, Shrunk) else quadratic(X, inverse)
        return rest / (weight * own).neg_().add_(1).clamp_min_(1e-12)[:, None, None]
    rows = X.unflatten(0, (-1, unit))
    if isinstance(inverse, Shrunk):
        products = inverse.products(X, unit)
    else:
        products = (X @ inverse).unflatten(1, (-1, unit)) @ rows.mT
    hat = products * weight.unflatten(-1, (-1, unit))[:, :, None]
    grown = torch.linalg.inv(torch.eye(unit, dtype=X.dtype, device=X.device) - hat)
    grown = grown.permute(0, 3, 2, 1).contiguous().unsqueeze(1)  # (g, 1, column, row, m)
    left_out = grown[:, :, 0] * rest[:, :, :1]
    for c in range(1, unit):
        left_out.addcmul_(grown[:, :, c], rest[:, :, c : c + 1])
    return left_out


def by_place(values: Float[Tensor, "*b n"], unit: int) -> Float[Tensor, "*b unit units"]:
    """The first rows of all units, then the second ones, …: each contiguous."""
    return values.unflatten(-1, (-1, unit)).mT.contiguous()

"""Ridge, for fewer rows than determine the weights: the penalty by generalised cross-validation."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from locapprox.fit.solve import Null, UndeterminedError, part_of, particular, times, unit_near

MOST = 0.8  # degrees of freedom of a fit for each of its rows; nearer to interpolation GCV tends to 0 / 0


class Spectrum(NamedTuple):
    """A and a penalty P of equal trace, diagonalised together: with A + P = LLᵀ and L⁻¹PL⁻ᵀ = Q diag(μ) Qᵀ,

    A + tP = LQ (1 − μ + tμ) QᵀLᵀ for every t, so (A + tP)⁻¹ = basis diag(1 / (1 − μ + tμ)) basisᵀ, basis = L⁻ᵀQ.
    """

    basis: Float[Tensor, "g p q"]
    mu: Float[Tensor, "g q"]

    @classmethod
    def of(cls, A: Float[Tensor, "g p p"], P: Float[Tensor, "g p p"]) -> "Spectrum":
        trace = [m.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None] for m in (A, P)]
        P = P * trace[0] / trace[1]
        factor, info = torch.linalg.cholesky_ex(A + P)
        if bool((info > 0).any()):
            raise UndeterminedError("n_samples is too small: some features do not vary in the draw")
        half = torch.linalg.solve_triangular(factor, P, upper=False)
        mu, q = torch.linalg.eigh(torch.linalg.solve_triangular(factor, half.mT, upper=False))
        return cls(torch.linalg.solve_triangular(factor.mT, q, upper=True), mu.clamp(0, 1))

    def divisor(self, t: Float[Tensor, "... 1"]) -> Float[Tensor, "g ... q"]:
        """1 − μ + tμ."""
        return 1 - self.mu[:, None] + t * self.mu[:, None]

    def filter(self, t: Float[Tensor, "t 1"]) -> Float[Tensor, "g t q"]:
        """What is kept of each direction of the unpenalised fit, from 0 to 1."""
        return (1 - self.mu[:, None]) / self.divisor(t)

    def degrees(self, t: Float[Tensor, "t 1"]) -> Float[Tensor, "g t"]:
        """Effective degrees of freedom, tr H."""
        return self.filter(t).sum(-1)

    def rss(
        self, score: Float[Tensor, "b k q"], square: Float[Tensor, "b k"], t: Float[Tensor, "t 1"]
    ) -> Float[Tensor, "b k t"]:
        """Σ w (y − Xθ)² at θ = basis (score / divisor), of Σ w y² and the right side in the basis."""
        explained = score.square() @ ((2 - self.filter(t)) / self.divisor(t)).mT
        return (square[..., None] - explained).clamp_min(0)


class PairSums(NamedTuple):
    """Of pairs of rows whose sum is the same x for all: of θ their sums s of y tell by their mean alone.

    Σ w, Σ w s and Σ w s²; of masks and their complements x is all ones, of ±ξ it is zero.
    """

    x: Float[Tensor, " p"]
    w: Float[Tensor, "g 1"]
    y: Float[Tensor, "b k"]
    yy: Float[Tensor, "b k"]

    @classmethod
    def of(cls, pieces: Iterable[tuple[Tensor, Tensor, Tensor]], y0: Float[Tensor, "b k"]) -> "PairSums | None":
        """From X (n, p), weights (g, n) and y (b, k, n) of some rows after others; None where there is no such x."""
        sums = None
        for X, weight, y in pieces:
            x, w, s = X[::2] + X[1::2], weight[:, ::2], (y.to(y0) - y0[..., None]).unflatten(-1, (-1, 2)).sum(-1)
            if not torch.equal(w, weight[:, 1::2]) or bool((x != (x[0] if sums is None else sums.x)).any()):
                return None
            parts = w.sum(-1, keepdim=True), (s * w[:, None]).sum(-1), (s.square() * w[:, None]).sum(-1)
            sums = cls(x[0], *(parts if sums is None else (a + b for a, b in zip(sums[1:], parts, strict=True))))
        return sums

    def noise(self, theta: Float[Tensor, "b k p"], null: Null) -> tuple[Float[Tensor, "b k"], bool]:
        """The part of Σ w (y − Xθ)² that no θ + N u changes; whether x · θ may change."""
        x = theta @ self.x
        squares = self.yy - 2 * x * self.y + self.w * x.square()
        free = bool(null.transposed_times(self.x[:, None]).abs().amax() > 1e-9 * self.x.abs().amax())
        return (squares - (self.y - self.w * x).square() / self.w if free else squares) / 2, free


@dataclass(frozen=True, eq=False)
class Shrunk:
    """M = basis diag(1 / divisor) basisᵀ for every one of B problems, g = 1 or B / k bases for all of them.

    Never formed: of a thousand instances with 3,072 weights it would have 75 GB.
    """

    basis: Float[Tensor, "g p q"]
    divisor: Float[Tensor, "B q"]

    def __len__(self) -> int:
        return len(self.divisor)

    def of(self, i: slice, b: int) -> "Shrunk":
        return Shrunk(part_of(self.basis, i, b), part_of(self.divisor, i, b))

    def products(self, X: Float[Tensor, "n p"], unit_size: int) -> Float[Tensor, "B units u u"]:
        """x_a · M x_c of the rows a and c of every unit."""
        rows = (X @ self.basis).unflatten(1, (-1, unit_size))  # (g, units, u, q)
        scale = self.divisor.reciprocal().unflatten(0, (len(self.basis), -1)).mT  # (g, q, B / g)
        u = range(unit_size)
        places = [[((rows[:, :, a] * rows[:, :, c]) @ scale) for c in u] for a in u]
        return torch.stack([torch.stack(row, -1) for row in places], -2).movedim(2, 1).flatten(0, 1)

    def leverage(self, X: Float[Tensor, "n p"]) -> Float[Tensor, "B n"]:
        """x · M x of every row."""
        return self.products(X, 1)[..., 0, 0]


def ridge(
    gram: Float[Tensor, "g p p"],
    rhs: Float[Tensor, "b k p"],
    penalty: Float[Tensor, "g p"],
    square: Float[Tensor, "b k"],
    exact: Float[Tensor, "e p"],
    target: Float[Tensor, "b k e"],
    rows: float,
    size: float = 0.0,
    sums: PairSums | None = None,
) -> tuple[Float[Tensor, "b k p"], Shrunk]:
    """min ½ θᵀAθ − θᵀrhs + ½ λ Σ penalty_j θ_j² with C θ = c, λ by generalised cross-validation.

    GCV(λ) = RSS(λ) / (1 − tr H(λ) / rows)² (Golub, Heath and Wahba 1979); RSS needs no rows but `square`, Σ w y². Of
    pairs of rows it is that of their differences, and of the mean of their `sums`.
    """
    unit = unit_near(penalty.amax(0).sqrt())
    gram, rhs, penalty, exact = gram / unit / unit[:, None], rhs / unit, penalty / unit.square(), exact / unit
    theta, null = particular(exact, target, size)
    score = null.transposed_times((rhs - times(theta, gram)).flatten(0, 1).mT).mT.view(*rhs.shape[:2], -1)
    square = square - 2 * (theta * rhs).sum(-1) + (times(theta, gram) * theta).sum(-1)
    if sums is not None:
        noise, free = sums._replace(x=sums.x / unit).noise(theta, null)
        square, rows = square - noise, rows + free
    spectrum = Spectrum.of(null.restricted(gram), null.restricted(torch.diag_embed(penalty)))
    score = score @ spectrum.basis  # (b, k, q)
    t = torch.logspace(-8, 8, 81, dtype=score.dtype, device=score.device)[:, None]
    degrees = spectrum.degrees(t)
    gcv = spectrum.rss(score, square, t) / (1 - degrees / rows).clamp_min(1e-3).square()[:, None]
    gcv = torch.where((degrees > MOST * rows)[:, None], torch.inf, gcv)
    gcv[..., -1] = gcv[..., -1].clamp_max(torch.finfo(gcv.dtype).max)
    chosen = t[gcv.argmin(-1), 0][..., None]  # (b, k, 1)
    divisor = spectrum.divisor(chosen)  # (b, k, q)
    basis = torch.stack([null.times(part) for part in spectrum.basis]) / unit[:, None]  # (g, p, q)
    return theta / unit + (score / divisor) @ basis.mT, Shrunk(basis, divisor.flatten(0, 1))

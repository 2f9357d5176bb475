"""Weighted least squares for many instances by conjugate gradients: no matrix for each of them.

With weights of mean 1, A = XᵀWX of an instance is near the Gram matrix of the draw, A₀ = XᵀX, where weights are not
very uneven: then A₀⁻¹ is a preconditioner that is the same for all, a step costs two thin products, and five or so
suffice. Leverages and variances under A follow from those under A₀. Which instances are near is measured.

Shapes as in `solve`, h = b or 1 rows of weights.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from locapprox.fit.jackknife import Jackknife
from locapprox.fit.solve import inverse_of

STEPS = 20
ACCURACY = 1e-6  # of a standard error, the root mean square over the weights
NEAR = 0.02  # by how much the leverages may miss their sum: then standard errors are off by about 1 %, the loss by less


@dataclass(eq=False)
class Conjugate:
    """The rows of a draw, and M₀ = (XᵀX)⁻¹."""

    X: Float[Tensor, "n p"]

    def __post_init__(self) -> None:
        X = self.X
        self.inverse = inverse_of((X.mT @ X)[None])[0]
        columns = X @ self.inverse
        self.leverage = (columns * X).sum(1)
        self.square = columns.square_()  # (x M₀)²

    def leverages(self, weight: Float[Tensor, "h n"]) -> tuple[Float[Tensor, "h n"], Bool[Tensor, " h"]]:
        """w x A⁻¹ xᵀ of every row, and whether A is near A₀: h₀ as if only the row's own weight were not 1, scaled to
        their sum p."""
        leverage = weight * self.leverage / (1 + (weight - 1) * self.leverage)
        scale = self.X.shape[1] / leverage.sum(-1, keepdim=True)
        leverage = leverage.mul_(scale)
        return leverage, ((scale[:, 0] - 1).abs() <= NEAR) & (leverage < 1).all(-1)

    def solve(
        self, weight: Float[Tensor, "h n"], rhs: Float[Tensor, "b k p"], square: Float[Tensor, "b k"]
    ) -> tuple[Float[Tensor, "b k p"], Bool[Tensor, " b"]]:
        """A⁻¹ rhs for weights of mean 1, and where it was found; `square` is Σ w y²."""
        n, p = self.X.shape
        floor = (64 * torch.finfo(rhs.dtype).eps) ** 2 * square
        theta, left, rss = torch.zeros_like(rhs), rhs.clone(), square.clone()
        step = preconditioned = left @ self.inverse
        found = torch.zeros_like(rhs[:, 0, 0], dtype=torch.bool)
        size = (left * preconditioned).sum(-1)  # ‖A⁻¹rhs − θ‖² in A's norm, nearly; that of standard errors is p s²
        for _ in range(STEPS):
            product = (weight[:, None] * (step @ self.X.mT)) @ self.X
            curvature = (step * product).sum(-1)
            length = torch.where(curvature > 0, size / curvature, 0.0)
            theta.addcmul_(length[..., None], step)
            left.addcmul_(length[..., None], product, value=-1)
            rss -= length * size
            preconditioned = left @ self.inverse
            before, size = size, (left * preconditioned).sum(-1)
            found = (size <= ACCURACY**2 * p / n * rss.clamp_min(0) + floor).all(-1)
            if bool(found.all()):
                break
            step = preconditioned + torch.where(before > 0, size / before, 0.0)[..., None] * step
        return theta, found

    def leave_out(
        self, weight: Float[Tensor, "h n"], leverage: Float[Tensor, "h n"], residual: Float[Tensor, "b k n"]
    ) -> Jackknife:
        """As `jackknife`, of single rows. Variances are the diagonal of M S M, M = A⁻¹: to first order that of M₀ S M₀
        times (M_jj / M₀_jj)², with M_jj = M₀_jj − Σ (w − 1) (x M₀)_j²."""
        rest = 1 - leverage[:, None]
        product = weight[:, None] * residual.square() / rest
        square = product / rest
        score = (weight[:, None] * product).div_(rest.sqrt())  # (w e)² ρ^½
        shift = 1 - ((weight - 1) @ self.square) / self.inverse.diagonal()
        influence = (score @ self.square).mul_(shift.square()[:, None])
        distance = square - product
        unused = torch.zeros_like(influence)
        return Jackknife(square.sum(-1), unused, influence, distance.sum(-1), distance.square().sum(-1))

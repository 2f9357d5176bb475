"""Weighted least squares: normal equations that stream, exact rows by elimination, errors by leaving rows out.

Unknowns θ = [w, intercept]. Shapes: b instances, k scores, n rows, d features, p = d or d + 1 unknowns, s weightings of
the same rows (all of them, and each of 20 groups, say); g is 1 where all instances share a matrix, else b.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from locapprox.losses import Loss

PAIRS_UP_TO = 64  # unknowns up to which per-instance Gram matrices come from one product with all feature pairs


def design(xi: Float[Tensor, "n d"], intercept: bool, dtype: torch.dtype) -> Float[Tensor, "n p"]:
    """Rows [ξ, 1], or ξ without intercept."""
    xi = xi.to(dtype)
    return torch.cat([xi, xi.new_ones(len(xi), 1)], dim=1) if intercept else xi


def residual(y: Float[Tensor, "b k n"], fitted: Float[Tensor, "b k n"]) -> Float[Tensor, "b k n"]:
    """y − fitted, and 0 where that is rounding: a surrogate that interpolates has no loss."""
    gap = y - fitted
    largest = y.abs().amax(-1, keepdim=True) if y.shape[-1] else 0.0
    return torch.where(gap.abs() > 64 * torch.finfo(y.dtype).eps * largest, gap, 0.0)


def weighted_gram(X: Float[Tensor, "n p"], weight: Float[Tensor, "*g n"]) -> Float[Tensor, "*g p p"]:
    """Xᵀ diag(weight) X for every row of weights."""
    flat, p = weight.reshape(-1, weight.shape[-1]), X.shape[1]
    if len(flat) == 1 or p > PAIRS_UP_TO:
        gram = torch.stack([(X * w[:, None]).mT @ X for w in flat])
    else:
        i, j = torch.triu_indices(p, p, device=X.device)
        half = flat @ (X[:, i] * X[:, j])
        gram = half.new_empty(len(flat), p, p)
        gram[:, i, j] = half
        gram[:, j, i] = half
    return gram.reshape(*weight.shape[:-1], p, p)


def quadratic(X: Float[Tensor, "n p"], M: Float[Tensor, "g p p"]) -> Float[Tensor, "g n"]:
    """xᵀ M x for every row x, with M symmetric."""
    p = X.shape[1]
    if len(M) == 1 or p > PAIRS_UP_TO:
        return torch.stack([((X @ m) * X).sum(1) for m in M])
    i, j = torch.triu_indices(p, p, device=X.device)
    return (M[:, i, j] * torch.where(i == j, 1.0, 2.0).to(M)) @ (X[:, i] * X[:, j]).mT


class NormalEquations:
    """Sums over rows for s weightings at once.

    Values enter about y₀ and gradients about g₀, the means of the first block, so that nothing cancels. For gradient
    matching the squares of the unit sums are kept too: their spread is the error of a mean gradient.
    """

    def __init__(self, loss: Loss, intercept: bool) -> None:
        self.loss, self.intercept = loss, intercept
        self.sums: dict[str, Tensor] = {}
        self.y0: Tensor | None = None
        self.g0: Tensor | None = None
        self.units = 0

    def add_values(self, X: Float[Tensor, "n p"], weight: Float[Tensor, "g s n"], y: Float[Tensor, "b k n"]) -> None:
        if self.y0 is None:
            self.y0 = y.mean(-1) if self.intercept and y.shape[-1] else y.new_zeros(y.shape[:2])
        y = y - self.y0[..., None]
        weighted = weight[:, :, None] * y[:, None]  # (b, s, k, n)
        terms = {"weight": weight.sum(-1), "x": weight @ X, "y": weighted.sum(-1)}
        terms["yy"] = (weighted * y[:, None]).sum(-1)
        if self.loss.value:
            terms |= {"gram": weighted_gram(X, weight), "rhs": weighted @ X}
        for name, term in terms.items():
            self.sums[name] = self.sums[name] + term if name in self.sums else term

    def add_gradients(
        self, b: int, i: slice, weight: Float[Tensor, "g s n"], gradient: Float[Tensor, "c k n d"], unit: int | None
    ) -> None:
        """Rows of instances i among b; `unit` rows are one independent draw, None if the rows are not random."""
        k, _, d = gradient.shape[1:]
        weight = weight[i] if len(weight) > 1 else weight
        if self.g0 is None:
            sizes = {"g": (b, weight.shape[1], k, d), "gg": (b, weight.shape[1], k)}
            sizes |= {"unit_squares": (b, k, d), "unit_cross": (b, k, d), "unit_weight": (b, 1, 1)}
            self.sums |= {name: weight.new_zeros(size) for name, size in sizes.items()}
            self.g0 = weight.new_full((b, k, d), torch.nan)
        if bool(self.g0[i].isnan().any()):
            self.g0[i] = gradient.mean(2)
        about = gradient.to(weight.dtype) - self.g0[i][:, :, None]
        self.sums["g"][i] += torch.einsum("csn,cknd->cskd", weight.expand(len(about), -1, -1), about)
        square = about.square()
        self.sums["gg"][i] += (weight[:, :, None] * square.sum(-1)[:, None]).sum(-1)
        if unit is not None:
            w = weight[:, 0]
            if unit > 1:
                total = w.unflatten(-1, (-1, unit)).sum(-1)
                about = (w[:, None, :, None] * about).unflatten(2, (-1, unit)).sum(3) / total[:, None, :, None]
                w, square = total, about.square()
            w = w.square()[:, None, None]  # (g, 1, 1, units)
            self.sums["unit_squares"][i] += (w @ square).squeeze(2)
            self.sums["unit_cross"][i] += (w @ about).squeeze(2)
            self.sums["unit_weight"][i] += w.sum(-1)
            if i.start == 0:
                self.units += w.shape[-1]

    def total(self, name: str, mix: Float[Tensor, "g s"]) -> Tensor:
        """The sums of one weighting, a linear combination of the s."""
        term = self.sums[name]
        return (mix.reshape(*mix.shape, *[1] * (term.ndim - 2)) * term).sum(1)

    def solve(
        self, mix: Float[Tensor, "g s"], exact: Float[Tensor, "e p"], target: Float[Tensor, "b k e"]
    ) -> tuple[Float[Tensor, "b k p"], Float[Tensor, "g p p"] | None]:
        """θ and M = N(NᵀAN)⁻¹Nᵀ, whose columns span the changes of θ that keep the exact rows (None: A ∝ 1)."""
        assert self.y0 is not None
        weight, loss = self.total("weight", mix)[:, None, None], self.loss
        w = None
        if loss.gradient:
            assert self.g0 is not None
            w = self.g0 + self.total("g", mix) / weight
        if loss.value == 0 and w is not None and len(exact) == 0:
            if not self.intercept:
                return w, None
            x, y = self.total("x", mix)[..., : w.shape[-1]] / weight[..., 0], self.total("y", mix) / weight[..., 0]
            return torch.cat([w, (y + self.y0 - (w * x[:, None]).sum(-1))[..., None]], dim=-1), None
        p = exact.shape[1]
        gram, rhs = weight.new_zeros(len(weight), p, p), weight.new_zeros(*self.y0.shape, p)
        if loss.value:
            gram, rhs = gram + loss.value * self.total("gram", mix), rhs + loss.value * self.total("rhs", mix)
        if w is not None:
            d = w.shape[-1]
            gram[:, range(d), range(d)] += loss.gradient * weight[:, 0]
            rhs[..., :d] += loss.gradient * weight * w
        theta, inverse = _eliminate(gram, rhs, exact, target - self.y0[..., None])
        if self.intercept:
            theta[..., -1] += self.y0
        return theta, inverse

    def loss_of(self, theta: Float[Tensor, "b k p"], mix: Float[Tensor, "g s"]) -> Float[Tensor, "b k"]:
        """The mean in-sample loss of θ."""
        weight = self.total("weight", mix)[:, None]
        loss = torch.zeros_like(theta[..., 0])
        if self.loss.value:
            assert self.y0 is not None
            about = theta.clone()
            if self.intercept:
                about[..., -1] -= self.y0
            quad = ((about @ self.total("gram", mix)) * about).sum(-1)
            rest = self.total("yy", mix) - 2 * (about * self.total("rhs", mix)).sum(-1) + quad
            loss += self.loss.value * rest / weight
        if self.loss.gradient:
            assert self.g0 is not None
            about = theta[..., : self.g0.shape[-1]] - self.g0
            cross = (about * self.total("g", mix)).sum(-1)
            rest = self.total("gg", mix) - 2 * cross + weight * about.square().sum(-1)
            loss += self.loss.gradient * rest / weight
        return loss.clamp_min(0)

    def curvature(self, step: Float[Tensor, "b k p"], mix: Float[Tensor, "g s"]) -> Float[Tensor, "b k"]:
        """stepᵀ A step / Σ weight: what a step from the minimum adds to the mean loss."""
        added = torch.zeros_like(step[..., 0])
        if self.loss.value:
            quad = ((step @ self.total("gram", mix)) * step).sum(-1)
            added += self.loss.value * quad / self.total("weight", mix)[:, None]
        if self.loss.gradient:
            d = self.sums["g"].shape[-1]
            added += self.loss.gradient * step[..., :d].square().sum(-1)
        return added

    def constant_loss(self, mix: Float[Tensor, "g s"]) -> Float[Tensor, "b k"]:
        """The mean loss of the best constant g: the weighted variance of f, and the mean square of its gradient."""
        weight = self.total("weight", mix)[:, None]
        loss = torch.zeros_like(self.total("y", mix))
        if self.loss.value:
            loss += self.loss.value * (self.total("yy", mix) / weight - (self.total("y", mix) / weight).square())
        if self.loss.gradient:
            assert self.g0 is not None
            cross = (2 * self.g0 * self.total("g", mix) / weight[..., None]).sum(-1)
            loss += self.loss.gradient * (self.total("gg", mix) / weight + cross + self.g0.square().sum(-1))
        return loss

    def mean_gradient_variance(self, mix: Float[Tensor, "g s"]) -> Float[Tensor, "b k d"]:
        """Variance of Σ w g / Σ w over the independent units of the draw; 0 if nothing is random."""
        if self.units == 0:
            return torch.zeros_like(self.sums["unit_squares"])
        weight = self.total("weight", mix)[:, None, None]
        mean = self.total("g", mix) / weight
        spread = self.sums["unit_squares"] - 2 * mean * self.sums["unit_cross"]
        spread = spread + mean.square() * self.sums["unit_weight"]
        correction = self.units / (self.units - 1) if self.units > 1 else torch.nan
        return correction * spread.clamp_min(0) / weight.square()


def _eliminate(
    gram: Float[Tensor, "g p p"],
    rhs: Float[Tensor, "b k p"],
    exact: Float[Tensor, "e p"],
    target: Float[Tensor, "b k e"],
) -> tuple[Float[Tensor, "b k p"], Float[Tensor, "g p p"]]:
    """min ½ θᵀAθ − θᵀrhs with C θ = c: θ = θ₀ + N u, (NᵀAN) u = Nᵀ(rhs − A θ₀), N a basis of the null space of C."""
    if len(exact) == 0:
        inverse = _inverse(gram)
        return rhs @ inverse, inverse
    u, s, vh = torch.linalg.svd(exact, full_matrices=False)
    rank = int((s > s[0] * 1e-10).sum())
    row_space = vh[:rank].mT
    theta = (target @ u[:, :rank] / s[:rank]) @ row_space.mT
    gap = float((theta @ exact.mT - target).abs().max())
    if gap > 1e-6 * (1e-6 + float(target.abs().max())):
        raise ValueError(
            f"the rows with infinite weight cannot all be interpolated (off by {gap:.3g}): with intercept=False the "
            "surrogate is 0 at ξ = 0, and equal ξ need equal outputs"
        )
    null = torch.linalg.qr(row_space, mode="complete").Q[:, rank:]
    if null.shape[1] == 0:
        return theta, torch.zeros_like(gram)
    inverse = null @ _inverse(null.mT @ gram @ null) @ null.mT
    return theta + (rhs - theta @ gram) @ inverse, inverse


def _inverse(A: Float[Tensor, "g p p"]) -> Float[Tensor, "g p p"]:
    """The inverse of positive definite matrices, scaled to unit diagonal first."""
    scale = A.diagonal(dim1=-2, dim2=-1).clamp_min(torch.finfo(A.dtype).tiny).rsqrt()
    scaled = A * scale[:, :, None] * scale[:, None, :]
    factor, info = torch.linalg.cholesky_ex(scaled)
    pivots = factor.diagonal(dim1=-2, dim2=-1).square().amin(-1)
    if bool((info > 0).any()) or bool((pivots < 100 * A.shape[-1] * torch.finfo(A.dtype).eps).any()):
        rank = int(torch.linalg.matrix_rank(scaled, hermitian=True).min())
        raise ValueError(
            f"n_samples is too small, or the draw too poor: its rows determine {rank} of the {A.shape[-1]} weights; "
            "draw more, use fewer features (features=), or another neighbourhood"
        )
    return torch.cholesky_inverse(factor) * scale[:, :, None] * scale[:, None, :]


def leave_out(
    X: Float[Tensor, "n p"],
    weight: Float[Tensor, "g n"],
    inverse: Float[Tensor, "g p p"],
    rest: Float[Tensor, "b k n"],
    unit: int,
) -> Float[Tensor, "b k n"]:
    """Residuals of each unit of rows under the fit without it: (I − X_u M X_uᵀ W_u)⁻¹ r_u."""
    if unit == 1:
        leverage = weight * quadratic(X, inverse)
        return rest / (1 - leverage).clamp_min(1e-12)[:, None]
    rows = X.unflatten(0, (-1, unit))
    hat = rows @ inverse[:, None] @ rows.mT * weight.unflatten(-1, (-1, unit))[:, :, None]
    keep = torch.eye(unit, dtype=X.dtype, device=X.device) - hat
    units = rest.unflatten(-1, (-1, unit))[..., None]
    return torch.linalg.solve(keep[:, None], units).squeeze(-1).flatten(-2)


def shifts(
    X: Float[Tensor, "n p"],
    weight: Float[Tensor, "g n"],
    inverse: Float[Tensor, "g p p"],
    left_out: Float[Tensor, "b k n"],
    unit: int,
) -> tuple[Float[Tensor, "b k p"], Float[Tensor, "b k p"]]:
    """Σ δ and Σ δ² over units, with δ = Σ_{rows of the unit} M x w e the change of θ when the unit is left out."""
    pull = weight[:, None] * left_out  # (b, k, n)
    first = (pull @ X) @ inverse
    if len(inverse) > 1 and unit == 1:
        sandwich = inverse[:, None] @ weighted_gram(X, pull.square())
        return first, (sandwich * inverse[:, None]).sum(-1)
    second = torch.zeros_like(first)
    for g, m in enumerate(inverse):
        of = slice(None) if len(inverse) == 1 else slice(g, g + 1)
        rows, pulls = (X @ m).unflatten(0, (-1, unit)), pull[of].unflatten(-1, (-1, unit))
        for a in range(unit):
            for c in range(a, unit):
                second[of] += (1 if a == c else 2) * (pulls[..., a] * pulls[..., c]) @ (rows[:, a] * rows[:, c])
    return first, second

"""The normal equations of a weighted least-squares problem with value rows and gradient rows, as sums that stream."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from locapprox.losses import Loss
from locapprox.solve import Shrunk, eliminate, ridge, times, weighted_gram

Solved = tuple[Tensor, Tensor | None]  # θ (b, k, p); M (g, p, p), or None


class NormalEquations:
    """Sums over rows for s weightings at once.

    Values enter about y₀ and gradients about g₀, the first ones, so that nothing cancels. Of gradients the squares of
    the unit sums are kept too: their spread is the error of a mean gradient.
    """

    def __init__(self, loss: Loss, intercept: bool) -> None:
        self.loss, self.intercept = loss, intercept
        self.sums: dict[str, Tensor] = {}
        self.y0: Tensor | None = None
        self.g0: Tensor | None = None
        self.units = 0
        self.d = 0

    def add_values(self, X: Float[Tensor, "n p"], weight: Float[Tensor, "g s n"], y: Float[Tensor, "b k n"]) -> None:
        if self.y0 is None:
            about = self.intercept and y.shape[-1] > 0
            self.y0 = y[..., 0].to(X.dtype) if about else X.new_zeros(y.shape[:2])
        self.d = X.shape[1] - self.intercept
        y = y - self.y0[..., None]
        terms = {"weight": weight.sum(-1), "weight_square": weight.square().sum(-1), "x": weight @ X}
        rows = None
        if weight.shape[:2] == (1, 1):  # passes over the rows, not over all outputs
            w = weight[0].mT  # (n, 1)
            rows = w * X
            terms |= {"rhs": (y @ rows)[:, None], "y": (y @ w).mT, "yy": (y.square() @ w).mT}
        else:
            weighted = weight[:, :, None] * y[:, None]  # (b, s, k, n)
            terms |= {"rhs": weighted @ X, "y": weighted.sum(-1), "yy": weighted.mul_(y[:, None]).sum(-1)}
        if self.loss.value:
            terms["gram"] = weighted_gram(X, weight) if rows is None else (rows.mT @ X)[None, None]
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
            self.g0[i] = gradient[:, :, 0]
        # Within a block in the model's precision: what is summed is the spread about g₀, so nothing is lost.
        gradient = gradient.float() if gradient.element_size() < 4 else gradient
        about, sets = gradient - self.g0[i][:, :, None].to(gradient.dtype), weight.shape[1]
        square = about.square()
        rows = weight if unit is None else torch.cat([weight, weight[:, :1].square()], dim=1)
        rows = rows.to(gradient.dtype)[:, None]
        first, second = (rows @ about).to(weight.dtype), (rows @ square).to(weight.dtype)  # (c, k, s or s + 1, d)
        self.sums["g"][i] += first[:, :, :sets].transpose(1, 2)
        self.sums["gg"][i] += second[:, :, :sets].sum(-1).transpose(1, 2)
        if unit is None:
            return
        if unit == 1:
            squares, cross, weights = second[:, :, sets], first[:, :, sets], weight[:, 0].square()
        else:
            weights = weight[:, 0].unflatten(-1, (-1, unit)).sum(-1)
            unit_sums = (weight[:, :1, :, None] * about).unflatten(2, (-1, unit)).sum(3)
            squares, cross = unit_sums.square().sum(2), (weights[:, None, None] @ unit_sums).squeeze(2)
            weights = weights.square()
        self.sums["unit_squares"][i] += squares
        self.sums["unit_cross"][i] += cross
        self.sums["unit_weight"][i] += weights.sum(-1)[:, None, None]
        if i.start == 0:
            self.units += weights.shape[-1]

    def total(self, name: str, mix: Float[Tensor, "m s"]) -> Tensor:
        """The sums of one weighting, a linear combination of the s (of a single one, itself)."""
        term = self.sums[name]
        if term.shape[1] == 1:
            return term[:, 0]
        return (mix.reshape(*mix.shape, *[1] * (term.ndim - 2)) * term).sum(1)

    def mean_gradient(self, mix: Float[Tensor, "m s"]) -> Float[Tensor, "b k d"]:
        assert self.g0 is not None
        return self.g0 + self.total("g", mix) / self.total("weight", mix)[:, None, None]

    def system(self, mix: Float[Tensor, "m s"]) -> tuple[Float[Tensor, "g p p"], Float[Tensor, "b k p"]]:
        """A and Σ w x (y − y₀) with both kinds of rows, each times its weight in the loss."""
        weight, loss = self.total("weight", mix), self.loss
        rhs = loss.value * self.total("rhs", mix)
        p = rhs.shape[-1]
        gram = loss.value * self.total("gram", mix) if loss.value else weight.new_zeros(len(weight), p, p)
        if loss.gradient:
            gram[:, range(self.d), range(self.d)] += loss.gradient * weight[:, None]
            rhs[..., : self.d] += loss.gradient * weight[:, None, None] * self.mean_gradient(mix)
        return gram, rhs

    def solve(self, mix: Float[Tensor, "m s"], exact: Float[Tensor, "e p"], target: Float[Tensor, "b k e"]) -> Solved:
        """θ and M = N(NᵀAN)⁻¹Nᵀ, whose columns span the changes of θ that keep the exact rows (None: A ∝ 1)."""
        if self.loss.value == 0 and len(exact) == 0:
            return self.with_mean_intercept(self.mean_gradient(mix), mix), None
        theta, inverse = eliminate(*self.system(mix), exact, target - self.shift[..., None])
        return self.uncentre(theta), inverse

    def shrink(
        self, mix: Float[Tensor, "m s"], exact: Float[Tensor, "e p"], target: Float[Tensor, "b k e"], rows: float
    ) -> tuple[Tensor, Shrunk]:
        """As `solve`, with ridge on the weights in units of their feature's spread; see `ridge`."""
        gram, rhs = self.system(mix)
        mean = self.total("x", mix) / self.total("weight", mix)[:, None]
        spread = gram.diagonal(dim1=-2, dim2=-1) / self.total("weight", mix)[:, None] - self.loss.value * mean.square()
        spread[:, self.d :] = 0  # the intercept is free
        square = self.loss.value * self.total("yy", mix)
        theta, inverse = ridge(gram, rhs, spread.clamp_min(0), square, exact, target - self.shift[..., None], rows)
        return self.uncentre(theta), inverse

    def solve_on(
        self,
        chosen: Bool[Tensor, "b k d"],
        mix: Float[Tensor, "m s"],
        exact: Float[Tensor, "e p"],
        target: Float[Tensor, "b k e"],
    ) -> Solved:
        """As `solve` with the other weights held at 0."""
        if self.loss.value == 0 and len(exact) == 0:
            return self.with_mean_intercept(self.mean_gradient(mix) * chosen, mix), None
        gram, rhs = self.system(mix)
        theta, target = torch.zeros_like(rhs), target - self.shift[..., None]
        b, k, p = rhs.shape
        inverse = rhs.new_zeros(b * k, p, p)
        for i in range(b):
            for j in range(k):
                s = torch.cat([chosen[i, j], chosen.new_ones(p - self.d)]).nonzero().flatten()
                part = gram[i % len(gram)][s][:, s][None], rhs[i, j, s][None, None], exact[:, s]
                solution, small = eliminate(*part, target[i, j][None, None])
                theta[i, j, s] = solution[0, 0]
                inverse[i * k + j, s[:, None], s] = small[0]
        return self.uncentre(theta), inverse

    def with_mean_intercept(self, w: Float[Tensor, "b k d"], mix: Float[Tensor, "m s"]) -> Float[Tensor, "b k p"]:
        """Gradient matching leaves the intercept free: E f(x_ξ) − w · E ξ."""
        if not self.intercept:
            return w
        weight = self.total("weight", mix)
        x, y = self.total("x", mix)[:, : self.d] / weight[:, None], self.total("y", mix) / weight[:, None]
        return torch.cat([w, (y + self.shift - (w * x[:, None]).sum(-1))[..., None]], dim=-1)

    @property
    def shift(self) -> Float[Tensor, "b k"]:
        assert self.y0 is not None
        return self.y0

    def uncentre(self, theta: Float[Tensor, "b k p"]) -> Float[Tensor, "b k p"]:
        if self.intercept:
            theta[..., -1] += self.shift
        return theta

    def loss_of(self, theta: Float[Tensor, "b k p"], mix: Float[Tensor, "m s"]) -> Float[Tensor, "b k"]:
        """The mean in-sample loss of θ."""
        weight = self.total("weight", mix)[:, None]
        loss = torch.zeros_like(theta[..., 0])
        if self.loss.value:
            about = theta.clone()
            if self.intercept:
                about[..., -1] -= self.shift
            quad = (times(about, self.total("gram", mix)) * about).sum(-1)
            rest = self.total("yy", mix) - 2 * (about * self.total("rhs", mix)).sum(-1) + quad
            loss += self.loss.value * _resolved(rest, self.total("yy", mix) + quad) / weight
        if self.loss.gradient:
            assert self.g0 is not None
            about = theta[..., : self.d] - self.g0
            cross = (about * self.total("g", mix)).sum(-1)
            square = weight * about.square().sum(-1)
            rest = self.total("gg", mix) - 2 * cross + square
            loss += self.loss.gradient * _resolved(rest, self.total("gg", mix) + square) / weight
        return loss

    def curvature(self, step: Float[Tensor, "b k p"], mix: Float[Tensor, "m s"]) -> Float[Tensor, "b k"]:
        """stepᵀ A step / Σ weight: what a step from the minimum adds to the mean loss."""
        added = torch.zeros_like(step[..., 0])
        if self.loss.value:
            quad = (times(step, self.total("gram", mix)) * step).sum(-1)
            added += self.loss.value * quad / self.total("weight", mix)[:, None]
        if self.loss.gradient:
            added += self.loss.gradient * step[..., : self.d].square().sum(-1)
        return added

    def constant_loss(self, mix: Float[Tensor, "m s"]) -> Float[Tensor, "b k"]:
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

    def mean_gradient_variance(self, mix: Float[Tensor, "m s"]) -> Float[Tensor, "b k d"]:
        """Variance of Σ w g / Σ w over the independent units of the draw; 0 if nothing is random."""
        if self.units == 0:
            return torch.zeros_like(self.sums["unit_squares"])
        weight = self.total("weight", mix)[:, None, None]
        mean = self.total("g", mix) / weight
        spread = self.sums["unit_squares"] - 2 * mean * self.sums["unit_cross"]
        spread = spread + mean.square() * self.sums["unit_weight"]
        correction = self.units / (self.units - 1) if self.units > 1 else torch.nan
        return correction * spread.clamp_min(0) / weight.square()


def _resolved(rest: Tensor, terms: Tensor) -> Tensor:
    """A sum of squares found as a difference of larger terms; 0 where it is no more than their rounding."""
    return torch.where(rest > 64 * torch.finfo(rest.dtype).eps * terms, rest, 0.0)

"""Sums over the rows of a weighted least-squares problem: they stream, and hold all that a linear fit needs.

Shapes as in `solve`: b instances, k scores, n rows, d features, p unknowns, s weightings of the same rows; g is 1 where
all instances share weights, else b.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from locapprox.fit.kept import remembered
from locapprox.fit.losses import Loss
from locapprox.fit.quadratic import Quadratic, Slopes
from locapprox.fit.solve import weighted_gram
from locapprox.fit.spread import Replicates, Spread


class ValueSums(NamedTuple):
    """Of value rows, about y₀: Σ w, Σ w², Σ w x, Σ w y, Σ w y², Σ w y x and Σ w x xᵀ."""

    w: Float[Tensor, "g s"]
    ww: Float[Tensor, "g s"]
    x: Float[Tensor, "g s p"]
    y: Float[Tensor, "b s k"]
    yy: Float[Tensor, "b s k"]
    xy: Float[Tensor, "b s k p"]
    xx: Float[Tensor, "g s p p"] | None  # where the loss looks at values

    @classmethod
    def of(
        cls, X: Float[Tensor, "n p"], weight: Float[Tensor, "g s n"], y: Float[Tensor, "b k n"], gram: bool
    ) -> "ValueSums":
        first = _sums(weight), _sums_of_squares(weight), _products(X, weight)
        xx = weighted_gram(X, weight) if gram else None
        if weight.shape[:2] == (1, 1):  # passes over the rows, not over all outputs
            w = weight[0].mT  # (n, 1)
            return cls(*first, (y @ w).mT, (y.square() @ w).mT, (y @ _weighted(X, weight))[:, None], xx)
        weighted = weight[:, :, None] * y[:, None]  # (b, s, k, n)
        xy, total = weighted @ X, weighted.sum(-1)
        return cls(*first, total, weighted.mul_(y[:, None]).sum(-1), xy, xx)

    def plus(self, other: "ValueSums") -> "ValueSums":
        w, ww, x = (_added(a, b) for a, b in zip(self[:3], other[:3], strict=True))
        y, yy, xy = (a + b for a, b in zip(self[3:6], other[3:6], strict=True))
        xx = None if self.xx is None or other.xx is None else _added(self.xx, other.xx)
        return ValueSums(w, ww, x, y, yy, xy, xx)


@remembered
def _sums(weight: Float[Tensor, "g s n"]) -> Float[Tensor, "g s"]:
    return weight.sum(-1)


@remembered
def _sums_of_squares(weight: Float[Tensor, "g s n"]) -> Float[Tensor, "g s"]:
    return weight.square().sum(-1)


@remembered
def _products(X: Float[Tensor, "n p"], weight: Float[Tensor, "g s n"]) -> Float[Tensor, "g s p"]:
    return weight @ X


@remembered
def _weighted(X: Float[Tensor, "n p"], weight: Float[Tensor, "1 1 n"]) -> Float[Tensor, "n p"]:
    return weight[0].mT * X


@remembered
def _added(one: Tensor, two: Tensor) -> Tensor:
    return one + two


@remembered
def _one_of(sums: Tensor, weighting: int) -> Tensor:
    return sums[:, weighting]


class GradientSums(NamedTuple):
    """Of gradients about g₀: Σ w g and Σ w ‖g‖²; added to in place, instances by instances."""

    g: Float[Tensor, "b s k d"]
    gg: Float[Tensor, "b s k"]


def moments(
    weight: Float[Tensor, "h 1 s r"], a: Float[Tensor, "c k r d"], squares: int | None = None
) -> tuple[Tensor, Tensor]:
    """Σ w a, and Σ w a² of the first weightings: in a's precision, and in that of the weights where a's has no room for
    them or for a²."""
    of_squares = weight[:, :, :squares]
    with torch.autocast(a.device.type, enabled=False):
        low, room = weight.to(a.dtype), torch.finfo(a.dtype)
        first, second = low @ a, low[:, :, :squares] @ a.square()
        small, large = room.tiny * 2**30, room.max / 2**30
        fits = a.dtype == weight.dtype or (small < float(second.amin()) and float(second.amax()) < large)
        own = first[:, :, :squares]
        if not fits and bool(own.any()) and _lost(own, second, of_squares.amax(-1), small, large):
            first, second = weight @ a.to(weight.dtype), of_squares @ a.to(weight.dtype).square()
    return first.to(weight.dtype), second.to(weight.dtype)


def weighed(weight: Float[Tensor, "h r"], a: Float[Tensor, "c k r d"]) -> tuple[Tensor, Tensor]:
    """w a as rows and a factor of all; no copy of a where all weights are one."""
    if bool((weight == weight[:1, :1]).all()):
        return a, weight[0, 0]
    return weight[:, None, :, None] * a, torch.ones_like(weight[0, 0])


def _lost(first: Tensor, second: Tensor, most: Tensor, small: float, large: float) -> bool:
    """Whether Σ w a² or a largest weight leaves the range, and not because a is 0."""
    sums = ((second < small) & (first != 0)) | ~(second < large)
    return bool(sums.any()) or bool(((most > 0) & (most < small) | ~(most < large)).any())


class Totals:
    """The sums of a pass over the draw, for s weightings of its rows at once (all of them; and each of 20 groups, say).

    Values enter about y₀ and gradients about g₀, the first ones, so that nothing cancels.
    """

    def __init__(self, loss: Loss, intercept: bool, gram: bool = True) -> None:
        self.loss, self.intercept, self.gram = loss, intercept, gram and loss.value > 0
        self.y0: Tensor | None = None
        self.g0: Tensor | None = None
        self.values: ValueSums | None = None
        self.gradients: GradientSums | None = None
        self.spread: Spread | None = None
        self.replicates: Replicates | None = None

    def add_values(self, X: Float[Tensor, "n p"], weight: Float[Tensor, "g s n"], y: Float[Tensor, "b k n"]) -> None:
        if self.y0 is None:
            about = self.intercept and y.shape[-1] > 0
            self.y0 = y[..., 0].to(X.dtype) if about else X.new_zeros(y.shape[:2])
        sums = ValueSums.of(X, weight, y - self.y0[..., None], self.gram)
        self.values = sums if self.values is None else self.values.plus(sums)

    def add_gradients(
        self,
        b: int,
        i: slice,
        weight: Float[Tensor, "g s r"],
        gradient: Float[Tensor, "c k r d"],
        unit_size: int | None,
        squares: int | None = None,
        replicates: int = 0,
        start: int = 0,
    ) -> None:
        """Rows of instances i among b, the draw's from `start` on; `unit_size` rows are one independent draw, None if
        the rows are not random.

        Where `squares` is given, Σ w ‖g‖² is summed for so many weightings, the first.
        """
        k, _, d = gradient.shape[1:]
        weight = weight[i] if len(weight) > 1 else weight
        sets = weight.shape[1]
        if self.g0 is None or self.gradients is None or self.spread is None:
            self.g0 = weight.new_full((b, k, d), torch.nan)
            self.gradients = GradientSums(weight.new_zeros(b, sets, k, d), weight.new_zeros(b, squares or sets, k))
            zeros, far = weight.new_zeros(b, k, d), weight.new_full((b, k, d), torch.inf)
            self.spread = Spread(zeros, zeros.clone(), weight.new_zeros(b, 1, 1), far, -far)
            if replicates:
                self.replicates = Replicates(weight.new_zeros(b, replicates), weight.new_zeros(b, k, replicates, d))
        self.g0[i] = torch.where(self.g0[i].isnan(), gradient[:, :, 0].to(self.g0), self.g0[i])
        # Within a block in the model's precision: what is summed is the spread about g₀, so nothing is lost.
        gradient = gradient.float() if gradient.element_size() < 4 else gradient
        about = gradient - self.g0[i][:, :, None].to(gradient.dtype)
        # w² is one more weighting of the same product: the sums of units of one row
        rows = weight if unit_size is None else torch.cat([weight, weight[:, :1].square()], dim=1)
        first, second = moments(rows[:, None], about, squares)  # (c, k, s or s + 1, d)
        self.gradients.g[i] += first[:, :, :sets].transpose(1, 2)
        self.gradients.gg[i] += second[:, :, :sets].sum(-1).transpose(1, 2)
        if unit_size is None:
            return
        if unit_size == 1:
            w = weight[:, 0]
            of_rows, scale = weighed(w, about)
            least, most = (end.to(weight) * scale for end in torch.aminmax(of_rows, dim=2))
            self.spread.add(i, w, second[:, :, sets], first[:, :, sets], (least, most))
            if self.replicates is not None:
                self.replicates.add(i, w, of_rows, scale, start)
            return
        weights = weight[:, 0].unflatten(-1, (-1, unit_size)).sum(-1)
        of_unit = (weight[:, :1, :, None] * about).unflatten(2, (-1, unit_size)).sum(3)
        cross = (weights[:, None, None] @ of_unit).squeeze(2)
        self.spread.add(i, weights, of_unit.square().sum(2), cross, (of_unit.amin(2), of_unit.amax(2)))

    def rest(self, instances: Int[Tensor, " c"], copies: int) -> "Totals":
        """Of some of the instances, without the first weighting, and the first copies after those that values have."""
        assert self.values is not None
        assert self.gradients is not None
        assert self.y0 is not None
        assert self.g0 is not None
        some = Totals(self.loss, self.intercept)
        some.y0, some.g0, some.spread = self.y0[instances], self.g0[instances], self.spread  # nothing random
        shared, own = self.values[:3], self.values[3:6]
        parts = *(part[:, 1:] for part in shared), *(part[instances, 1:] for part in own)
        some.values = ValueSums(*parts, None)  # type: ignore[call-arg]
        g, gg, rules = self.gradients.g[instances], self.gradients.gg[instances], self.weightings
        some.gradients = GradientSums(torch.cat([g[:, 1:rules], g[:, rules + copies :]], dim=1), gg[:, 1:])
        return some

    def of_copies(self, copies: int) -> Float[Tensor, "s b k d"]:
        """The mean gradients of the first weightings after those that values have, whose sums are the first's."""
        assert self.values is not None
        assert self.gradients is not None
        assert self.g0 is not None
        some = self.gradients.g[:, self.weightings : self.weightings + copies]
        return self.g0 + some.transpose(0, 1) / self.values.w[:, 0]

    @property
    def weightings(self) -> int:
        """How many there are."""
        assert self.values is not None
        return self.values.w.shape[1]

    def problem(self, weighting: int = 0) -> Quadratic:
        """The problem of one of the weightings; by default, of all rows."""
        return self._problem(lambda term: _one_of(term, weighting))

    def mixed(self, factors: Float[Tensor, "g s"]) -> Quadratic:
        """The problem whose weights are a linear combination of the s weightings."""

        def mixed(term: Tensor) -> Tensor:
            return (factors.reshape(*factors.shape, *[1] * (term.ndim - 2)) * term).sum(1)

        return self._problem(mixed)

    def _problem(self, pick: Callable[[Tensor], Tensor]) -> Quadratic:
        assert self.values is not None
        assert self.y0 is not None
        w, _, x, y, yy, xy, xx = self.values
        slopes = None
        if self.g0 is not None and self.gradients is not None:
            slopes = Slopes(self.g0, pick(self.gradients.g), pick(self.gradients.gg))
        gram = None if xx is None else pick(xx)
        return Quadratic(
            self.loss, self.intercept, self.y0, pick(w), pick(x), pick(y), pick(yy), pick(xy), gram, slopes
        )

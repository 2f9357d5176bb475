"""Neighbourhoods made from a data set."""

from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from locapprox._names import names_of
from locapprox._parts import Concise, whole_number
from locapprox.models.inputs import Array, all_finite, as_numbers, as_tensor
from locapprox.neighbourhoods.base import BaseNeighbourhood
from locapprox.neighbourhoods.draws import Draw
from locapprox.neighbourhoods.named import Named
from locapprox.neighbourhoods.placements import Additive


@dataclass(frozen=True, eq=False, repr=False)
class NearestPoints(Named, Concise, BaseNeighbourhood):
    """The k points of a data set nearest to x₀ (Euclidean), each with weight 1: ξ = point − x₀.

    They differ between instances and are all used, so n_samples is ignored and nothing is random. A DataFrame's columns
    are put into the order of x's, or refused if they are others.
    """

    data: Any  # (points, *input shape), a Tensor once it is here
    k: int
    names: list[str] | None = field(default=None, repr=False, compare=False)

    draws_at_once = True
    interpolates = False
    called, per_feature = "data", ("data",)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "data", as_tensor(self.data, None, "data"))
        if whole_number(self.k, "k") > len(self.data):
            raise ValueError(f"k must be between 1 and the number of points, {len(self.data)}; got {self.k}")

    def check(self, x: Tensor) -> None:
        if tuple(self.data.shape[1:]) != tuple(x.shape[1:]):
            raise ValueError(f"data has inputs of shape {tuple(self.data.shape[1:])}, x {tuple(x.shape[1:])}")
        if not all_finite(self.data):
            raise ValueError("data has NaN or infinite values; leave those points out or fill them in")

    def draw(self, x: Tensor, n: int, rng: torch.Generator) -> Draw:
        points, at = self.data.to(x).flatten(1), x.flatten(1)
        exact = "donot_use_mm_for_euclid_dist"  # a matrix product would cancel
        distance = torch.cdist(at.double(), points.double(), compute_mode=exact)
        nearest = distance.topk(self.k, largest=False).indices
        return Draw(points[nearest] - at[:, None], at.new_ones(self.k, dtype=torch.float64), n_fixed=self.k)

    place = Additive.place


@dataclass(frozen=True, eq=False, repr=False)
class LimeTabular(Named, Concise, BaseNeighbourhood):
    """lime's tabular neighbourhood with `discretize_continuous=False`: x_ξ = x₀ + scale ⊙ ξ.

    lime draws z ~ Normal(0, I) and places it at mean + scale ⊙ z (the data's mean and standard deviation) or, with
    `sample_around_instance=True`, at x₀ + scale ⊙ z. ξ is the standardised distance from x₀, on which lime measures
    its kernel √exp(−‖ξ‖² / w²), w = ¾√d by default (`lime_tabular.py`); weights are of the standardised features.
    Mean and scale are numbers, or one per entry; a Series goes by the names of x's columns.
    """

    mean: Any  # Tensors, once they are here
    scale: Any
    width: float | None = None
    around_instance: bool = False
    names: list[str] | None = field(default=None, repr=False, compare=False)

    interpolates = False
    called, per_feature = "mean", ("mean", "scale")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.per_feature:
            numbers = as_numbers(getattr(self, name), name)
            if not all_finite(numbers):
                raise ValueError(f"{name} has NaN or infinite values")
            object.__setattr__(self, name, numbers)
        if self.width is not None and not (isinstance(self.width, Real) and self.width > 0):
            raise ValueError(f"width must be positive, or None for lime's ¾√d; got {self.width!r}")
        if not isinstance(self.around_instance, bool):
            raise TypeError(f"around_instance must be True or False, got {self.around_instance!r}")
        if not bool((self.scale > 0).all()):
            raise ValueError("scale must be positive in every feature; `LimeTabular.of_data` gives constant ones 1")

    def check(self, x: Tensor) -> None:
        for name in self.per_feature:
            shape = tuple(getattr(self, name).shape)
            if shape not in ((), tuple(x.shape[1:])):
                raise ValueError(f"{name} has shape {shape}, an input has {tuple(x.shape[1:])}")

    @classmethod
    def of_data(cls, data: Array, width: float | None = None, around_instance: bool = False) -> "LimeTabular":
        """With the mean and the standard deviation of a data set, (points, *input shape)."""
        rows = as_tensor(data, None, "data")
        if rows.ndim < 2 or len(rows) == 0:
            raise ValueError(f"data must be (points, *input shape), got shape {tuple(rows.shape)}")
        if not all_finite(rows):
            raise ValueError("data has NaN or infinite values; leave those points out or fill them in")
        scale = rows.std(0, correction=0)
        return cls(rows.mean(0), torch.where(scale > 0, scale, 1.0), width, around_instance, names_of(data))

    def draw(self, x: Tensor, n: int, rng: torch.Generator) -> Draw:
        z = torch.randn(n, x[0].numel(), generator=rng, device=x.device, dtype=x.dtype)
        return self._weighted(z if self.around_instance else z + self._mean_in_xi(x)[:, None])

    def place(self, x: Tensor, xi: Tensor) -> Tensor:
        scale: Tensor = self.scale.to(x)
        return x.unsqueeze(1) + scale * xi.reshape(*xi.shape[:-1], *x.shape[1:])

    def with_shared_xi(self, x: Tensor) -> tuple[BaseNeighbourhood, Tensor | None]:
        if self.around_instance or type(self) is not LimeTabular:
            return self, None
        return _AroundMean(self.mean, self.scale, self.width), self._mean_in_xi(x)

    def _mean_in_xi(self, x: Tensor) -> Tensor:
        mean: Tensor = (self.mean.to(x) - x) / self.scale.to(x)
        return mean.flatten(1)

    def _weighted(self, xi: Tensor, origin: Tensor | None = None) -> Draw:
        """ξ, or ξ − origin of every instance, with lime's weight of ξ."""
        width = 2**0.5 * (0.75 * xi.shape[-1] ** 0.5 if self.width is None else self.width)
        square = xi.double().square().sum(-1)
        if origin is not None:
            origin = origin.double()
            square = square + 2 * origin @ xi.double().mT + origin.square().sum(-1, keepdim=True)
        return Draw(xi, torch.exp(-square / width**2))


class _AroundMean(LimeTabular):
    """In lime's own z = ξ − (mean − x₀) / scale: x_ξ = mean + scale ⊙ z."""

    @property
    def kind(self) -> str:
        return LimeTabular.__qualname__  # the same draw

    def draw(self, x: Tensor, n: int, rng: torch.Generator) -> Draw:
        z = torch.randn(n, x[0].numel(), generator=rng, device=x.device, dtype=x.dtype)
        return self._weighted(z, self._mean_in_xi(x))

    def place(self, x: Tensor, xi: Tensor) -> Tensor:
        placed: Tensor = self.mean.to(x) + self.scale.to(x) * xi.reshape(*xi.shape[:-1], *x.shape[1:])
        return placed.expand(len(x), *placed.shape[-x.ndim :])

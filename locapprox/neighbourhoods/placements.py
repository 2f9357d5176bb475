"""Placements: how ξ, whatever its distribution, is put around x₀."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pandas as pd
import torch
from torch import Tensor

from locapprox._parts import alike
from locapprox.models.inputs import all_finite
from locapprox.neighbourhoods.base import NO_FEATURE, NULL, BaseNeighbourhood
from locapprox.neighbourhoods.baselines import Baseline, BaselineLike, ensure_baseline
from locapprox.neighbourhoods.distributions import Distribution, Normal
from locapprox.neighbourhoods.kernels import ExponentialKernel
from locapprox.neighbourhoods.labels import Features, Labels, ensure_labels
from locapprox.neighbourhoods.placement import Placement
from locapprox.neighbourhoods.units import ZERO, Unsaid, unlike, zero_outside


@dataclass(frozen=True, eq=False, repr=False)
class Additive(Placement):
    """x_ξ = x₀ + ξ, one entry of ξ per entry of x."""

    distribution: Distribution
    kernel: ExponentialKernel | None = None

    def place(self, x: Tensor, xi: Tensor) -> Tensor:
        return x.unsqueeze(1) + xi.reshape(*xi.shape[:-1], *x.shape[1:])

    def check(self, x: Tensor) -> None:
        self._draws.check(tuple(x.shape[1:]))

    def named(self, names: Sequence[str], index: pd.Index | None = None) -> "Additive":
        draws = self._draws.named(names)
        return self if draws is self._draws else replace(self, distribution=draws)

    def notice(self, x: Tensor, names: Sequence[str] | None) -> str | None:
        draws = self.distribution
        if not isinstance(draws, Normal) or not isinstance(draws.sigma, int | float):
            return None
        return unlike(draws.sigma, x, names, chosen=not isinstance(draws.sigma, Unsaid))

    def to_input(self, x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        return self.on_input(x, weights), x

    def steps(self, x: Tensor, d: int) -> tuple[Tensor, Tensor]:
        return torch.ones_like(x.flatten(1)), torch.arange(d, device=x.device).expand(len(x), -1)

    def same_placement(self, other: BaseNeighbourhood) -> bool:
        return type(other) is type(self)

    def joined(self, x: Tensor, others: Sequence[BaseNeighbourhood]) -> "Additive":
        super().joined(x, others)
        return self._of(self._kernels(others))

    def _gap(self, x: Tensor) -> Tensor:
        return torch.ones_like(x, dtype=torch.float64).flatten(1)

    def _squared_distance(self, x: Tensor, xi: Tensor) -> Tensor:
        return xi.square().sum(-1)


@dataclass(frozen=True, eq=False, repr=False)
class Multiplicative(Placement):
    """x_ξ = b + (x₀ − b) ⊙ lift(ξ): ξ = 1 is the input, ξ = 0 the baseline b.

    `baseline` is a number, one input (a tensor of the input's shape), one per instance (x's shape), a function from x
    to one per instance (a blurred image, say), or `lx.Background(rows)`, a sample over which the model is averaged.
    `features` labels the entries of an input 0 … d − 1 and `lift` copies one ξ per label onto them (a group of columns,
    a patch, a superpixel); it broadcasts against the input's shape, or has a leading axis with one labelling per
    instance. Default: every entry is a feature.
    Where x is a DataFrame, what is given by name (a Series or a DataFrame) is put into the order of its columns, and of
    its index if it differs between instances, or refused if the names are others. Without names it is in order.
    """

    distribution: Distribution
    baseline: BaselineLike = ZERO
    features: Features | None = None
    kernel: ExponentialKernel | None = None
    _finite: bool = field(default=False, repr=False, compare=False, kw_only=True)  # x is known to be
    _base: Baseline = field(init=False, repr=False, compare=False)
    _labels: Labels = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "_base", ensure_baseline(self.baseline))
        object.__setattr__(self, "_labels", ensure_labels(self.features))
        object.__setattr__(self, "takes_missing", self._draws.binary)

    def check(self, x: Tensor) -> None:
        self._base.check(x)
        self._labels.check(x)

    def notice(self, x: Tensor, names: Sequence[str] | None) -> str | None:
        return zero_outside(x, names) if isinstance(self.baseline, Unsaid) else None

    def place(self, x: Tensor, xi: Tensor) -> Tensor:
        missing = self.takes_missing and not self._finite and not all_finite(x)
        if self._base.zero and not missing:
            return x.unsqueeze(1) * self._labels.lift(x, xi)
        base = self._base.of(x).unsqueeze(1)  # (b or 1, 1, m, *input shape)
        lifted, inputs = self._labels.lift(x, xi).unsqueeze(2), x[:, None, None]
        # 0 · NaN is NaN: a removed feature that is missing must not be touched
        placed = torch.where(lifted == 0, base, inputs) if missing else torch.addcmul(base, inputs - base, lifted)
        return placed.squeeze(2) if base.shape[2] == 1 else placed

    def ready(self, x: Tensor) -> "Multiplicative":
        ready = copy.copy(self._with(self._base.ready(x), self._labels.ready(x)))
        object.__setattr__(ready, "_finite", self.takes_missing and all_finite(x))
        return ready

    def named(self, names: Sequence[str], index: pd.Index | None = None) -> "Multiplicative":
        part = self._with(self._base.named(names, index), self._labels.named(names, index))
        draws = self._draws.named(names)
        return part if draws is self._draws else replace(part, distribution=draws)

    def batches(self, x: Tensor) -> list[Tensor]:
        return self._labels.batches(x)

    def without_nulls(self, x: Tensor) -> tuple["Multiplicative", Tensor | None]:
        """A feature is a null player where all its entries are at the baseline (at every one of a background's).

        An instance that nothing moves keeps an entry of ξ that is no feature's, so that there is something to draw.
        """
        if not self._draws.nulls_leave or type(self).place is not Multiplicative.place:
            return self, None
        moved = self._moved(x)
        if bool(moved.all()):
            return self, None
        moves, known = (self._labels.group_sum(x, entries.to(x)) > 0 for entries in (moved, torch.ones_like(moved)))
        if torch.equal(moves, known):
            return self, None
        place = moves.cumsum(1) - 1
        labels = self._labels.lift(x, place.clamp_min(0).unsqueeze(1))[:, 0]  # null players': any, nothing moves
        return self._with(self._base, Labels(labels)), torch.where(moves, place, torch.where(known, NULL, NO_FEATURE))

    def at(self, x: Tensor, instances: Tensor | slice) -> "Multiplicative":
        return super().at(x, instances)._with(self._base.at(x, instances), self._labels.at(x, instances))

    def joined(self, x: Tensor, others: Sequence[BaseNeighbourhood]) -> "Multiplicative":
        same = [
            other
            for other in others
            if isinstance(other, Multiplicative)
            and alike(self.distribution, other.distribution)
            and alike(self.kernel, other.kernel)
        ]
        if len(same) < len(others):
            raise ValueError("explanations on different neighbourhoods cannot be joined")
        base = self._base.joined(x, [other._base for other in same])
        labels = self._labels.joined(x, [other._labels for other in same])
        return self._of(self._kernels(same))._with(base, labels)

    def per_entry(self, x: Tensor, d: int) -> bool:
        return self._labels.labels is None

    def shares_features(self, x: Tensor) -> bool:
        return not self._labels.differ(x)

    def on_input(self, x: Tensor, weights: Tensor) -> Tensor:
        d = self._dimension(x) if len(x) else weights.shape[-1]
        if weights.shape[-1] != d:
            raise ValueError(f"there are {weights.shape[-1]} weights per instance for {d} features")
        return self._labels.lift(x, weights)

    def from_input(self, x: Tensor, maps: Tensor) -> Tensor:
        weights = self._labels.group_sum(x, maps) / self._labels.group_sum(x, torch.ones_like(maps))
        size = float(maps.abs().max())
        if not torch.allclose(self._labels.lift(x, weights.unsqueeze(1))[:, 0], maps, atol=1e-7 * size):
            raise ValueError("a map must have one value on all entries of a feature; give one weight per feature")
        return weights

    def to_input(self, x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The least-norm slopes s_j = w_g (x₀ − b)_j / Σ_{k∈g} (x₀ − b)_k², 0 where x₀ = b; the origin is b.

        With a background sample b is its mean.
        """
        base = self._base.of(x).to(weights.dtype).mean(1)
        gap = (x.to(weights.dtype) - base).where(self._moved(x), 0.0)
        square = self._labels.group_sum(x, gap.square()).unsqueeze(1)
        per_feature = torch.where(square > 0, weights / square, 0.0)
        return self._labels.lift(x, per_feature) * gap.unsqueeze(1), base.expand(x.shape)

    def _moved(self, x: Tensor) -> Tensor:
        """The entries that differ from the baseline, or one of a background's: the mean of equal ones is rounded."""
        base = self._base.of(x)
        return (x != base.amin(1)) | (x != base.amax(1))

    def steps(self, x: Tensor, d: int) -> tuple[Tensor, Tensor]:
        gap = (x - self._base.of(x).mean(1)).where(self._moved(x), 0.0).flatten(1)
        labels = torch.arange(d, device=x.device)[None] if self._labels.labels is None else self._labels.flat(x)
        return gap, labels.expand(gap.shape)

    def same_placement(self, other: BaseNeighbourhood) -> bool:
        if not isinstance(other, Multiplicative) or type(other) is not type(self):
            return False
        return alike(self._base, other._base) and alike(self._labels, other._labels)

    def group_sum(self, x: Tensor, entries: Tensor) -> Tensor:
        """(b, *input shape) -> (b, d), summed over each feature's entries."""
        return self._labels.group_sum(x, entries)

    def _with(self, base: Baseline, labels: Labels) -> "Multiplicative":
        if base is self._base and labels is self._labels:
            return self
        if type(self) is not Multiplicative:  # which may make more of them
            return replace(self, baseline=base.given, features=labels.given)
        other = copy.copy(self)
        vars(other).update(baseline=base.given, features=labels.given, _base=base, _labels=labels)
        return other

    def _dimension(self, x: Tensor) -> int:
        return self._labels.count(x)

    def _copies(self, x: Tensor) -> int:
        return 1 if self._base.zero else self._base.of(x).shape[1]

    def _squared_distance(self, x: Tensor, xi: Tensor) -> Tensor:
        removed = (1 - xi).square()
        if self.kernel is not None and self.kernel.measured_in == "xi":
            return removed.sum(-1)
        return self._gap(x) @ removed.mT

    def _gap(self, x: Tensor) -> Tensor:
        if self.kernel is not None and self.kernel.measured_in == "xi":
            return x.new_ones(len(x), self._dimension(x), dtype=torch.float64)
        if not all_finite(x):
            raise ValueError('x has NaN or infinite values, so the kernel has no distance in x: use measured_in="xi"')
        gap = x.double().unsqueeze(1) - self._base.of(x).double()
        return self._labels.group_sum(x, gap.square().mean(1))

"""Neighbourhoods: a distribution of ξ and a way to place ξ around x₀. Yours needs only `draw` and `place`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from locapprox.distributions import Distribution, Draw, block_size
from locapprox.kernels import ExponentialKernel
from locapprox.models import all_finite
from locapprox.notices import warn

Features = Tensor | np.ndarray | Sequence[int]
Baseline = float | Tensor | np.ndarray | Callable[[Tensor], Tensor]


@runtime_checkable
class Neighbourhood(Protocol):
    """Where a surrogate is fitted. Shapes: x is (b, *input shape), xi is (n, d) for all instances or (b, n, d).

    Optional: `whole_budget = True` if `draw` must see all n at once (a quadrature, a stratified design); otherwise
    draws are asked for in blocks and must be independent.
    """

    def draw(self, x: Tensor, n: int, rng: torch.Generator) -> Draw: ...

    def place(self, x: Tensor, xi: Tensor) -> Tensor:
        """The inputs x_ξ, (b, n, *input shape), differentiable in xi.

        A further axis after n, (b, n, m, *input shape), is a sample over which the model is averaged.
        """
        ...


def stream(neighbourhood: Neighbourhood, x: Tensor, n: int, rng: torch.Generator) -> Iterator[Draw]:
    """The draw in blocks whose size depends on d alone."""
    own = getattr(neighbourhood, "stream", None)
    if own is not None:
        yield from own(x, n, rng)
    else:
        size = n if getattr(neighbourhood, "whole_budget", False) else block_size(x[0].numel())
        yield from (neighbourhood.draw(x, min(size, n - start), rng) for start in range(0, n, size))


class _Placement:
    """What the two placements share: blocks come from the distribution, weights from the kernel."""

    distribution: Distribution
    kernel: ExponentialKernel | None

    def __post_init__(self) -> None:
        if isinstance(self.distribution, type) or not hasattr(self.distribution, "draw"):
            raise TypeError(f"distribution must have a method draw, like lx.Normal(0.1); got {self.distribution!r}")
        if self.kernel is not None and not hasattr(self.kernel, "apply"):
            raise TypeError(f"kernel must be None or lx.ExponentialKernel(…), got {self.kernel!r}")

    @property
    def removes_missing(self) -> bool:
        """Whether x may hold NaN or infinity: where masks remove a feature, the model does not see it."""
        return False

    @property
    def whole_budget(self) -> bool:
        return getattr(self.distribution, "whole_budget", False)

    def draw(self, x: Tensor, n: int, rng: torch.Generator) -> Draw:
        return self._weigh(x, self.distribution.draw(self._dimension(x), n, rng, x.dtype))

    def stream(self, x: Tensor, n: int, rng: torch.Generator) -> Iterator[Draw]:
        d = self._dimension(x)
        own = getattr(self.distribution, "stream", None)
        if own is not None:
            yield from (self._weigh(x, draw) for draw in own(d, n, rng, x.dtype))
        else:
            size = n if self.whole_budget else block_size(d)
            yield from (self.draw(x, min(size, n - start), rng) for start in range(0, n, size))

    def workable_width(self, x: Tensor, n: int, rng: torch.Generator, rows: int) -> float:
        """See `ExponentialKernel.workable_width`; of these instances."""
        assert self.kernel is not None
        draw = self.distribution.draw(self._dimension(x), min(n, 1024), rng, x.dtype)
        return self.kernel.workable_width(draw, self._squared_distance(x, draw.xi.double()), n, rows)

    def _weigh(self, x: Tensor, draw: Draw) -> Draw:
        return draw if self.kernel is None else self.kernel.apply(draw, self._squared_distance(x, draw.xi.double()))

    def _dimension(self, x: Tensor) -> int:
        raise NotImplementedError

    def _squared_distance(self, x: Tensor, xi: Tensor) -> Tensor:
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Additive(_Placement):
    """x_ξ = x₀ + ξ, one entry of ξ per entry of x."""

    distribution: Distribution
    kernel: ExponentialKernel | None = None

    def place(self, x: Tensor, xi: Tensor) -> Tensor:
        return x.unsqueeze(1) + xi.reshape(*xi.shape[:-1], *x.shape[1:])

    def to_input(self, x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Slopes s and origin o with g = intercept + s · (x′ − o); see `Explanation.predict`."""
        return self.on_input(x, weights), x

    def on_input(self, x: Tensor, weights: Tensor) -> Tensor:
        """(b, k, d) -> (b, k, *input shape)."""
        return weights.reshape(*weights.shape[:2], *x.shape[1:])

    def _dimension(self, x: Tensor) -> int:
        return x[0].numel()

    def _squared_distance(self, x: Tensor, xi: Tensor) -> Tensor:
        return xi.square().sum(-1).expand(len(x), -1)


@dataclass(frozen=True, eq=False)
class Multiplicative(_Placement):
    """x_ξ = b + (x₀ − b) ⊙ lift(ξ): ξ = 1 is the input, ξ = 0 the baseline b.

    `baseline` is a number, one input (a tensor of the input's shape), a background sample (m, *input shape) over which
    the model is averaged, or a function from x to one baseline per instance (a blurred image, say).
    `features` labels the entries of an input 0 … d − 1 and `lift` copies one ξ per label onto them (a group of columns,
    a patch, a superpixel); it broadcasts against the input's shape, or has a leading axis with one labelling per
    instance. Default: every entry is a feature.
    """

    distribution: Distribution
    baseline: Baseline = 0.0
    features: Features | None = None
    kernel: ExponentialKernel | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("baseline", "features") if self.features is not None else ("baseline",):
            given = getattr(self, name)
            if isinstance(given, Tensor):
                object.__setattr__(self, name, given.detach())
            elif not isinstance(given, float | int) and not callable(given):
                numbers = np.array(given)
                if numbers.dtype.kind not in "biuf":
                    raise TypeError(f"{name} must hold numbers, got {given!r}")
                object.__setattr__(self, name, torch.from_numpy(numbers))

    @property
    def removes_missing(self) -> bool:
        return getattr(self.distribution, "binary", False)

    def check(self, x: Tensor) -> None:
        """Raises ValueError if baseline or features do not fit x."""
        shape = tuple(x.shape[1:])
        base = self.baseline(x) if callable(self.baseline) else torch.as_tensor(self.baseline)
        if not isinstance(base, Tensor):
            raise TypeError(f"baseline(x) must be a tensor, got {type(base).__name__}")
        sample = base.ndim == x.ndim
        if callable(self.baseline) and base.shape != x.shape:
            raise ValueError(f"baseline(x) must have x's shape {tuple(x.shape)}, got {tuple(base.shape)}")
        if callable(self.baseline) and not torch.equal(self.baseline(x[:1]).nan_to_num(), base[:1].nan_to_num()):
            raise ValueError("baseline(x) must be the same each time, and for an instance alone as among others")
        if base.shape == x.shape and len(x) > 1 and not callable(self.baseline):
            warn(
                "baseline has x's shape: it is taken as a background sample to average over, for every instance; for "
                "one baseline per instance pass a function of x"
            )
        if base.ndim and tuple(base.shape[sample:]) != shape:
            raise ValueError(
                f"baseline must be a number, one input of shape {shape}, a sample of inputs (m, …) or a function of x; "
                f"got shape {tuple(base.shape)}"
            )
        if base.numel() == 0 or not bool(torch.isfinite(base).all()):
            raise ValueError("baseline is empty" if base.numel() == 0 else "baseline has NaN or infinite values")
        if self.features is None:
            return
        labels = torch.as_tensor(self.features)
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool or labels.ndim == 0:
            raise ValueError("features must be whole numbers, a label 0 … d − 1 for every entry of an input")
        try:
            every = self._labels(x)
        except RuntimeError as error:
            raise ValueError(
                f"features has shape {tuple(labels.shape)}; it must label the entries of an input, {shape}, or have "
                f"one labelling per instance, {tuple(x.shape)}"
            ) from error
        if len(every) not in (1, len(x)):
            raise ValueError(f"features labels {len(every)} instances, x has {len(x)}")
        for row in every:
            wrong = [(i, label) for i, label in enumerate(row.unique().tolist()) if i != label]
            if wrong:
                raise ValueError(
                    "features must use every label 0 … d − 1: {1} comes where {0} should".format(*wrong[0])
                )

    def place(self, x: Tensor, xi: Tensor) -> Tensor:
        missing = self.removes_missing and not all_finite(x)
        if isinstance(self.baseline, int | float) and self.baseline == 0 and not missing:
            return x.unsqueeze(1) * self._lift(x, xi)
        base = self._base(x).unsqueeze(1)  # (b or 1, 1, m, *input shape)
        lifted, inputs = self._lift(x, xi).unsqueeze(2), x[:, None, None]
        # 0 · NaN is NaN: a removed feature that is missing must not be touched
        placed = torch.where(lifted == 0, base, inputs) if missing else torch.addcmul(base, inputs - base, lifted)
        return placed.squeeze(2) if base.shape[2] == 1 else placed

    def batches(self, x: Tensor) -> list[Tensor]:
        """Indices of the instances that can share a draw: those with equally many features."""
        if self._labels_differ(x):
            count = torch.as_tensor(self.features).flatten(1).amax(1)
            return [torch.nonzero(count == c).flatten() for c in count.unique()]
        return [torch.arange(len(x))]

    def at(self, x: Tensor, instances: Tensor | slice) -> "Multiplicative":
        """The neighbourhood of some of the instances x: the same, unless features differ between them."""
        if self._labels_differ(x):
            return replace(self, features=torch.as_tensor(self.features)[instances])
        return self

    def to_input(self, x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The least-norm slopes s_j = w_g (x₀ − b)_j / Σ_{k∈g} (x₀ − b)_k², 0 where x₀ = b; the origin is b.

        With a background sample b is its mean.
        """
        base = self._base(x).to(weights.dtype).mean(1)
        gap = x.to(weights.dtype) - base
        square = self.group_sum(x, gap.square()).unsqueeze(1)
        per_feature = torch.where(square > 0, weights / square, 0.0)
        return self._lift(x, per_feature) * gap.unsqueeze(1), base.expand(x.shape)

    def on_input(self, x: Tensor, weights: Tensor) -> Tensor:
        """Each feature's weight copied onto its entries: (b, k, d) -> (b, k, *input shape)."""
        return self._lift(x, weights)

    def _dimension(self, x: Tensor) -> int:
        return x[0].numel() if self.features is None else int(torch.as_tensor(self.features).max()) + 1

    def _labels_differ(self, x: Tensor) -> bool:
        return self.features is not None and torch.as_tensor(self.features).ndim == x.ndim

    def _labels(self, x: Tensor) -> Tensor:
        """(1, entries), or (b, entries) if instances are labelled differently."""
        labels = torch.as_tensor(self.features, device=x.device)
        labels = labels if labels.ndim == x.ndim else labels.unsqueeze(0)
        return labels.expand(len(labels), *x.shape[1:]).flatten(1)

    def _lift(self, x: Tensor, xi: Tensor) -> Tensor:
        """(n, d) or (b, n, d) -> (1 or b, n, *input shape)."""
        xi = xi if xi.ndim == 3 else xi.unsqueeze(0)
        if self.features is not None:
            labels = self._labels(x)
            if len(labels) == 1:
                xi = xi[..., labels[0]]
            else:
                xi = xi.expand(len(labels), -1, -1).gather(2, labels[:, None].expand(-1, xi.shape[1], -1))
        return xi.reshape(*xi.shape[:2], *x.shape[1:])

    def _base(self, x: Tensor) -> Tensor:
        """(b or 1, m, *input shape), with m = 1 unless the baseline is a background sample."""
        if callable(self.baseline):
            return self.baseline(x).to(x).unsqueeze(1)
        base = torch.as_tensor(self.baseline, dtype=x.dtype, device=x.device)
        return base.unsqueeze(0) if base.ndim == x.ndim else base.expand(x.shape[1:])[None, None]

    def group_sum(self, x: Tensor, entries: Tensor) -> Tensor:
        """(b, *input shape) -> (b, d), summed over each feature's entries."""
        flat = entries.flatten(1)
        if self.features is None:
            return flat
        total = flat.new_zeros(len(flat), self._dimension(x))
        return total.scatter_add(1, self._labels(x).expand(len(flat), -1), flat)

    def _squared_distance(self, x: Tensor, xi: Tensor) -> Tensor:
        removed = (1 - xi).square()
        if self.kernel is not None and self.kernel.measured_in == "xi":
            return removed.sum(-1).expand(len(x), -1)
        if not all_finite(x):
            raise ValueError('x has NaN or infinite values, so the kernel has no distance in x: use measured_in="xi"')
        gap = x.double().unsqueeze(1) - self._base(x).double()
        return self.group_sum(x, gap.square().mean(1)) @ removed.mT

"""What replaces a removed feature, and which entries of an input a feature is."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from locapprox._parts import Concise, alike, brief, close
from locapprox.models.inputs import as_numbers
from locapprox.neighbourhoods.named import Named


class Baseline(ABC):
    """b of x_ξ = b + (x₀ − b) ⊙ lift(ξ)."""

    zero: bool = False  # whether b is the number 0

    @abstractmethod
    def of(self, x: Tensor) -> Tensor:
        """(b or 1, m, *input shape); the model is averaged over m."""

    @abstractmethod
    def check(self, x: Tensor) -> None:
        """Raise ValueError or TypeError if it does not fit the instances x."""

    def at(self, x: Tensor, instances: Tensor | slice) -> "Baseline":
        """That of some of the instances x."""
        return self

    def named(self, names: Sequence[str], index: pd.Index | None = None) -> "Baseline":
        """That in the order of x's columns (and index), if it has names; ValueError if they are others."""
        return self

    def joined(self, x: Tensor, others: Sequence["Baseline"]) -> "Baseline":
        """That of the instances of several, in their order; x are those of one."""
        if all(alike(self, other) for other in others):
            return self
        raise ValueError("explanations with different baselines cannot be joined")

    @property
    def given(self) -> Any:
        """What `ensure_baseline` makes it of again."""
        return self


@dataclass(frozen=True, eq=False, repr=False)
class Values(Named, Baseline):
    """A number, one input, or an input for every instance."""

    values: Any  # a Tensor, once it is here
    names: list[str] | None = field(default=None, compare=False)
    index: pd.Index | None = field(default=None, compare=False)

    called, per_feature, per_instance = "baseline", ("values",), True

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "values", as_numbers(self.values, "baseline"))
        object.__setattr__(self, "zero", self.values.ndim == 0 and bool(self.values == 0))

    def __repr__(self) -> str:
        return brief(self.values)

    def of(self, x: Tensor) -> Tensor:
        values: Tensor = self.values.to(x)
        return values.unsqueeze(1) if values.ndim == x.ndim else values.expand(x.shape[1:])[None, None]

    def check(self, x: Tensor) -> None:
        shape, given = tuple(x.shape[1:]), tuple(self.values.shape)
        if given not in ((), shape, tuple(x.shape)):
            raise ValueError(
                f"baseline must be a number, one input of shape {shape}, one per instance, {tuple(x.shape)}, a "
                "function of x, or lx.Background(rows) to average over a sample of inputs; "
                f"got shape {given}"
            )
        _finite(self.values)

    @property
    def given(self) -> Any:
        return self.values if self.names is None else self

    def at(self, x: Tensor, instances: Tensor | slice) -> Baseline:
        return Values(_some(self.values, instances), self.names) if self.values.ndim == x.ndim else self

    def joined(self, x: Tensor, others: Sequence[Baseline]) -> Baseline:
        given = [one.values for one in (self, *others) if isinstance(one, Values) and one.values.ndim == x.ndim]
        return Values(torch.cat(given), self.names) if len(given) == 1 + len(others) else super().joined(x, others)


@dataclass(frozen=True, eq=False, repr=False)
class Background(Named, Concise, Baseline):
    """A sample of inputs, rows (m, *input shape): the model is averaged over it, as in shap.

    Every instance is placed on all m of them, so a draw costs m evaluations. A DataFrame's columns are put into the
    order of x's, or refused if they are others.
    """

    rows: Any
    names: list[str] | None = field(default=None, repr=False, compare=False)

    called, per_feature = "Background", ("rows",)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "rows", as_numbers(self.rows, "Background"))
        if self.rows.ndim < 2:
            raise ValueError(f"Background needs rows, (m, *input shape); got shape {tuple(self.rows.shape)}")

    def of(self, x: Tensor) -> Tensor:
        rows: Tensor = self.rows.to(x)
        return rows.unsqueeze(0)

    def check(self, x: Tensor) -> None:
        if self.rows.shape[1:] != x.shape[1:]:
            raise ValueError(
                f"baseline: Background has rows of shape {tuple(self.rows.shape[1:])}, an input is {tuple(x.shape[1:])}"
            )
        _finite(self.rows)


@dataclass(frozen=True, eq=False)
class Function(Baseline):
    """A function from x to one baseline per instance (a blurred image, say)."""

    function: Callable[..., Any]

    @property
    def given(self) -> Any:
        return self.function

    def of(self, x: Tensor) -> Tensor:
        base: Tensor = self.function(x).to(x)
        return base.unsqueeze(1)

    def check(self, x: Tensor) -> None:
        base = self.function(x)
        if not isinstance(base, Tensor):
            raise TypeError(f"baseline(x) must be a tensor, got {type(base).__name__}")
        if base.shape != x.shape:
            raise ValueError(f"baseline(x) must have x's shape {tuple(x.shape)}, got {tuple(base.shape)}")
        if not close(self.function(x[:1]), base[:1]):
            raise ValueError("baseline(x) must be the same each time, and for an instance alone as among others")
        _finite(base)


BaselineLike = float | Tensor | np.ndarray | pd.Series | pd.DataFrame | Callable[[Tensor], Tensor] | Baseline


def ensure_baseline(given: Any) -> Baseline:
    """What a user gave, as a Baseline."""
    if isinstance(given, Baseline):
        return given
    return Function(given) if callable(given) else Values(given)


def _some(values: Tensor, instances: Tensor | slice) -> Tensor:
    return values[instances if isinstance(instances, slice) else instances.to(values.device)]


def _finite(values: Tensor) -> None:
    if values.numel() == 0 or not bool(torch.isfinite(values).all()):
        raise ValueError("baseline is empty" if values.numel() == 0 else "baseline has NaN or infinite values")


@dataclass(frozen=True, eq=False, repr=False)
class Labels(Named):
    """Labels 0 … d − 1 of the entries of an input, which broadcast against its shape, or of every instance's entries.

    None: every entry is a feature of its own.
    """

    labels: Any  # a Tensor or None, once they are here
    names: list[str] | None = field(default=None, compare=False)
    index: pd.Index | None = field(default=None, compare=False)

    called, per_feature, per_instance = "features", ("labels",), True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labels is not None:
            labels = as_numbers(self.labels, "features")
            whole = not labels.is_floating_point() and labels.dtype != torch.bool
            object.__setattr__(self, "labels", labels.long() if whole else labels)  # bytes would index as a mask

    def __repr__(self) -> str:
        return brief(self.labels)

    def count(self, x: Tensor) -> int:
        """d."""
        return x[0].numel() if self.labels is None else int(self.labels.max()) + 1

    def differ(self, x: Tensor) -> bool:
        """Whether instances have labels of their own."""
        return self.labels is not None and self.labels.ndim == x.ndim and len(self.labels) > 1

    def lift(self, x: Tensor, xi: Tensor) -> Tensor:
        """One ξ per label copied onto its entries: (n, d) or (b, n, d) -> (1 or b, n, *input shape)."""
        xi = xi if xi.ndim == 3 else xi.unsqueeze(0)
        if self.labels is not None:
            labels = self.flat(x)
            if self.labels.ndim < x.ndim:
                xi = xi[..., labels[0]]
            else:
                b, n = max(len(xi), len(labels)), xi.shape[1]
                xi = xi.expand(b, -1, -1).gather(2, labels[:, None].expand(b, n, -1))
        return xi.reshape(*xi.shape[:2], *x.shape[1:])

    def group_sum(self, x: Tensor, entries: Tensor) -> Tensor:
        """(b, *input shape) -> (b, d), summed over each feature's entries."""
        flat = entries.flatten(1)
        if self.labels is None:
            return flat
        total = flat.new_zeros(len(flat), self.count(x))
        return total.scatter_add(1, self.flat(x).expand(len(flat), -1), flat)

    def flat(self, x: Tensor) -> Tensor:
        """(1, entries), or (b, entries) if instances are labelled differently."""
        assert self.labels is not None
        labels: Tensor = self.labels.to(x.device)
        labels = labels if labels.ndim == x.ndim else labels.unsqueeze(0)
        return labels.expand(len(labels), *x.shape[1:]).flatten(1)

    def batches(self, x: Tensor) -> list[Tensor]:
        """Indices of the instances with equally many features."""
        if not self.differ(x) or self.labels is None:
            return [torch.arange(len(x), device=x.device)]
        count = self.labels.flatten(1).amax(1)
        return [torch.nonzero(count == c).flatten() for c in count.unique()]

    def at(self, x: Tensor, instances: Tensor | slice) -> "Labels":
        if self.labels is None or not self.differ(x):
            return self
        return Labels(_some(self.labels, instances), self.names)

    @property
    def given(self) -> Any:
        """What `ensure_labels` makes them of again."""
        return self.labels if self.names is None else self

    def joined(self, x: Tensor, others: Sequence["Labels"]) -> "Labels":
        given = [one.labels for one in (self, *others) if one.labels is not None and one.labels.ndim == x.ndim]
        shared = all(alike(self, other) for other in others)
        if shared and not self.differ(x):
            return self
        if len(given) == 1 + len(others):
            return Labels(torch.cat(given), self.names)
        raise ValueError("explanations with different features cannot be joined")

    def check(self, x: Tensor) -> None:
        """Raise ValueError if the labels do not fit the instances x."""
        if self.labels is None:
            return
        labels, shape = self.labels, tuple(x.shape[1:])
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool or labels.ndim == 0:
            raise ValueError("features must be whole numbers, a label 0 … d − 1 for every entry of an input")
        try:
            every = self.flat(x)
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


Features = Tensor | np.ndarray | pd.Series | pd.DataFrame | Sequence[int] | Labels


def ensure_labels(given: Any) -> Labels:
    """What a user gave, as Labels."""
    if isinstance(given, Labels):
        return given
    if given is None:
        return Labels(None)
    if type(given) in (list, tuple) and any(isinstance(one, str) for one in given):
        raise TypeError(f"features must hold numbers, got {given!r}: names of features come from x, a DataFrame")
    return Labels(given)

"""What replaces a removed feature."""

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
from locapprox.neighbourhoods.named import Named, some_of


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

    def ready(self, x: Tensor) -> "Baseline":
        """That of exactly the instances x, as numbers on their device."""
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
        given, values = self.values, as_numbers(self.values, "baseline")
        object.__setattr__(self, "values", values)
        object.__setattr__(
            self, "zero", values.ndim == 0 and bool((given if isinstance(given, float) else values) == 0)
        )

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
        return 0.0 if self.zero else self.values if self.names is None else self

    def at(self, x: Tensor, instances: Tensor | slice) -> Baseline:
        return Values(some_of(self.values, instances), self.names) if self.values.ndim == x.ndim else self

    def ready(self, x: Tensor) -> Baseline:
        return self if self.zero or self.values.device == x.device else Values(self.values.to(x))

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

    def ready(self, x: Tensor) -> Baseline:
        return self if self.rows.device == x.device else Background(self.rows.to(x))

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

    def ready(self, x: Tensor) -> Baseline:
        return Values(self.function(x).to(x))

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


def _finite(values: Tensor) -> None:
    if values.numel() == 0 or not bool(torch.isfinite(values).all()):
        raise ValueError("baseline is empty" if values.numel() == 0 else "baseline has NaN or infinite values")

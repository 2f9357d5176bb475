"""Which entries of an input a feature is."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from locapprox._parts import alike, brief
from locapprox.models.inputs import as_numbers
from locapprox.neighbourhoods.named import Named, some_of


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
        some = copy.copy(self)
        vars(some).update(labels=some_of(self.labels, instances), index=None)
        return some

    def ready(self, x: Tensor) -> "Labels":
        """Those on the device of x."""
        return self if self.labels is None or self.labels.device == x.device else Labels(self.labels.to(x.device))

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

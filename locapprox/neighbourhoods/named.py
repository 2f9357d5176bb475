"""Parts that hold numbers for every feature, and may be given them by name."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from torch import Tensor

from locapprox._names import COLUMNS, ROWS, in_order, names_of
from locapprox.models.inputs import as_numbers

ARRAYS = (Tensor, np.ndarray)


class Named:
    """A dataclass whose fields `per_feature` have the features on their last axis.

    Given as a DataFrame or a Series they become tensors, and their `names` are kept (with `per_instance` also the
    `index` of a DataFrame), so that x's columns find theirs.
    """

    called: ClassVar[str]  # the argument, for a user
    per_feature: ClassVar[tuple[str, ...]]
    per_instance: ClassVar[bool] = False
    names: list[str] | None
    index: pd.Index | None = None

    def __post_init__(self) -> None:
        parts = {name: getattr(self, name) for name in self.per_feature}
        by_name = {name: part for name, part in parts.items() if isinstance(part, pd.DataFrame | pd.Series)}
        rest = [part for name, part in parts.items() if name not in by_name]
        if by_name and any(isinstance(part, list | tuple) or (isinstance(part, ARRAYS) and part.ndim) for part in rest):
            raise ValueError(f"{self.called}: give {' and '.join(self.per_feature)} by name, or none of them")
        for name, given in by_name.items():
            columns = in_order(names_of(given), self.names, name, COLUMNS)
            numbers = as_numbers(given, self.called)
            self._set(name, numbers if columns is None else numbers[..., columns])
            self._set("names", self.names or names_of(given))
            if isinstance(given, pd.DataFrame) and self.per_instance:
                self._set("index", given.index)

    def named(self, names: Sequence[str], index: pd.Index | None = None) -> Any:
        """In the order of x's names (and index), or ValueError. What has no names is in order."""
        columns = in_order(self.names, names, self.called, COLUMNS)
        rows = in_order(self.index, index, self.called, ROWS)
        part = self
        if columns is not None:
            part = replace(part, names=list(names), **self._each(lambda n: n[..., columns] if n.ndim else n))  # type: ignore[type-var]
        if rows is not None:
            part = replace(part, index=index, **part._each(lambda numbers: numbers[rows]))  # type: ignore[type-var]
        return part

    def _each(self, change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        return {name: change(getattr(self, name)) for name in self.per_feature}

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


def some_of(values: Tensor, instances: Tensor | slice) -> Tensor:
    """Those of some of the instances."""
    return values[instances if isinstance(instances, slice) else instances.to(values.device)]

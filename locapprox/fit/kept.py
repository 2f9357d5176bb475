"""Draws that are asked for again, and what follows from them alone: kept, so that only the model's answers are new.

A draw is a function of its distribution, n, d and the seed. Of the library's own distributions the last few small ones
are kept, and with them, for as long, the results of `remembered` functions: designs, Gram matrices, inverses,
leverages. Nothing may change such a tensor in place.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import wraps
from typing import Any, Generic, ParamSpec, TypeVar

from torch import Tensor, dtype

LARGEST, TOGETHER = 2**17, 2**19  # numbers of one draw that is kept, (n + d) d, and of all

P = ParamSpec("P")
R = TypeVar("R")
V = TypeVar("V")

RESULTS = "_remembered"  # of a tensor that is kept


def keep(*values: Any) -> None:
    """What follows from these tensors, or tuples of them, is remembered as long as they are there."""
    for part in values:
        if isinstance(part, tuple):
            keep(*part)
        elif isinstance(part, Tensor):
            vars(part).setdefault(RESULTS, {})


def remembered(function: Callable[P, R]) -> Callable[P, R]:
    """The function of a tensor, other tensors, numbers and words, which works out what follows from kept tensors once.

    A result is an attribute of the first tensor, with the other ones. So that all go when the draw goes, no two tensors
    may each be the first with the other: the design comes before weights and matrices.
    """

    @wraps(function)
    def asked(*args: P.args, **kwargs: P.kwargs) -> R:
        known = vars(args[0]).get(RESULTS)
        if known is None or kwargs:
            return function(*args, **kwargs)
        key = (function, *(id(part) if isinstance(part, Tensor) else part for part in args[1:]))
        if key not in known:
            value = function(*args, **kwargs)
            if not all(map(_lasts, args[1:])):
                return value
            value = _apart(value, args[0])
            keep(value)
            known[key] = value, args[1:]  # whose ids are in the key
        result: R = known[key][0]
        return result

    return asked


def _lasts(part: Any) -> bool:
    return RESULTS in vars(part) if isinstance(part, Tensor) else isinstance(part, int | float | str | dtype | None)


def _apart(value: Any, first: Any) -> Any:
    """With no tensor that shares the memory of `first`, which goes with its results."""
    if isinstance(value, Tensor):
        return value.clone() if value is first or value._is_view() else value
    if isinstance(value, tuple):
        parts = [_apart(part, first) for part in value]
        return tuple(parts) if type(value) is tuple else type(value)(*parts)  # a NamedTuple
    return value


class Recent(Generic[V]):
    """The values asked for last, each of a size, up to a size of all."""

    def __init__(self, together: int = TOGETHER) -> None:
        self.together = together
        self._values: OrderedDict[Hashable, tuple[V, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> V | None:
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def put(self, key: Hashable, value: V, size: int) -> None:
        with self._lock:
            self._values[key] = value, size
            while sum(size for _, size in self._values.values()) > self.together:
                self._values.popitem(last=False)

"""What all parts share: short reprs, equality by value, checks of numbers, failures that name them."""

import dis
import math
import operator
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING, Field, fields, is_dataclass
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Concise:
    """A repr of what differs from the defaults: `Multiplicative(FairMasks(), baseline=Tensor(3×28×28))`.

    For dataclasses with `repr=False`. Fields without a default stand first, without their names.
    """

    def __repr__(self) -> str:
        shown = []
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if field.repr and not (_has_default(field) and alike(value, field.default)):
                shown.append(f"{field.name}={brief(value)}" if _has_default(field) else brief(value))
        return f"{type(self).__name__}({', '.join(shown)})"


def _has_default(field: "Field[Any]") -> bool:
    return field.default is not MISSING


def brief(value: Any) -> str:
    """A repr of one line: arrays of more than three numbers by their shape."""
    if isinstance(value, Tensor | np.ndarray):
        if np.prod(value.shape) <= 3:
            return repr(value.tolist())
        return f"{type(value).__name__}({'×'.join(map(str, value.shape))})"
    return repr(value)


def alike(a: Any, b: Any) -> bool:
    """Whether two parts are the same by value: arrays by their numbers, dataclasses field by field, others by ==."""
    if a is b:
        return True
    arrays = [isinstance(part, Tensor | np.ndarray) for part in (a, b)]
    if any(arrays):
        both = _numbers(a) and _numbers(b)
        return both and torch.equal(*(torch.as_tensor(part, device="cpu").double() for part in (a, b)))
    if is_dataclass(a) and type(a) is type(b):
        return all(alike(getattr(a, f.name), getattr(b, f.name)) for f in fields(a) if f.compare)
    return not callable(a) and bool(np.all(a == b))


def close(a: Tensor, b: Tensor) -> bool:
    """Whether two computations of the same numbers agree, but for rounding."""
    finite = b[b.isfinite()]
    size = float(finite.abs().max()) if finite.numel() else 0.0
    return a.shape == b.shape and torch.allclose(a, b, atol=1e3 * torch.finfo(b.dtype).eps * size, equal_nan=True)


def _numbers(part: Any) -> bool:
    return isinstance(part, Tensor | np.ndarray | int | float)


def whole_number(value: Any, name: str, least: int = 1) -> int:
    """The argument `name` as an int, or a ValueError that says what it must be."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        raise ValueError(f"{name} must be a whole number ≥ {least}, got {value!r}")
    return number


def child_seeds(seed: int, n: int) -> list[int]:
    """Seeds of n replicates: the seed itself, and others that no other seed's replicates share."""
    spawned = np.random.SeedSequence(seed).generate_state(n, np.uint64)[1:] >> 1
    return [seed, *map(int, spawned)]


def share(value: Any, name: str) -> float:
    """The argument `name` as a number strictly between 0 and 1, or a ValueError."""
    if not isinstance(value, int | float | np.floating) or not 0 < value < 1:
        raise ValueError(f"{name} must be between 0 and 1, got {value!r}")
    return float(value)


def finite(value: Any, name: str) -> float:
    """The argument `name` as a finite number, or a ValueError."""
    if not isinstance(value, Real) or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {brief(value)}")
    return float(value)


def positive(value: Any, name: str) -> float:
    """The argument `name` as a positive finite number, or a ValueError."""
    try:
        number = math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError, RuntimeError):
        number = math.nan
    if not 0 < number < math.inf:
        raise ValueError(f"{name} must be positive and finite, one number; got {brief(value)}")
    return number


def is_builtin(part: Any) -> bool:
    """Whether a part, and all that it holds, comes with the library: numbers, arrays and the library's own classes."""
    if part is None or isinstance(part, Tensor | np.ndarray | int | float | str | list | tuple | np.generic):
        return True
    if not type(part).__module__.startswith(OURS) or not is_dataclass(part):
        return False
    return all(is_builtin(getattr(part, field.name)) for field in fields(part))


def value_of(part: Any) -> tuple[Any, ...] | None:
    """What tells a part of the library's own from its likes, if that is plain numbers and words."""
    if not type(part).__module__.startswith(OURS) or not is_dataclass(part):
        return None
    values = [getattr(part, field.name) for field in fields(part)]
    return (type(part), *values) if all(isinstance(value, int | float | str | None) for value in values) else None


@contextmanager
def calling(what: str) -> Iterator[None]:
    """Whatever a user's part raises becomes a sentence that names it; sentences of the library's own stay."""
    try:
        yield
    except Warning:  # where warnings are errors
        raise
    except Exception as error:
        if isinstance(error, ValueError | TypeError | MemoryError) and _raised_here(error):
            raise
        if out_of_memory(error):
            raise MemoryError(f"{what} runs out of memory: {error}") from error
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{what} failed: {type(error).__name__}: {error}") from error


def out_of_memory(error: Exception) -> bool:
    """Python's, or torch's, which on a CPU is a RuntimeError."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    words = ("out of memory", "not enough memory", "allocate memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


OURS, RAISE = "locapprox.", dis.opmap["RAISE_VARARGS"]


def _raised_here(error: Exception) -> bool:
    """Whether its last frame is a `raise` of the library."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None or not str(last.tb_frame.f_globals.get("__name__")).startswith(OURS):
        return False
    return last.tb_frame.f_code.co_code[last.tb_lasti] == RAISE

"""Warnings that point at the user's line, not into the library."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

INSIDE = ("locapprox", "contextlib", "functools", "jaxtyping", "beartype", "<")


def warn(message: str) -> None:
    """A UserWarning attributed to the first caller outside the library."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "<").startswith(INSIDE):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


_errors_unsaid: ContextVar[bool] = ContextVar("errors_unsaid", default=False)


@contextmanager
def errors_unsaid() -> Iterator[None]:
    """What is said of standard errors is not said of those that nobody sees."""
    token = _errors_unsaid.set(True)
    try:
        yield
    finally:
        _errors_unsaid.reset(token)


def warn_of_errors(message: str) -> None:
    """As `warn`, of standard errors."""
    if not _errors_unsaid.get():
        warn(message)

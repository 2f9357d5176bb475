"""Warnings that point at the user's line, not into the library."""

import sys
import warnings

INSIDE = ("locapprox", "contextlib", "functools", "jaxtyping", "beartype", "<")


def warn(message: str) -> None:
    """A UserWarning attributed to the first caller outside the library."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "<").startswith(INSIDE):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)

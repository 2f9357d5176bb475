"""Explanations from disk."""

from pathlib import Path

from locapprox._explanation import Explanation, Inside
from locapprox._files import read, read_method
from locapprox.fit.links import LINKS


def load(path: str | Path) -> Explanation:
    """An explanation saved by `Explanation.save`. It predicts, but does not validate: the model is not saved, and of
    the method only the name, the loss and reprs of its parts are.

    Raises ValueError for files that are none, damaged or from a newer version.
    """
    arrays, meta = read(path)
    affine = (arrays.pop("slopes"), arrays.pop("origin")) if "slopes" in arrays else None
    names, settings = meta["feature_names"], meta["settings"]
    columns = meta.get("columns", names)
    inside = Inside(None, meta["several"], meta["per_entry"], LINKS[meta["link"]], affine, columns)
    method = read_method(meta["method"])
    return Explanation(**arrays, method=method, feature_names=names, settings=settings, _inside=inside)

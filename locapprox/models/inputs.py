"""Inputs, whatever they come as: tensors, arrays, DataFrames."""

import math
import reprlib
import sys
from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd
import torch
from pandas.api.types import is_numeric_dtype
from torch import Tensor, nn

from locapprox._names import names_of

Array = Tensor | np.ndarray | pd.DataFrame


def as_tensor(x: Array, model: Any, name: str = "x") -> Tensor:
    """x as a floating tensor of its own; an array or DataFrame for a module gets the module's dtype and device.

    `name` is the argument's. A module's dtype is that of its floating parameters, the widest if they differ; without
    any, x keeps its own.
    """
    if not isinstance(x, np.ndarray | Tensor | pd.DataFrame):
        raise TypeError(f"{name} must be a tensor, an array or a DataFrame, got {type(x).__name__}")
    names = names_of(x) or []
    twice = sorted({one for one in names if names.count(one) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise ValueError(f"{name} has several columns of the same name: {', '.join(twice)}; rename them")
    array, tensor = not isinstance(x, Tensor), as_numbers(x, name)
    if tensor.dtype == torch.uint8 and tensor.ndim == 4:
        raise ValueError(
            f"{name} holds images of bytes (uint8): lx.as_images(x) divides by 255; scale as the model expects"
        )
    takes = isinstance(model, nn.Module) and (array or not tensor.is_floating_point())
    parameters = list(model.parameters()) if takes else []
    if array and parameters:
        tensor = tensor.to(parameters[0].device)
    dtypes = [p.dtype for p in parameters if p.is_floating_point() and p.itemsize > 1]
    if dtypes:
        return tensor.to(reduce(torch.promote_types, dtypes))
    if not tensor.is_floating_point():
        return tensor.to(torch.float64 if array else torch.get_default_dtype())
    return tensor


def as_numbers(given: Any, name: str) -> Tensor:
    """A copy of real numbers, whatever holds them, as a tensor without gradient.

    Raises TypeError or ValueError naming the argument `name` if they are none, complex, or masked.
    """
    if isinstance(given, Tensor):
        return plain(given, name).detach().clone()
    if np.ma.is_masked(given):
        raise ValueError(f"{name} is a masked array with masked entries: fill them in, by .filled(…)")
    if isinstance(given, pd.DataFrame | pd.Series):
        given = _columns(given, name)
    try:
        array = np.array(given)
    except (ValueError, RuntimeError) as error:  # lists of unequal lengths, tensors with gradients
        raise TypeError(f"{name} must hold numbers in rows of equal length, got {type(given).__name__}") from error
    if array.dtype.kind == "c":
        raise TypeError(f"{name} must hold real numbers, got complex ones")
    if array.dtype.kind not in "biuf":
        what = f"an array of dtype {array.dtype}; encode text, then {name}.astype(float)"
        found = what if isinstance(given, np.ndarray) else reprlib.repr(given)
        raise TypeError(f"{name} must hold numbers, got {found}")
    wide = array.dtype.kind == "f" and array.itemsize > 8  # longdouble
    return torch.from_numpy(array.astype(np.float64 if wide else array.dtype.newbyteorder("="), copy=False))


def floating(given: Any, name: str) -> Tensor:
    """As `as_numbers`; whole numbers and Booleans become float64."""
    tensor = as_numbers(given, name)
    return tensor if tensor.is_floating_point() else tensor.double()


def _columns(given: pd.DataFrame | pd.Series, name: str) -> np.ndarray:
    frame = given.to_frame() if isinstance(given, pd.Series) else given
    text = [str(c) for c, dtype in zip(frame.columns, frame.dtypes, strict=True) if not is_numeric_dtype(dtype)]
    if text:
        raise TypeError(f"{name} has columns that are not numbers: {', '.join(text)}; encode them first")
    values = given.to_numpy()  # of dtype object where columns are Boolean or nullable
    return given.to_numpy(float, na_value=np.nan) if values.dtype == object else values


def plain(given: Tensor, name: str) -> Tensor:
    """A tensor of real numbers that torch computes with: no subclass, and none that is sparse, nested, …"""
    with torch._C.DisableTorchFunctionSubclass():
        kinds = {
            "nested: pad its rows to one shape": given.is_nested,
            "sparse: use .to_dense()": given.layout is not torch.strided,
            "quantised: use .dequantize()": given.is_quantized,
            'without values, on the device "meta"': given.is_meta,
        }
        wrong = [kind for kind, holds in kinds.items() if holds]
        if wrong:
            raise TypeError(f"{name} is a tensor that is {wrong[0]}")
        if given.is_complex():
            raise TypeError(f"{name} must hold real numbers, got complex ones")
        given = given if type(given) is Tensor else given.as_subclass(Tensor)
    return given.float() if given.is_floating_point() and given.itemsize == 1 else given  # float8 cannot be added


def channels_last(shape: Sequence[int]) -> bool:
    """Whether (b, …, …, …) looks like images with their channels at the end."""
    return len(shape) == 4 and shape[-1] in (1, 3, 4) and shape[1] not in (1, 3, 4)


def missing(x: Tensor, names: Sequence[str] | None = None) -> str:
    """The first features (columns, or indices) with NaN or infinite values in an instance; "" if there are none."""
    if all_finite(x):
        return ""
    bad = (~torch.isfinite(x).all(0)).nonzero().tolist()
    where = [str(names[i[0]]) if names else str(i[0]) if len(i) == 1 else str(tuple(i)) for i in bad[:5]]
    return ", ".join(where) + (" …" if len(bad) > 5 else "")


def all_finite(values: Tensor) -> bool:
    """One sum settles it nearly always (NaN and infinity stay); it may overflow, so then every value is looked at."""
    return math.isfinite(float(values.detach().sum())) or bool(torch.isfinite(values).all())


def is_pillow(image: Any) -> bool:
    """Whether it is an image of Pillow, which is there if one is."""
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(image, pillow.Image)

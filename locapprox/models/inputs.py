"""Inputs, whatever they come as: tensors, arrays, DataFrames."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

Array = Tensor | np.ndarray | pd.DataFrame


def as_tensor(x: Array, model: Any) -> Tensor:
    """x as a floating tensor; an array or DataFrame for a module gets the module's dtype and device."""
    if isinstance(x, pd.DataFrame):
        twice = sorted({str(c) for c in x.columns[x.columns.duplicated()]})
        if twice:
            raise ValueError(f"x has several columns of the same name: {', '.join(twice)}; rename them")
        text = [str(c) for c in x.columns if not pd.api.types.is_numeric_dtype(x[c])]
        if text:
            raise TypeError(f"x has columns that are not numbers: {', '.join(text)}; encode them first")
        values = x.to_numpy()  # of dtype object where columns are Boolean or nullable
        x = x.to_numpy(float, na_value=np.nan) if values.dtype == object else values
    if isinstance(x, np.ndarray) and not (np.issubdtype(x.dtype, np.number) or x.dtype == bool):
        raise TypeError(f"x must hold numbers, got an array of dtype {x.dtype}; encode text, then x.astype(float)")
    if not isinstance(x, np.ndarray | Tensor):
        raise TypeError(f"x must be a tensor, an array or a DataFrame, got {type(x).__name__}")
    array = not isinstance(x, Tensor)
    tensor = x.detach().clone() if isinstance(x, Tensor) else torch.from_numpy(np.array(x))
    if tensor.is_complex():
        raise TypeError("x must hold real numbers, got complex ones")
    if tensor.dtype == torch.uint8 and tensor.ndim == 4:
        raise ValueError("x holds images of bytes (uint8): lx.as_images(x) divides by 255; scale as the model expects")
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    if parameter is not None and (array or not tensor.is_floating_point()):
        tensor = tensor.to(parameter.device if array else tensor.device, parameter.dtype)
    elif not tensor.is_floating_point():
        tensor = tensor.to(torch.float64 if array else torch.get_default_dtype())
    return tensor


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


def names_of(x: Array) -> list[str] | None:
    """Names of the features: a DataFrame's columns."""
    return [str(c) for c in x.columns] if isinstance(x, pd.DataFrame) else None


def all_finite(values: Tensor) -> bool:
    """One sum settles it nearly always (NaN and infinity stay); it may overflow, so then every value is looked at."""
    return math.isfinite(float(values.detach().sum())) or bool(torch.isfinite(values).all())

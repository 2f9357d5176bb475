"""How a model is called with tensors of rows, whatever it takes, and what it returns as a tensor."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from locapprox._names import places
from locapprox._notices import warn
from locapprox.models.inputs import Array, as_numbers, plain


def caller(model: Any, example: Array) -> Callable[[Tensor], Any]:
    """The model as a function of a tensor of rows: scikit-learn estimators see arrays or DataFrames, functions x's."""
    if isinstance(model, nn.Module):
        return model
    if isinstance(model, type):
        raise TypeError(f"model must be an object, got the class {model.__name__}")
    predict = getattr(model, "predict_proba", None) or getattr(model, "predict", None)
    if predict is None and not callable(model):
        raise TypeError(
            f"model must be a torch.nn.Module, an estimator with predict_proba or predict, or callable; got {model!r}"
        )
    function: Callable[[Any], Any] = predict or model
    if predict is None and isinstance(example, Tensor):
        return function
    names = example.columns if isinstance(example, pd.DataFrame) else None
    owner = getattr(model, "__self__", model)  # of a bound method
    fitted = getattr(owner, "feature_names_in_", None)
    _check_order(function, example, getattr(owner, "feature_name_", None) if fitted is None else fitted)
    if predict is not None:  # as it was fitted: on names, which scikit-learn checks against x's own, or on arrays
        names = fitted if fitted is None or names is None else names
        if getattr(model, "predict_proba", None) is None and _classifies(model):
            warn(
                "this classifier has no predict_proba, so its labels are explained as numbers; pass "
                "model.decision_function, or wrap it in CalibratedClassifierCV"
            )
    return partial(_on_arrays, function, names)


def keeps_rows_apart(model: Any) -> bool:
    """Whether it is scikit-learn's, made of nothing else: its own tests hold estimators to answering rows alone."""
    if not type(model).__module__.startswith("sklearn."):
        return False
    parts = model.get_params().values()  # and those of estimators inside
    known = all(type(part).__module__.split(".")[0] in ("builtins", "numpy", "sklearn") for part in parts)
    return known and not any(map(callable, parts))


def _on_arrays(function: Callable[[Any], Any], names: Any, rows: Tensor) -> Any:
    """At the module's level, so that explanations can be pickled."""
    array = rows.detach().cpu().numpy()
    return function(array if names is None else pd.DataFrame(array, columns=names))


def _check_order(function: Callable[[Any], Any], example: Array, fitted: Any) -> None:
    """Raise ValueError if a model that was fitted on x's columns in another order does not go by their names."""
    if fitted is None or not isinstance(example, pd.DataFrame):
        return
    order, some = places(map(str, example.columns), fitted), example.iloc[:4]
    if order is None or order == list(range(len(order))):
        return
    try:
        by_name = np.allclose(function(some), function(some.iloc[:, order]), equal_nan=True)
    except Exception:  # scikit-learn's own refusal
        by_name = False
    if not by_name:
        raise ValueError(
            "x has the model's columns in another order than the model was fitted on; pass x[model.feature_names_in_]"
        )


def _classifies(model: Any) -> bool:
    from sklearn.base import ClassifierMixin  # an estimator has imported it already

    return isinstance(model, ClassifierMixin)


def as_output(out: Any, of: str, rows: Tensor) -> Tensor:
    """What `of`, the model or the target, returned for the rows: a tensor, with its gradient if it has one."""
    if isinstance(out, list | tuple) and out and all(isinstance(one, Tensor) for one in out):
        with suppress(RuntimeError):  # of several shapes: as_numbers says so
            out = torch.stack(list(out))
    if isinstance(out, Tensor):
        return plain(out, f"{of}'s result")
    if isinstance(out, pd.DataFrame | pd.Series) and not out.index.equals(pd.RangeIndex(len(rows))):
        order = places(out.index, range(len(rows)))  # rows that come back in another order say so
        out = out if order is None else out.iloc[order]
    try:
        return as_numbers(out, f"{of}'s result").to(rows.device)
    except TypeError as error:
        found = type(out).__name__ + (f" of {out.dtype}" if isinstance(out, np.ndarray) else "")
        raise TypeError(
            f"{of} must return real numbers, one row per input; it returned {found}. Wrap it in a function that "
            "returns the scores"
        ) from error

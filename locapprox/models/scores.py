"""A model, whatever it is, as scores: (rows, *input shape) -> (rows, k), and their gradients by autograd."""

import copy
import dis
import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from locapprox._names import names_of
from locapprox._notices import warn
from locapprox._parts import out_of_memory
from locapprox.models.alone import Alone, Seen
from locapprox.models.calls import as_output, caller
from locapprox.models.inputs import Array, as_numbers, channels_last, missing

Target = int | Sequence[int] | np.ndarray | pd.Series | Tensor | range | Callable[[Any], Any] | None

NO_GRADIENT = (
    "gradient matching needs the model's gradients, and {why}. Two ways out: fit the same neighbourhood by squared "
    "error (lx.c_lime(sigma) estimates the same weights as lx.smoothgrad(sigma)), or pass a differentiable model "
    "(a torch.nn.Module, or a function of tensors with x a tensor)"
)


class NoGradientError(TypeError):
    """The model has values and no gradients."""


_lock = threading.Lock()
_explained: "WeakKeyDictionary[nn.Module, int]" = WeakKeyDictionary()  # found in training mode, and by how many calls


@contextmanager
def evaluation_mode(model: Any, warns: bool = True) -> Iterator[None]:
    """Every module in evaluation mode, and back as it was when the last of several threads leaves, with a warning."""
    held, changed = [], False
    modules = modules_of(model)
    with _lock:
        for part in {part: None for module in modules for part in module.modules()}:
            if getattr(part, "training", False) or (_explained and part in _explained):  # a frozen script has no mode
                _explained[part] = _explained.get(part, 0) + 1
                held.append(part)
                changed, part.training = changed or part.training, False
    if changed and warns:
        warn(
            "the model is in training mode (dropout, batch statistics): it is explained in evaluation mode and put "
            "back afterwards; call model.eval() to silence this"
        )
    try:
        yield
    finally:
        with _lock:
            for part in held:
                _explained[part] -= 1
                if not _explained[part]:
                    part.training = True
                    del _explained[part]


def modules_of(model: Any, seen: set[int] | None = None) -> list[nn.Module]:
    """The modules that answer: the model, the owner of a method (`net.forward`), those that a function names, itself or
    in functions around it and beside it."""
    seen = set() if seen is None else seen
    if isinstance(model, nn.Module):
        return [model]
    if id(model) in seen:
        return []
    seen.add(id(model))
    known: list[Any] = [getattr(model, "__self__", None)]
    if isinstance(model, partial):
        known = [model.func, *model.args, *model.keywords.values()]
    elif inspect.isfunction(model):
        loaded = {step.argval for step in dis.get_instructions(model) if step.opname == "LOAD_GLOBAL"}
        known = [model.__globals__[name] for name in loaded if name in model.__globals__]
        for cell in model.__closure__ or ():
            with suppress(ValueError):  # nothing in it yet
                known.append(cell.cell_contents)
        known = [part for part in known if not inspect.isfunction(part) or part.__module__ == model.__module__]
    answers = [part for part in known if isinstance(part, nn.Module | partial) or inspect.isroutine(part)]
    return [module for part in answers for module in modules_of(part, seen)]


def default_rows(x: Tensor, model: Any) -> int:
    """Rows per model call, from shapes and the device alone: what stays in a CPU's cache (images have larger
    activations), or a share of a GPU's memory."""
    layers = model.modules() if isinstance(model, nn.Module) and x.ndim == 2 else ()
    widest = max([x[0].numel(), *(layer.out_features for layer in layers if isinstance(layer, nn.Linear))])
    if x.device.type == "cuda":
        return rows_on_gpu(torch.cuda.get_device_properties(x.device).total_memory, widest * x.element_size())
    budget = 2**23 if x.device.type != "cpu" else 5 * 2**17 if x.ndim == 2 else 2**17
    return max(8, min(2**15, budget // max(1, widest)))


def rows_on_gpu(memory: int, row: int) -> int:
    """Rows whose inputs take a thousandth of the device's memory: gradients of a ResNet hold two hundred times that."""
    return max(8, min(2**17, memory // 1024 // max(1, row)))


class Scores:
    """The scores to explain, for rows near the instances x.

    `target` picks them among the model's outputs: None (it has one), an int, one int per instance, a range (several at
    once), or a function from the outputs to one score per row.
    """

    def __init__(
        self, model: Any, x: Tensor, example: Array, target: Target = None, batch_size: int | None = None
    ) -> None:
        self.call = caller(model, example)
        holes = missing(x, names_of(example))
        self.holes = f": x has such values in feature(s) {holes}, which this model does not take" if holes else ""
        sees_tensors = isinstance(model, nn.Module) or (isinstance(example, Tensor) and not hasattr(model, "predict"))
        self.black_box = None if sees_tensors else "this model is called with arrays"
        self.target = target
        self.input_shape, self.input_ndim = tuple(x.shape[1:]), x.ndim - 1
        self.several = isinstance(target, range)
        self.rows_per_call = batch_size or default_rows(x, model)
        self._ends: list[Tensor] = []  # least and largest outputs of calls, not looked at yet
        self.columns = self._columns(x)
        self.k = 1 if self.columns is None else self.columns.shape[1]
        self.least, self.most = (0, 0) if self.columns is None else map(int, self.columns.aminmax())
        self.alone = Alone(model, self.rows_per_call)

    def with_columns(self, columns: Tensor | None) -> "Scores":
        """The same with other output columns, (1, k), or (b, 1) for other instances."""
        other = copy.copy(self)
        other.columns = columns
        if columns is not None:
            other.least, other.most = map(int, columns.aminmax())
        return other

    def values(self, placed: Tensor, instances: Tensor) -> Float[Tensor, "b k n"]:
        """Scores of placed rows (b, n, *input shape), or (b, n, m, *input shape) to average over m."""
        with torch.no_grad():
            return self._once_more(*self._of_placed(placed, instances))

    def of_several(self, placed: Sequence[Tensor], instances: Sequence[Tensor]) -> list[Float[Tensor, "b k n"]]:
        """Copies of the `values` of each, from one call."""
        lead, found = placed[0].ndim - self.input_ndim, []
        each = [part.flatten(0, lead - 1) for part in placed]
        own = [i.repeat_interleave(len(rows) // len(i)) for i, rows in zip(instances, each, strict=True)]
        scores = self.values(torch.cat(each).unsqueeze(1), torch.cat(own))[..., 0]
        for part, whole in zip(scores.split([len(rows) for rows in each]), placed, strict=True):
            part = part.unflatten(0, whole.shape[:lead])
            found.append((part.mean(2) if lead == 3 else part).movedim(2, 1).clone())
        return found

    def gradients(
        self, place: Callable[[Tensor], Tensor], xi: Float[Tensor, "b n d"], instances: Tensor
    ) -> tuple[Float[Tensor, "b k n"], Float[Tensor, "b k n d"]]:
        """Scores at place(ξ) and ∇_ξ of them, one backward pass per score."""
        if self.black_box:
            raise NoGradientError(NO_GRADIENT.format(why=self.black_box))
        with torch.enable_grad():
            leaf = xi.detach().requires_grad_()
            try:
                placed = place(leaf)
                if not placed.requires_grad:
                    raise NoGradientError(
                        "gradient matching needs place to be differentiable in ξ: use tensor operations on xi"
                    )
                y, seen = self._of_placed(placed, instances)
            except ValueError as error:
                if "requires grad" not in str(error.__cause__):  # .numpy() inside
                    raise
                why = "this model leaves torch on its way"
                raise NoGradientError(NO_GRADIENT.format(why=why)) from error.__cause__
            if not y.requires_grad:
                why = "its output does not depend on its input differentiably"
                raise NoGradientError(NO_GRADIENT.format(why=why))
            with torch.autocast(leaf.device.type, enabled=False):  # backward runs in the precision of forward
                grads = [
                    torch.autograd.grad(y[:, j].sum(), leaf, retain_graph=j + 1 < y.shape[1])[0]
                    for j in range(y.shape[1])
                ]
        y = self._once_more(y.detach(), seen)
        return y, torch.stack(grads, dim=1) if len(grads) > 1 else grads[0].unsqueeze(1)

    def _once_more(self, y: Tensor, seen: Seen | None) -> Tensor:
        """A copy of the answer y, which a model may overwrite, if one of the rows seen is to be asked about again."""
        if seen is not None:
            self.require_finite()
            y = y.clone()
            self.alone.ask(seen, self._finite_scores)
        return y

    def _finite_scores(self, rows: Tensor, instances: Tensor) -> Float[Tensor, "rows k"]:
        scores = self._scores(rows, instances)
        self.require_finite()
        return scores

    def _of_placed(self, placed: Tensor, instances: Tensor) -> tuple[Tensor, Seen | None]:
        b, n = placed.shape[:2]
        lead = placed.ndim - self.input_ndim
        rows = placed.flatten(0, lead - 1)
        seen = self.alone.before(rows, instances)
        scores = self._scores(rows, instances)
        seen, scores = self.alone.due(seen, scores), scores.reshape(b, -1, self.k)
        if lead == 3:
            scores = scores.unflatten(1, (n, -1)).mean(2)
        return scores.movedim(2, 1), seen

    def _scores(self, rows: Tensor, instances: Tensor) -> Float[Tensor, "rows k"]:
        out, of = self._guarded(rows), "the model"
        if callable(self.target):
            of = "target"
            try:
                out = self.target(out)
            except Exception as error:
                raise ValueError(f"target failed on the model's outputs: {_named(error)}") from error
        out = as_output(out, of, rows)
        if not out.is_floating_point():
            out = out.to(rows.dtype)
        out = out.reshape(1) if out.ndim == 0 and len(rows) == 1 else out
        out = out.unsqueeze(1) if out.ndim == 1 else out
        if out.ndim != 2 or len(out) != len(rows):
            raise ValueError(
                f"{of} must return one row of scores per input: {len(rows)} inputs gave shape {tuple(out.shape)}"
            )
        if out.numel():
            self._ends += torch.aminmax(out.detach())
        return self._pick(out, instances)

    def require_finite(self) -> None:
        """Raise ValueError if an answer since the last time was not finite; no call waits for a device to know it."""
        finite = not self._ends or bool(torch.stack(self._ends).isfinite().all())
        self._ends.clear()
        if not finite:
            of = "target" if callable(self.target) else "the model"
            raise ValueError(f"{of} returned NaN or infinite values near the explained inputs{self.holes}")

    def _guarded(self, rows: Tensor) -> Any:
        try:
            return self.call(rows)
        except Exception as error:
            if out_of_memory(error):
                raise MemoryError(f"out of memory on {len(rows)} rows: lower batch_size below that") from error
            raise ValueError(self._failure(rows, error)) from error

    @staticmethod
    def _failure(rows: Tensor, error: Exception) -> str:
        hint = "; images are channels first: x.permute(0, 3, 1, 2)" if channels_last(rows.shape) else ""
        return f"the model failed on rows of shape {tuple(rows.shape)} and {rows.dtype}: {_named(error)}{hint}"

    def _pick(self, out: Tensor, instances: Tensor) -> Tensor:
        outputs = out.shape[1]
        if self.columns is None:
            if outputs > 1 and callable(self.target):
                raise ValueError(f"target must give one score per row, it gave {outputs}; for all outputs use a range")
            if outputs > 1:
                raise ValueError(
                    f"the model has {outputs} outputs: choose with target=0 … {outputs - 1}, one int per instance, "
                    f"range({outputs}) for all, or a function of the outputs"
                )
            return out
        if not 0 <= self.least <= self.most < outputs:
            raise ValueError(f"target is out of range: the model's outputs are 0 … {outputs - 1}, got {self.target}")
        columns = self.columns
        if len(columns) > 1:
            columns = columns[instances].repeat_interleave(len(out) // len(instances), dim=0)
        return out.gather(1, columns.expand(len(out), -1))

    def _columns(self, x: Tensor) -> Tensor | None:
        """Output columns to keep, (1, k) or (b, 1)."""
        if self.target is None or callable(self.target):
            return None
        columns = torch.empty(0, device=x.device)
        with suppress(TypeError):
            columns = as_numbers(self.target, "target").to(x.device)
        if columns.is_floating_point() or columns.dtype == torch.bool or columns.numel() == 0:
            raise TypeError(f"target must be None, int(s), a range or a function, got {self.target!r}")
        columns = columns.long()
        if self.several or columns.ndim == 0:
            return columns.reshape(1, -1)
        if columns.shape != (len(x),):
            raise ValueError(
                f"target has shape {tuple(columns.shape)}, expected one int per instance ({len(x)}); for several "
                "outputs at once use a range"
            )
        return columns.reshape(-1, 1)


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"

"""What users bring: a CSV table, and neighbourhoods, methods and models by `module:object`."""

import hashlib
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

import locapprox as lx
from experiments.data import EXPLAINED, Table

FEWEST = 20  # rows


def load(name: str) -> Any:
    """The object `module:object`, looked up from the current folder and among installed packages."""
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise ValueError(f"{name!r} must be module:object, such as my_code:Sphere for Sphere in my_code.py")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        found = importlib.import_module(module)
    except Exception as error:
        raise ValueError(
            f"{name!r} cannot be imported: {type(error).__name__}: {error}. Looked for {module} in {here} "
            "and among the installed packages"
        ) from error
    try:
        return getattr(found, attribute)
    except AttributeError as error:
        raise ValueError(f"{name!r}: {found.__file__} has no {attribute}") from error


def digest(name: str) -> str:
    """sha256 of the file that holds `module:object`."""
    load(name)
    file = sys.modules[name.partition(":")[0]].__file__
    return hashlib.sha256(Path(str(file)).read_bytes()).hexdigest()


def method(name: str, x: Tensor) -> lx.Method:
    """A Method, a neighbourhood (measured by squared error), or a class or function that makes one without arguments.

    Raises ValueError naming the clause of the contract that the neighbourhood breaks on the instances x.
    """
    found = load(name)
    if not isinstance(found, lx.Method) and (isinstance(found, type) or not hasattr(found, "draw")):
        try:
            found = found()
        except TypeError as error:
            raise ValueError(f"{name!r} must be an object, or made without arguments: {error}") from error
    try:
        made = found if isinstance(found, lx.Method) else lx.Method(name.partition(":")[2], found, lx.SquaredError())
        lx.check_neighbourhood(made.neighbourhood, x[:3])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name!r}: {error}") from error
    return made


def table(file: str, target: str | None) -> Table:
    """A CSV file of numbers: a random 80/20 split, standardised on its training part.

    Two different targets are classes (the larger one is class 1); others are standardised values.
    """
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"--data {file} is neither a table of experiments.data nor a file in {Path.cwd()}")
    frame = pd.read_csv(path)
    if target is None or target not in frame.columns:
        raise ValueError(f"{file} has no column {target!r} (--target); it has {', '.join(map(str, frame.columns))}")
    text = [str(c) for c in frame.columns if not pd.api.types.is_numeric_dtype(frame[c])]
    if text:
        raise ValueError(f"{file} has columns of text: {', '.join(text)}; encode them as numbers")
    blank = [f"{c} ({n})" for c, n in frame.isna().sum().items() if n]
    if blank:
        raise ValueError(f"{file} has blanks in {', '.join(blank)}; fill them in, or drop those rows")
    if len(frame) < FEWEST or len(frame.columns) < 2:
        raise ValueError(f"{file} has {len(frame)} rows and {len(frame.columns)} columns; {FEWEST} and 2 are needed")
    y, inputs = frame.pop(target).to_numpy(float), frame.to_numpy(float)
    train, test = split(len(y))
    spread = inputs[train].std(0)
    constant = [str(c) for c, s in zip(frame.columns, spread, strict=True) if s == 0]
    if constant or y[train].std() == 0:
        raise ValueError(f"{file} has constant columns: {', '.join(constant) or target}; drop them")
    x, classes = (inputs - inputs[train].mean(0)) / spread, len(np.unique(y)) == 2
    y = (y == y.max()).astype(float) if classes else (y - y[train].mean()) / y[train].std()
    rows, targets = torch.from_numpy(x).float(), torch.from_numpy(y).float()
    return Table(
        path.stem,
        "classification" if classes else "regression",
        x_train=rows[train],
        y_train=targets[train],
        x_test=rows[test],
        y_test=targets[test],
        x_explain=rows[test[:EXPLAINED]],
        features=tuple(map(str, frame.columns)),
        sha256={path.name: hashlib.sha256(path.read_bytes()).hexdigest()},
    )


def split(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Training and test rows."""
    train, test = np.split(np.random.default_rng(0).permutation(rows), [rows * 4 // 5])
    return train, test


class InUnits(nn.Module):
    """A network of the file's units as one of standardised inputs z: model(mean + scale ⊙ z)."""

    def __init__(self, model: nn.Module, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.model, self.mean, self.scale = model.eval().requires_grad_(False), mean, scale

    def forward(self, z: Tensor) -> Tensor:
        like = next(self.model.parameters(), z)
        return self.model((self.mean + self.scale * z).to(like.dtype))


class Estimator:
    """An estimator, or a function of arrays, of the file's units as one of standardised inputs."""

    def __init__(self, model: Any, mean: Tensor, scale: Tensor) -> None:
        self.call = getattr(model, "predict_proba", None) or getattr(model, "predict", None) or model
        self.names = getattr(model, "feature_names_in_", None)
        self.mean, self.scale = mean.numpy(), scale.numpy()

    def predict(self, z: np.ndarray) -> Any:
        rows = self.mean + self.scale * z
        return self.call(rows if self.names is None else pd.DataFrame(rows, columns=self.names))


def model(name: str, file: str, target: str | None, table: Table) -> tuple[Any, int | None]:
    """What the function `module:object` returns, as a model of the table's inputs; and the explained output.

    A torch.nn.Module, an estimator or a function of arrays. Of the CSV file's units if there is one: the scaling is
    put in front. Two outputs are classes, of which the second is explained.
    """
    make: Callable[[], Any] = load(name)
    try:
        loaded = make()
    except Exception as error:
        raise ValueError(f"{name!r} must be a function that returns a model; it raised {error!r}") from error
    if Path(file).is_file():
        raw = pd.read_csv(file).drop(columns=str(target)).to_numpy(float)
        train = raw[split(len(raw))[0]]
        mean, scale = (torch.from_numpy(v).float() for v in (train.mean(0), train.std(0)))
    else:
        mean, scale = torch.zeros(table.x_train.shape[1:]), torch.ones(table.x_train.shape[1:])
    wrapped = InUnits(loaded, mean, scale) if isinstance(loaded, nn.Module) else Estimator(loaded, mean, scale)
    rows = table.x_explain[:2]
    try:
        out = wrapped(rows) if isinstance(wrapped, nn.Module) else wrapped.predict(rows.numpy())
    except Exception as error:
        raise ValueError(f"{name!r}: the model failed on {rows.shape[1]} features: {error}") from error
    outputs = 1 if np.ndim(out) == 1 else int(np.shape(out)[1])
    if outputs > 2:
        raise ValueError(f"{name!r}: the model has {outputs} outputs; return a function or module that gives one")
    return wrapped, 1 if outputs == 2 else None

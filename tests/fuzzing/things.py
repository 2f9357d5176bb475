"""What calls are made of: kinds of x, kinds of models, each with what it means (None: it must be refused)."""

import copy
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.tree import DecisionTreeRegressor
from torch import nn

from .oracle import Truth

NAMES = ["age", "income", "debt", "rate", "term", "score", "house"]


@dataclass
class Chance:
    """Random choices, written down."""

    seed: int
    index: int
    words: list = field(default_factory=list)
    subject: str = ""  # the last kind of thing that was chosen, by which failures are grouped

    def __post_init__(self):
        self.rng = np.random.default_rng([self.seed, self.index])

    def of(self, what, options):
        """One of a list, or a value of a dict by its key."""
        i = int(self.rng.integers(len(options)))
        key = list(options)[i]
        self.words.append(f"{what}={key}")
        if isinstance(options, dict) and what not in ("method", "loss", "target"):
            self.subject = self.words[-1]
        return options[key] if isinstance(options, dict) else key

    def normal(self, *shape):
        return self.rng.standard_normal(shape)


class Task:
    """A smooth function of d features with k outputs that no line fits, of tensors, arrays and frames."""

    def __init__(self, chance, d, k=1):
        self.d, self.k = d, k
        self.v, self.u, self.c = chance.normal(3, k, d)

    def __call__(self, a):
        if isinstance(a, torch.Tensor):
            v, u, c = (torch.as_tensor(part).to(a) for part in (self.v, self.u, self.c))
            a = a.flatten(1)
            return torch.sin(a @ v.mT) + (a @ u.mT) ** 2 / 4 + a @ c.mT
        a = np.asarray(a, float).reshape(len(a), -1)
        return np.sin(a @ self.v.T) + (a @ self.u.T) ** 2 / 4 + a @ self.c.T


class Subclass(torch.Tensor):
    pass


def strided(a):
    out = np.empty((a.shape[0], 2 * a.shape[1]), a.dtype)
    out[:, ::2] = a
    return out[:, ::2]


def frame(a, **columns):
    return pd.DataFrame(a, columns=NAMES[: a.shape[1]]).assign(**columns)


def holes(a, value):
    a = a.copy()
    a[0, 0] = value
    return a


# kind of x: (b, d) float64 -> what the user passes
X = {
    "float64": torch.from_numpy,
    "float32": lambda a: torch.from_numpy(a).float(),
    "float16": lambda a: torch.from_numpy(a).half(),
    "bfloat16": lambda a: torch.from_numpy(a).bfloat16(),
    "float8": lambda a: torch.from_numpy(a).to(torch.float8_e4m3fn),
    "int64": lambda a: torch.from_numpy((3 * a).round()).long(),
    "uint8": lambda a: torch.from_numpy(np.abs(9 * a)).to(torch.uint8),
    "bool": lambda a: torch.from_numpy(a) > 0,
    "requires grad": lambda a: torch.from_numpy(a).requires_grad_(),
    "strided tensor": lambda a: torch.from_numpy(strided(a)),
    "expanded tensor": lambda a: torch.from_numpy(a[:1]).expand(*a.shape),
    "subclass": lambda a: torch.from_numpy(a).as_subclass(Subclass),
    "array": np.array,
    "array float32": lambda a: a.astype(np.float32),
    "array float16": lambda a: a.astype(np.float16),
    "array longdouble": lambda a: a.astype(np.longdouble),
    "array big-endian": lambda a: a.astype(">f8"),
    "array int8": lambda a: (3 * a).round().astype(np.int8),
    "array uint16": lambda a: np.abs(9 * a).astype(np.uint16),
    "array bool": lambda a: a > 0,
    "array strided": strided,
    "array reversed": lambda a: a[::-1, ::-1],
    "array read-only": lambda a: (out := a.copy(), out.setflags(write=False))[0],
    "memory map": lambda a: np.asfortranarray(a),
    "frame": frame,
    "frame float32": lambda a: frame(a.astype(np.float32)),
    "frame of kinds": lambda a: (
        frame(a, age=a[:, 0] > 0, house=(3 * a[:, -1]).round().astype(int))
        if a.shape[1] == 7
        else frame(a, age=a[:, 0] > 0)
    ),
    "frame nullable": lambda a: frame(a).convert_dtypes(),
    "frame with index": lambda a: frame(a).set_index(pd.Index(range(9, 9 - len(a), -1))),
    "frame of numbers as names": lambda a: pd.DataFrame(a),
}
BAD_X = {
    "NaN": lambda a: torch.from_numpy(holes(a, np.nan)),
    "infinity": lambda a: holes(a, np.inf),
    "empty": lambda a: a[:0],
    "no features": lambda a: torch.from_numpy(a[:, :0]),
    "one axis": lambda a: a[0],
    "no axes": lambda a: torch.tensor(1.0),
    "complex": lambda a: torch.from_numpy(a).cfloat(),
    "complex array": lambda a: a + 0j,
    "masked": lambda a: np.ma.masked_array(a, np.eye(*a.shape, dtype=bool)),
    "object": lambda a: a.astype(object),
    "text": lambda a: a.astype(str),
    "dates": lambda a: (9 * a).astype("M8[D]"),
    "sparse": lambda a: torch.from_numpy(a).to_sparse(),
    "meta": lambda a: torch.from_numpy(a).to("meta"),
    "nested": lambda a: torch.nested.nested_tensor(list(torch.from_numpy(a))),
    "quantised": lambda a: torch.quantize_per_tensor(torch.from_numpy(a).float(), 0.1, 0, torch.qint8),
    "list": lambda a: a.tolist(),
    "None": lambda a: None,
    "series": lambda a: pd.Series(a[0]),
    "frame of text": lambda a: frame(a, age="old"),
    "frame of equal names": lambda a: pd.DataFrame(np.hstack([a, a]), columns=["age"] * 2 * a.shape[1]),
    "frame with missing": lambda a: frame(holes(a, np.nan)).convert_dtypes(),
}


def numbers(x):
    """x in float64, (b, d)."""
    x = x.astype(float) if isinstance(x, pd.DataFrame) else x
    a = x.detach().double().numpy() if isinstance(x, torch.Tensor) else np.asarray(x, float)
    return np.array(a, float).reshape(len(a), -1)


class Net(nn.Module):
    """tanh network; `dropout` and `norm` behave otherwise in training mode."""

    def __init__(self, task, dtype, dropout=0.0, norm=False):
        super().__init__()
        rng = torch.Generator().manual_seed(abs(int(1e6 * task.v[0, 0])))
        self.first, self.last = nn.Linear(task.d, 8), nn.Linear(8, task.k)
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=rng)
        self.norm, self.dropout = nn.BatchNorm1d(8) if norm else nn.Identity(), nn.Dropout(dropout)
        self.to(dtype).eval()

    def forward(self, a):
        return self.last(self.dropout(torch.tanh(self.norm(self.first(a.flatten(1).to(self.first.weight))))))


def meaning(net):
    own = copy.deepcopy(net).double().eval()
    return lambda row: own(row)


def module(change=lambda net: net, **settings):
    def made(task, x):
        kind = x.dtype if isinstance(x, torch.Tensor) and x.is_floating_point() else torch.float64
        net = Net(task, kind, **settings)
        truth = meaning(net)
        return change(net), truth

    return made


def traced(net):
    return torch.jit.trace(net, torch.zeros(2, net.first.in_features, dtype=net.first.weight.dtype))


def quantised(task, x):
    """Its first parameter is of whole numbers."""
    net = Net(task, torch.float64)
    truth = meaning(net)
    net._parameters = {"scale": nn.Parameter(torch.ones(1, dtype=torch.int8), requires_grad=False)}
    return net, truth


def half_first(task, x):
    net = Net(task, torch.float64)
    truth = meaning(net)
    net._parameters = {"scale": nn.Parameter(torch.ones(1, dtype=torch.float16))}
    return net, truth


def function(change):
    """The task's function, its output changed: (output, input) -> output; it means the task."""
    return lambda task, x: (lambda a: change(task(a), a), task)


def batchwise(change):
    """The task after a change of the batch, which means what it means for one row."""

    def made(task, x):
        def model(a):
            a = a if isinstance(a, torch.Tensor) else np.asarray(a)
            return task(change(a))

        return model, model

    return made


def in_place(task, x):
    def model(a):
        if isinstance(a, torch.Tensor):
            return task(a.sub_(0.5).div_(2.0) if not a.requires_grad else (a - 0.5) / 2)
        a = a.to_numpy() if isinstance(a, pd.DataFrame) else a
        a -= 0.5
        a /= 2
        return task(a)

    return model, lambda row: task((row - 0.5) / 2)


def reuses_its_output(task, x):
    held = {}

    def model(a):
        y = task(a)
        if isinstance(a, torch.Tensor) and a.requires_grad:
            return y
        whole = held.setdefault(
            "out", y.new_empty(9999, task.k) if isinstance(a, torch.Tensor) else np.empty((9999, task.k))
        )
        whole[: len(y)] = y
        return whole[: len(y)]

    return model, task


def estimator(kind, method):
    def made(task, x):
        rng = np.random.default_rng(0)
        rows = rng.standard_normal((60, task.d))
        y = task(rows)[:, 0]
        names = x.columns if isinstance(x, pd.DataFrame) else None
        fitted = kind.fit(rows if names is None else pd.DataFrame(rows, columns=names), y > 0 if method else y)
        predict = fitted.predict_proba if method else fitted.predict

        def truth(row):
            row = row.numpy()
            return torch.from_numpy(predict(row if names is None else pd.DataFrame(row, columns=names))).reshape(1, -1)

        return fitted, truth

    return made


def wrong(message):
    def model(a):
        raise message

    return lambda task, x: (model, None)


def alternating(task, x):
    calls = count()
    return lambda a: task(a) * (1 + next(calls) % 2), None


def training_behind(way):
    """A module in training mode that the library does not see, or sees through a bound method: BatchNorm mixes rows."""

    def made(task, x):
        net = Net(task, x.dtype if isinstance(x, torch.Tensor) and x.is_floating_point() else torch.float64, norm=True)
        truth = meaning(net)
        net.train()
        model = {"lambda": lambda a: net(a), "forward": net.forward, "call": net.__call__}[way]
        if isinstance(x, torch.Tensor):
            return model, truth, net
        return lambda a: model(torch.as_tensor(np.asarray(a))).detach(), truth, net

    return made


def series(change):
    def made(task, x):
        def model(a):
            y = np.asarray(task(a).detach() if isinstance(a, torch.Tensor) else task(a))[:, 0]
            return change(pd.Series(y, index=a.index if isinstance(a, pd.DataFrame) else range(len(a))))

        return model, task

    return made


def masked(task, x):
    return (lambda a: np.ma.masked_array(np.asarray(task(a))[:, 0], np.arange(len(a)) == 0)), None


# kind of model: task, x -> model, truth (a function of one row in float64; None: it must be refused)[, module to watch]
MODELS = {
    "function": function(lambda y, a: y),
    "vector": function(lambda y, a: y[:, 0]),
    "list": function(lambda y, a: y.tolist()),
    "list of tensors": function(lambda y, a: list(y[:, 0])),
    "array": function(lambda y, a: np.asarray(y.detach() if isinstance(y, torch.Tensor) else y)),
    "scalar for one": function(lambda y, a: y[:, 0].squeeze() if isinstance(y, torch.Tensor) else np.squeeze(y)),
    "tensor subclass": function(lambda y, a: torch.as_tensor(y).as_subclass(Subclass)),
    "series": series(lambda y: y),
    "frame": function(lambda y, a: pd.DataFrame(np.asarray(y.detach() if isinstance(y, torch.Tensor) else y))),
    "in place": in_place,
    "reuses its output": reuses_its_output,
    "module": module(),
    "training mode": module(lambda net: net.train(), dropout=0.5, norm=True),
    "norm in training": module(lambda net: net.train(), norm=True),
    "forward in training": training_behind("forward"),
    "call in training": training_behind("call"),
    "lambda in training": training_behind("lambda"),
    "traced": module(traced),
    "frozen": module(lambda net: torch.jit.freeze(traced(net))),
    "quantised first": quantised,
    "half first": half_first,
    "linear regression": estimator(LinearRegression(), False),
    "tree": estimator(DecisionTreeRegressor(max_depth=3), False),
    "logistic regression": estimator(LogisticRegression(), True),
    "standardises the batch": batchwise(lambda a: (a - a.mean(0)) / (abs(a).max() + 1)),
    "divides by its maximum": batchwise(lambda a: a / abs(a).max()),
    "sorts": batchwise(lambda a: a[a[:, 0].argsort()]),
    "series in another order": series(lambda y: y.sort_values()),
    "masked output": masked,
    "NaN": lambda task, x: (lambda a: task(a) * np.nan, None),
    "complex": lambda task, x: (lambda a: task(a) + 0j, None),
    "too short": lambda task, x: (lambda a: task(a)[1:], None),
    "three axes": lambda task, x: (lambda a: task(a)[None], None),
    "text": lambda task, x: (lambda a: ["high"] * len(a), None),
    "dictionary": lambda task, x: (lambda a: {"logits": task(a)}, None),
    "None": lambda task, x: (lambda a: None, None),
    "no model": lambda task, x: ("model", None),
    "a class": lambda task, x: (Net, None),
    "alternates": alternating,
    "KeyError": wrong(KeyError("boom")),
    "StopIteration": wrong(StopIteration()),
    "assertion": wrong(AssertionError()),
}


def picked(chance, several):
    """Which output: (target, instance -> column)."""
    if not several:
        return None, lambda i: 0
    kinds = {"int": 1, "numpy": np.int64(2), "list": [2, 0, 1], "tensor": torch.tensor([1, 1, 0]), "function": None}
    target = chance.of("target", kinds)
    if target is None:
        return (lambda out: out[:, 0] - out[:, 1]), None
    columns = np.broadcast_to(np.asarray(target), 3)
    return target, lambda i: int(columns[i])


def truths(function, column, b):
    if column is None:
        return [Truth(function, lambda row: row[0, 0] - row[0, 1])] * b
    return [Truth(function, lambda row, i=i: row.reshape(1, -1)[0, column(i)]) for i in range(b)]

"""The areas of the public API: each makes one call from a `Chance` and compares it, or sees that it is refused."""

import random
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import optimize
from torch import nn

import locapprox as lx

from . import parts, things
from .oracle import Wrong, additive, answers, close, multiplicative, surrogate
from .things import Task, numbers, picked, truths

ROUND_OFF = {torch.float64: 1e-7, torch.float32: 5e-3, torch.float16: 0.3, torch.bfloat16: 0.8}


def fingerprint(thing):
    if isinstance(thing, nn.Module):
        state = [fingerprint(part) for part in thing.state_dict().values()]
        return (
            state,
            [getattr(m, "training", None) for m in thing.modules()],
            [(p.requires_grad, p.grad) for p in thing.parameters()],
        )
    if isinstance(thing, pd.DataFrame | pd.Series):
        return thing.to_csv()
    if isinstance(thing, torch.Tensor):
        thing = thing.detach()
        usual = thing.layout == torch.strided and not thing.is_nested and thing.device.type == "cpu"
        return repr(thing.double().numpy().tobytes()) if usual and not thing.is_quantized else repr(thing)
    return repr(thing.tobytes()) if isinstance(thing, np.ndarray) and thing.dtype != object else repr(thing)


@contextmanager
def untouched(*things):
    """What is the user's stays as it was, whatever happens: arrays, modules, every global random state."""

    def state():
        globals_ = torch.get_rng_state().tolist(), repr(np.random.get_state()), random.getstate()  # noqa: NPY002
        return globals_, torch.is_grad_enabled(), torch.get_default_dtype(), [fingerprint(thing) for thing in things]

    before = state()
    try:
        yield
    finally:
        changed = [a != b for a, b in zip(before, state(), strict=True)]
        if any(changed):
            what = ["random state", "grad mode", "default dtype", "user's arrays or modules"]
            raise Wrong(f"changed: {[w for w, c in zip(what, changed, strict=True) if c]}")


def refused(call):
    """`call` must raise; what kind of error is judged by the runner."""
    got = call()
    raise Wrong(f"accepted, and gave {str(got)[:80]!r}")


@dataclass
class Plan:
    """A method with what the oracle must know of it."""

    method: Any
    place: Any  # of instance i: (x, ξ) -> rows, pull
    loss: tuple = (1.0, 0.0)
    intercept: bool = True
    kernel: Any = None  # (ξ, instance) -> factor of the weights

    def own_weight(self, xi, weight):
        """Before the kernel: 1, or what only the distribution knows (Shapley's)."""
        shapley = isinstance(self.method.neighbourhood.distribution, lx.ShapleyMasks)
        return weight / self.kernel(xi, 0) if shapley else 1.0


LOSSES = {"values": (1.0, 0.0), "gradients": (0.0, 1.0), "both": (1.0, 0.5)}
ADDITIVE = {
    "Normal": lambda d: lx.Normal(0.5),
    "Normal per entry": lambda d: lx.Normal(torch.linspace(0.3, 0.9, d)),
    "antithetic": lambda d: lx.Normal(0.5, antithetic=True),
    "correlated": lambda d: lx.CorrelatedNormal(0.3 * torch.eye(d) + 0.1),
    "point": lambda d: lx.PointMass(0.0),
}
MASKS = {
    "fair": lx.FairMasks(),
    "Shapley": lx.ShapleyMasks(),
    "leave one out": lx.LeaveOneOut(),
    "all": lx.AllCoalitions(),
    "quadrature": lx.GaussLegendre(),
    "uniform": lx.Uniform(0.1, 0.9),
    "point": lx.PointMass(1.0),
}
BASES = {
    "0": lambda c, x: (0.0, lambda i: np.zeros_like(x[:1])),
    "number": lambda c, x: (0.7, lambda i: np.full_like(x[:1], 0.7)),
    "vector": lambda c, x: (x[0] / 3 + 1, lambda i: x[:1] / 3 + 1),
    "for each": lambda c, x: (np.flip(x, 0) / 2, lambda i: x[::-1][i : i + 1] / 2),
    "function": lambda c, x: (lambda a: a.flip(-1) / 2, lambda i: x[i : i + 1, ::-1] / 2),
    "background": lambda c, x: (lx.Background(x / 2 - 1), lambda i: x / 2 - 1),
}


def plan(chance, x, gradients=True):
    """One of the methods that two placements, their distributions, kernels and the losses make, around x (b, d)."""
    d, loss = x.shape[1], chance.of("loss", LOSSES if gradients else {"values": LOSSES["values"]})
    how, intercept = lx.Loss(*loss), chance.of("intercept", [True, True, False])
    fit = lx.Linear(intercept)
    if chance.of("placement", ["additive", "multiplicative"]) == "additive":
        where = lx.Additive(chance.of("distribution", ADDITIVE)(d))
        return Plan(lx.Method("drawn", where, how, fit), lambda i: additive, loss, intercept)
    base, of = chance.of("baseline", BASES)(chance, x)
    labels = chance.of("features", {"entries": None, "groups": np.arange(d) // 2})
    masks, width = chance.of("distribution", MASKS), chance.of("kernel", [None, 9.0])
    kernel = None if width is None or masks == lx.GaussLegendre() else lx.ExponentialKernel(width, "xi")
    where = lx.Multiplicative(masks, base, labels, kernel)
    factor = None if kernel is None else lambda xi, i: np.exp(-((1 - xi) ** 2).sum(-1) / width**2)
    return Plan(lx.Method("drawn", where, how, fit), lambda i: multiplicative(of(i), labels), loss, intercept, factor)


def paper(chance, x):
    """One of the eight."""
    d, b = x.shape[1], x[0] / 3 + 1
    zero, base = multiplicative(np.zeros((1, d))), multiplicative(b[None])
    gradient = {"loss": (0.0, 1.0)}
    plans = {
        "lime": Plan(
            lx.lime(9.0, b), lambda i: base, kernel=lambda xi, i: np.exp(-(((x[i] - b) * (1 - xi)) ** 2).sum(-1) / 81)
        ),
        "c_lime": Plan(lx.c_lime(0.3), lambda i: additive),
        "kernel_shap": Plan(lx.kernel_shap(b), lambda i: base),
        "occlusion": Plan(lx.occlusion(b), lambda i: base),
        "vanilla_gradients": Plan(lx.vanilla_gradients(), lambda i: additive, **gradient),
        "gradient_x_input": Plan(lx.gradient_x_input(), lambda i: zero, **gradient),
        "smoothgrad": Plan(lx.smoothgrad(0.3, sobol=False), lambda i: additive, **gradient),
        "integrated_gradients": Plan(lx.integrated_gradients(b), lambda i: base, **gradient),
    }
    return chance.of("method", plans)


def compare(e, plan, x, truth, tolerance, caught=()):
    """Every instance of an explanation with the oracle's, on the explanation's own draw."""
    shrunk = any("n_samples is small" in str(w.message) for w in caught)
    for i in range(len(x)):
        draw = e.points(i)[0]
        xi, weight = draw.xi.double().numpy(), draw.weight.double().numpy()
        y, g = answers(truth[i], plan.place(i), x[i], xi, plan.loss[1] > 0)
        if plan.kernel is not None:
            weight = np.where(np.isinf(weight), np.inf, plan.kernel(xi, i) * plan.own_weight(xi, weight))
        if shrunk:
            continue
        random, fixed = draw.n_fixed == 0 and draw.unit_size == 1, draw.n_fixed == len(xi)
        right = surrogate(y, g, xi, weight, plan.loss, plan.intercept, random)
        size = (
            float(np.abs(y).max() / max(np.abs(xi).max(), 1e-300)) if plan.loss[0] else np.abs(right["weights"]).max()
        )
        close(f"weights[{i}]", e.weights[i].flatten(), right["weights"], tolerance, size)
        close(f"intercept[{i}]", e.intercept[i], right["intercept"], tolerance, float(np.abs(y).max()))
        if "loss" in right and (random or fixed) and draw.coarse_weight is None:
            close(f"loss[{i}]", e.loss[i], right["loss"], 1e-3 + 40 * tolerance, tolerance * float((y**2).max()))
            error = e.standard_error[i].flatten().double().numpy()
            right_error = np.where(np.isnan(error) & bool(caught), np.nan, right["standard_error"])  # not known: warned
            close(f"error[{i}]", error, right_error, 1e-3 + 40 * tolerance, size / 40)
        if random and right["effective"] < 1.5 and len(xi) > 2:
            raise Wrong(f"accepted an effective sample size of {right['effective']:.2f}")


def explained(chance, model, x, plan, watch=(), **settings):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with untouched(x, model, *watch):
            return lx.explain(model, x, plan.method, progress=False, **settings), caught


def settings_of(chance, d):
    n = chance.of("n_samples", [60] * 5 + [90, 130, 1100 if d < 4 else 200])
    return {"n_samples": n, "seed": chance.of("seed", [0, 1, 99]), "batch_size": chance.of("batch_size", [None, 7])}


# ---- areas


def inputs(chance):
    """Kinds of x with a model that takes anything."""
    d = chance.of("d", [1, 2, 3, 7])
    a = chance.normal(3, d) * 1.5
    if chance.of("x is", ["good", "good", "bad"]) == "bad":
        x = chance.of("x", things.BAD_X)(a)
        method = chance.of("method", lx.paper_methods())
        with untouched(x):
            return refused(lambda: lx.explain(Task(chance, d), x, method, n_samples=60, progress=False))
    x, task = chance.of("x", things.X)(a), Task(chance, d)
    one = paper(chance, numbers(x))
    e, caught = explained(chance, task, x, one, **settings_of(chance, d))
    close("x", e.x.flatten(1), numbers(x), 1e-9)
    compare(e, one, numbers(x), truths(task, lambda i: 0, 3), ROUND_OFF[e.x.dtype], caught)
    return None


def models(chance):
    """Kinds of models with usual kinds of x."""
    d = chance.of("d", [2, 3])
    kinds = {
        key: things.X[key] for key in ("float64", "float32", "array", "frame", "frame with index", "expanded tensor")
    }
    x = chance.of("x", kinds)(chance.normal(3, d))
    several = chance.of("outputs", [1, 1, 3])
    task = Task(chance, d, several)
    model, truth, *watch = chance.of("model", things.MODELS)(task, x)
    target, column = picked(chance, several > 1 or hasattr(model, "classes_"))
    if hasattr(model, "classes_"):
        target, column = 1, lambda i: 1
    one = paper(chance, numbers(x))
    if truth is None:
        with untouched(x):
            return refused(lambda: lx.explain(model, x, one.method, target=target, n_samples=60, progress=False))
    e, caught = explained(chance, model, x, one, watch, target=target, **settings_of(chance, d))
    close("x", e.x.flatten(1), numbers(x), 1e-9)
    compare(e, one, numbers(x), truths(truth, column, 3), ROUND_OFF[e.x.dtype], caught)
    return None


def methods(chance):
    """Placements, distributions, kernels, baselines, features and losses."""
    d = chance.of("d", [1, 2, 3, 5])
    x, task = chance.normal(3, d), Task(chance, d)
    one = plan(chance, x)
    e, caught = explained(chance, task, torch.from_numpy(x), one, **settings_of(chance, d))
    compare(e, one, x, truths(task, lambda i: 0, 3), 1e-6, caught)


def users_parts(chance):
    """Neighbourhoods, distributions and surrogates of a user's own."""
    d = chance.of("d", [2, 3])
    x, task, losses = (
        torch.from_numpy(chance.normal(3, d)),
        Task(chance, d),
        {k: LOSSES[k] for k in ("values", "gradients")},
    )
    what = chance.of("part", ["legal", "broken", "broken", "distribution", "surrogate"])
    if what == "legal":
        one = Plan(None, lambda i: additive, chance.of("loss", losses))
        one.method = lx.Method("own", chance.of("neighbourhood", parts.LEGAL), lx.Loss(*one.loss))
        e, caught = explained(chance, task, x, one, **settings_of(chance, d))
        return compare(e, one, x.numpy(), truths(task, lambda i: 0, 3), 1e-6, caught)
    fit, loss = lx.Linear(), chance.of("loss", losses)
    if what == "broken":
        where = chance.of("neighbourhood", parts.BROKEN)
        loss = losses.get(parts.LOSS_OF.get(chance.words[-1].split("=")[1]), loss)
    elif what == "distribution":
        where = parts.distribution(chance.of("distribution", parts.DISTRIBUTIONS))
    else:
        where, fit, loss = lx.Additive(lx.Normal(0.5)), chance.of("surrogate", parts.SURROGATES), (1.0, 0.0)
    n, kept = chance.of("n_samples", [60, 1100]), x.clone()

    def call():
        e = lx.explain(task, x, lx.Method("own", where, lx.Loss(*loss), fit), n_samples=n, progress=False)
        if not torch.equal(x, kept):
            raise Wrong("changed the user's x")
        return e

    return refused_or_warned(call)


def refused_or_warned(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            return refused(call)
        except Wrong:
            if not caught:
                raise


def units(chance):
    """f·s, f + c and x·s: every number transforms exactly, or a sentence says why not."""
    d, kind = chance.of("d", [4, 9]), chance.of("dtype", [torch.float64, torch.float64, torch.float32])
    s = 10.0 ** chance.of("f·10^", [0, 0, -24, -12, -5, 5, 12, 24])
    size = 10.0 ** chance.of("x·10^", [0, 0, -12, -5, 5, 12])
    shift = chance.of("f+", [0, 0, 10]) * s
    a, task = chance.normal(3, d), Task(chance, d)

    def model(rows):
        return s * task(rows / size) + shift

    x = torch.from_numpy(a).to(kind) * size
    plans = {
        "c_lime": Plan(lx.c_lime(0.3 * size), lambda i: additive),
        "smoothgrad": Plan(lx.smoothgrad(0.3 * size, sobol=False), lambda i: additive, (0.0, 1.0)),
        "lime": Plan(
            lx.lime(size),
            lambda i: multiplicative(np.zeros((1, d))),
            kernel=lambda xi, i: np.exp(-((numbers(x)[i] / size * (1 - xi)) ** 2).sum(-1)),
        ),
        "narrow, gradients": Plan(
            lx.Method(
                "narrow",
                lx.Multiplicative(lx.FairMasks(), kernel=lx.ExponentialKernel(0.15, "xi")),
                lx.GradientMatching(),
            ),
            lambda i: multiplicative(np.zeros((1, d))),
            (0.0, 1.0),
            kernel=lambda xi, i: np.exp(-((1 - xi) ** 2).sum(-1) / 0.15**2),
        ),
        "sparse": lx.Sparse(2),
        "constrained": lx.Constrained(lambda w, b: [w >= 0]),
    }
    one, n = chance.of("kind", plans), chance.of("n_samples", [100, 200])
    sparse, constrained = isinstance(one, lx.Sparse), isinstance(one, lx.Constrained)
    if sparse or constrained:
        fit, one = one, Plan(lx.c_lime(0.3 * size), lambda i: additive)
        one.method = lx.Method("c_lime", one.method.neighbourhood, lx.SquaredError(), fit)
    try:
        e, caught = explained(chance, model, x, one, n_samples=n)
    except ValueError as error:
        if constrained:
            raise Wrong(f"w ≥ 0 can always be met: {error}") from error
        raise
    tolerance = 1e-6 if kind == torch.float64 else 2e-2
    if not (sparse or constrained):
        return compare(e, one, numbers(x), truths(model, lambda i: 0, 3), tolerance, caught)
    for i, row in enumerate(numbers(x)):
        xi = e.points(i)[0].xi.double().numpy()
        y = answers(truths(model, lambda i: 0, 1)[0], additive, row, xi, False)[0]
        design, yardstick = np.hstack([xi / size, np.ones((n, 1))]), np.ptp(y)
        if constrained:
            bounds = [0] * d + [-np.inf], np.inf
            right = optimize.lsq_linear(design, (y - y.mean()) / yardstick, bounds, tol=1e-14).x[:d] * yardstick
        else:
            right = np.zeros(d)
            support = sparsest(design[:, :d], (y - y.mean()) / yardstick, 2)
            right[support] = surrogate(y, None, design[:, :d][:, support], np.ones(n))["weights"]
        close(f"weights[{i}]", e.weights[i] * size, right, 1e-4 if constrained else tolerance, yardstick)
    return None


def sparsest(design, y, k):
    """The features of the last point of the lasso path that has no more than k (its columns of length 1)."""
    from sklearn.linear_model import lars_path

    z = design - design.mean(0)
    length = np.linalg.norm(design - design.mean(0), axis=0)
    path = lars_path(z / length, y - y.mean(), method="lasso")[2]
    return path[:, np.flatnonzero((path != 0).sum(0) <= k)[-1]] != 0

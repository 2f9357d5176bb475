"""Any surrogate on any neighbourhood: its error, the least error possible there, and what it misses (regret)."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from locapprox.explain import check_instances, explain
from locapprox.explanation import Explanation
from locapprox.losses import Loss, SquaredError
from locapprox.method import Method
from locapprox.models import Array, Scores, Target, as_tensor, evaluation_mode, whole_number
from locapprox.neighbourhoods import Multiplicative, Neighbourhood
from locapprox.sampling import samples
from locapprox.streaming import StreamedFit

Intercept = Literal["refitted", "fitted", "through_x"]
Methods = Mapping[str, Any] | Sequence[Any]


@dataclass(frozen=True, eq=False)
class Column:
    """A neighbourhood with its exact rows, and the loss that is measured on it."""

    name: str
    neighbourhood: Neighbourhood
    loss: Loss


def faithfulness(
    model: Any,
    x: Array,
    methods: Methods,
    neighbourhoods: Methods,
    *,
    target: Target = None,
    n_samples: int = 2000,
    seed: int = 0,
    intercept: Intercept = "refitted",
    batch_size: int | None = None,
) -> pd.DataFrame:
    """The error of every method's surrogates on every neighbourhood, one row per method, neighbourhood and instance.

    Main arguments:
        methods: Methods, or a dict of names and Methods or (fitted) Explanations. Methods are fitted with n_samples.
        neighbourhoods: a dict of names and neighbourhoods (measured by squared error) or Methods (their neighbourhood
            and loss), or Methods.

    Other arguments:
        n_samples: draws for each fit, and as many others for each column: all methods share a column's draw, and no
            model call is spent on a method beyond its fit.
        intercept: "refitted", the weighted mean of f(x_ξ) − w · ξ over the column's rows of finite weight, since an
            explanation is its weights; "fitted", as it came; "through_x", with g(x₀) = f(x₀), as in the infidelity of
            Yeh et al. 2019.

    Columns of the result: error, the mean loss over the rows of finite weight; optimum, the least error of a linear g
    that meets the exact rows (the in-sample loss of the best fit is too low and its leave-one-out loss too high by
    about p / n of it, so their mean; exact for enumerations and quadratures); regret = error − optimum, which may be
    negative by sampling error and for a g that breaks exact rows; violation, the largest |g(ξ) − f(x_ξ)| over exact
    rows; r2 = 1 − error / loss of the best constant (NaN where f is constant).

    A surrogate goes to a column with the same placement as it is; to any other through the input space, where it is
    affine (see `Explanation.predict`): c′ = g(place(x₀, 0)) and w′ = ∇_ξ g(place(x₀, ξ)).

    Raises ValueError or TypeError naming the argument, the method or the neighbourhood that does not fit.
    """
    explanations = explained(model, x, methods, target, n_samples, seed, batch_size)
    frame = measured(model, x, explanations, neighbourhoods, target, n_samples, seed, intercept, batch_size)
    return frame.drop(columns="constant")


def explained(
    model: Any,
    x: Array,
    methods: Methods,
    target: Target = None,
    n_samples: int = 2000,
    seed: int = 0,
    batch_size: int | None = None,
) -> dict[str, Explanation]:
    """Every method's explanation of x; those that are explanations already are checked."""
    out = {}
    for name, method in named(methods, "methods").items():
        if isinstance(method, Explanation):
            out[name] = method
        elif isinstance(method, Method):
            with naming("method", name):
                out[name] = explain(model, x, method, n_samples, target, seed, batch_size, progress=False)
        else:
            raise TypeError(f"methods: {name!r} must be a Method or an Explanation, got {method!r}")
        if out[name].link != "identity":
            raise ValueError(f"methods: {name!r} has a {out[name].link} surrogate; faithfulness measures linear ones")
        if out[name].several or out[name].x.shape != as_tensor(x, model).shape:
            raise ValueError(f"methods: {name!r} must explain one score of each of the instances x (target)")
    return out


def measured(
    model: Any,
    x: Array,
    explanations: Mapping[str, Explanation],
    neighbourhoods: Methods,
    target: Target = None,
    n_samples: int = 2000,
    seed: int = 0,
    intercept: Intercept = "refitted",
    batch_size: int | None = None,
) -> pd.DataFrame:
    """As `faithfulness`, of explanations, with a further column `constant`: the loss of the best constant."""
    if intercept not in get_args(Intercept):
        raise ValueError(f"intercept must be one of {', '.join(get_args(Intercept))}; got {intercept!r}")
    n_samples, seed = whole_number(n_samples, "n_samples"), whole_number(seed, "seed", least=0)
    inputs = as_tensor(x, model)
    names = [str(c) for c in x.columns] if isinstance(x, pd.DataFrame) else None
    frames = []
    for column in columns_of(neighbourhoods):
        with naming("neighbourhood", column.name), evaluation_mode(model):
            check_instances(inputs, names, Method(column.name, column.neighbourhood, column.loss))
            scores = Scores(model, inputs, x, target, batch_size)
            table = evaluate(column, inputs, scores, explanations, intercept, n_samples, seed)
        labels = {"neighbourhood": column.name, "loss": loss_name(column.loss)}
        method = np.repeat(list(explanations), len(inputs))
        values = {key: value.mT.flatten().cpu().numpy() for key, value in table.items()}
        instance = np.tile(np.arange(len(inputs)), len(explanations))
        frames.append(pd.DataFrame({"method": method, **labels, "instance": instance, **values}))
    return pd.concat(frames, ignore_index=True)


def evaluate(
    column: Column,
    x: Tensor,
    scores: Scores,
    explanations: Mapping[str, Explanation],
    intercept: Intercept,
    n: int,
    seed: int,
) -> dict[str, Float[Tensor, "b m"]]:
    """One pass over the column's draw for all m surrogates: their errors are quadratic forms of its sums."""
    parts = list(samples(column.neighbourhood, x, scores, n, seed, "evaluate"))
    d = max(part.d for part in parts)
    surrogates = [carried(e, column.neighbourhood, d) for e in explanations.values()]
    w, c = torch.stack([s[0] for s in surrogates], dim=1), torch.stack([s[1] for s in surrogates], dim=1)
    if intercept == "through_x":
        at_x = scores.values(x.unsqueeze(1).clone(), torch.arange(len(x), device=x.device))[:, 0]
        c = c + at_x - torch.stack([e.predict(x) for e in explanations.values()], dim=1)
    keys = ("error", "optimum", "regret", "violation", "r2", "constant")
    table = {key: torch.full_like(c, torch.nan) for key in keys}
    for part in parts:
        i, sums = part.instances, StreamedFit(part, column.loss, intercept=True)
        best = sums.run()
        everything = torch.eye(sums.equations.sums["weight"].shape[1], dtype=part.dtype, device=x.device)[:1]
        some = w[i][..., : part.d]
        theta = torch.cat([some, c[i][..., None]], dim=-1)
        if intercept == "refitted":
            theta = sums.equations.with_mean_intercept(some, everything)
        least = sums.equations.loss_of(torch.cat([best.weights, best.intercept[..., None]], dim=-1), everything)
        exact, exact_y = torch.cat(sums.exact), torch.cat(sums.exact_y, dim=-1)
        error = sums.equations.loss_of(theta, everything)
        rounding = 16 * theta.shape[-1] * torch.finfo(part.dtype).eps * best.constant_loss  # of a quadratic form
        error, least = (value.where(value > rounding, 0.0) for value in (error, least))
        optimum, constant = ((least + best.loss) / 2).expand_as(error), best.constant_loss.expand_as(error)
        table["error"][i], table["optimum"][i], table["constant"][i] = error, optimum, constant
        table["regret"][i] = error - optimum
        table["r2"][i] = torch.where(constant > 0, 1 - error / constant, torch.nan)
        gap = (theta @ exact.mT - exact_y).abs()
        table["violation"][i] = gap.amax(-1) if len(exact) else torch.zeros_like(error)
    return table


def carried(e: Explanation, neighbourhood: Neighbourhood, d: int) -> tuple[Float[Tensor, "b d"], Float[Tensor, " b"]]:
    """The surrogate's weights and intercept in the ξ of a neighbourhood with d features."""
    if e.source is not None and same_placement(e.source[0].neighbourhood, neighbourhood):
        w = e.weights.flatten(1).nan_to_num()
        return torch.nn.functional.pad(w, (0, d - w.shape[1])), e.intercept
    if not bool(torch.isfinite(e.x).all()):
        raise ValueError("x has missing values: only methods with this neighbourhood's own placement can be measured")

    def g(xi: Tensor) -> Tensor:
        placed = neighbourhood.place(e.x, xi)
        return e.predict(placed.mean(2) if placed.ndim > e.x.ndim + 1 else placed)[:, 0]

    with torch.enable_grad():
        xi = e.x.new_zeros(len(e.x), 1, d).requires_grad_()
        at_zero = g(xi)
        w = torch.autograd.grad(at_zero.sum(), xi)[0][:, 0].to(at_zero)
    c, elsewhere = at_zero.detach(), torch.linspace(-1, 1, d).to(e.x).expand_as(xi)
    size = float((c.abs() + w.abs().sum(-1)).max())  # g itself may be 0 there
    if not torch.allclose(g(elsewhere), c + (w * elsewhere[:, 0]).sum(-1), rtol=1e-3, atol=1e-4 * size):
        raise ValueError("place is not affine in ξ: only methods with this neighbourhood itself can be measured")
    return w, c


def same_placement(a: Neighbourhood, b: Neighbourhood) -> bool:
    """Whether both put the same ξ at the same input, so that weights carry over as they are."""
    if isinstance(a, Multiplicative) and isinstance(b, Multiplicative):
        return _equal(a.baseline, b.baseline) and _equal(a.features, b.features)
    return a is b


def _equal(a: Any, b: Any) -> bool:
    if a is None or b is None or callable(a) or callable(b):
        return a is b
    return torch.equal(torch.as_tensor(a).double(), torch.as_tensor(b).double())


def columns_of(neighbourhoods: Methods) -> Iterator[Column]:
    for name, part in named(neighbourhoods, "neighbourhoods").items():
        if isinstance(part, Method):
            yield Column(name, part.neighbourhood, part.loss)
        elif isinstance(part, Neighbourhood):
            yield Column(name, part, SquaredError())
        else:
            raise TypeError(f"neighbourhoods: {name!r} must be a neighbourhood (draw, place) or a Method, got {part!r}")


def named(parts: Methods, argument: str) -> dict[str, Any]:
    """The parts by name; a sequence of Methods by their names, which must differ."""
    if isinstance(parts, Mapping):
        out = dict(parts)
    elif isinstance(parts, Sequence) and all(isinstance(part, Method) for part in parts):
        names = [part.name for part in parts]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{argument} has several of the name {', '.join(twice)}; give a dict of names")
        out = dict(zip(names, parts, strict=True))
    else:
        raise TypeError(f"{argument} must be a dict of names, or a list of Methods; got {parts!r}")
    if not out:
        raise ValueError(f"{argument} is empty")
    return out


@contextmanager
def naming(what: str, name: str) -> Iterator[None]:
    """Errors say which part they are about."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(f"{what} {name!r}: {error}") from error


def loss_name(loss: Loss) -> str:
    if (loss.value > 0) != (loss.gradient > 0):
        return "squared error" if loss.value > 0 else "gradient matching"
    return f"{loss.value:g} squared error + {loss.gradient:g} gradient matching"

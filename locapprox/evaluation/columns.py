"""One column of the faithfulness matrix: a neighbourhood with its exact rows, and the loss that is measured on it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from locapprox._explainer import as_explanation_of, naming
from locapprox._explanation import Explanation
from locapprox._method import Method
from locapprox._notices import errors_unsaid
from locapprox._problem import Problem
from locapprox.evaluation.columns_of_rows import measured as of_rows
from locapprox.evaluation.split import split
from locapprox.fit.blocks import Bar
from locapprox.fit.links import IDENTITY
from locapprox.fit.losses import CrossEntropy, Loss, RowLoss, SquaredError
from locapprox.fit.minimise import Minimum, minimise
from locapprox.fit.nulls import features, of_drawn
from locapprox.fit.sampling import samples
from locapprox.neighbourhoods.base import BaseNeighbourhood, Neighbourhood, described

Intercept = Literal["refitted", "fitted", "through_x"]
KEYS = ("error", "optimum", "regret", "blind", "division", "nonlinear", "violation", "lost", "r2", "constant")


@dataclass(frozen=True, eq=False)
class Column:
    """What is measured, and where."""

    name: str
    neighbourhood: BaseNeighbourhood
    loss: RowLoss


def columns_of(neighbourhoods: Mapping[str, Any]) -> Iterator[Column]:
    for name, part in neighbourhoods.items():
        if isinstance(part, Method):
            if isinstance(part.loss, CrossEntropy):
                raise ValueError(
                    f"neighbourhoods: {name!r} has a loss of logistic surrogates; columns measure linear ones"
                )
            column = Column(name, described(part.neighbourhood), part.loss)
        elif isinstance(part, Neighbourhood) and not isinstance(part, type):
            column = Column(name, described(part), SquaredError())
        else:
            raise TypeError(f"neighbourhoods: {name!r} must be a neighbourhood (draw, place) or a Method, got {part!r}")
        if column.neighbourhood.shrinks and column.loss.of_gradients is False:
            raise ValueError(
                f"neighbourhoods: {name!r} is a limit, where values have no error of their own; measure on small noise "
                "(lx.Normal)"
            )
        yield column


def check_explanations(problem: Problem, explanations: Mapping[str, Explanation]) -> None:
    """Raise ValueError for what is no linear surrogate of one score of each of the instances."""
    for name, e in explanations.items():
        if e._inside.link != IDENTITY:
            raise ValueError(
                f"methods: {name!r} has a {e._inside.link.name} surrogate; faithfulness measures linear ones"
            )
        if problem.several or e._inside.several or e.x.shape != problem.x.shape:
            raise ValueError(f"methods: {name!r} must explain one score of each of the instances x (target)")
        check_instances(problem, name, e, "methods")


def check_instances(problem: Problem, name: str, e: Explanation, argument: str) -> None:
    """Raise ValueError for an explanation of other instances, or of another output, as far as that is known."""
    x = problem.x
    if e.x.shape != x.shape:
        return
    if not torch.allclose(e.x.to(x), x, equal_nan=True):
        raise ValueError(f"{argument}: {name!r} explains other instances than x")
    if not e._inside.several and not _same_output(problem, e):
        theirs, ours = e.settings["target"], problem.target
        raise ValueError(f"{argument}: {name!r} explains another output: its target is {theirs}, not {ours!r}")


def _same_output(problem: Problem, e: Explanation) -> bool:
    """By the columns, by the values of one model where a function chooses them; True where neither is known."""
    own, columns = e._inside.problem, problem.scores.columns
    if own is None:  # loaded: one for all is written there
        text = str(e.settings.get("target"))
        theirs = torch.tensor([[int(text)]], device=problem.x.device) if text.isdecimal() else None
    else:
        theirs = own.scores.columns
    if columns is not None and theirs is not None:
        return bool((columns == theirs).all())
    if own is None or own.model is not problem.model or own.target is problem.target:
        return True
    some = torch.arange(min(len(problem.x), 4), device=problem.x.device)
    with problem.evaluating() as scores:
        ours, theirs = (s.values(problem.x[some].unsqueeze(1).clone(), some).clone() for s in (scores, own.scores))
    return torch.allclose(ours, theirs, rtol=1e-3, atol=1e-6)


@dataclass(frozen=True, eq=False)
class Matrix:
    """Methods × columns on one problem, once per seed."""

    problem: Problem
    parts: Mapping[str, Any]
    columns: list[Column]
    n_samples: int | Mapping[str, int]  # one for all, or by name of part and column
    intercept: Intercept = "refitted"
    like: Method | None = None

    def n(self, name: str) -> int:
        return self.n_samples if isinstance(self.n_samples, int) else self.n_samples[name]

    def measured(self, seed: int, bar: Bar | None = None) -> pd.DataFrame:
        """The parts fitted and measured anew: see `of_explanations`."""
        explanations = {}
        for name, part in self.parts.items():
            explanations[name] = self.explanation(name, part, seed)
            if bar is not None:
                bar.update(1)
        return self.of_explanations(explanations, seed, bar)

    def explanation(self, name: str, part: Any, seed: int) -> Explanation:
        with naming("method", name):
            n = self.n(name) if isinstance(part, Method) else 0
            return as_explanation_of(self.problem, name, part, n, seed, self.like)

    def of_explanations(
        self, explanations: Mapping[str, Explanation], seed: int, bar: Bar | None = None
    ) -> pd.DataFrame:
        """One row per method, neighbourhood and instance: the numbers that `faithfulness` describes, and the best
        constant's loss (`constant`)."""
        check_explanations(self.problem, explanations)
        b, frames = len(self.problem.x), []
        for column in self.columns:
            with naming("neighbourhood", column.name):
                column = replace(column, neighbourhood=self.problem.check(column.neighbourhood, self.n(column.name)))
                with self.problem.evaluating(), errors_unsaid():
                    table = evaluate(column, self.problem, explanations, self.intercept, self.n(column.name), seed)
            labels = {"neighbourhood": column.name, "loss": column.loss.name}
            method, instance = np.repeat(list(explanations), b), np.tile(np.arange(b), len(explanations))
            values = {key: value.mT.flatten().cpu().numpy() for key, value in table.items()}
            frames.append(pd.DataFrame({"method": method, **labels, "instance": instance, **values}))
            if bar is not None:
                bar.update(1)
        return pd.concat(frames, ignore_index=True)


def evaluate(
    column: Column, problem: Problem, explanations: Mapping[str, Explanation], intercept: Intercept, n: int, seed: int
) -> dict[str, Float[Tensor, "b m"]]:
    """One pass over the column's draw for all m surrogates: their errors are quadratic forms of its sums."""
    parts = list(samples(problem, column.neighbourhood, n, seed, "evaluate"))
    d = max(features(part) for part in parts)
    surrogates = [carried(e, column.neighbourhood, d, intercept) for e in explanations.values()]
    w, c = torch.stack([s[0] for s in surrogates], dim=1), torch.stack([s[1] for s in surrogates], dim=1)
    if intercept == "through_x":
        x = problem.x
        at_x = problem.scores.values(x.unsqueeze(1).clone(), torch.arange(len(x), device=x.device))[:, 0]
        c = c + at_x - torch.stack([_without_nan(e).predict(x) for e in explanations.values()], dim=1)
    table = {key: torch.full_like(c, torch.nan) for key in KEYS}
    while parts:
        part = parts.pop(0)  # and let it go when it is done
        i, some = part.instances, of_drawn(w[part.instances], part)
        if isinstance(column.loss, Loss):
            best = minimise(part, column.loss, intercept=True)
            theta = best.refitted(some) if intercept == "refitted" else torch.cat([some, c[i][..., None]], dim=-1)
            found = measures(best, theta)
            found |= derived(found)
            splits = [
                split(best, some[:, m], e, column.neighbourhood, part) for m, e in enumerate(explanations.values())
            ]
            found["blind"], found["division"] = (torch.stack(parts, dim=1) for parts in zip(*splits, strict=True))
            found["nonlinear"] = found["regret"] - found["blind"] - found["division"]
        else:
            found = of_rows(part, column.loss, some, c[i], intercept == "refitted")
            found |= derived(found)
        for key, value in found.items():
            table[key][i] = value
    return table


def measures(best: Minimum, theta: Float[Tensor, "b m p"]) -> dict[str, Float[Tensor, "b m"]]:
    """Of m surrogates where `best` is the column's best fit."""
    sums, fit, exact = best.problem, best.fit, best.exact
    round_off = 16 * theta.shape[-1] * torch.finfo(theta.dtype).eps * fit.constant_loss  # of a quadratic form
    error, least = (loss.where(loss > round_off, 0.0) for loss in (sums.loss_of(theta), sums.loss_of(best.theta)))
    optimum, constant = out_of_sample(least, fit.loss).expand_as(error), fit.constant_loss.expand_as(error)
    violation = torch.zeros_like(error)
    if len(exact.rows):
        gap, size = (theta @ exact.rows.mT - exact.y).abs(), theta.abs().sum(-1, keepdim=True) + exact.y.abs()
        violation = gap.where(gap > 8 * torch.finfo(gap.dtype).eps * size, 0.0).amax(-1)
    return {"error": error, "optimum": optimum, "violation": violation, "constant": constant}


def derived(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Regret, r2 and what is lost, of the other measures."""
    error, violation, constant = found["error"], found["violation"], found["constant"]
    regret = error - found["optimum"]
    lost = torch.where(violation > 0, torch.maximum(regret, violation.square()), regret)
    r2 = torch.where(constant > 0, 1 - error / constant, torch.nan)
    return {"regret": regret, "r2": r2, "lost": torch.where(lost == 0, 0.0, lost / constant)}


def out_of_sample(in_sample: Tensor, leave_one_out: Tensor) -> Tensor:
    """The loss of the population's best fit: the sample's own is too low by about p / n of it, its leave-one-out loss
    too high by as much, so their mean."""
    return (in_sample + leave_one_out) / 2


def _without_nan(e: Explanation) -> Explanation:
    """With intercept 0 where it is not known: `through_x` shifts the surrogate anyway."""
    return replace(e, intercept=e.intercept.nan_to_num())


def carried(
    e: Explanation, neighbourhood: BaseNeighbourhood, d: int, intercept: Intercept = "refitted"
) -> tuple[Float[Tensor, "b d"], Float[Tensor, " b"]]:
    """The surrogate's weights and intercept in the ξ of a neighbourhood with d features.

    As they are if the placement is the same; else through the input space, where the surrogate is affine (see
    `Explanation.predict`): c′ = g(place(x₀, 0)) and w′ = ∇_ξ g(place(x₀, ξ)).
    """
    if intercept == "fitted" and bool(e.intercept.isnan().any()):
        raise ValueError(f'{e.method.name} has no intercept: use intercept="refitted"')
    e = _without_nan(e)
    if described(e.method.neighbourhood).same_placement(neighbourhood):
        w = e.weights.flatten(1).nan_to_num()
        return torch.nn.functional.pad(w, (0, d - w.shape[1])), e.intercept
    if not bool(torch.isfinite(e.x).all()):
        raise ValueError("x has missing values: only methods with this neighbourhood's own placement can be measured")

    def g(xi: Tensor) -> Tensor:
        placed = neighbourhood.placed(e.x, xi)
        return e.predict(placed.mean(2) if placed.ndim > e.x.ndim + 1 else placed)[:, 0]

    with torch.enable_grad():
        xi = e.x.new_zeros(len(e.x), 1, d).requires_grad_()
        at_zero = g(xi)
        w = torch.autograd.grad(at_zero.sum(), xi)[0][:, 0].to(at_zero)
    c, elsewhere = at_zero.detach(), torch.linspace(-1, 1, d, device=e.x.device).to(e.x).expand_as(xi)
    size = float((c.abs() + w.abs().sum(-1)).max())  # g itself may be 0 there
    if not torch.allclose(g(elsewhere), c + (w * elsewhere[:, 0]).sum(-1), rtol=1e-3, atol=1e-4 * size):
        raise ValueError("place is not affine in ξ: only methods with this neighbourhood itself can be measured")
    return w, c

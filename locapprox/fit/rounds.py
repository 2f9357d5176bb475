"""Fits of all instances, from one draw or from independent draws in growing rounds until what is asked of them holds.

Rounds of n, 2n, 4n, … rows have seeds of their own, and every round is fitted by itself, so that nothing is held but
its numbers. Rounds are pooled: weights, intercepts and losses by their rows, standard errors as of independent
estimates, their degrees by Welch (1947) and Satterthwaite (1946), the least over an instance's weights. A round whose
error of a weight is not known has the variance per row of those where it is. The later of two fits replaces the one
before where their mean is no better: a quadrature (its nodes are not random), an enumeration (it is exact), a surrogate
class that is not convex, and after a fit that knows none of its errors (it may be shrunk).
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from locapprox._notices import errors_unsaid, warn
from locapprox._parts import child_seeds, is_builtin
from locapprox._problem import Problem
from locapprox.fit.blocks import Bar
from locapprox.fit.contract import fitted
from locapprox.fit.evidence import SHOWN
from locapprox.fit.losses import Loss, RowLoss
from locapprox.fit.nulls import on_all
from locapprox.fit.result import Fit
from locapprox.fit.sampling import samples
from locapprox.fit.stopping import Stop
from locapprox.fit.surrogates import BaseSurrogate
from locapprox.fit.together import together
from locapprox.neighbourhoods.base import BaseNeighbourhood

PATIENCE = 3  # rounds after which errors that are not known are no longer waited for
MOST = 64  # rounds, more than anybody waits for


@dataclass(frozen=True, eq=False)
class Fits:
    """Of all instances; NaN where an instance has fewer features than another."""

    weights: Float[Tensor, "b k d"]
    intercept: Float[Tensor, "b k"]
    standard_error: Float[Tensor, "b k d"]
    loss: Float[Tensor, "b k"]
    constant_loss: Float[Tensor, "b k"]
    degrees_of_freedom: Float[Tensor, " b"]  # on the CPU, as all that follows
    n_samples: Int[Tensor, " b"]  # rows drawn
    rows: Int[Tensor, " b"]  # of these, those that the numbers come from
    nested: Bool[Tensor, " b"]  # whether by a quadrature
    known: Float[Tensor, "b k d"]  # rows that the standard errors come from

    @property
    def unknown(self) -> Bool[Tensor, " b"]:
        """Whether an instance has weights whose errors are not known."""
        return (self.standard_error.isnan() & ~self.weights.isnan()).flatten(1).any(1).cpu()

    @property
    def _zero(self) -> Bool[Tensor, " b"]:
        """Whether no error is known that is not 0."""
        return ~(self.standard_error > 0).flatten(1).any(1).cpu()

    def of(self, i: Int[Tensor, " c"]) -> "Fits":
        """Of some of the instances."""
        return Fits(*(part[i.to(part.device)] for part in self._parts()))

    def and_round(self, i: Int[Tensor, " c"], new: "Fits", pools: bool) -> "Fits":
        """With another round of the instances i, which replaces or joins what was before."""
        old, d = self.of(i), self.weights.shape[-1]
        wide = {name: _padded(getattr(new, name), d) for name in ("weights", "standard_error", "known")}
        new = replace(new, **wide)
        alone = new.nested | (new._zero & ~new.unknown) | (old._zero & ~new._zero) | (not pools)
        joined = old._pooled(new)
        out = []
        for field, whole in zip(fields(self), self._parts(), strict=True):
            part, other = getattr(new, field.name), getattr(joined, field.name)
            chosen = torch.where(alone.to(part.device).reshape(-1, *[1] * (part.ndim - 1)), part, other)
            out.append(whole.index_copy(0, i.to(whole.device), chosen.to(whole)))
        spent = self.n_samples.index_add(0, i.cpu(), new.n_samples)
        return replace(Fits(*out), n_samples=spent)

    def _pooled(self, new: "Fits") -> "Fits":
        rows, known = self.rows + new.rows, self.known + new.known
        share, whole = (part.to(self.weights)[:, None] for part in (new.rows.double() / rows.clamp_min(1), rows))

        def mean(name: str) -> Tensor:
            a: Tensor = getattr(self, name)
            b: Tensor = getattr(new, name)
            return a + share.reshape(-1, *[1] * (a.ndim - 1)) * (b - a)

        means = {name: mean(name) for name in ("weights", "intercept", "loss", "constant_loss")}
        one, two = self._squares(), new._squares()
        error = ((one + two) / (whole[..., None] * known)).sqrt()  # NaN where no row is known
        degrees = welch(one, two, self.degrees_of_freedom, new.degrees_of_freedom)
        return replace(new, **means, standard_error=error, degrees_of_freedom=degrees, rows=rows, known=known)

    def _squares(self) -> Float[Tensor, "b k d"]:
        """Σ (rows · standard error)² over the rounds where it is known."""
        rows = self.rows.to(self.weights)[:, None, None]
        return (self.standard_error.square() * rows * self.known).nan_to_num(0)

    def _parts(self) -> list[Tensor]:
        return [getattr(self, field.name) for field in fields(self)]


def welch(
    one: Float[Tensor, "b k d"], two: Float[Tensor, "b k d"], degrees_one: Float[Tensor, " b"], degrees_two: Tensor
) -> Float[Tensor, " b"]:
    """Degrees of freedom of a sum of two estimates with these variances: the least over the weights."""
    one, two = (part.flatten(1).to("cpu", torch.float64) for part in (one, two))
    spread = one.square() / degrees_one[:, None] + two.square() / degrees_two[:, None]
    return ((one + two).square() / spread).nan_to_num(torch.inf, torch.inf).amin(1)


def _padded(values: Tensor, d: int) -> Tensor:
    return torch.nn.functional.pad(values, (0, d - values.shape[-1]), value=torch.nan)


@dataclass(frozen=True, eq=False)
class Task:
    """What is fitted, and around what."""

    problem: Problem
    where: BaseNeighbourhood
    surrogate: BaseSurrogate
    loss: RowLoss

    def of(self, i: Int[Tensor, " c"]) -> "Task":
        """Of some of the instances."""
        own = i.to(self.problem.x.device)
        return replace(self, problem=self.problem.of(own), where=self.where.at(self.problem.x, own))

    def fits(self, n: int, seed: int, bar: Bar | None = None) -> Fits:
        """From one draw of n rows; what it was fitted to is let go, batch by batch of instances."""
        problem, surrogate, loss = self.problem, self.surrogate, self.loss
        held = loss.of_gradients and (surrogate.keeps_gradients or not isinstance(loss, Loss))
        parts: list[tuple[Tensor, Fit]] = []
        drawn, degrees = torch.zeros(2, len(problem.x), dtype=torch.float64, device="cpu")
        nested = torch.zeros(len(problem.x), dtype=torch.bool, device="cpu")
        leave = surrogate.nulls_leave, surrogate.any_origin
        found = samples(problem, self.where, n, seed, "fit", bar, held, *leave, is_builtin(surrogate))
        for sample in found if loss.of_gradients else together(found):
            fit, i = on_all(fitted(surrogate, sample, loss), sample), sample.instances.cpu()
            parts.append((sample.instances, fit))
            drawn[i] = sample.drawn if fit.rows is None else fit.rows.to(drawn)
            nested[i] = sample.plan.coarser > 0
            degrees[i] = torch.as_tensor(fit.degrees_of_freedom, dtype=torch.float64, device="cpu")

        def whole(name: str) -> Tensor:
            each = [(instances, getattr(fit, name)) for instances, fit in parts]
            out: Tensor = each[0][1]
            if len(each) == 1:  # all of them, in order
                return out
            shape = torch.Size(max(part.shape[axis] for _, part in each) for axis in range(1, each[0][1].ndim))
            out = out.new_full((len(problem.x), *shape), torch.nan)
            for instances, part in each:
                where: list[Any] = [instances, *(slice(size) for size in part.shape[1:])]
                out[tuple(where)] = part
            return out

        names = ("weights", "intercept", "standard_error", "loss", "constant_loss")
        numbers, rows = {name: whole(name) for name in names}, drawn.long()
        known = drawn.to(numbers["weights"])[:, None, None] * ~numbers["standard_error"].isnan()
        own = {"degrees_of_freedom": degrees, "n_samples": rows, "rows": rows, "nested": nested}
        return Fits(**numbers, **own, known=known)


Bars = Callable[[str], AbstractContextManager[Any]]


def in_rounds(
    task: Task, n: int, seed: int, bars: Bars, stops: Sequence[Stop], most: int
) -> tuple[Fits, Bool[Tensor, " b"]]:
    """Rounds of n, 2n, 4n, … rows until every stop holds, and whether it does, instance by instance.

    No instance gets more than `most` rows, and no round is smaller than the one before. Errors that are not known do
    not count, and are waited for in `PATIENCE` rounds only.
    """
    seeds, size, spent = child_seeds(seed, MOST), n, n
    going = torch.arange(len(task.problem.x), device="cpu")
    lacks = torch.zeros(len(stops), len(going), dtype=torch.float64, device="cpu")
    with errors_unsaid():
        with bars("") as bar:
            fits = task.fits(n, seed, bar)
        for done in range(1, MOST):
            some = fits.of(going)
            numbers = some.weights, some.standard_error, some.degrees_of_freedom
            lacks[:, going] = torch.stack([stop.lacks(*numbers, done).amax(1).cpu().double() for stop in stops])
            waits = some.unknown & (done < PATIENCE)
            going = going[(lacks[:, going] > 0).any(0) | waits]
            size, last = min(2 * size, most - spent), size
            if len(going) == 0 or size < last:
                break
            with bars(f": round {done + 1}, {len(going)} instances") as bar:
                new = task.of(going).fits(size, seeds[done], bar)
            fits, spent = fits.and_round(going, new, task.surrogate.convex), spent + size
    for stop, short in zip(stops, lacks, strict=True):
        if bool((short > 0).any()):
            whose = _named(short > 0)
            warn(f"max_samples={most} ends the draws before {stop!r} holds for {whose}: {stop.far(short)}")
    if bool(fits.unknown.any()):
        warn(
            f"standard errors are not known (NaN) for {_named(fits.unknown)}, and nothing can stop on those: f is "
            "linear over all draws, or varies by a few of them (rare kinks or steps, heavy tails), or the draws are "
            "too few; without tol and until, explain says which"
        )
    return fits, ~((lacks > 0).any(0) | fits.unknown)


def _named(which: Bool[Tensor, " b"]) -> str:
    found = which.nonzero()[:, 0].tolist()
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f"{len(found)} of {len(which)} instances ({', '.join(map(str, found[:SHOWN]))}{more})"

"""A model, the instances and what of its outputs is explained: validated, probed and typed once."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, TypeVar, cast

import pandas as pd
import torch
from torch import Tensor

from locapprox._names import aligned, index_of, names_of
from locapprox._notices import warn
from locapprox._parts import alike, calling, whole_number
from locapprox.models.inputs import Array, as_tensor, missing
from locapprox.models.scores import Scores, Target, evaluation_mode
from locapprox.neighbourhoods.base import BaseNeighbourhood
from locapprox.neighbourhoods.contract import probe

Where = TypeVar("Where", bound=BaseNeighbourhood)

MODE = "training mode"


class Problem:
    """What every public function builds from (model, x, target), and everything inside takes.

    x: the instances as a tensor (b, *input shape); names, index: a DataFrame's columns and rows. Calls of the model
    belong in `evaluating()`.

    Raises ValueError or TypeError naming the argument that is wrong.
    """

    def __init__(self, model: Any, x: Array, target: Target = None, batch_size: int | None = None) -> None:
        self.names, self.index = names_of(x), index_of(x)
        self.model, self.given, self.target = model, x, target
        self.said: set[str] = set()
        if isinstance(target, pd.Series):
            self.target = aligned(target, None, self.index, "target").to_numpy()
        self.batch_size = None if batch_size is None else whole_number(batch_size, "batch_size")
        with torch.inference_mode(False):
            self.x = as_tensor(x, model)
        if self.x.ndim < 2:
            raise ValueError(
                f"x needs a batch axis first: got shape {tuple(self.x.shape)}; pass x[None] for one instance"
            )
        if self.x.numel() == 0:
            raise ValueError(f"x is empty: shape {tuple(self.x.shape)}")

    @cached_property
    def scores(self) -> Scores:
        """The model as scores, which has not been called; ValueError or TypeError if the target does not suit x."""
        with torch.inference_mode(False):
            return Scores(self.model, self.x, self.given, self.target, self.batch_size)

    @property
    def several(self) -> bool:
        """Whether several scores are explained at once, so that results have an axis for them."""
        return isinstance(self.target, range)

    def check(self, neighbourhood: Where, n: int = 1000) -> Where:
        """The neighbourhood with what it holds by name in x's order, and what it chooses for x and n rows.

        Raises ValueError or TypeError if it does not suit x, or a user's own breaks its contract there.
        """
        with calling(f"{neighbourhood.kind}.check"):
            where = neighbourhood if self.names is None else neighbourhood.named(self.names, self.index)
            if not where.takes_missing:
                self.check_finite()
            where.check(self.x)
        probe(where, self.x, n)
        self.say_once(neighbourhood.notice(self.x, self.names))
        with calling(f"{neighbourhood.kind}.settled"):
            return cast(Where, where.settled(self.x, n))

    def say_once(self, sentence: str | None) -> None:
        """A warning, unless this problem has given it before."""
        if sentence is not None and sentence not in self.said:
            self.said.add(sentence)
            warn(sentence)

    def check_finite(self) -> None:
        where = missing(self.x, self.names)
        if where:
            raise ValueError(f"x has NaN or infinite values in feature(s) {where}; fill them in first")

    @contextmanager
    def evaluating(self, warns: bool = False) -> Iterator[Scores]:
        """The scores, with the model in evaluation mode: said the first time, and where the call `warns`."""
        warns = warns or MODE not in self.said
        self.said.add(MODE)
        with torch.inference_mode(False), evaluation_mode(self.model, warns):
            yield self.scores
            self.scores.require_finite()

    def ask(self) -> None:
        """Call the model on up to three instances, to say what is wrong with it before anything is tried."""
        some = torch.arange(min(len(self.x), 3), device=self.x.device)
        with self.evaluating() as scores:
            scores.values(self.x[some].unsqueeze(1), some)

    def of(self, instances: Tensor) -> "Problem":
        """The problem of some of the instances."""
        some, columns = copy.copy(self), self.scores.columns
        some.x, some.index = self.x[instances], None
        if columns is not None and len(columns) > 1:
            some.scores = self.scores.with_columns(columns[instances])
        return some

    def joined(self, others: Sequence["Problem"]) -> "Problem | None":
        """The problem of the instances of several, in their order; None if they are of different models or outputs."""
        if any(other.model is not self.model for other in others):
            return None
        if self.target is None or self.several or callable(self.target):
            if not all(alike(self.target, other.target) for other in others):
                return None
            columns = self.scores.columns
        else:
            given = [(p.scores.columns, len(p.x)) for p in (self, *others)]
            if any(c is None or c.shape[1] > 1 for c, _ in given):
                return None
            columns = torch.cat([c.expand(n, -1) for c, n in given if c is not None])
        whole = copy.copy(self)
        whole.x, whole.index = torch.cat([p.x for p in (self, *others)]), None
        whole.scores = self.scores.with_columns(columns)
        return whole

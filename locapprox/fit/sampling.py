"""One draw for a batch of instances, block by block, and the model's answers to it."""

import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from locapprox._memory import keep_freed_memory, require_memory
from locapprox._problem import Problem
from locapprox.fit.blocks import Bar, Block, Chunk
from locapprox.fit.kept import LARGEST, Recent, keep
from locapprox.fit.plan import Plan
from locapprox.fit.seeds import generator
from locapprox.fit.solve import design, part_of, unit_of_weights
from locapprox.models.scores import Scores
from locapprox.neighbourhoods.base import BaseNeighbourhood

_recent: Recent[tuple[Plan, list[Block]]] = Recent()

KEPT = 2**22  # numbers in a draw that is held


def samples(
    problem: Problem,
    neighbourhood: BaseNeighbourhood,
    n: int,
    seed: int,
    role: str,
    bar: Bar | None = None,
    keeps_gradients: bool = False,
    nulls_leave: bool = True,
    any_origin: bool = False,
    kept: bool = True,
) -> "Iterator[Sample]":
    """The instances in batches that share a draw and fit into memory; every batch sees the same draw, which may be
    `kept` where nobody who is given it changes it."""
    keep_freed_memory()
    x, scores = problem.x, problem.scores
    whole = neighbourhood, x
    neighbourhood = neighbourhood.ready(x)
    neighbourhood, places = neighbourhood.without_nulls(x) if nulls_leave else (neighbourhood, None)
    neighbourhood, origin = neighbourhood.with_shared_xi(x) if any_origin else (neighbourhood, None)
    for batch in neighbourhood.batches(x):
        one = neighbourhood.at(x, batch[:1])
        like = one.same_draw(x[batch[:1]]) if kept else None
        key = None if like is None else (like, n, seed, role)
        known = None if key is None else _recent.get(key)
        plan = Plan.of(one, x[batch[:1]], n, generator(seed, neighbourhood, role, x)) if known is None else known[0]
        features = plan.d if places is None else places.shape[1]
        plan.check_memory(features, len(x), scores.k, keeps_gradients, x.device)
        if bar is not None:
            bar.total = plan.rows * len(x)  # type: ignore[attr-defined]
        for instances in batch.to(x.device).split(plan.together(scores.k, keeps_gradients)):
            here, own = neighbourhood.at(x, instances), (None if p is None else p[instances] for p in (places, origin))
            sample = Sample(here, x[instances], instances, scores, n, plan, seed, role, whole, bar, *own)
            if key is not None:
                sample.keep_as(key, [] if known is None else known[1])
            yield sample


@dataclass(eq=False)
class Sample:
    """The draw of one role (fitting, validating) for instances x that share it. Iterating again repeats the draw."""

    neighbourhood: BaseNeighbourhood
    x: Tensor  # the instances of this sample
    instances: Tensor  # their places in the whole batch
    scores: Scores
    n: int
    plan: Plan
    seed: int
    role: str
    whole: tuple[BaseNeighbourhood, Tensor]  # of all instances and features
    bar: Bar | None = None
    places: Int[Tensor, "b d"] | None = None  # see `BaseNeighbourhood.without_nulls`
    origin: Float[Tensor, "b d"] | None = None  # of ξ, see `BaseNeighbourhood.with_shared_xi`

    def __post_init__(self) -> None:
        self._kept: list[Block] = []  # the whole draw, if it is one block or `keeps_draw`
        self._drawn = 0
        self._key: Hashable | None = None
        self.answers: dict[Block, Float[Tensor, "b k m"]] = {}  # of blocks whose values are known, see `together`
        self._design: tuple[Block, bool, Tensor] | None = None

    @property
    def d(self) -> int:
        return self.plan.d

    @property
    def k(self) -> int:
        """Scores per row."""
        return self.scores.k

    def of(self, i: Int[Tensor, " c"]) -> "Sample":
        """The same draw for some of the instances."""
        names = ("x", "instances", "places", "origin")
        own = {name: part[i] for name in names if (part := getattr(self, name)) is not None}
        some = replace(self, neighbourhood=self.neighbourhood.at(self.x, i), **own)
        some._kept = [replace(block, weight=part_of(block.weight, i, len(self.x))) for block in self._kept]
        return some

    @property
    def is_a_point(self) -> bool:
        """Whether the draw is a single row to fit, which is not random."""
        if self.plan.rows > 1:
            return False
        (block,) = self.blocks()
        return len(block.xi) == block.n_fixed == 1 and bool((block.weight > 0).all())

    @property
    def keeps_outputs(self) -> bool:
        """Whether all outputs may be held."""
        return self.plan.outputs_fit(len(self.x) * self.k)

    @property
    def keeps_draw(self) -> bool:
        """Whether the whole draw is held: then no second pass repeats it."""
        return self.plan.rows * (self.d + 1) <= KEPT

    @property
    def dtype(self) -> torch.dtype:
        """Where systems are solved: float64, or float32 on devices without it."""
        return torch.float32 if self.x.device.type == "mps" else torch.float64

    @cached_property
    def interpolates(self) -> bool:
        """Whether any row is to be interpolated; if the neighbourhood does not say, the draw is looked through."""
        return self.plan.interpolates or (self.plan.interpolates is None and any(len(b.exact) for b in self.blocks()))

    @property
    def drawn(self) -> int:
        """Rows of the draw."""
        if not self._drawn:
            for _ in self.blocks():
                pass
        return self._drawn

    def keep_as(self, key: Hashable, known: list[Block]) -> None:
        """Take the draw that is kept under this key, or, if it is not known, keep it there once it is made."""
        self._key, self._kept = key, known
        self._drawn = sum(len(block.xi) + len(block.exact) for block in known)

    def blocks(self) -> Iterator[Block]:
        """The draw, the same each time."""
        if self._kept:
            yield from self._kept
            return
        kept, count, drawn, size = list[Block](), 0, 0, (self.plan.rows + self.d) * self.d
        lasts = self._key is not None and size <= LARGEST
        for block in self._blocks():
            count, drawn = count + 1, drawn + len(block.xi) + len(block.exact)
            if lasts:
                keep(block.xi, block.weight, block.exact)
            if count == 1 or self.keeps_draw:
                kept.append(block)
            yield block
        kept = kept if len(kept) == count else []
        self._kept, self._drawn = kept, drawn
        if lasts and kept:
            _recent.put(self._key, (self.plan, kept), size)

    def _blocks(self) -> Iterator[Block]:
        rng = generator(self.seed, self.neighbourhood, self.role, self.x)
        unit = None
        for draw in self.neighbourhood.drawn(self.x, self.n, rng):
            xi = draw.xi[0] if draw.xi.ndim == 3 else draw.xi  # per instance: the batch is one instance
            weight = torch.atleast_2d(draw.weight).to(self.dtype)
            unit = unit_of_weights(weight) if unit is None else unit  # no fit depends on it
            weight = weight if isinstance(unit, float) else weight / unit
            coarse = None if draw.coarse_weight is None else torch.atleast_2d(draw.coarse_weight) / unit
            if weight.numel() and math.isinf(weight.amax()):
                if draw.replicates:
                    raise ValueError("weight is inf for some rows of a draw with replicates")
                exact = weight[0].isinf()
                if len(weight) > 1 and not bool((weight.isinf() == exact).all()):
                    raise ValueError("weight is inf for some instances, finite for others in a row: draw xi (b, n, d)")
                if bool((exact[draw.n_fixed :].reshape(-1, draw.unit_size).sum(1) % draw.unit_size).any()):
                    raise ValueError("weight is inf for some rows of a unit and finite for others")
                keep = (~exact).nonzero()[:, 0]
                coarse = None if coarse is None else coarse[:, keep]
                n_fixed = int((keep < draw.n_fixed).sum())
                yield Block(xi[keep], weight[:, keep], draw.unit_size, n_fixed, coarse, xi[exact])
            else:
                yield Block(xi, weight, draw.unit_size, draw.n_fixed, coarse, xi[:0], draw.replicates)

    def check_memory(self, in_turn: bool = False) -> None:
        """Refuse a system of equations that cannot be held: some twelve matrices d × d, and four more for each instance
        that has weights of its own, unless they are solved in turn."""
        own = (len(self.x) - 1) * (self.plan.own_weight and not in_turn)
        way_out = "group them (features=lx.patches(…), lx.superpixels(…) or labels), or match gradients (lx.smoothgrad)"
        what = f"solving for the weights of {self.d} features"
        require_memory((12 + 4 * own) * (self.d + 1) ** 2, what, self.x.device, way_out)

    def design(self, block: Block, intercept: bool) -> Float[Tensor, "n p"]:
        """Rows [ξ, 1], or ξ without intercept; the same tensor if the last block is asked for again."""
        if self._design is None or self._design[0] is not block or self._design[1] != intercept:
            self._design = block, intercept, design(block.xi, intercept, self.dtype)
        return self._design[2]

    def values(self, block: Block) -> tuple[Float[Tensor, "b k e"], Float[Tensor, "b k n"]]:
        """The model at the block's rows to interpolate and at those to fit, in its own precision."""
        xi = block.rows
        y = self.answers.get(block)  # in the model's own precision, which may be more than x's
        if y is not None:
            self.skip(len(self.x) * len(xi))
            return y[..., : len(block.exact)], y[..., len(block.exact) :]
        for i, rows in self._chunks(len(xi), 1):
            here = self._at(i)
            some = xi[rows]
            part = self.scores.values(here.placed(self.x[i], some), self.instances[i])
            y = part.new_empty(len(self.x), self.k, len(xi)) if y is None else y
            y[i, :, rows] = part
        self.scores.require_finite()
        y = xi.new_empty(len(self.x), self.k, 0) if y is None else y
        return y[..., : len(block.exact)], y[..., len(block.exact) :]

    def gradients(self, block: Block) -> Iterator[Chunk]:
        """The model and its gradient in ξ at the block's rows to fit, in chunks of instances × rows."""
        for i, rows in self._chunks(len(block.xi), block.unit_size, block.n_fixed):
            here, x = self._at(i), self.x[i]
            xi = block.xi[rows].expand(len(x), -1, -1)
            y, gradient = self.scores.gradients(lambda leaf: here.placed(x, leaf), xi, self.instances[i])  # noqa: B023
            yield Chunk(i, rows, y, gradient)
        self.scores.require_finite()

    def exact_values(self, block: Block) -> Float[Tensor, "b k e"]:
        """The model at the block's rows to interpolate."""
        y = torch.empty(len(self.x), self.k, len(block.exact), dtype=self.dtype, device=self.x.device)
        for i, rows in self._chunks(len(block.exact), 1):
            placed = self._at(i).placed(self.x[i], block.exact[rows])
            y[i, :, rows] = self.scores.values(placed, self.instances[i])
        self.scores.require_finite()
        return y

    def _at(self, i: slice) -> BaseNeighbourhood:
        return self.neighbourhood if i.stop - i.start == len(self.x) else self.neighbourhood.at(self.x, i)

    def advice(self, rows: int) -> str:
        """What to do for an effective sample size of `rows` around all instances."""
        neighbourhood, x = self.whole
        return neighbourhood.advice(x, self.n, generator(self.seed, neighbourhood, self.role, x), rows)

    def skip(self, rows: int) -> None:
        """The bar moves over so many."""
        if self.bar is not None:
            self.bar.update(rows)

    def _chunks(self, n: int, unit_size: int, n_fixed: int = 0) -> Iterator[tuple[slice, slice]]:
        """Instances × rows for one model call each: whole units, `rows_per_call` rows or just under."""
        per_call = max(unit_size, self.scores.rows_per_call // self.plan.copies)
        edges = [0] if n_fixed in (0, n) else [0, n_fixed]
        for first, last in zip(edges, [*edges[1:], n], strict=True):
            step = max(unit_size, min(per_call, last - first) // unit_size * unit_size)
            calls = math.ceil(len(self.x) / max(1, per_call // step))
            instances = math.ceil(len(self.x) / calls)  # as evenly as may be
            for i in range(0, len(self.x), instances):
                for j in range(first, last, step):
                    chunk = slice(i, min(i + instances, len(self.x))), slice(j, min(j + step, last))
                    yield chunk
                    self.skip((chunk[0].stop - i) * (chunk[1].stop - j))

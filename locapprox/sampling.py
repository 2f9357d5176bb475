"""One draw for a batch of instances, block by block, and the model's answers to it."""

import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from locapprox.distributions import Draw
from locapprox.models import Scores
from locapprox.neighbourhoods import Neighbourhood, stream

MEMORY = 2**26  # numbers (outputs, sums, Gram matrices) of one batch of instances

# The C library returns freed memory to the system when it is more than twice the largest block freed so far, and every
# page that is needed again costs a fault. A block that is never touched makes it keep what a batch of rows needs.
torch.empty(2**22)
GradientSink = Callable[[slice, slice, Tensor], None]


@dataclass(frozen=True, eq=False)
class Block:
    """Some rows of a draw: those to fit, and those to interpolate (`exact`)."""

    xi: Float[Tensor, "n d"]
    weight: Float[Tensor, "g n"]  # g = 1, or one row per instance; finite
    unit: int
    fixed: int
    coarse: Float[Tensor, "1 n"] | None
    exact: Float[Tensor, "e d"]


def generator(seed: int, neighbourhood: Any, role: str, x: Tensor) -> torch.Generator:
    """Seeded by (seed, kind of neighbourhood, role, d): the same for any batch and for all parameters of a kind."""
    return torch.Generator(x.device).manual_seed(_seed(seed, f"{_kind(neighbourhood)}|{role}", x[0].numel()))


@lru_cache(maxsize=64)
def _seed(seed: int, words: str, d: int) -> int:
    sequence = np.random.SeedSequence([seed, zlib.crc32(words.encode()), d])
    return int(sequence.generate_state(1, np.uint64)[0] >> 1)


def _kind(part: Any) -> str:
    inner = (
        [_kind(getattr(part, f.name)) for f in fields(part) if f.name == "distribution"] if is_dataclass(part) else []
    )
    return "/".join([type(part).__qualname__, *inner])


def samples(
    neighbourhood: Neighbourhood,
    x: Tensor,
    scores: Scores,
    n: int,
    seed: int,
    role: str,
    bar: tqdm | None = None,
    keeps_gradients: bool = False,
) -> "Iterator[Sample]":
    """The instances in batches that share a draw and fit into memory; every batch sees the same draw.

    One draw for one instance tells how large the batches may be, from shapes alone.
    """
    batches = getattr(neighbourhood, "batches", lambda x: [torch.arange(len(x))])(x)
    for batch in batches:
        one, first = _at(neighbourhood, x, batch[:1]), x[batch[:1]]
        whole = getattr(one, "whole_budget", False)
        probe = one.draw(first, n if whole else 2, generator(seed, neighbourhood, role, x))
        rows, d = (len(probe.weight.flatten()) if whole else n), probe.xi.shape[-1]
        if bar is not None:
            bar.total = rows * len(x)
        placed = one.place(first, probe.xi[..., :1, :])
        copies = placed.shape[2] if placed.ndim == x.ndim + 2 else 1
        numbers = scores.k * rows + 8 * scores.k * d + (d * d if probe.weight.ndim == 2 else 0)
        numbers += 4 * scores.k * rows * d if keeps_gradients else 0
        together = 1 if probe.xi.ndim == 3 else max(1, MEMORY // numbers)
        for instances in batch.to(x.device).split(together):
            here = _at(neighbourhood, x, instances)
            yield Sample(here, x[instances], instances, scores, n, (rows, d, copies), seed, role, bar)


def _at(neighbourhood: Neighbourhood, x: Tensor, instances: Tensor | slice) -> Neighbourhood:
    """The neighbourhood of some of the instances x."""
    at = getattr(neighbourhood, "at", None)
    return neighbourhood if at is None else at(x, instances)


class Sample:
    """The draw of one role (fitting, validating) for instances x that share it. Iterating again repeats the draw."""

    def __init__(
        self,
        neighbourhood: Neighbourhood,
        x: Tensor,  # the instances of this sample
        instances: Tensor,  # their places in the whole batch
        scores: Scores,
        n: int,
        shape: tuple[int, int, int],
        seed: int,
        role: str,
        bar: tqdm | None = None,
    ) -> None:
        self.neighbourhood, self.x, self.instances, self.scores = neighbourhood, x, instances, scores
        self.n, self.seed, self.role, self.bar = n, seed, role, bar
        self.k = scores.k
        rows, self.d, self.copies = shape  # of the draw, features, and inputs that the model is averaged over
        self.kept: list[Block] = []  # the whole draw if it is one block: the second pass need not repeat it
        self.keep_outputs = len(x) * scores.k * rows <= MEMORY

    def blocks(self) -> Iterator[Block]:
        if self.kept:
            yield from self.kept
            return
        blocks = self._blocks()
        first = next(blocks)
        yield first
        more = False
        for block in blocks:
            more = True
            yield block
        self.kept = [] if more else [first]

    def _blocks(self) -> Iterator[Block]:
        rng = generator(self.seed, self.neighbourhood, self.role, self.x)
        for draw in stream(self.neighbourhood, self.x, self.n, rng):
            if not isinstance(draw, Draw):
                raise TypeError(f"draw must return lx.Draw(xi, weight), got {type(draw).__name__}")
            xi = draw.xi[0] if draw.xi.ndim == 3 else draw.xi  # per instance: the batch is one instance
            weight = torch.atleast_2d(draw.weight).to(self.dtype)
            if _check(xi, weight, len(self.x)):
                exact = weight[0].isinf()
                if len(weight) > 1 and not bool((weight.isinf() == exact).all()):
                    raise ValueError(
                        "weight is inf for some instances and finite for others in the same row; draw xi per instance, "
                        "(b, n, d), instead"
                    )
                keep = (~exact).nonzero()[:, 0]
                coarse = None if draw.coarse is None else draw.coarse[keep][None]
                fixed = int((keep < draw.fixed).sum())
                yield Block(xi[keep], weight[:, keep], draw.unit, fixed, coarse, xi[exact])
            else:
                coarse = None if draw.coarse is None else draw.coarse[None]
                yield Block(xi, weight, draw.unit, draw.fixed, coarse, xi[:0])

    @property
    def dtype(self) -> torch.dtype:
        """Where systems are solved: float64, or float32 on devices without it."""
        return torch.float32 if self.x.device.type == "mps" else torch.float64

    def values(self, block: Block) -> tuple[Tensor, Tensor]:
        """The model at the block's rows to interpolate (b, k, e) and to fit (b, k, n)."""
        xi = torch.cat([block.exact, block.xi]) if len(block.exact) else block.xi
        y = None  # in the model's own precision, which may be more than x's
        for i, rows in self._chunks(len(xi), 1):
            place, x, instances = self._placing(i)
            some = xi[rows]
            part = self.scores.values(_one_each(place(x, some), some), instances)
            y = part.new_empty(len(self.x), self.k, len(xi)) if y is None else y
            y[i, :, rows] = part
        y = xi.new_empty(len(self.x), self.k, 0) if y is None else y
        return y[..., : len(block.exact)], y[..., len(block.exact) :]

    def gradients(self, block: Block, sink: GradientSink) -> tuple[Tensor, Tensor]:
        """As `values`; hands ∇_ξ of the rows to fit, (b, k, n, d) in chunks of instances × rows, to `sink`."""
        y = torch.empty(len(self.x), self.k, len(block.xi), dtype=self.dtype, device=self.x.device)
        at_exact = torch.empty(len(self.x), self.k, len(block.exact), dtype=self.dtype, device=self.x.device)
        for i, rows in self._chunks(len(block.xi), block.unit, block.fixed):
            place, x, instances = self._placing(i)
            xi = block.xi[rows].expand(len(x), -1, -1)
            y[i, :, rows], gradient = self.scores.gradients(lambda leaf: place(x, leaf), xi, instances)  # noqa: B023
            sink(i, rows, gradient)
        if len(block.exact):
            for i, rows in self._chunks(len(block.exact), 1):
                place, x, instances = self._placing(i)
                at_exact[i, :, rows] = self.scores.values(place(x, block.exact[rows]), instances)
        return at_exact, y

    def advice(self, rows: int) -> str:
        """What to do for an effective sample size of `rows`."""
        kernel = getattr(self.neighbourhood, "kernel", None)
        if kernel is None:
            return "draw more (n_samples), or widen the neighbourhood"
        if self.n < rows:
            return f"use n_samples ≥ {4 * rows}, and a wider kernel than width={kernel.width:g}"
        rng = generator(self.seed, self.neighbourhood, self.role, self.x)
        width = self.neighbourhood.workable_width(self.x, self.n, rng, rows)  # type: ignore[attr-defined]
        return f"width={kernel.width:g} is too narrow here: use width={width:.2g} or more"

    def _placing(self, i: slice) -> tuple[Callable[[Tensor, Tensor], Tensor], Tensor, Tensor]:
        here = _at(self.neighbourhood, self.x, i)
        return here.place, self.x[i], self.instances[i]

    def _chunks(self, n: int, unit: int, fixed: int = 0) -> Iterator[tuple[slice, slice]]:
        """Instances × rows for one model call each: whole units, `rows_per_call` rows or just under."""
        per_call = max(unit, self.scores.rows_per_call // self.copies)
        edges = [0] if fixed in (0, n) else [0, fixed]
        for first, last in zip(edges, [*edges[1:], n], strict=True):
            step = max(unit, min(per_call, last - first) // unit * unit)
            calls = math.ceil(len(self.x) / max(1, per_call // step))
            instances = math.ceil(len(self.x) / calls)  # as evenly as may be
            for i in range(0, len(self.x), instances):
                for j in range(first, last, step):
                    chunk = slice(i, min(i + instances, len(self.x))), slice(j, min(j + step, last))
                    yield chunk
                    if self.bar is not None:
                        self.bar.update((chunk[0].stop - i) * (chunk[1].stop - j))


def _one_each(placed: Tensor, xi: Tensor) -> Tensor:
    if placed.shape[1] != len(xi):
        raise ValueError(f"place must return an input for every row of ξ: {len(xi)} rows gave {placed.shape[1]}")
    return placed


def _check(xi: Tensor, weight: Tensor, b: int) -> bool:
    """The clauses of the contract of a draw that every block is held to; whether it has rows to interpolate."""
    if xi.ndim != 2 or weight.shape[-1] != len(xi) or len(weight) not in (1, b):
        raise ValueError(
            f"a draw needs xi (n, d) or (b, n, d) and weight (n,) or (b, n); got xi {tuple(xi.shape)} and weight "
            f"{tuple(weight.shape)} for {b} instances"
        )
    if weight.numel() == 0:
        return False
    least, most = weight.aminmax()
    if not bool(least >= 0):  # NaN too
        raise ValueError("a draw's weights must not be negative or NaN")
    return bool(most.isinf())

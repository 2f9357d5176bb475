"""What a neighbourhood is: two methods, and what it may say of itself besides.

Users write `draw` and `place`. Nothing else of a class of theirs is read unless it derives from `BaseNeighbourhood`,
which declares everything optional with what holds by default.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from locapprox._parts import alike, calling, close
from locapprox.neighbourhoods.draws import Draw, as_draw, block_size

NULL, NO_FEATURE = -1, -2  # places of features that have no entry of ξ, see `BaseNeighbourhood.without_nulls`


@runtime_checkable
class Neighbourhood(Protocol):
    """Where a surrogate is fitted. Shapes: x is (b, *input shape), xi is (n, d) for all instances or (b, n, d)."""

    def draw(self, x: Tensor, n: int, rng: torch.Generator) -> Draw:
        """At most n rows, from `rng` alone. Large n come in several calls, so rows of different calls are independent;
        a draw that must see all n at once (a quadrature, a stratified design) is a `BaseNeighbourhood` that says so."""
        ...

    def place(self, x: Tensor, xi: Tensor) -> Tensor:
        """The inputs x_ξ, (b, n, *input shape), differentiable in xi.

        A further axis after n, (b, n, m, *input shape), is a sample over which the model is averaged.
        """
        ...


class BaseNeighbourhood(ABC):
    """A neighbourhood that says more of itself than `draw` and `place`: derive from it and override what differs."""

    draws_at_once: bool = False  # whether `draw` must see its whole budget n in one call: rows then depend on n
    draws_a_share: bool = False  # whether fixed rows may be random: a share of those drawn without replacement
    interpolates: bool | None = (
        None  # whether rows have infinite weight; None: unknown, looked through where it matters
    )
    takes_missing: bool = False  # whether x may hold NaN or infinity
    spread: float | None = (
        None  # the least standard deviation of an entry of ξ: warned about where it drowns in round-off
    )
    shrinks: bool = False  # whether it stands for neighbourhoods that shrink to its one row (`Limit`)
    tol: float | None = None  # of nested rules: the error, as a share of the largest weight, at which an instance stops

    @property
    def kind(self) -> str:
        """What seeds the draw beside seed, role and d: neighbourhoods of one kind share their random numbers."""
        return type(self).__qualname__

    @abstractmethod
    def draw(self, x: Tensor, n: int, rng: torch.Generator) -> Draw:
        """See `Neighbourhood`."""

    @abstractmethod
    def place(self, x: Tensor, xi: Tensor) -> Tensor:
        """See `Neighbourhood`."""

    def blocks(self, x: Tensor, n: int, rng: torch.Generator) -> Iterator[Draw]:
        """The draw of n rows, in blocks whose size does not depend on `batch_size`."""
        size = n if self.draws_at_once else block_size(x[0].numel())
        for start in range(0, n, size):
            yield self.draw(x, min(size, n - start), rng)

    def drawn(self, x: Tensor, n: int, rng: torch.Generator) -> Iterator[Draw]:
        """`blocks`, held to the contract; what fails says whose it is."""
        with calling(f"{self.kind}.draw"):
            for draw in self.blocks(x, n, rng):
                yield self._checked(draw, x)

    def drawn_once(self, x: Tensor, n: int, rng: torch.Generator) -> Draw:
        """`draw`, in the same way."""
        with calling(f"{self.kind}.draw"):
            return self._checked(self.draw(x, n, rng), x)

    def placed(self, x: Tensor, xi: Tensor) -> Tensor:
        """`place`, held to the contract; what fails says whose it is."""
        with calling(f"{self.kind}.place"):
            placed = self.place(x, xi)
        if not isinstance(placed, Tensor):
            raise TypeError(f"{self.kind}.place must return a tensor, got {type(placed).__name__}")
        b, n, inputs = len(x), xi.shape[-2], tuple(x.shape[1:])
        if tuple(placed.shape) != (b, n, *inputs) and (tuple(placed.shape[:2]), *placed.shape[3:]) != ((b, n), *inputs):
            shape = ", ".join(map(str, inputs))
            raise ValueError(
                f"{self.kind}.place must return an input for every row of ξ, ({b}, {n}, {shape}), got "
                f"{tuple(placed.shape)}"
            )
        return placed

    def same_draw(self, x: Tensor) -> Hashable | None:
        """What the draw around instances like x is a function of, beside n, the seed and the role. None: not known."""
        return None

    def named(self, names: Sequence[str], index: pd.Index | None = None) -> "BaseNeighbourhood":
        """The neighbourhood with what it holds by name in the order of x's columns (and instances: x's index).

        Asked for before anything else if x is a DataFrame. Raises ValueError if its names are others.
        """
        return self

    def check(self, x: Tensor) -> None:
        """Raise ValueError or TypeError if the neighbourhood does not fit the instances x."""
        return

    def notice(self, x: Tensor, names: Sequence[str] | None) -> str | None:
        """A sentence to be said once where what nobody chose cannot be right for the instances x."""
        return None

    def settled(self, x: Tensor, n: int) -> "BaseNeighbourhood":
        """The neighbourhood with what it chooses for each of the instances x, and for n draws (a width)."""
        return self

    def ready(self, x: Tensor) -> "BaseNeighbourhood":
        """The neighbourhood of exactly the instances x, with what `place` needs of them worked out, on their device."""
        return self

    def settings(self) -> dict[str, list[Any]]:
        """What was chosen, by name, one for each instance: part of an explanation's settings."""
        return {}

    def without_nulls(self, x: Tensor) -> tuple["BaseNeighbourhood", Int[Tensor, "b d"] | None]:
        """The neighbourhood of x whose ξ has entries for the features that move an instance, and their places in it.

        A place is NULL for a null player, NO_FEATURE where an instance has fewer features than another. None: every
        feature keeps its entry.
        """
        return self, None

    def with_shared_xi(self, x: Tensor) -> tuple["BaseNeighbourhood", Float[Tensor, "b d"] | None]:
        """The neighbourhood of x in z = ξ − origin, which is drawn once for all instances, and their origins.

        For surrogates with an intercept: w · ξ + c is w · z + (c + w · origin). None: ξ as it is.
        """
        return self, None

    def batches(self, x: Tensor) -> list[Tensor]:
        """Indices of the instances that can share a draw."""
        return [torch.arange(len(x), device=x.device)]

    def at(self, x: Tensor, instances: Tensor | slice) -> "BaseNeighbourhood":
        """The neighbourhood of some of the instances x: itself, unless it holds something for each of them."""
        return self

    def joined(self, x: Tensor, others: Sequence["BaseNeighbourhood"]) -> "BaseNeighbourhood":
        """One neighbourhood of the instances of several, in their order: the inverse of `at`; x are those of one."""
        if all(alike(self, other) for other in others):
            return self
        raise ValueError("explanations on different neighbourhoods cannot be joined")

    def per_entry(self, x: Tensor, d: int) -> bool:
        """Whether the d entries of ξ are the entries of an input, so that weights have its shape."""
        return d == x.shape[1:].numel()

    def shares_features(self, x: Tensor) -> bool:
        """Whether the jth entry of ξ is the same feature of every instance."""
        return True

    def on_input(self, x: Tensor, weights: Float[Tensor, "b k d"]) -> Tensor:
        """Each feature's weight on all its entries: (b, k, *input shape)."""
        if not self.per_entry(x, weights.shape[-1]):
            raise ValueError(f"{self.kind} does not say how its ξ lie on the input (on_input)")
        return weights.reshape(*weights.shape[:2], *x.shape[1:])

    def from_input(self, x: Tensor, maps: Tensor) -> Float[Tensor, "b d"]:
        """The inverse of `on_input` for maps laid out like x."""
        return maps.flatten(1)

    def to_input(self, x: Tensor, weights: Float[Tensor, "b k d"]) -> tuple[Tensor, Tensor]:
        """Slopes s (b, k, *input shape) and origin o with w · ξ = s · (x_ξ − o); see `Explanation.predict`.

        By default for any placement x_ξ = o + Jᵀξ that is affine in ξ: the least-norm s with J s = w.
        """
        d = weights.shape[-1]
        with x.device:
            one = torch.eye(d, dtype=x.dtype, device=x.device)
        points = torch.cat([0 * one[:1], one, torch.linspace(-1, 1, d, dtype=x.dtype, device=x.device)[None]])
        slopes, origins = [], []
        for i in range(len(x)):
            placed = self.placed(x[i : i + 1], points)[0].to(weights.dtype)
            placed = placed.mean(1) if placed.ndim > x.ndim else placed
            origin, jacobian = placed[0], (placed[1:-1] - placed[0]).flatten(1)
            last = origin.flatten() + points[-1].to(jacobian) @ jacobian
            if not torch.allclose(placed[-1].flatten(), last, atol=1e-4):
                raise ValueError("place is not affine in ξ, so the surrogate is no linear function of the input")
            slopes.append((torch.linalg.pinv(jacobian) @ weights[i].mT).mT.reshape(-1, *x.shape[1:]))
            origins.append(origin)
        return torch.stack(slopes), torch.stack(origins)

    def steps(self, x: Tensor, d: int) -> tuple[Tensor, Tensor] | None:
        """How far a unit of ξ moves every entry of an input, and which of the d ξ does: both (b, entries), for a
        placement x_ξ = o + step ⊙ ξ[label]. None for others.

        A weight divided by its steps is a slope on the input: there is none where they are 0, and its error is as many
        times larger as they are small. By default one ξ per entry, as `place` has it.
        """
        if d != x[0].numel():
            return None
        with x.device:
            line = torch.linspace(-1, 1, d, dtype=x.dtype, device=x.device)
        placed = self.placed(x, torch.stack([0 * line, 0 * line + 1, line]))
        at_zero, at_one, on_line = (placed.mean(2) if placed.ndim > x.ndim + 1 else placed).flatten(2).unbind(1)
        if not close(at_zero + (at_one - at_zero) * line, on_line):
            return None
        return at_one - at_zero, torch.arange(d, device=x.device).expand(len(x), -1)

    def same_placement(self, other: "BaseNeighbourhood") -> bool:
        """Whether both put the same ξ at the same input, so that weights carry over as they are."""
        return self is other

    def advice(self, x: Tensor, n: int, rng: torch.Generator, rows: int) -> str:
        """What to do for n draws to have an effective sample size of `rows`."""
        return "draw more (n_samples), or widen the neighbourhood"

    def _checked(self, given: Any, x: Tensor) -> Draw:
        draw = as_draw(given, self.kind)
        draw.check(len(x))
        return draw


@dataclass(frozen=True, eq=False, repr=False)
class Described(BaseNeighbourhood):
    """A class of a user's with the defaults of `BaseNeighbourhood`; only its `draw` and `place` are read."""

    own: Neighbourhood

    @property
    def kind(self) -> str:
        return type(self.own).__qualname__

    def draw(self, x: Tensor, n: int, rng: torch.Generator) -> Any:  # `drawn` and `placed` look at what they give
        return self.own.draw(x, n, rng)

    def place(self, x: Tensor, xi: Tensor) -> Any:
        return self.own.place(x, xi)

    def same_placement(self, other: BaseNeighbourhood) -> bool:
        return isinstance(other, Described) and self.own is other.own

    def joined(self, x: Tensor, others: Sequence[BaseNeighbourhood]) -> BaseNeighbourhood:
        if all(self.same_placement(other) for other in others):
            return self
        raise ValueError("explanations on different neighbourhoods cannot be joined")


def described(neighbourhood: Any) -> BaseNeighbourhood:
    """The neighbourhood itself if it derives from `BaseNeighbourhood`, else one that wraps it."""
    if isinstance(neighbourhood, BaseNeighbourhood):
        return neighbourhood
    missing = [part for part in ("draw", "place") if not callable(getattr(neighbourhood, part, None))]
    if isinstance(neighbourhood, type) or missing:
        raise TypeError(
            f"neighbourhood must have draw and place; {neighbourhood!r} lacks {' and '.join(missing) or 'an instance'}"
        )
    return Described(neighbourhood)

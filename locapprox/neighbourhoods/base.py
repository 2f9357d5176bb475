"""What a neighbourhood is: two methods, and what it may say of itself besides.

Users write `draw` and `place`. Nothing else of a class of theirs is read unless it derives from `BaseNeighbourhood`,
which declares everything optional with what holds by default.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from locapprox._parts import alike


@dataclass(frozen=True, eq=False)
class Draw:
    """Perturbations and their weights.

    `weight` is (n,), or (b, n) if it depends on the instance; inf means "the surrogate must interpolate this point".
    Rows are independent unless said otherwise: after the first `n_fixed` rows, which are not random (enumerated, or
    nodes of a quadrature), every `unit_size` consecutive rows were drawn together (2 for complementary pairs).
    `coarse_weight` are weights of a coarser quadrature on the same nodes; the difference is the reported error.
    """

    xi: Float[Tensor, "*b n d"]
    weight: Float[Tensor, "*g n"]
    unit_size: int = 1
    n_fixed: int = 0
    coarse_weight: Float[Tensor, " n"] | None = None


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
    interpolates: bool | None = (
        None  # whether rows have infinite weight; None: unknown, looked through where it matters
    )
    takes_missing: bool = False  # whether x may hold NaN or infinity
    spread: float | None = (
        None  # the least standard deviation of an entry of ξ: warned about where it drowns in round-off
    )

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

    def check(self, x: Tensor) -> None:
        """Raise ValueError or TypeError if the neighbourhood does not fit the instances x."""
        return

    def batches(self, x: Tensor) -> list[Tensor]:
        """Indices of the instances that can share a draw."""
        return [torch.arange(len(x))]

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
        return d == x[0].numel()

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
        points = torch.cat([torch.zeros(1, d), torch.eye(d), torch.linspace(-1, 1, d)[None]]).to(x)
        slopes, origins = [], []
        for i in range(len(x)):
            placed = self.place(x[i : i + 1], points)[0].to(weights.dtype)
            placed = placed.mean(1) if placed.ndim > x.ndim else placed
            origin, jacobian = placed[0], (placed[1:-1] - placed[0]).flatten(1)
            last = origin.flatten() + points[-1].to(jacobian) @ jacobian
            if not torch.allclose(placed[-1].flatten(), last, atol=1e-4):
                raise ValueError("place is not affine in ξ, so the surrogate is no linear function of the input")
            slopes.append((torch.linalg.pinv(jacobian) @ weights[i].mT).mT.reshape(-1, *x.shape[1:]))
            origins.append(origin)
        return torch.stack(slopes), torch.stack(origins)

    def same_placement(self, other: "BaseNeighbourhood") -> bool:
        """Whether both put the same ξ at the same input, so that weights carry over as they are."""
        return self is other

    def advice(self, x: Tensor, n: int, rng: torch.Generator, rows: int) -> str:
        """What to do for n draws to have an effective sample size of `rows`."""
        return "draw more (n_samples), or widen the neighbourhood"


@dataclass(frozen=True, eq=False, repr=False)
class Described(BaseNeighbourhood):
    """A class of a user's with the defaults of `BaseNeighbourhood`; only its `draw` and `place` are read."""

    own: Neighbourhood

    @property
    def kind(self) -> str:
        return type(self.own).__qualname__

    def draw(self, x: Tensor, n: int, rng: torch.Generator) -> Draw:
        return self.own.draw(x, n, rng)

    def place(self, x: Tensor, xi: Tensor) -> Tensor:
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


def block_size(d: int) -> int:
    """Draws that are held at once: a function of d alone, so that no result depends on `batch_size`."""
    return max(2, min(1024, 2**22 // d) // 2 * 2)

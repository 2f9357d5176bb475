"""What every placement shares: blocks come from the distribution, weights and widths from the kernel."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from locapprox._parts import OURS, Concise, value_of
from locapprox.neighbourhoods.base import BaseNeighbourhood
from locapprox.neighbourhoods.distributions import BaseDistribution, Distribution, described_distribution
from locapprox.neighbourhoods.draws import Draw, as_draw, block_size
from locapprox.neighbourhoods.kernels import ExponentialKernel, widths_of_draw, widths_of_fair_masks
from locapprox.neighbourhoods.masks import AllCoalitions, FairMasks

Own = TypeVar("Own", bound="Placement")

AT_ONCE = 2**22  # numbers of the instances whose widths are chosen together


class Placement(Concise, BaseNeighbourhood):
    """What the two placements share: blocks come from the distribution, weights from the kernel."""

    distribution: Distribution
    kernel: ExponentialKernel | None
    _draws: BaseDistribution

    def __post_init__(self) -> None:
        draws = described_distribution(self.distribution)
        object.__setattr__(self, "_draws", draws)
        for name in ("draws_at_once", "draws_a_share", "interpolates", "spread", "shrinks"):
            object.__setattr__(self, name, getattr(draws, name))
        if self.kernel is not None and not isinstance(self.kernel, ExponentialKernel):
            raise TypeError(f"kernel must be None or lx.ExponentialKernel(…), got {self.kernel!r}")
        object.__setattr__(self, "tol", draws.tol if self.kernel is None else None)

    @property
    def kind(self) -> str:
        return f"{type(self).__qualname__}/{self._draws.kind}"

    def draw(self, x: Tensor, n: int, rng: torch.Generator) -> Draw:
        return self._weigh(x, self._draws.draw(self._dimension(x), n, rng, x.dtype))

    def blocks(self, x: Tensor, n: int, rng: torch.Generator) -> Iterator[Draw]:
        yield from (self._weigh(x, draw) for draw in self._draws.blocks(self._dimension(x), n, rng, x.dtype))

    def same_draw(self, x: Tensor) -> Hashable | None:
        value = value_of(self._draws)
        if value is None or self.kernel is not None or not type(self).__module__.startswith(OURS):
            return None
        return type(self), value, self._dimension(x), self._copies(x), x.shape[1:].numel(), x.dtype, x.device

    def settled(self: Own, x: Tensor, n: int) -> Own:
        if self.kernel is None or self.kernel.width is not None:
            return self
        return self._of(replace(self.kernel, chosen=self._widths(x, n)))

    def settings(self) -> dict[str, list[Any]]:
        chosen = None if self.kernel is None else self.kernel.chosen
        return {} if chosen is None else {"width": chosen.tolist()}

    def at(self: Own, x: Tensor, instances: Tensor | slice) -> Own:
        return self._of(None if self.kernel is None else self.kernel.at(instances))

    def advice(self, x: Tensor, n: int, rng: torch.Generator, rows: int) -> str:
        if self.kernel is None:
            return super().advice(x, n, rng, rows)
        rows = max(rows, 2 * self._dimension(x) + 2)
        more = 4 * rows if n <= rows else None
        enough = replace(self.kernel, share=max(self.kernel.share, rows / (more or n)))
        return self.kernel.advice(self._of(enough)._widths(x, more or n, rng), more)

    def _of(self: Own, kernel: ExponentialKernel | None) -> Own:
        """The same with another kernel."""
        return self if kernel is self.kernel else replace(self, kernel=kernel)  # type: ignore[type-var]

    def _kernels(self, others: Sequence[BaseNeighbourhood]) -> ExponentialKernel | None:
        """That of all instances, if the others have a like one: theirs is chosen for other instances."""
        kernels = [other.kernel for other in others if isinstance(other, Placement) and other.kernel is not None]
        return None if self.kernel is None else self.kernel.joined(kernels)

    def _widths(self, x: Tensor, n: int | None, rng: torch.Generator | None = None) -> Tensor:
        """Those that the kernel chooses for the instances: by a closed form, or by one draw, the same for all."""
        assert self.kernel is not None
        share, fair = self.kernel.share, isinstance(self._draws, FairMasks | AllCoalitions)
        d, parts = self._dimension(x), []
        rng = torch.Generator(x.device).manual_seed(0) if rng is None else rng
        rows = min(n or block_size(d), block_size(d))
        draw = None if fair else as_draw(self._draws.draw(d, rows, rng, x.dtype), self._draws.kind)
        for i in range(0, len(x), step := max(1, AT_ONCE // x[0].numel())):
            some = slice(i, i + step)
            here, part = self.at(x, some), x[some]
            if draw is None:
                parts.append(widths_of_fair_masks(here._gap(part), share, n))
            else:
                distance = here._squared_distance(part, draw.xi.double())
                parts.append(widths_of_draw(draw, torch.atleast_2d(distance), share, n).expand(len(part)))
        return torch.cat(parts)

    def _weigh(self, x: Tensor, given: Any) -> Draw:
        name, d = self._draws.kind, self._dimension(x)
        draw = as_draw(given, name)
        if draw.xi.shape[-1] != d:
            raise ValueError(f"{name}.draw gave xi with {draw.xi.shape[-1]} columns for {d} features")
        if draw.xi.dtype != x.dtype:
            raise ValueError(f"{name}.draw gave xi of {draw.xi.dtype}, asked for {x.dtype}")
        if self.kernel is None:
            return draw
        choose = self.kernel.width is None and self.kernel.chosen is None
        kernel = replace(self.kernel, chosen=self._widths(x, None)) if choose else self.kernel
        return kernel.apply(draw, self._squared_distance(x, draw.xi.double()))

    def _dimension(self, x: Tensor) -> int:
        return x[0].numel()

    def _copies(self, x: Tensor) -> int:
        """Inputs that the model is averaged over."""
        return 1

    def _gap(self, x: Tensor) -> Tensor:
        """What a step of 1 in every feature adds to ‖x₀ − x_ξ‖² of every instance, (b, d)."""
        raise NotImplementedError

    def _squared_distance(self, x: Tensor, xi: Tensor) -> Tensor:
        """‖x₀ − x_ξ‖² of every instance and row, (b, n), or (n,) if it is the same for all."""
        raise NotImplementedError

"""Whether a model answers every row alone, and the same each time: asked once, on rows that are explained anyway."""

import math
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from locapprox.models.calls import keeps_rows_apart

_passed: "weakref.WeakSet[nn.Module]" = weakref.WeakSet()

LOOKED_AT = 16  # rows of a call, to choose from
ENOUGH = 40  # rows of a module that one is worth four more: a tenth


class Seen(NamedTuple):
    """Some rows of a call as they were before it, their places among its rows, and what came of them."""

    rows: Tensor
    instances: Int[Tensor, " r"]
    places: Int[Tensor, " r"]
    random: bytes
    scores: Tensor | None = None


class Alone:
    """One row of the first call is asked about again, in another call and among others.

    Of a function at once. A module is in evaluation mode, so it is asked when a tenth of its rows pays for it, or if it
    draws random numbers: a gradient at one large image costs no second forward pass. The estimators of scikit-learn are
    held to it by its own tests. A module that passed is asked again only if it draws random numbers.
    """

    def __init__(self, model: Any, rows_per_call: int) -> None:
        self.module = model if isinstance(model, nn.Module) else None
        self.known = not self.patient and keeps_rows_apart(model)
        self.room, self.asked = rows_per_call, 0

    @property
    def patient(self) -> bool:
        return self.module is not None

    def before(self, rows: Tensor, instances: Int[Tensor, " b"]) -> Seen | None:
        """What is to be kept of the rows of a call, which a model may overwrite."""
        if self.known:
            return None
        places = torch.arange(0, len(rows), math.ceil(len(rows) / LOOKED_AT), device=rows.device)
        of = instances[places // (len(rows) // len(instances))]
        return Seen(rows.detach()[places], of, places, _random_state(rows.device) if self.patient else b"")

    def due(self, seen: Seen | None, scores: Float[Tensor, "n k"]) -> Seen | None:
        """Up to three of them with copies of their scores; None if nothing need be asked again."""
        if seen is None or self.known:
            return None
        self.asked += len(scores)
        if self.patient and seen.random == _random_state(scores.device):
            self.known = self.module in _passed
            if self.known or self.asked < ENOUGH:
                return None
        full = (seen.rows != 0).flatten(1).sum(1).argsort(descending=True, stable=True)[:3]  # dropout of 0 is 0
        scores = scores.detach()[seen.places[full]]
        return Seen(seen.rows[full], seen.instances[full], seen.places[full], seen.random, scores)

    def ask(self, seen: Seen, scores_of: Callable[[Tensor, Tensor], Tensor]) -> None:
        """Raise ValueError if the scores of one of the rows, a function of rows and their instances, now differ."""
        self.known, first = True, seen.scores
        assert first is not None
        middle = first.sum(1).argsort()[(len(first) - 1) // 2]  # so that neither extreme comes again
        rows, places = self._among_neighbours(seen.rows, int(middle))
        among = len(rows) > 1
        with torch.no_grad():
            try:
                found = scores_of(rows, seen.instances[middle].expand(len(rows)))
            except (ValueError, MemoryError):  # it need not know rows that nobody asked about
                among, middle, places = (
                    False,
                    torch.arange(len(first), device=first.device).flip(0),
                    list(range(len(first))),
                )
                found = scores_of(seen.rows[middle], seen.instances[middle])
        size = torch.cat([first, found]).abs().amax(0)
        share = 1e-3 if first.device.type == "cpu" and first.dtype.itemsize >= 4 else 1e-2
        if bool(((found[places] - first[middle]).abs() > share * size + 16 * torch.finfo(first.dtype).eps).any()):
            raise ValueError(
                "the model's output for a row changes from call to call or with the rows beside it (dropout left on, "
                "batch statistics, sorting?): explain a module itself, or call its .eval(); a function must answer "
                "every row alone"
            )
        if self.module is not None and among:
            _passed.add(self.module)

    def _among_neighbours(self, x: Tensor, i: int) -> tuple[Tensor, list[int]]:
        """Row i several times around two neighbours, and where it stands among them.

        They are 1 and 2 % away, every other entry the other way; whole numbers, which may be codes, come from other
        rows instead.
        """
        one, step = x[i], x[i] / 100
        step = torch.where(torch.arange(one.numel(), device=x.device).reshape(one.shape) % 2 == 0, step, -step)
        whole = one == one.round()
        low, high = torch.where(whole, x[0], one - 2 * step), torch.where(whole, x[-1], one + step)
        if self.room >= 8 and not self.patient:
            return torch.stack([one, low, one, one, one, one, high, one]), [0, 2, 3, 4, 5, 7]
        return torch.stack([one, low, high, one] if self.room >= 4 else [one]), [0, -1]


def _random_state(device: torch.device) -> bytes:
    """Of torch's random numbers on the device."""
    where = torch if device.type == "cpu" else torch.get_device_module(device)
    return bytes(where.get_rng_state().numpy().tobytes())

"""What neighbourhoods and distributions must do, checked: the spirit of scikit-learn's check_estimator."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from locapprox._names import index_of, names_of
from locapprox._parts import close, is_builtin
from locapprox.models.inputs import Array, as_tensor
from locapprox.neighbourhoods.base import BaseNeighbourhood, Neighbourhood, described
from locapprox.neighbourhoods.distributions import Distribution, described_distribution
from locapprox.neighbourhoods.draws import Draw
from locapprox.neighbourhoods.placements import Additive


class ContractError(ValueError):
    """A part breaks its contract; the message names the first clause."""


def check_neighbourhood(neighbourhood: Neighbourhood, x: Array, n: int = 64) -> None:
    """Raise ValueError naming the first clause of the contract that the neighbourhood breaks on the instances x.

    A draw has xi (n, d) or (b, n, d) and weight (n,) or (b, n), not negative, not all zero; at most n rows unless they
    are fixed, and those do not change with the seed. It is a function of its generator alone: the same again for the
    same seed, fresh rows from one call to the next (unless `draws_at_once` or fixed), the same for one instance as for
    that instance in a batch; global random state, x and ξ stay as they were. `place` gives (b, n, *input shape), the
    same for ξ (n, d) and (b, n, d), row by row and instance by instance, and is differentiable in ξ.

    `explain` asks the same of every part that is not the library's own, on two instances and a few rows, but for what
    few rows cannot show (that weights do not shrink as n grows).
    """
    inputs = as_tensor(x, None)
    require(inputs.ndim >= 2 and inputs.numel() > 0, "x needs a batch axis and at least one instance")
    for part in ("draw", "place"):
        require(callable(getattr(neighbourhood, part, None)), f"a neighbourhood needs a method {part}")
    where, names = described(neighbourhood), names_of(x)
    where = where if names is None else where.named(names, index_of(x))
    where.check(inputs)
    with _broken():
        for batch in where.batches(inputs):
            here, some = where.at(inputs, batch), inputs[batch]
            draw = _hold(here, some, n)
            possible = (draw.weight.reshape(-1, draw.xi.shape[-2]) > 0).any(-1).all()
            require(possible, "the weights of an instance must not all be zero")
            _check_scale(here, draw, some, n)
            placed = here.placed(some, draw.xi.detach().clone().requires_grad_())
            require(placed.requires_grad, "place must be differentiable in ξ (use tensor operations on xi)")


def probe(neighbourhood: BaseNeighbourhood, x: Tensor, n: int) -> None:
    """Hold a neighbourhood of a user's to its contract before anything is computed with it; no model is asked."""
    if is_builtin(neighbourhood):
        return
    with _broken(neighbourhood.kind):
        batch = neighbourhood.batches(x)[0][:2]
        rows = n if neighbourhood.draws_at_once else min(n, PROBED)
        _hold(neighbourhood.at(x, batch), x[batch.to(x.device)], rows)


PROBED = 16  # rows


def _hold(where: BaseNeighbourhood, x: Tensor, n: int) -> Draw:
    """Raise for the first clause that x shows broken; the draw that was looked at."""
    kept, before = x.clone(), global_state()
    draw = _drawn(where, x, n, seed=0)
    _check_draw(where, draw, x, n)
    _check_same(x, kept, "draw must not change x")
    _check_randomness(where, draw, x, n)
    _check_place(where, draw, x)
    require(global_state() == before, "draw must use the generator it is given, not the global random state")
    return draw


@contextmanager
def _broken(name: str = "", what: str = "neighbourhood") -> Iterator[None]:
    """What a part raises, too, is a clause that it breaks."""
    try:
        yield
    except ContractError as error:
        raise ContractError(str(error).replace("the neighbourhood", f"the {what} {name}".rstrip())) from None
    except (TypeError, ValueError) as error:
        require(False, str(error), f"{what} {name}".rstrip())


def check_distribution(distribution: Distribution, d: int = 5, n: int = 64) -> None:
    """Raise ValueError naming the first clause of the contract that the distribution breaks for inputs of d entries.

    The clauses are those of a neighbourhood's draw (see `check_neighbourhood`), shared by all instances, of the dtype
    that is asked for.
    """
    require(callable(getattr(distribution, "draw", None)), "a distribution needs a method draw", "distribution")
    draws, before = described_distribution(distribution), global_state()
    for dtype in (torch.float32, torch.float64):
        x = torch.zeros(2, d, dtype=dtype, device="cpu")
        given = draws.draw(d, n, torch.Generator("cpu").manual_seed(0), dtype)
        where = Additive(draws)
        with _broken(what="distribution"):
            _check_draw(where, given, x, n)
            require(given.xi.ndim == 2 and given.weight.ndim == 1, "a distribution draws xi (n, d) and weight (n,)")
            require(given.xi.shape[1] == d, f"xi must have d = {d} columns, got {given.xi.shape[1]}")
            require(given.xi.dtype == dtype, f"xi must have the dtype {dtype}, got {given.xi.dtype}")
            _check_randomness(where, given, x, n)
            require(global_state() == before, "draw must use the generator it is given, not the global random state")


def require(condition: Any, clause: str, what: str = "neighbourhood") -> None:
    """Raise ContractError with the clause unless the condition holds."""
    if not bool(condition):
        raise ContractError(f"the {what} breaks its contract: {clause}")


def global_state() -> tuple[Any, ...]:
    """Of torch's and numpy's random numbers."""
    return torch.get_rng_state().numpy().tobytes(), repr(np.random.get_state())  # noqa: NPY002


def _drawn(where: BaseNeighbourhood, x: Tensor, n: int, seed: int) -> Draw:
    return where.drawn_once(x, n, torch.Generator(x.device).manual_seed(seed))


def _check_same(part: Tensor, before: Tensor, clause: str) -> None:
    require(torch.equal(part.nan_to_num(), before.nan_to_num()), clause)


def _check_draw(where: BaseNeighbourhood, draw: Draw, x: Tensor, n: int) -> None:
    rows = draw.weight.shape[-1]
    fits = rows <= n or where.draws_at_once or draw.n_fixed == rows
    require(fits, f"draw was asked for {n} rows and gave {rows}")
    require(draw.xi.device == x.device, f"xi is on {draw.xi.device}, x on {x.device}")
    if where.interpolates is not None:
        found = bool(draw.weight.isinf().any())
        require(where.interpolates or not found, "interpolates = False, but a weight is infinite")


def _check_randomness(where: BaseNeighbourhood, draw: Draw, x: Tensor, n: int) -> None:
    again, fixed = _drawn(where, x, n, seed=0), draw.n_fixed
    same = torch.equal(again.xi, draw.xi) and torch.equal(again.weight, draw.weight)
    require(same, "the same generator seed must give the same draw (draw from `rng`)")
    alone = _drawn(where.at(x, slice(-1, None)), x[-1:], n, seed=0)
    if draw.xi.ndim == 2:
        agrees = close(alone.xi, draw.xi)
        require(agrees, "a draw (n, d) shared by all instances must not depend on x; give (b, n, d) if it does")
    if fixed and not (where.draws_a_share and fixed < draw.weight.shape[-1]):
        other = _drawn(where, x, n, seed=1).xi[..., :fixed, :]
        require(torch.equal(other, draw.xi[..., :fixed, :]), f"n_fixed={fixed} rows must not change with the seed")
    if fixed < draw.weight.shape[-1] and not where.draws_at_once:
        rng = torch.Generator(x.device).manual_seed(0)
        one, before = where.drawn_once(x, n, rng).xi, rng.get_state()
        two = where.drawn_once(x, n, rng).xi
        fresh = one.shape != two.shape or not torch.equal(one, two) or not torch.equal(before, rng.get_state())
        require(fresh, f"a second draw from one generator must be fresh; {WHOLE}")


def _check_scale(where: BaseNeighbourhood, draw: Draw, x: Tensor, n: int) -> None:
    """Blocks that are draws must add up."""
    if where.draws_at_once or type(where).blocks is not BaseNeighbourhood.blocks:
        return
    require(draw.n_fixed in (0, draw.xi.shape[-2]), f"a draw that is partly fixed must see its whole budget; {WHOLE}")
    finite = draw.weight[draw.weight.isfinite()]
    more = _drawn(where, x, 4 * n, seed=0).weight
    ratio = float(more[more.isfinite()].double().mean() / finite.double().mean()) if finite.numel() else 1.0
    require(not 0.2 < ratio < 0.3, f"weights must not shrink as n grows (no 1/n); {WHOLE}")


WHOLE = "or derive from lx.BaseNeighbourhood and say draws_at_once = True"


def _check_place(where: BaseNeighbourhood, draw: Draw, x: Tensor) -> None:
    """On a few rows: the same for ξ (n, d) and (b, n, d), instance by instance and row by row; ξ is left alone."""
    xi = draw.xi[..., :FEW, :].clone()
    before = xi.clone(), x.clone()
    whole = where.placed(x, xi)
    _check_same(xi, before[0], "place must not change ξ")
    _check_same(x, before[1], "place must not change x")
    require(whole.dtype == x.dtype, f"place must keep x's dtype {x.dtype}, got {whole.dtype}")
    other = where.placed(x, xi.expand(len(x), -1, -1)) if xi.ndim == 2 else whole
    require(close(other, whole), "place must give the same for ξ (n, d) and (b, n, d)")
    for i in (0, len(x) - 1):
        one = slice(i, i + 1)
        alone = where.at(x, one).placed(x[one], xi[i] if xi.ndim == 3 else xi)
        require(close(alone, whole[one]), "place must not mix instances")
    row = where.placed(x, xi[..., -1:, :])
    require(close(row, whole[:, -1:]), "place must not mix rows of ξ")


FEW = 4

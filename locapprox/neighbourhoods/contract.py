"""What neighbourhoods and distributions must do, checked: the spirit of scikit-learn's check_estimator."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from locapprox.models.inputs import Array, as_tensor
from locapprox.neighbourhoods.base import BaseNeighbourhood, Draw, Neighbourhood, described
from locapprox.neighbourhoods.distributions import Distribution, described_distribution
from locapprox.neighbourhoods.placements import Additive


class ContractError(ValueError):
    """A part breaks its contract; the message names the first clause."""


def check_neighbourhood(neighbourhood: Neighbourhood, x: Array, n: int = 64) -> None:
    """Raise ValueError naming the first clause of the contract that the neighbourhood breaks on the instances x.

    A draw has xi (n, d) or (b, n, d) and weight (n,) or (b, n), not negative, not all zero; at most n rows unless they
    are fixed. It is a function of its generator alone: the same again for the same seed, fresh rows from one call to
    the next (unless `draws_at_once` or fixed), the same for one instance as for that instance in a batch; global random
    state and x stay as they were. `place` gives (b, n, *input shape), row by row and instance by instance, and is
    differentiable in ξ.
    """
    inputs = as_tensor(x, None)
    require(inputs.ndim >= 2 and inputs.numel() > 0, "x needs a batch axis and at least one instance")
    for part in ("draw", "place"):
        require(callable(getattr(neighbourhood, part, None)), f"a neighbourhood needs a method {part}")
    where = described(neighbourhood)
    where.check(inputs)
    before = global_state()
    for batch in where.batches(inputs):
        here, some, kept = where.at(inputs, batch), inputs[batch], inputs[batch]
        draw = _drawn(here, some, n, seed=0)
        _check_draw(here, draw, some, n)
        _check_randomness(here, draw, some, n)
        _check_place(here, draw, some)
        require(torch.equal(some.nan_to_num(), kept.nan_to_num()), "draw and place must not change x")
    require(global_state() == before, "draw must use the generator it is given, not the global random state")


def check_distribution(distribution: Distribution, d: int = 5, n: int = 64) -> None:
    """Raise ValueError naming the first clause of the contract that the distribution breaks for inputs of d entries.

    The clauses are those of a neighbourhood's draw (see `check_neighbourhood`), shared by all instances, of the dtype
    that is asked for.
    """
    require(callable(getattr(distribution, "draw", None)), "a distribution needs a method draw", "distribution")
    draws, before = described_distribution(distribution), global_state()
    for dtype in (torch.float32, torch.float64):
        x = torch.zeros(2, d, dtype=dtype)
        given = draws.draw(d, n, torch.Generator().manual_seed(0), dtype)
        where = Additive(draws)
        try:
            _check_draw(where, given, x, n)
            require(given.xi.ndim == 2 and given.weight.ndim == 1, "a distribution draws xi (n, d) and weight (n,)")
            require(given.xi.shape[1] == d, f"xi must have d = {d} columns, got {given.xi.shape[1]}")
            require(given.xi.dtype == dtype, f"xi must have the dtype {dtype}, got {given.xi.dtype}")
            _check_randomness(where, given, x, n)
            require(global_state() == before, "draw must use the generator it is given, not the global random state")
        except ContractError as error:
            raise ContractError(str(error).replace("neighbourhood", "distribution")) from None


def require(condition: Any, clause: str, what: str = "neighbourhood") -> None:
    """Raise ContractError with the clause unless the condition holds."""
    if not bool(condition):
        raise ContractError(f"the {what} breaks its contract: {clause}")


def global_state() -> tuple[Any, ...]:
    """Of torch's and numpy's random numbers."""
    return torch.get_rng_state().numpy().tobytes(), repr(np.random.get_state())  # noqa: NPY002


def _drawn(where: BaseNeighbourhood, x: Tensor, n: int, seed: int) -> Draw:
    return where.draw(x, n, torch.Generator(x.device).manual_seed(seed))


def _check_draw(where: BaseNeighbourhood, draw: Any, x: Tensor, n: int) -> None:
    require(isinstance(draw, Draw), f"draw must return a Draw(xi, weight), got {type(draw).__name__}")
    b, xi, weight = len(x), draw.xi, draw.weight
    require(isinstance(xi, Tensor) and isinstance(weight, Tensor), "xi and weight must be tensors")
    require(xi.ndim in (2, 3), f"xi must be (n, d) or (b, n, d), got shape {tuple(xi.shape)}")
    require(xi.ndim == 2 or len(xi) == b, f"xi has {len(xi)} instances, x has {b}")
    rows = xi.shape[-2]
    shapes = ((rows,), (b, rows))
    require(tuple(weight.shape) in shapes, f"weight must be {shapes[0]} or {shapes[1]}, got {tuple(weight.shape)}")
    require(xi.is_floating_point() and torch.isfinite(xi).all(), "xi must be finite floating numbers")
    require(not weight.isnan().any() and (weight >= 0).all(), "weights must not be negative or NaN")
    require((weight.reshape(-1, rows) > 0).any(-1).all(), "the weights of an instance must not all be zero")
    fits = rows <= n or where.draws_at_once or draw.n_fixed == rows
    require(fits, f"draw was asked for {n} rows and gave {rows}")
    whole = (rows - draw.n_fixed) % draw.unit_size == 0
    require(whole, f"rows after the fixed ones must come in units of {draw.unit_size}")
    require(xi.device == x.device, f"xi is on {xi.device}, x on {x.device}")
    if where.interpolates is not None:
        found = bool(weight.isinf().any())
        require(where.interpolates or not found, "interpolates = False, but a weight is infinite")


def _check_randomness(where: BaseNeighbourhood, draw: Draw, x: Tensor, n: int) -> None:
    again = _drawn(where, x, n, seed=0)
    same = torch.equal(again.xi, draw.xi) and torch.equal(again.weight, draw.weight)
    require(same, "the same generator seed must give the same draw (draw from `rng`)")
    alone = _drawn(where.at(x, slice(0, 1)), x[:1], n, seed=0)
    first = draw.xi[:1] if draw.xi.ndim == 3 else draw.xi
    agrees = alone.xi.shape == first.shape and torch.allclose(alone.xi, first, equal_nan=True)
    if draw.xi.ndim == 2:
        require(agrees, "a draw (n, d) shared by all instances must not depend on x; give (b, n, d) if it does")
    if where.draws_at_once:
        return
    if draw.n_fixed < draw.xi.shape[-2]:
        rng = torch.Generator(x.device).manual_seed(0)
        one, two = where.draw(x, n, rng).xi, where.draw(x, n, rng).xi
        fresh = one.shape != two.shape or not torch.equal(one, two)
        require(fresh, f"a second draw from one generator must be fresh; {WHOLE}")
    if type(where).blocks is BaseNeighbourhood.blocks:  # blocks are draws, which must add up
        require(
            draw.n_fixed in (0, draw.xi.shape[-2]), f"a draw that is partly fixed must see its whole budget; {WHOLE}"
        )
        finite = draw.weight[draw.weight.isfinite()]
        more = _drawn(where, x, 4 * n, seed=0).weight
        ratio = float(more[more.isfinite()].double().mean() / finite.double().mean()) if finite.numel() else 1.0
        require(not 0.2 < ratio < 0.3, f"weights must not shrink as n grows (no 1/n); {WHOLE}")


WHOLE = "or derive from lx.BaseNeighbourhood and say draws_at_once = True"


def _check_place(where: BaseNeighbourhood, draw: Draw, x: Tensor) -> None:
    xi = draw.xi.detach().clone().requires_grad_()
    placed = where.place(x, xi)
    require(isinstance(placed, Tensor), f"place must return a tensor, got {type(placed).__name__}")
    b, rows = len(x), xi.shape[-2]
    inputs = tuple(x.shape[1:])
    fits = tuple(placed.shape) == (b, rows, *inputs) or (placed.ndim == x.ndim + 2 and placed.shape[3:] == inputs)
    require(fits, f"place must return ({b}, {rows}, {', '.join(map(str, inputs))}), got {tuple(placed.shape)}")
    require(placed.dtype == x.dtype, f"place must keep x's dtype {x.dtype}, got {placed.dtype}")
    alone = where.at(x, slice(0, 1)).place(x[:1], xi[:1] if xi.ndim == 3 else xi)
    require(torch.allclose(alone, placed[:1], equal_nan=True), "place must not mix instances")
    row = where.place(x, xi[..., -1:, :])
    require(torch.allclose(row, placed[:, -1:], equal_nan=True), "place must not mix rows of ξ")
    require(placed.requires_grad, "place must be differentiable in ξ (use tensor operations on xi)")

"""What a neighbourhood must do, checked: the spirit of scikit-learn's check_estimator."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from locapprox.distributions import Draw
from locapprox.models import as_tensor
from locapprox.neighbourhoods import Neighbourhood


def check_neighbourhood(neighbourhood: Neighbourhood, x: Tensor | np.ndarray | pd.DataFrame, n: int = 64) -> None:
    """Raise ValueError naming the first clause of the contract that the neighbourhood breaks on the instances x.

    A draw has xi (n, d) or (b, n, d) and weight (n,) or (b, n), not negative, not all zero; at most n rows unless they
    are fixed. It is a function of its generator alone: the same again for the same seed, fresh rows from one call to
    the next (unless `whole_budget` or fixed), the same for one instance as for that instance in a batch; global random
    state and x stay as they were. `place` gives (b, n, *input shape), row by row and instance by instance, and is
    differentiable in ξ.
    """
    inputs = as_tensor(x, None)
    require(inputs.ndim >= 2 and inputs.numel() > 0, "x needs a batch axis and at least one instance")
    for part in ("draw", "place"):
        require(callable(getattr(neighbourhood, part, None)), f"a neighbourhood needs a method {part}")
    getattr(neighbourhood, "check", lambda x: None)(inputs)
    before, kept = global_state(), inputs.clone()
    draw = drawn(neighbourhood, inputs, n, seed=0)
    _check_draw(neighbourhood, draw, inputs, n)
    _check_randomness(neighbourhood, draw, inputs, n)
    _check_place(neighbourhood, draw, inputs)
    require(torch.equal(inputs.nan_to_num(), kept.nan_to_num()), "draw and place must not change x")
    require(global_state() == before, "draw must use the generator it is given, not the global random state")


def drawn(neighbourhood: Neighbourhood, x: Tensor, n: int, seed: int) -> Draw:
    return neighbourhood.draw(x, n, torch.Generator(x.device).manual_seed(seed))


def require(condition: Any, clause: str) -> None:
    if not bool(condition):
        raise ValueError(f"the neighbourhood breaks its contract: {clause}")


def global_state() -> tuple[Any, ...]:
    return torch.get_rng_state().numpy().tobytes(), repr(np.random.get_state())  # noqa: NPY002


def _check_draw(neighbourhood: Neighbourhood, draw: Any, x: Tensor, n: int) -> None:
    require(isinstance(draw, Draw), f"draw must return a Draw(xi, weight), got {type(draw).__name__}")
    b, xi, weight = len(x), draw.xi, draw.weight
    require(xi.ndim in (2, 3), f"xi must be (n, d) or (b, n, d), got shape {tuple(xi.shape)}")
    require(xi.ndim == 2 or len(xi) == b, f"xi has {len(xi)} instances, x has {b}")
    rows = xi.shape[-2]
    shapes = ((rows,), (b, rows))
    require(tuple(weight.shape) in shapes, f"weight must be {shapes[0]} or {shapes[1]}, got {tuple(weight.shape)}")
    require(xi.is_floating_point() and torch.isfinite(xi).all(), "xi must be finite floating numbers")
    require(not weight.isnan().any() and (weight >= 0).all(), "weights must not be negative or NaN")
    require((weight.reshape(-1, rows) > 0).any(-1).all(), "the weights of an instance must not all be zero")
    whole = getattr(neighbourhood, "whole_budget", False)
    require(rows <= n or whole or draw.fixed == rows, f"draw was asked for {n} rows and gave {rows}")
    require((rows - draw.fixed) % draw.unit == 0, f"rows after the fixed ones must come in units of {draw.unit}")
    require(xi.device == x.device, f"xi is on {xi.device}, x on {x.device}")


def _check_randomness(neighbourhood: Neighbourhood, draw: Draw, x: Tensor, n: int) -> None:
    again = drawn(neighbourhood, x, n, seed=0)
    same = torch.equal(again.xi, draw.xi) and torch.equal(again.weight, draw.weight)
    require(same, "the same generator seed must give the same draw (draw from `rng`)")
    alone = drawn(neighbourhood, x[:1], n, seed=0)
    first = draw.xi[:1] if draw.xi.ndim == 3 else draw.xi
    agrees = alone.xi.shape == first.shape and torch.allclose(alone.xi, first, equal_nan=True)
    if draw.xi.ndim == 2:
        require(agrees, "a draw (n, d) shared by all instances must not depend on x; give (b, n, d) if it does")
    whole = getattr(neighbourhood, "whole_budget", False)
    if not whole and draw.fixed < draw.xi.shape[-2]:
        rng = torch.Generator(x.device).manual_seed(0)
        one, two = neighbourhood.draw(x, n, rng).xi, neighbourhood.draw(x, n, rng).xi
        fresh = one.shape != two.shape or not torch.equal(one, two)
        require(fresh, "a second draw from one generator must be fresh; set whole_budget = True if there is only one")

    if not whole and not hasattr(neighbourhood, "stream"):  # draws come in blocks, which must add up
        require(draw.fixed in (0, draw.xi.shape[-2]), "a draw that is partly fixed must say whole_budget = True")
        finite = draw.weight[draw.weight.isfinite()]
        more = drawn(neighbourhood, x, 4 * n, seed=0).weight
        ratio = float(more[more.isfinite()].double().mean() / finite.double().mean()) if finite.numel() else 1.0
        require(not 0.2 < ratio < 0.3, "weights must not shrink as n grows (no 1/n), or say whole_budget = True")


def _check_place(neighbourhood: Neighbourhood, draw: Draw, x: Tensor) -> None:
    xi = draw.xi.detach().clone().requires_grad_()
    placed = neighbourhood.place(x, xi)
    b, rows = len(x), xi.shape[-2]
    inputs = tuple(x.shape[1:])
    fits = tuple(placed.shape) == (b, rows, *inputs) or (placed.ndim == x.ndim + 2 and placed.shape[3:] == inputs)
    require(fits, f"place must return ({b}, {rows}, {', '.join(map(str, inputs))}), got {tuple(placed.shape)}")
    require(placed.dtype == x.dtype, f"place must keep x's dtype {x.dtype}, got {placed.dtype}")
    parts = getattr(neighbourhood, "at", lambda x, i: neighbourhood)(x, slice(0, 1))
    alone = parts.place(x[:1], xi[:1] if xi.ndim == 3 else xi)
    require(torch.allclose(alone, placed[:1], equal_nan=True), "place must not mix instances")
    row = neighbourhood.place(x, xi[..., -1:, :])
    require(torch.allclose(row, placed[:, -1:], equal_nan=True), "place must not mix rows of ξ")
    require(placed.requires_grad, "place must be differentiable in ξ (use tensor operations on xi)")

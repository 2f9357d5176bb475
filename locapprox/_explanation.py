"""What explain() returns: weights, how well they fit, how sure we are."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from locapprox._files import ARRAYS, write, written_loss
from locapprox._method import Method
from locapprox._names import aligned
from locapprox._parts import brief, share, whole_number
from locapprox._problem import Problem
from locapprox.fit.evidence import half_width
from locapprox.fit.links import Link
from locapprox.fit.nulls import of_drawn, width
from locapprox.fit.points import points_around
from locapprox.fit.ranks import rank_bounds
from locapprox.fit.sampling import samples
from locapprox.fit.surrogates import described_surrogate
from locapprox.fit.validate import mean_loss
from locapprox.models.inputs import Array, as_tensor, plain
from locapprox.neighbourhoods.base import BaseNeighbourhood, described
from locapprox.neighbourhoods.draws import Draw
from locapprox.plotting import Axes, as_text, draw_bars, draw_image, draw_points


@dataclass(frozen=True, eq=False)
class Inside:
    """What an explanation needs besides its numbers."""

    problem: Problem | None  # the live model; a loaded explanation has none
    several: bool  # whether an axis of scores follows the instances
    per_entry: bool  # whether weights have the input's shape, not one axis of labels
    link: Link  # g = link(w · ξ + intercept)
    affine: tuple[Tensor, Tensor] | None = None  # slopes and origin on the input, of a loaded explanation
    names: list[str] | None = None  # of x's columns


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """A surrogate g(ξ) = weights · ξ + intercept per instance, and per score if several were asked for.

    With `target=range(k)` an axis of k scores follows the instances everywhere. `e[3]` and `e[:10]` are explanations of
    some of the instances, `lx.concat` joins them.
    """

    weights: Float[Tensor, "b ..."]  # (instances, *features): coefficients of ξ; NaN pads instances with fewer features
    intercept: Float[Tensor, "b ..."]
    standard_error: Float[Tensor, "b ..."]  # like weights; 0 where nothing was sampled, NaN where not known
    loss: Float[Tensor, "b ..."]  # mean loss on draws that were left out of the fit
    r2: Float[Tensor, "b ..."]  # 1 − loss / the loss of the best constant surrogate
    degrees_of_freedom: Float[Tensor, " b"]  # of `interval`
    n_samples: Int[Tensor, " b"]  # rows drawn, in all rounds
    x: Float[Tensor, "b ..."]
    method: Method
    feature_names: list[str] | None
    settings: dict[str, Any]  # n_samples asked for, seed, target; lists: one for each instance (width)
    _inside: Inside

    def __repr__(self) -> str:
        shape = "×".join(map(str, self.weights.shape[1:]))
        return (
            f"Explanation({self.method.name}, {len(self)} instance(s), weights {shape}, "
            f"median loss {float(self.loss.median()):.3g}, median r2 {float(self.r2.nanmedian()):.3g})"
        )

    def _repr_html_(self) -> str:
        return f"<p>{self!r}</p>{self.to_frame().to_html(max_rows=20, index=False)}"

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, instances: Any) -> "Explanation":
        """Of some of the instances: an int (one of them), a slice, a list of ints or Booleans. The axis stays."""
        if isinstance(instances, tuple | str | bool) or instances is None or instances is ...:
            raise TypeError(
                f"an explanation is indexed by instances alone, got {instances!r}; see e.weights for features"
            )
        try:
            i = torch.from_numpy(np.arange(len(self))[instances].reshape(-1).copy())
        except IndexError as error:
            raise IndexError(f"{brief(instances)} picks no instances of {len(self)}: {error}") from error
        inside, where, own = self._inside, self._where, i.to(self.x.device)
        here = where.at(self.x, own)
        affine = None if inside.affine is None else (inside.affine[0][own], inside.affine[1][own])
        parts = {name: getattr(self, name)[i.to(getattr(self, name).device)] for name in (*ARRAYS, "x")}
        if len(i) and not inside.per_entry:  # less padding
            parts |= {name: parts[name][..., : width(parts["weights"])] for name in ("weights", "standard_error")}
        return replace(
            self,
            **parts,
            settings={k: [v[j] for j in i] if isinstance(v, list) else v for k, v in self.settings.items()},
            method=self.method if here is where else replace(self.method, neighbourhood=here),
            _inside=replace(inside, problem=inside.problem and inside.problem.of(own), affine=affine),
        )

    def __iter__(self) -> "Iterator[Explanation]":
        return (self[i] for i in range(len(self)))

    def interval(self, level: float = 0.95, simultaneous: bool | str = False) -> tuple[Tensor, Tensor]:
        """Bounds that cover each weight's expectation with the given probability (Student's t); NaN where not known.

        With `simultaneous` (or "features") they cover the known weights of all features of an instance (and score) at
        once, with "all" those of the whole batch, by Bonferroni: errors that share a draw move together.
        Raises ValueError for a level that is not between 0 and 1, or another `simultaneous`.
        """
        error, level = self._by_score(self.standard_error), share(level, "level")
        half = half_width(error, self.degrees_of_freedom, level, simultaneous).reshape(self.weights.shape)
        return self.weights - half, self.weights + half

    @property
    def converged(self) -> Bool[Tensor, " b"] | None:
        """Where `tol` and `until` hold; None if neither was asked for."""
        found = self.settings.get("converged")
        return None if found is None else torch.tensor(found, dtype=torch.bool, device="cpu")

    def ranks(self, level: float = 0.95, signed: bool = False) -> tuple[Tensor, Tensor]:
        """The best and the worst rank that every feature may have, by |w| or (signed) by w; 1 is the largest.

        With the given probability all of an instance (and score) hold at once: features whose `interval`s of |w|,
        simultaneous ones, overlap may be in either order (Klein, Wright and Wieczorek 2020), whatever the correlation
        of weights. A weight whose error is not known may have any rank; 0 where an instance has no such feature.
        Raises ValueError for one feature, or a level that is not between 0 and 1.
        """
        weights, half = self._by_score(self.weights), self._by_score(self.interval(level, True)[1] - self.weights)
        best, worst = rank_bounds(weights, half, signed)
        return best.reshape(self.weights.shape), worst.reshape(self.weights.shape)

    def validate(self, n: int = 1000, seed: int | None = None) -> Tensor:
        """The mean loss on n fresh draws of the neighbourhood, like `loss`."""
        problem = self._problem("validate")
        seed, n = self._setting("seed", seed), whole_number(n, "n")
        if len(self) == 0:
            return self.loss
        weights = self._by_score(self.weights)
        intercept = self.intercept.reshape(weights.shape[:2])
        loss = torch.full_like(intercept, torch.nan)
        with problem.evaluating(warns=True):
            for sample in samples(problem, self._where, n, seed, "validate", nulls_leave=self._nulls_leave):
                i, parts = sample.instances, (self.method.loss, self._inside.link)
                loss[i] = mean_loss(sample, of_drawn(weights[i], sample), intercept[i], *parts)
        return loss.reshape(self.loss.shape)

    def predict(self, inputs: Array) -> Tensor:
        """The surrogate as a function of the input: one input (b, *shape) or n inputs (b, n, *shape) per instance.

        g(x′) = intercept + s · (x′ − o). Additive: s = w, o = x₀. Multiplicative: o = b, and a feature's weight becomes
        the least-norm slope s_j = w_g (x₀ − b)_j / Σ_{k∈g} (x₀ − b)_k² of its entries (0 where x₀ = b), so that
        g(x_ξ) = w · ξ + intercept. The columns of a DataFrame are put into the order of x's, or refused if they are
        others; its rows belong to the instances in order.
        """
        inputs = aligned(inputs, self._inside.names, None, "inputs")
        x = plain(inputs, "inputs") if isinstance(inputs, Tensor) else as_tensor(inputs, None, "inputs")
        x = x.to(self.weights)
        one = x.ndim == self.x.ndim
        x = x.unsqueeze(1) if one else x
        if x.ndim != self.x.ndim + 1 or x.shape[0] != len(self) or x.shape[2:] != self.x.shape[1:]:
            shape = ", ".join(map(str, self.x.shape[1:]))
            raise ValueError(
                f"inputs must be ({len(self)}, {shape}) or ({len(self)}, n, {shape}), one row of inputs per "
                f"explained instance; got {tuple(np.shape(inputs))}"
            )
        slopes, origin = self._on_inputs()
        value = slopes.flatten(2) @ (x - origin.unsqueeze(1)).flatten(2).mT + self.intercept.reshape(
            *slopes.shape[:2], 1
        )
        value = self._inside.link(value)[0]
        value = value if self._inside.several else value[:, 0]
        return value[..., 0] if one else value

    def on_input(self) -> Tensor:
        """Weights laid out like x: each feature's weight on all its entries."""
        if self._inside.per_entry:
            return self.weights
        out = self._where.on_input(self.x, self._by_score(self.weights))
        return out if self._inside.several else out[:, 0]

    def points(self, instance: int = 0, n: int | None = None, seed: int | None = None) -> tuple[Draw, Tensor]:
        """What the fit saw around one instance: the draw (its first n rows) and the inputs x_ξ (n, *shape).

        ξ is 0 for features that leave the draw.
        """
        self._check_place("instance", instance, len(self))
        one = torch.tensor([instance], device=self.x.device)
        here, whole, seed = self._where.at(self.x, one), self._setting("n_samples"), self._setting("seed", seed)
        first = None if n is None else whole_number(n, "n")
        whole = whole if self._where.tol is None else int(self.n_samples[instance])  # a nested rule that stopped
        return points_around(self.x[one], here, whole, seed, first, self._nulls_leave)

    def to_frame(self, ranks: float | None = None) -> pd.DataFrame:
        """Long form: one row per instance (, score) and feature; on request with `ranks` at a level."""
        weights, error = self._by_score(self.weights), self._by_score(self.standard_error)
        b, k, _d = weights.shape
        index = pd.MultiIndex.from_product([range(b), range(k), self._names()], names=["instance", "target", "feature"])
        columns = {"weight": weights, "standard_error": error}
        if ranks is not None:
            columns |= dict(zip(("best_rank", "worst_rank"), self.ranks(ranks), strict=True))
        flat = {name: column.flatten().cpu().numpy() for name, column in columns.items()}
        frame = pd.DataFrame(flat, index=index).reset_index()
        frame.insert(0, "method", self.method.name)
        return frame if self._inside.several else frame.drop(columns="target")

    def plot(self, ax: Axes | None = None, instance: int = 0, score: int = 0, top: int = 15) -> Axes:
        """One instance: bars with 95 % intervals, or an image if x is one and every entry has a weight."""
        by_score, top = self._by_score(self.weights), whole_number(top, "top")
        b, k = by_score.shape[:2]
        instance, score = whole_number(instance, "instance", least=-b), whole_number(score, "score", least=-k)
        if not (-b <= instance < b and -k <= score < k):
            raise ValueError(f"instance must be below {b} and score below {k}; got {instance} and {score}")
        weights = by_score[instance, score].cpu().numpy()
        r2 = float(self.r2.reshape(b, k)[instance, score])
        title = f"{as_text(self.method.name)} ($R^2$ = {r2:.2f})"
        if self.x.ndim in (3, 4) and self._inside.per_entry:
            return draw_image(weights.reshape(-1, *self.x.shape[-2:]).sum(0), title, ax)
        half = self._by_score(self.interval()[1] - self.weights)[instance, score].cpu().numpy()
        return draw_bars(self._names(), weights, half, top, title, ax)

    def plot_points(
        self,
        instance: int = 0,
        features: tuple[int, int] = (0, 1),
        n: int = 500,
        ax: Axes | None = None,
    ) -> Axes:
        """The points drawn around one instance, in two of its (flattened) features, coloured by weight."""
        features = (0, 0) if self.x[:1].numel() == 1 else features  # of one feature, against itself
        if len(features) != 2:
            raise ValueError(f"features must be two of the entries of an input, got {features!r}")
        for one in features:
            self._check_place("features", one, self.x[:1].numel())
        draw, placed = self.points(instance, n)
        flat = (placed if placed.ndim == self.x.ndim else placed.mean(1)).flatten(1)
        x = self.x[instance].flatten()
        names = self.feature_names or [f"entry {i}" for i in range(len(x))]
        placed_at, weight, at = (part.cpu().numpy() for part in (flat, draw.weight, x))
        return draw_points(placed_at, weight, at, names, features, f"{as_text(self.method.name)}: points drawn", ax)

    def save(self, path: str | Path) -> Path:
        """One .npz of arrays and a JSON text; `lx.load` reads it back without executing anything."""
        method, inside = self.method, self._inside
        parts = {"name": method.name, "neighbourhood": repr(method.neighbourhood), "loss": written_loss(method.loss)}
        meta = {
            "method": {**parts, "surrogate": repr(method.surrogate)},
            "feature_names": self.feature_names,
            "columns": inside.names,
            "settings": self.settings,
            "several": inside.several,
            "per_entry": inside.per_entry,
            "link": inside.link.name,
        }
        x = self.x.float() if self.x.dtype == torch.bfloat16 else self.x  # numpy has no bfloat16
        arrays = {"x": x, **{name: getattr(self, name) for name in ARRAYS}}
        with suppress(ValueError):  # a placement that is not affine has no slopes on the input
            arrays["slopes"], arrays["origin"] = self._on_inputs()
        return write(path, {name: part.cpu().numpy() for name, part in arrays.items()}, meta)

    @staticmethod
    def _check_place(name: str, given: Any, count: int) -> None:
        if whole_number(given, name, least=0) >= count:
            raise ValueError(f"{name} must be below {count}, the number of {name.removesuffix('s')}s; got {given}")

    def _setting(self, name: str, given: int | None = None) -> int:
        if given is None and self.settings[name] is None:
            raise ValueError(f"{name} differs between the explanations that were joined: say {name}=")
        return whole_number(self.settings[name] if given is None else given, name, least=0)

    @property
    def _where(self) -> BaseNeighbourhood:
        return described(self.method.neighbourhood)

    @property
    def _nulls_leave(self) -> bool:
        return described_surrogate(self.method.surrogate).nulls_leave

    def _names(self) -> list[str]:
        if self.feature_names is not None:
            return self.feature_names
        shape = self.weights.shape[2 if self._inside.several else 1 :]
        return [",".join(map(str, i)) for i in np.ndindex(*shape)]

    def _by_score(self, values: Tensor) -> Float[Tensor, "b k d"]:
        return values.flatten(2) if self._inside.several else values.flatten(1).unsqueeze(1)

    def _problem(self, what: str) -> Problem:
        if self._inside.problem is None:
            raise ValueError(f"{what} needs the model, which a loaded or given explanation has not")
        return self._inside.problem

    def _on_inputs(self) -> tuple[Tensor, Tensor]:
        """Slopes (b, k, *input shape) and origin (b, *input shape)."""
        if self._inside.affine is not None:
            return self._inside.affine
        return self._where.to_input(self.x, self._by_score(self.weights).nan_to_num())

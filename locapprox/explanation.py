"""What explain() returns: weights, how well they fit, how sure we are."""

import json
from contextlib import suppress
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from scipy import stats
from torch import Tensor

from locapprox.distributions import Draw
from locapprox.evaluate import LINKS, mean_loss
from locapprox.models import Array, Scores, as_tensor, evaluation_mode, whole_number
from locapprox.neighbourhoods import Neighbourhood, stream
from locapprox.sampling import generator, samples

ARRAYS = ("weights", "intercept", "standard_error", "loss", "r2", "x")


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """A surrogate g(ξ) = weights · ξ + intercept per instance, and per score if several were asked for.

    With `target=range(k)` an axis of k scores follows the instances everywhere.
    """

    weights: Float[Tensor, "b ..."]  # (instances, *features): coefficients of ξ; NaN pads instances with fewer features
    intercept: Float[Tensor, "b ..."]
    standard_error: Float[Tensor, "b ..."]  # like weights; zero where nothing was sampled
    loss: Float[Tensor, "b ..."]  # mean loss on draws that were left out of the fit
    r2: Float[Tensor, "b ..."]  # 1 − loss / the loss of the best constant surrogate
    degrees: float  # of freedom of `interval`
    x: Float[Tensor, "b ..."]
    method: str
    feature_names: list[str] | None
    settings: dict[str, Any]
    several: bool = False
    per_entry: bool = True  # weights have the input's shape, not one axis of labels
    link: str = "identity"  # g = link(w · ξ + intercept), see LINKS
    source: tuple[Any, ...] | None = field(default=None)  # method, model and their arguments; not saved
    slopes: tuple[Tensor, Tensor] | None = field(default=None)  # of a loaded explanation

    def __repr__(self) -> str:
        shape = "×".join(map(str, self.weights.shape[1:]))
        return (
            f"Explanation({self.method}, {len(self.weights)} instance(s), weights {shape}, "
            f"median loss {float(self.loss.median()):.3g}, median r2 {float(self.r2.nanmedian()):.3g})"
        )

    def interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Bounds that cover each weight's expectation with the given probability (Student's t with `degrees`)."""
        if not isinstance(level, Real) or not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1, got {level!r}")
        quantile = float(stats.t.ppf((1 + level) / 2, self.degrees))
        return self.weights - quantile * self.standard_error, self.weights + quantile * self.standard_error

    def validate(self, n: int = 1000, seed: int | None = None) -> Tensor:
        """The mean loss on n fresh draws of the neighbourhood, like `loss`."""
        method, model, example, target, batch_size = self._source("validate")
        seed = whole_number(self.settings["seed"] if seed is None else seed, "seed", least=0)
        n = whole_number(n, "n")
        weights, intercept = self._by_score(self.weights), self.intercept.reshape(len(self.x), -1)
        loss = torch.full_like(intercept, torch.nan)
        with evaluation_mode(model):
            scores = Scores(model, self.x, example, target, batch_size)
            for sample in samples(method.neighbourhood, self.x, scores, n, seed, "validate"):
                i = sample.instances
                some = weights[i][..., : int((~weights[i[0], 0].isnan()).sum())]
                loss[i] = mean_loss(sample, some, intercept[i], method.loss, self.link)
        return loss.reshape(self.loss.shape)

    def predict(self, inputs: Array) -> Tensor:
        """The surrogate as a function of the input: one input (b, *shape) or n inputs (b, n, *shape) per instance.

        g(x′) = intercept + s · (x′ − o). Additive: s = w, o = x₀. Multiplicative: o = b, and a feature's weight becomes
        the least-norm slope s_j = w_g (x₀ − b)_j / Σ_{k∈g} (x₀ − b)_k² of its entries (0 where x₀ = b), so that
        g(x_ξ) = w · ξ + intercept.
        """
        x = (inputs if isinstance(inputs, Tensor) else as_tensor(inputs, None)).to(self.weights)
        one = x.ndim == self.x.ndim
        x = x.unsqueeze(1) if one else x
        if x.ndim != self.x.ndim + 1 or x.shape[0] != len(self.x) or x.shape[2:] != self.x.shape[1:]:
            shape = ", ".join(map(str, self.x.shape[1:]))
            raise ValueError(
                f"inputs must be ({len(self.x)}, {shape}) or ({len(self.x)}, n, {shape}), one row of inputs per "
                f"explained instance; got {tuple(np.shape(inputs))}"
            )
        slopes, origin = self._on_inputs()
        value = slopes.flatten(2) @ (x - origin.unsqueeze(1)).flatten(2).mT + self.intercept.reshape(len(x), -1, 1)
        value = LINKS[self.link](value)[0]
        value = value if self.several else value[:, 0]
        return value[..., 0] if one else value

    def on_input(self) -> Tensor:
        """Weights laid out like x: each feature's weight on all its entries."""
        weights = self._by_score(self.weights)
        if self.per_entry:
            return self.weights
        copy = getattr(self._source("on_input")[0].neighbourhood, "on_input", None)
        if copy is None:
            raise ValueError(f"{self.method}'s neighbourhood does not say how its ξ lie on the input (on_input)")
        out = copy(self.x, weights)
        return out if self.several else out[:, 0]

    def points(self, instance: int = 0, n: int | None = None) -> tuple[Draw, Tensor]:
        """What the fit saw around one instance: the draw (its first n rows) and the inputs x_ξ (n, *shape)."""
        neighbourhood = self._source("points")[0].neighbourhood
        if whole_number(instance, "instance", least=0) >= len(self.x):
            raise ValueError(f"instance must be below {len(self.x)}, the number of instances; got {instance}")
        one = torch.tensor([instance], device=self.x.device)
        here = neighbourhood.at(self.x, one) if hasattr(neighbourhood, "at") else neighbourhood
        x, n = self.x[one], whole_number(self.settings["n_samples"] if n is None else n, "n")
        rng = generator(self.settings["seed"], here, "fit", self.x)
        draws = list(stream(here, x, n, rng))
        xi = torch.cat([draw.xi.flatten(0, -2) for draw in draws])
        weight = torch.cat([draw.weight.flatten() for draw in draws])
        fixed, last = sum(draw.fixed for draw in draws), draws[-1]
        return Draw(xi, weight, unit=last.unit, fixed=fixed, coarse=last.coarse), here.place(x, xi)[0]

    def plot_points(
        self, instance: int = 0, features: tuple[int, int] = (0, 1), n: int = 500, ax: Axes | None = None
    ) -> Axes:
        """The points drawn around one instance, in two of its (flattened) features, coloured by weight."""
        ax = plt.gca() if ax is None else ax
        draw, placed = self.points(instance, n)
        flat = (placed if placed.ndim == self.x.ndim else placed.mean(1)).flatten(1).cpu().numpy()
        weight, (i, j) = draw.weight.cpu().numpy(), features
        finite = np.isfinite(weight)
        dots = ax.scatter(flat[finite, i], flat[finite, j], c=weight[finite], s=8, cmap="viridis", alpha=0.6)
        ax.figure.colorbar(dots, ax=ax, label="weight")
        ax.scatter(*flat[~finite][:, [i, j]].T, marker="s", facecolor="none", edgecolor="k", label="interpolated")
        x = self.x[instance].flatten().cpu().numpy()
        ax.scatter(x[i], x[j], marker="*", s=120, color="#b2182b", label="the instance")
        names = self.feature_names or [f"entry {i}" for i in range(len(x))]
        ax.set(xlabel=names[i], ylabel=names[j], title=f"{self.method}: points drawn")
        ax.legend(loc="best", fontsize="small")
        return ax

    def to_frame(self) -> pd.DataFrame:
        """Long form: one row per instance (, score) and feature."""
        weights, error = self._by_score(self.weights), self._by_score(self.standard_error)
        b, k, _d = weights.shape
        index = pd.MultiIndex.from_product([range(b), range(k), self._names()], names=["instance", "target", "feature"])
        frame = pd.DataFrame(
            {"weight": weights.flatten().cpu().numpy(), "standard_error": error.flatten().cpu().numpy()}, index=index
        ).reset_index()
        frame.insert(0, "method", self.method)
        return frame if self.several else frame.drop(columns="target")

    def plot(self, ax: Axes | None = None, instance: int = 0, score: int = 0, top: int = 15) -> Axes:
        """One instance: bars with 95 % intervals, or an image if x is one and every entry has a weight."""
        ax = plt.gca() if ax is None else ax
        weights = self._by_score(self.weights)[instance, score].cpu().numpy()
        ax.set_title(f"{self.method} ($R^2$ = {float(self.r2.reshape(len(self.x), -1)[instance, score]):.2f})")
        if self.x.ndim in (3, 4) and self.per_entry:
            image = weights.reshape(-1, *self.x.shape[-2:]).sum(0)
            limit = np.abs(image).max() or 1.0
            ax.imshow(image, cmap="RdBu_r", vmin=-limit, vmax=limit)
            ax.set_axis_off()
            return ax
        half = self._by_score(self.interval()[1] - self.weights)[instance, score].cpu().numpy()
        order = np.argsort(np.abs(np.nan_to_num(weights)))[-top:]
        colours = np.where(weights[order] < 0, "#b2182b", "#2166ac")
        ax.barh([self._names()[i] for i in order], weights[order], xerr=half[order], color=colours, ecolor="0.3")
        ax.axvline(0, color="0.3", linewidth=0.8)
        ax.set_xlabel("weight (95 % interval)")
        return ax

    def save(self, path: str | Path) -> Path:
        """One .npz of arrays and a JSON text; `lx.load` reads it back without executing anything."""
        path = npz(path)
        meta = {
            "degrees": self.degrees,
            "method": self.method,
            "feature_names": self.feature_names,
            "settings": self.settings,
            "several": self.several,
            "per_entry": self.per_entry,
            "link": self.link,
        }
        x = self.x.float() if self.x.dtype == torch.bfloat16 else self.x  # numpy has no bfloat16
        arrays: dict[str, Any] = {name: (x if name == "x" else getattr(self, name)).cpu().numpy() for name in ARRAYS}
        with suppress(ValueError):  # a placement that is not affine has no slopes on the input
            arrays["slopes"], arrays["origin"] = (t.cpu().numpy() for t in self._on_inputs())
        part = path.with_name(path.name + ".part.npz")
        np.savez_compressed(part, meta=np.array(json.dumps(meta)), **arrays)
        part.replace(path)
        return path

    def _names(self) -> list[str]:
        if self.feature_names is not None:
            return self.feature_names
        shape = self.weights.shape[2 if self.several else 1 :]
        return [",".join(map(str, i)) for i in np.ndindex(*shape)]

    def _by_score(self, values: Tensor) -> Float[Tensor, "b k d"]:
        return values.flatten(2) if self.several else values.flatten(1).unsqueeze(1)

    def _source(self, what: str) -> tuple[Any, ...]:
        if self.source is None:
            raise ValueError(f"{what} needs the model and the method, which a loaded explanation has not")
        return self.source

    def _on_inputs(self) -> tuple[Tensor, Tensor]:
        """Slopes (b, k, *input shape) and origin (b, *input shape)."""
        if self.slopes is not None:
            return self.slopes
        neighbourhood = self._source("predict")[0].neighbourhood
        own = getattr(neighbourhood, "to_input", None)
        weights = self._by_score(self.weights).nan_to_num()
        return own(self.x, weights) if own is not None else least_norm(neighbourhood, self.x, weights)


def least_norm(neighbourhood: Neighbourhood, x: Tensor, weights: Float[Tensor, "b k d"]) -> tuple[Tensor, Tensor]:
    """For any placement x_ξ = o + Jᵀξ that is affine in ξ: the origin o, and the least-norm s with J s = w."""
    d = weights.shape[-1]
    points = torch.cat([torch.zeros(1, d), torch.eye(d), torch.linspace(-1, 1, d)[None]]).to(x)
    slopes, origins = [], []
    for i in range(len(x)):
        placed = neighbourhood.place(x[i : i + 1], points)[0].to(weights.dtype)
        placed = placed.mean(1) if placed.ndim > x.ndim else placed
        origin, jacobian = placed[0], (placed[1:-1] - placed[0]).flatten(1)
        if not torch.allclose(placed[-1].flatten(), origin.flatten() + points[-1].to(jacobian) @ jacobian, atol=1e-4):
            raise ValueError("place is not affine in ξ, so the surrogate is no linear function of the input")
        slopes.append((torch.linalg.pinv(jacobian) @ weights[i].mT).mT.reshape(-1, *x.shape[1:]))
        origins.append(origin)
    return torch.stack(slopes), torch.stack(origins)


def npz(path: str | Path) -> Path:
    """The path with .npz at its end; a dot inside the name is no suffix."""
    path = Path(path)
    return path if path.suffix == ".npz" else path.with_name(path.name + ".npz")


def load(path: str | Path) -> Explanation:
    """An explanation saved by `Explanation.save`; it predicts, but does not validate (the model is not saved)."""
    with np.load(npz(path), allow_pickle=False) as stored:
        arrays: dict[str, Any] = {name: torch.from_numpy(stored[name]) for name in stored.files if name != "meta"}
        meta = json.loads(str(stored["meta"]))
    slopes = (arrays.pop("slopes"), arrays.pop("origin")) if "slopes" in arrays else None
    return Explanation(**arrays, **meta, slopes=slopes)

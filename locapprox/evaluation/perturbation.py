"""Perturbation tests: what the prediction does when features are perturbed in the order that an explanation gives."""

from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from locapprox._explain import N_SAMPLES
from locapprox._explainer import as_maps, named
from locapprox._explanation import Explanation
from locapprox._parts import whole_number
from locapprox._problem import Problem
from locapprox.evaluation.intervals import t_intervals
from locapprox.models.inputs import Array
from locapprox.models.scores import Target
from locapprox.neighbourhoods.baselines import BaselineLike, Features
from locapprox.neighbourhoods.masks import FairMasks
from locapprox.neighbourhoods.placements import Multiplicative

Kind = Literal["bottom", "top", "deletion", "insertion"]
Replace = Literal["baseline", "noise"]
Ties = Literal["average", "argsort"]
SIGNED = ("deletion", "insertion")  # ranked by the weight itself, and measured by the prediction itself


@dataclass(frozen=True, eq=False, repr=False)
class PerturbationTest:
    """`changes`: one row per method, k and instance: the mean absolute change of the prediction, or, for deletion and
    insertion, the `prediction` itself."""

    changes: pd.DataFrame
    kind: Kind
    replace: Replace

    def __repr__(self) -> str:
        return f"PerturbationTest({self.kind}, {self.replace}):\n{self.summary().to_string(index=False)}"

    @property
    def measure(self) -> str:
        """The column of `changes` that holds the result."""
        return "prediction" if self.kind in SIGNED else "change"

    def curves(self, level: float = 0.95) -> pd.DataFrame:
        """Mean over instances and t interval, one row per method and k."""
        return t_intervals(self.changes, ["method", "k"], self.measure, level)

    def auc(self, up_to: int | None = None) -> pd.DataFrame:
        """The area under each instance's curve: its mean over k = 1 … up_to (default: all), one row per method and
        instance. With deletion and insertion k = 0 … up_to and the first and last count half (trapezoids)."""
        some = self.changes if up_to is None else self.changes[self.changes["k"] <= up_to]
        values = some.pivot_table(index=["method", "instance"], columns="k", values=self.measure, sort=False)
        weight = np.ones(values.shape[1])
        if self.kind in SIGNED and len(weight) > 1:
            weight[[0, -1]] = 0.5
        return values.mul(weight / weight.sum()).sum(axis=1, skipna=False).rename("auc").reset_index()

    def summary(self, up_to: int | None = None, level: float = 0.95) -> pd.DataFrame:
        """Mean AUC and t interval per method, best first: low for bottom and deletion, high for top and insertion."""
        table = t_intervals(self.auc(up_to), ["method"], "auc", level)
        ascending = self.kind in ("bottom", "deletion")
        return table.sort_values("mean", ascending=ascending, kind="stable", ignore_index=True)

    def compare(self, up_to: int | None = None, level: float = 0.95) -> pd.DataFrame:
        """Every pair of methods by a paired t test of their AUCs over instances; p by Holm (1979) over all pairs."""
        from scipy.special import stdtr, stdtrit

        wide = self.auc(up_to).pivot_table(index="instance", columns="method", values="auc", sort=False)
        rows = []
        for a, b in combinations(wide.columns, 2):
            gap = wide[a] - wide[b]
            mean, error = float(gap.mean()), float(gap.std() / len(gap) ** 0.5)
            half = float(stdtrit(len(gap) - 1, (1 + level) / 2)) * error
            p = 2 * float(stdtr(len(gap) - 1, -abs(mean) / error)) if error > 0 else float(mean == 0)
            rows.append((a, b, mean, mean - half, mean + half, p))
        table = pd.DataFrame(rows, columns=["method", "other", "difference", "low", "high", "p"])
        return table.assign(p_holm=holm(table["p"].to_numpy(dtype=float)))


def perturbation_test(
    model: Any,
    x: Array,
    explanations: Any,
    *,
    kind: Kind = "bottom",
    replace: Replace = "baseline",
    baseline: BaselineLike = 0.0,
    sigma: float = 0.1,
    features: Features | None = None,
    draws: int = 100,
    ties: Ties = "average",
    target: Target = None,
    seed: int = 0,
    n_samples: int = N_SAMPLES,
    batch_size: int | None = None,
) -> PerturbationTest:
    """Perturb k features in the order that each explanation gives, for every k ≤ d.

    Main arguments:
        kind: "bottom" and "top" (section 5.3 of Han et al. 2022): the k features of least or largest |weight| are
            perturbed, and the absolute change of the prediction is measured. "deletion" and "insertion" (Petsiuk et al.
            2018): the k features of largest weight, sign included, are set to the baseline, or they alone are not, and
            the prediction itself is measured, from k = 0. Low is good for bottom and deletion.
        explanations: Methods (fitted with n_samples), Explanations, Explainers or arrays: one, a list or a dict of
            names. They have a weight for every label of `features`, or for every entry of x (those of one label are
            added up: a patch's weight is that of its pixels).
        replace: "baseline" sets the features to `baseline`; "noise" adds Normal(0, σ²), `draws` times afresh to x.

        ties: "average" over random orders of features of equal |weight|, another one in each draw (with a baseline
            too, unless all that tie are there already); "argsort" takes torch.argsort's order, as the authors do: one
            call, but which of equal features comes first is then nobody's choice, and moves curves by several
            standard errors where many weights are 0.

    Noise and order of a draw are the same for all methods, so comparisons are paired, and fresh for every instance, so
    that intervals over instances hold the noise's error too.
    """
    for name, given, allowed in (("kind", kind, Kind), ("replace", replace, Replace), ("ties", ties, Ties)):
        if given not in get_args(allowed):
            raise ValueError(f"{name} must be one of {', '.join(get_args(allowed))}; got {given!r}")
    draws, seed = whole_number(draws, "draws"), whole_number(seed, "seed", least=0)
    if kind in SIGNED and replace != "baseline":
        raise ValueError(f'kind="{kind}" sets features to the baseline: replace must be "baseline"; got {replace!r}')
    if not sigma > 0:
        raise ValueError(f"sigma must be positive, got {sigma}")
    parts, problem = named(explanations, "explanations"), Problem(model, x, target, batch_size)
    inputs = problem.x
    problem.check_finite()
    if problem.several:
        raise ValueError(f"target must choose one output for each instance, got {target!r}")
    lifted, replaced = (problem.check(Multiplicative(FairMasks(), b, features)) for b in (0.0, baseline))
    d = lifted.group_sum(inputs, inputs).shape[-1]
    found = as_maps(parts, problem, n_samples, seed)
    sizes = {name: _sizes(name, one, inputs, lifted, d, kind) for name, one in found.items()}
    rng = torch.Generator(inputs.device).manual_seed(seed)
    moved = _moved(replaced, inputs) if features is None and replace == "baseline" else None
    tied = {name: ties == "average" and _tied(size, moved) for name, size in sizes.items()}
    rounds = draws if replace == "noise" or any(tied.values()) else 1
    ks = torch.arange(0 if kind in SIGNED else 1, d + 1, device=inputs.device)
    changes = torch.zeros(len(sizes), len(inputs), len(ks), dtype=torch.float64, device=inputs.device)
    with problem.evaluating() as scores:
        for _ in range(rounds):
            noise = sigma * torch.randn(inputs.shape, generator=rng, device=rng.device, dtype=inputs.dtype)
            order = torch.rand(len(inputs), d, generator=rng, device=rng.device).argsort(-1)
            for i in torch.arange(len(inputs), device=inputs.device).split(max(1, scores.rows_per_call // d)):
                some, lift, remove = inputs[i], lifted.at(inputs, i), replaced.at(inputs, i)
                before = scores.values(some.unsqueeze(1), i)
                for change, (name, size) in zip(changes, sizes.items(), strict=True):
                    first = _first(size[i], ks, kind != "bottom", order[i] if tied[name] else None)
                    keep = (first if kind == "insertion" else ~first).to(some.dtype)
                    if replace == "noise":
                        touched = 1 - lift.place(torch.ones_like(some), keep)
                        placed = some.unsqueeze(1) + touched * noise[i].unsqueeze(1)
                    else:
                        placed = remove.place(some, keep)
                    after = scores.values(placed, i)
                    change[i] += (after if kind in SIGNED else (after - before).abs())[:, 0].double() / rounds
    levels = [list(sizes), range(len(inputs)), ks.tolist()]
    frame = pd.MultiIndex.from_product(levels, names=["method", "instance", "k"]).to_frame(index=False)
    test = PerturbationTest(frame, kind, replace)
    frame[test.measure] = changes.flatten().cpu().numpy()
    return test


def _moved(mask: Multiplicative, x: Tensor) -> Bool[Tensor, "b d"]:
    """The entries that replacing by the baseline moves."""
    d = x[0].numel()
    there = mask.place(x, x.new_zeros(1, d))[:, 0]
    there = there if there.ndim > x.ndim else there.unsqueeze(1)  # a background sample has an axis of its own
    return (there != x.unsqueeze(1)).any(1).reshape(-1, d)


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's (1979) adjusted p values: the running maximum of (m − i) p₍ᵢ₎ over the ascending p₍₀₎ ≤ p₍₁₎ ≤ …"""
    order = np.argsort(p)
    adjusted = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order]).clip(max=1)
    return adjusted[np.argsort(order)]


def _sizes(name: str, given: Any, x: Tensor, mask: Multiplicative, d: int, kind: Kind) -> Float[Tensor, "b d"]:
    if isinstance(given, Explanation) and given.x.shape == x.shape and not torch.allclose(given.x.to(x), x):
        raise ValueError(f"explanations: {name!r} explains other instances than x")
    try:
        w = torch.as_tensor(given.weights if isinstance(given, Explanation) else given, device=x.device).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"explanations: {name!r} must be weights, got {type(given).__name__}") from error
    if w.shape == x.shape and d < x[0].numel():
        w = mask.group_sum(x, w)
    if w.ndim < 2 or tuple(w.flatten(1).shape) != (len(x), d):
        raise ValueError(
            f"explanations: {name!r} has shape {tuple(w.shape)}; expected {len(x)} instances of {d} features"
        )
    if not bool(torch.isfinite(w).all()):
        raise ValueError(f"explanations: {name!r} has NaN or infinite values")
    return w.flatten(1) if kind in SIGNED else w.flatten(1).abs()


def _first(
    size: Float[Tensor, "b d"], ks: Int[Tensor, " k"], down: bool, order: Int[Tensor, "b d"] | None
) -> Bool[Tensor, "b k d"]:
    """The k features of least size (or largest: down), equal ones in the given order, or as argsort has it."""
    if order is None:
        ranked = size.argsort(-1, descending=down)
    else:
        ranked = order.gather(1, size.gather(1, order).argsort(dim=-1, descending=down, stable=True))
    return ranked.argsort(-1).unsqueeze(1) < ks[:, None]


def _tied(size: Float[Tensor, "b d"], moved: Bool[Tensor, "b d"] | None) -> bool:
    """Whether features tie that the perturbation moves (all, if None)."""
    return bool(((size if moved is None else size.where(moved, torch.nan)).sort(-1).values.diff() == 0).any())

"""Perturbation tests: what the prediction does when features are perturbed in the order that an explanation gives."""

from collections.abc import Set
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
from locapprox._names import aligned
from locapprox._parts import positive, share, whole_number
from locapprox._problem import Problem
from locapprox.evaluation.columns import check_instances
from locapprox.evaluation.intervals import median, t_intervals
from locapprox.models.inputs import Array, floating
from locapprox.models.scores import Scores, Target
from locapprox.neighbourhoods.baselines import BaselineLike
from locapprox.neighbourhoods.labels import Features
from locapprox.neighbourhoods.masks import FairMasks
from locapprox.neighbourhoods.placements import Multiplicative

Kind = Literal["bottom", "top", "deletion", "insertion"]
Replace = Literal["baseline", "noise"]
Ties = Literal["average", "argsort"]
SIGNED = ("deletion", "insertion")  # ranked by the weight itself, and measured by the prediction itself
LOW_IS_GOOD = ("bottom", "deletion")


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
        """Mean over instances and t interval (NaN below 15 instances), one row per method and k."""
        return t_intervals(self.changes, ["method", "k"], self.measure, share(level, "level"))

    def auc(self, up_to: int | None = None) -> pd.DataFrame:
        """The area under each instance's curve: its mean over k = 1 … up_to (default, and at most: all its ranked
        features), one row per method and instance. With deletion and insertion k = 0 … up_to and the first and last
        count half (trapezoids)."""
        least = int(self.changes["k"].min())
        last = None if up_to is None else whole_number(up_to, "up_to", least)
        some = self.changes if last is None else self.changes[self.changes["k"] <= last]
        by = ["method", "instance"]
        values = some.pivot_table(index=by, columns="k", values=self.measure, sort=False)
        k, end = values.columns.to_numpy(), some.groupby(by)["k"].max().loc[values.index].to_numpy()[:, None]
        weight = (k <= end).astype(float)
        if self.kind in SIGNED:
            weight[((k == least) | (k == end)) & (end > least)] = 0.5
        total = values.where(k <= end, 0.0).mul(weight).sum(axis=1, skipna=False)
        areas: pd.DataFrame = (total / weight.sum(1)).rename("auc").reset_index()
        return areas

    def summary(self, up_to: int | None = None, level: float = 0.95) -> pd.DataFrame:
        """Mean AUC and t interval (NaN below 15 instances) per method, in the order of the means: low is good for
        bottom and deletion, high for top and insertion. `compare` says which differences are shown."""
        table = t_intervals(self.auc(up_to), ["method"], "auc", share(level, "level"))
        return table.sort_values("mean", ascending=self.kind in LOW_IS_GOOD, kind="stable", ignore_index=True)

    def compare(self, up_to: int | None = None, level: float = 0.95, margin: float = 0.05) -> pd.DataFrame:
        """Every pair of methods by the differences of their AUCs, instance by instance.

        Their mean (`difference`) and median, with the median's interval (low, high; any distribution), the sign test's
        p and Holm's (1979) over all pairs. The `state` says how the method does beside the other: worse, better or
        equivalent, shown at the level corrected over all pairs (Bonferroni) to differ by more, or by less, than
        `margin` times the mean AUC of the two; or undecided.
        """
        from scipy.special import bdtr

        level, margin = share(level, "level"), share(margin, "margin")
        wide = self.auc(up_to).pivot_table(index="instance", columns="method", values="auc", sort=False)
        pairs, rows = list(combinations(wide.columns, 2)), []
        sign = 1 if self.kind in LOW_IS_GOOD else -1
        for a, b in pairs:
            gap = (wide[a] - wide[b]).to_numpy(float)
            above, below = int((gap > 0).sum()), int((gap < 0).sum())
            p = min(1.0, 2 * float(bdtr(min(above, below), above + below, 0.5)))
            strict = median(sign * gap, 1 - (1 - level) / len(pairs))
            within = margin * float(wide[[a, b]].mean().abs().mean())
            state = "better" if strict.high < -within else strict.state(within)
            rows.append((a, b, float(gap.mean()), *median(gap, level), p, state))
        table = pd.DataFrame(rows, columns=["method", "other", "difference", "median", "low", "high", "p", "state"])
        table.insert(7, "p_holm", holm(table["p"].to_numpy(dtype=float)))
        return table


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
    ranked: Array | None = None,
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

        ranked: (b, d) or (d,), True where a feature of an instance takes part, in all explanations alike; the others
            have no place in the order and keep their values. An instance with m of them has k ≤ m. Masks and paths say
            nothing of how f moves with a feature at the baseline: `ranked=x != baseline` leaves those out.

        ties: "average" over random orders of features of equal |weight|, another one in each draw (with a baseline
            too, unless all that tie are there already); "argsort" takes torch.argsort's order, as the authors do: one
            call, but which of equal features comes first is then nobody's choice, and moves curves by several
            standard errors where many weights are 0.

        batch_size: rows per model call, as in `explain`; no more perturbed inputs than that are held at once.

    Noise and order of a draw are the same for all methods, so comparisons are paired, and fresh for every instance, so
    that intervals over instances hold the noise's error too.

    Raises:
        ValueError, TypeError: naming the argument, or the explanation, that is wrong.
        MemoryError: if the model runs out of memory; lower batch_size.
    """
    _check_choices(kind, replace, ties)
    draws, seed, sigma = whole_number(draws, "draws"), whole_number(seed, "seed", least=0), positive(sigma, "sigma")
    parts, problem = named(explanations, "explanations"), Problem(model, x, target, batch_size)
    x, noisy = problem.x, replace == "noise"
    problem.check_finite()
    if problem.several:
        raise ValueError(f"target must choose one output for each instance, got {target!r}")
    lifted, replaced = (problem.check(Multiplicative(FairMasks(), b, features)) for b in (0.0, baseline))
    d = lifted.group_sum(x, x).shape[-1]
    found = as_maps(parts, problem, n_samples, seed)
    some = _some(ranked, x, d)
    sizes = {name: _sizes(name, one, problem, lifted, d, kind) for name, one in found.items()}
    sizes = {name: size.where(some, torch.nan) for name, size in sizes.items()}
    moved = _moved(replaced, x) if features is None and not noisy else None
    tied = {name for name, size in sizes.items() if ties == "average" and _tied(size, moved)}
    perturbed = _Perturbed.of(problem, lifted if noisy else replaced, kind, noisy, some)
    changes = perturbed.measured(sizes, tied, draws if noisy or tied else 1, sigma, seed)
    levels = [list(sizes), range(len(x)), perturbed.ks.tolist()]
    frame = pd.MultiIndex.from_product(levels, names=["method", "instance", "k"]).to_frame(index=False)
    frame["prediction" if kind in SIGNED else "change"] = changes.flatten().cpu().numpy()
    last = some.sum(1).cpu().numpy()[frame["instance"]]
    return PerturbationTest(frame[frame["k"] <= last].reset_index(drop=True), kind, replace)


def _check_choices(kind: Kind, replace: Replace, ties: Ties) -> None:
    for name, given, allowed in (("kind", kind, Kind), ("replace", replace, Replace), ("ties", ties, Ties)):
        if given not in get_args(allowed):
            raise ValueError(f"{name} must be one of {', '.join(get_args(allowed))}; got {given!r}")
    if kind in SIGNED and replace != "baseline":
        raise ValueError(f'kind="{kind}" sets features to the baseline: replace must be "baseline"; got {replace!r}')


@dataclass(frozen=True, eq=False)
class _Perturbed:
    """The instances with the first k features of an order perturbed, or for insertion all others."""

    problem: Problem
    mask: Multiplicative  # what removed features are replaced by; of noise: 0
    kind: Kind
    noisy: bool
    ks: Int[Tensor, " k"]
    last: Int[Tensor, " b"]  # how many features of an instance are ranked
    rows: int  # perturbed inputs in a model call

    @classmethod
    def of(
        cls, problem: Problem, mask: Multiplicative, kind: Kind, noisy: bool, ranked: Bool[Tensor, "b d"]
    ) -> "_Perturbed":
        x, d = problem.x, ranked.shape[1]
        placed = mask.place(x[:1], x.new_ones(1, d))
        copies = placed.shape[2] if placed.ndim > x.ndim + 1 else 1  # averaged over a background sample
        ks = torch.arange(0 if kind in SIGNED else 1, d + 1, device=x.device)
        return cls(problem, mask, kind, noisy, ks, ranked.sum(1), max(1, problem.scores.rows_per_call // copies))

    def measured(
        self, sizes: dict[str, Tensor], tied: Set[str], rounds: int, sigma: float, seed: int
    ) -> Float[Tensor, "methods b k"]:
        """What `PerturbationTest` holds, in the mean over rounds, each with its noise and order of those that tie."""
        x, signed, d = self.problem.x, self.kind in SIGNED, int(self.ks[-1])
        changes = torch.zeros(len(sizes), len(x), len(self.ks), dtype=torch.float64, device=x.device)
        batches = torch.arange(len(x), device=x.device).split(max(1, self.rows // len(self.ks)))
        rng = torch.Generator(x.device).manual_seed(seed)
        with self.problem.evaluating() as scores:
            # copies, of inputs and outputs: a model may change its input in place, and use its output again
            before = [None if signed else scores.values(x[i].unsqueeze(1), i)[:, 0].clone() for i in batches]
            for _ in range(rounds):
                noise = sigma * torch.randn(x.shape, generator=rng, device=rng.device, dtype=x.dtype)
                order = torch.rand(len(x), d, generator=rng, device=rng.device).argsort(-1)
                for i, at_x in zip(batches, before, strict=True):
                    for change, (name, size) in zip(changes, sizes.items(), strict=True):
                        rank = _rank(size[i], self.kind != "bottom", order[i] if name in tied else None)
                        after = self.predictions(scores, i, rank, noise[i])
                        change[i] += (after if at_x is None else (after - at_x).abs()).double() / rounds
        return changes

    def predictions(
        self, scores: Scores, i: Int[Tensor, " i"], rank: Int[Tensor, "i d"], noise: Tensor
    ) -> Float[Tensor, "i k"]:
        """Of the instances i, one column per k, as many at a time as a model call takes."""
        x, mask, out = self.problem.x[i], self.mask.at(self.problem.x, i), []
        for ks in self.ks.split(max(1, self.rows // len(i))):
            first = rank.unsqueeze(1) < ks[:, None]
            others = (rank >= self.last[i, None]).unsqueeze(1)
            keep = ((first | others) if self.kind == "insertion" else ~first).to(x.dtype)
            placed = mask.place(torch.ones_like(x) if self.noisy else x, keep)
            if self.noisy:
                placed = x.unsqueeze(1) + (1 - placed) * noise.unsqueeze(1)
            out.append(scores.values(placed, i)[:, 0].clone())
        return torch.cat(out, dim=1)


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


def _some(ranked: Array | None, x: Tensor, d: int) -> Bool[Tensor, "b d"]:
    given = np.asarray(True if ranked is None else ranked.cpu() if isinstance(ranked, Tensor) else ranked)
    if given.dtype != bool or given.shape not in ((), (d,), (len(x), d)) or not given.any():
        raise ValueError(
            f"ranked must be True or False, not all False, of {d} features or of {len(x)} instances' {d}; got "
            f"{given.dtype} of shape {given.shape}"
        )
    return torch.tensor(given, device=x.device).expand(len(x), d)


def _sizes(name: str, given: Any, problem: Problem, mask: Multiplicative, d: int, kind: Kind) -> Float[Tensor, "b d"]:
    x = problem.x
    if isinstance(given, Explanation):
        check_instances(problem, name, given, "explanations")
    maps = isinstance(given, pd.DataFrame) and given.shape == x.shape  # or its columns are features
    given = aligned(given, problem.names if maps else None, problem.index, f"explanations: {name!r}")
    w = floating(given.weights if isinstance(given, Explanation) else given, f"explanations: {name!r}").to(x.device)
    if w.shape == x.shape and d < x[0].numel():
        w = mask.group_sum(x, w)
    if w.ndim < 2 or tuple(w.flatten(1).shape) != (len(x), d):
        raise ValueError(
            f"explanations: {name!r} has shape {tuple(w.shape)}; expected {len(x)} instances of {d} features"
        )
    if not bool(torch.isfinite(w).all()):
        raise ValueError(f"explanations: {name!r} has NaN or infinite values")
    return w.flatten(1) if kind in SIGNED else w.flatten(1).abs()


def _rank(size: Float[Tensor, "b d"], down: bool, order: Int[Tensor, "b d"] | None) -> Int[Tensor, "b d"]:
    """Places by size, from the least (or largest: down), of equal ones in the given order, or as argsort has it; NaN,
    features that are not ranked, come last."""
    size = size.nan_to_num(-torch.inf if down else torch.inf)
    if order is None:
        return size.argsort(-1, descending=down).argsort(-1)
    return order.gather(1, size.gather(1, order).argsort(dim=-1, descending=down, stable=True)).argsort(-1)


def _tied(size: Float[Tensor, "b d"], moved: Bool[Tensor, "b d"] | None) -> bool:
    """Whether features tie that the perturbation moves (all, if None)."""
    return bool(((size if moved is None else size.where(moved, torch.nan)).sort(-1).values.diff() == 0).any())

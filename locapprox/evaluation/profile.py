"""How an explanation depends on what is called local: weights and R² against the width of the neighbourhood."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from locapprox._explain import N_SAMPLES, check_method, explained
from locapprox._explanation import Explanation
from locapprox._method import Method
from locapprox._parts import positive, share, whole_number
from locapprox._problem import Problem
from locapprox.models.inputs import Array
from locapprox.models.scores import Target
from locapprox.neighbourhoods.data import LimeTabular
from locapprox.neighbourhoods.distributions import Normal
from locapprox.neighbourhoods.placements import Additive, Multiplicative
from locapprox.plotting import Axes, draw_profile


@dataclass(frozen=True, eq=False, repr=False)
class Profile:
    """`explanations` by width, and `failed`: why there is none at the other widths."""

    explanations: Mapping[float, Explanation]
    failed: Mapping[float, str]
    level: float

    @property
    def widths(self) -> list[float]:
        """All of them, the narrowest first."""
        return sorted([*self.explanations, *self.failed])

    @property
    def table(self) -> pd.DataFrame:
        """A row per width, instance (, target) and feature: weight, standard_error, low and high (the interval), and r2
        and loss of the instance's fit; NaN at the widths that failed."""
        frames = {width: self._frame(e) for width, e in self.explanations.items()}
        first = next(iter(frames.values()))
        keys = [name for name in ("instance", "target", "feature") if name in first]
        frames |= dict.fromkeys(self.failed, first[keys])
        whole = pd.concat([frames[width].assign(width=width) for width in self.widths], ignore_index=True)
        return whole[["width", *first.columns]]

    def plot(self, instance: int = 0, score: int = 0, top: int = 6) -> tuple[Axes, Axes]:
        """One instance: the largest weights with their intervals, and R² below, on one axis of widths."""
        one = next(iter(self.explanations.values()))
        b, k = one._by_score(one.weights).shape[:2]
        instance, score = whole_number(instance, "instance", least=0), whole_number(score, "score", least=0)
        if instance >= b or score >= k:
            raise ValueError(f"instance must be below {b} and score below {k}; got {instance} and {score}")
        parts = np.full((4, len(self.widths), one._by_score(one.weights).shape[-1]), np.nan)
        for i, width in enumerate(self.widths):
            if width in self.explanations:
                e = self.explanations[width]
                for j, part in enumerate((e.weights, *e.interval(self.level))):
                    parts[j, i] = e._by_score(part)[instance, score].cpu().numpy()
                parts[3, i] = float(e.r2.reshape(b, k)[instance, score])
        weights, low, high, r2 = parts
        title = f"{one.method.name}, instance {instance} (bands: {self.level:.0%} intervals, where known)"
        return draw_profile(
            np.array(self.widths), weights, low, high, r2[:, 0], one._names(), whole_number(top, "top"), title
        )

    def _frame(self, e: Explanation) -> pd.DataFrame:
        low, high = (bound.flatten().cpu().numpy() for bound in e.interval(self.level))
        per_fit = low.size // e.loss.numel()
        fit = {name: getattr(e, name).flatten().cpu().numpy().repeat(per_fit) for name in ("r2", "loss")}
        return e.to_frame().drop(columns="method").assign(low=low, high=high, **fit)

    def __repr__(self) -> str:
        said = {width: f"median r2 {float(e.r2.nanmedian()):.3g}" for width, e in self.explanations.items()}
        lines = [f"  width {width:.3g}: {(said | dict(self.failed))[width]}" for width in self.widths]
        return "\n".join(["Profile", *lines])


def profile(
    model: Any,
    x: Array,
    method: Method | Callable[[float], Method],
    widths: Iterable[Any],
    *,
    target: Target = None,
    n_samples: int = N_SAMPLES,
    seed: int = 0,
    level: float = 0.95,
    batch_size: int | None = None,
    progress: bool = True,
) -> Profile:
    """The explanations of x at several widths of the neighbourhood: how local must a statement be to hold?

    Main arguments:
        method: a Method whose neighbourhood has a kernel, one σ (`lx.c_lime()`, `lx.smoothgrad()`) or is `LimeTabular`,
            of which it is replaced; or a function from a width to a Method, such as `lx.lime`.
        widths: positive numbers, each once. All of them use the same seed, so what differs is not the draw.

    Other arguments as of `explain`; `level` is that of the intervals. A width at which nothing can be fitted (a kernel
    too narrow) is listed in `failed`, and NaN in `table`.
    Raises ValueError if that is so at every width, and whatever `explain` would for another reason.
    """
    sizes = [positive(width, "widths") for width in (widths if isinstance(widths, Iterable) else [widths])]
    if not sizes or len(set(sizes)) < len(sizes):
        raise ValueError(f"widths must be positive numbers, each once; got {sizes}")
    level, problem = share(level, "level"), Problem(model, x, target, batch_size)
    methods = {width: of_width(method, width) for width in sizes}
    problem.ask()  # what is wrong with the model is said before any width is tried
    explanations: dict[float, Explanation] = {}
    failed: dict[float, str] = {}
    for width in tqdm(sizes, "profile: widths", delay=2, leave=False, disable=not progress):
        try:
            explanations[width] = explained(problem, methods[width], n_samples, seed)
        except ValueError as error:
            failed[width] = str(error)
    if not explanations:
        raise ValueError(f"nothing can be fitted at any of the widths; at {max(sizes):g}: {failed[max(sizes)]}")
    if len({e.weights.shape for e in explanations.values()}) > 1:
        raise ValueError("method gives other features at other widths, so there is no profile of their weights")
    return Profile(explanations, failed, level)


def of_width(method: Method | Callable[[float], Method], width: float) -> Method:
    """The method with another width of its kernel, or σ."""
    if not isinstance(method, Method):
        made = method(width) if callable(method) else method
        check_method(made)
        return made
    where = method.neighbourhood
    if isinstance(where, LimeTabular):
        return replace(method, neighbourhood=replace(where, width=width))
    if isinstance(where, Additive | Multiplicative):
        if where.kernel is not None:
            kernel = replace(where.kernel, width=width, chosen=None)
            return replace(method, neighbourhood=replace(where, kernel=kernel))
        if isinstance(where.distribution, Normal) and not torch.as_tensor(where.distribution.sigma).ndim:
            return replace(method, neighbourhood=replace(where, distribution=replace(where.distribution, sigma=width)))
    raise ValueError(
        f"method {method.name!r} has neither a kernel nor one σ for all entries: pass a function from a width to a "
        "Method, such as lambda width: lx.c_lime(width * x.std(0))"
    )

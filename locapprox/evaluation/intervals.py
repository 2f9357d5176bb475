"""Intervals of means over instances and replicate draws."""

import pandas as pd


def paired(values: pd.Series, level: float) -> tuple[float, float]:
    """The mean over (instance, replicate) and half its t interval for other instances and other draws.

    Its variance is that over instances / instances plus that over replicate draws / replicates; degrees of freedom by
    Welch and Satterthwaite. One instance speaks for itself only; of one instance and one draw nothing is known: NaN.
    """
    from scipy.special import stdtrit

    wide = values.unstack("replicate")
    parts = [by.var() / len(by) for by in (wide.mean(axis=1), wide.mean(axis=0)) if len(by) > 1]
    if not parts:
        return float(wide.to_numpy().mean()), float("nan")
    variance = sum(parts)
    sizes = [len(by) for by in (wide.index, wide.columns) if len(by) > 1]
    spread = sum(part**2 / (size - 1) for part, size in zip(parts, sizes, strict=True))
    if variance == 0:
        return float(wide.to_numpy().mean()), 0.0
    quantile = stdtrit(variance**2 / spread, (1 + level) / 2)
    return float(wide.to_numpy().mean()), float(quantile * variance**0.5)


def t_intervals(frame: pd.DataFrame, by: list[str], value: str, level: float) -> pd.DataFrame:
    """Mean of each group with its t interval."""
    from scipy.special import stdtrit

    table = frame.groupby(by, sort=False)[value].agg(["mean", "sem", "count"]).reset_index()
    half = table.pop("sem") * stdtrit(table.pop("count") - 1, (1 + level) / 2)
    return table.assign(low=table["mean"] - half, high=table["mean"] + half)

"""Labels of rows and columns: what comes by name is put into the order of x's, or refused, never taken as it lies."""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd


def names_of(given: Any) -> list[str] | None:
    """Names of the features: a DataFrame's columns, or the index of a Series that has one number for each."""
    if isinstance(given, pd.Series):
        return [str(label) for label in given.index]
    return [str(label) for label in given.columns] if isinstance(given, pd.DataFrame) else None


def index_of(given: Any) -> pd.Index | None:
    """Names of the instances: a DataFrame's index."""
    return given.index if isinstance(given, pd.DataFrame) else None


def places(labels: Iterable[Any], wanted: Iterable[Any]) -> list[int] | None:
    """Where each wanted label stands among the labels; None if they are not the same ones, each once."""
    labels = list(labels)
    place = {label: i for i, label in enumerate(labels)}
    found = [place.get(label, -1) for label in wanted]
    return found if sorted(found) == list(range(len(labels))) else None


def in_order(labels: Iterable[Any] | None, wanted: Iterable[Any] | None, what: str, chosen: str) -> list[int] | None:
    """Where each of x's labels, the wanted, stands among a part's; None if they are in order, or if one side has none.

    Raises ValueError if they are others: `what` is the argument, `chosen` how x's are chosen from it.
    """
    if labels is None or wanted is None or list(labels) == list(wanted):
        return None
    found = places(labels, wanted)
    if found is None:
        ours, theirs = dict.fromkeys(wanted), dict.fromkeys(labels)
        lacks, more = [one for one in ours if one not in theirs], [one for one in theirs if one not in ours]
        how = [f"{word} {_some(part)}" for word, part in (("lacks", lacks), ("has", more)) if part]
        raise ValueError(
            f"{what} is labelled otherwise than x: it {' and '.join(how) or 'has labels twice'}; pass {what}{chosen}, "
            f"or {what}.to_numpy() to take it in order"
        )
    return found


COLUMNS, ROWS = "[x.columns]", ".loc[x.index]"


def _some(labels: Sequence[Any]) -> str:
    return ", ".join(map(str, labels[:5])) + (" …" if len(labels) > 5 else "")


def aligned(given: Any, names: Sequence[str] | None, index: pd.Index | None, what: str) -> Any:
    """A DataFrame of an instance in each row, or a Series of a number for each, in x's order; else what is given."""
    if isinstance(given, pd.DataFrame | pd.Series):
        rows = in_order(given.index, index, what, ROWS)
        given = given if rows is None else given.iloc[rows]
    if isinstance(given, pd.DataFrame):
        columns = in_order(names_of(given), names, what, COLUMNS)
        given = given if columns is None else given.iloc[:, columns]
    return given

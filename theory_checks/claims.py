"""A claim of the theory as a number held against a bound."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import pandas as pd


@dataclass(frozen=True)
class Claim:
    """`statement` holds if number ≤ bound (or ≥, as `relation` says); never if the number is NaN."""

    statement: str  # one sentence, with its source
    number: float
    bound: float
    relation: Literal["<=", ">="] = "<="

    @property
    def holds(self) -> bool:
        return self.number <= self.bound if self.relation == "<=" else self.number >= self.bound


def table(claims: Iterable[Claim]) -> pd.DataFrame:
    """One row per claim."""
    rows = [(c.statement, c.number, c.relation, c.bound, "holds" if c.holds else "FAILS") for c in claims]
    return pd.DataFrame(rows, columns=["claim", "number", "relation", "bound", "verdict"])


def main(check: Callable[[], list[Claim]]) -> None:
    """Print the table of one file; exit status 1 if a claim fails."""
    claims = check()
    with pd.option_context("display.width", 200, "display.max_colwidth", 120, "display.float_format", "{:.3g}".format):
        print(table(claims).to_string(index=False))
    raise SystemExit(not all(claim.holds for claim in claims))

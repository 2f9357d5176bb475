"""A claim of the theory as a number held against a bound.

How bounds are chosen, before a run: identities and enumerations by round-off (1e-12 where a few numbers are added, to
1e-8 where systems are solved twice); what is drawn by three or four of its own standard errors, on fixed seeds, so such
a claim fails when the code changes and is no evidence beyond its seed; orders of convergence to a twentieth of the
order (a tenth where f has kinks). Claims that something does *not* hold have bounds far from it, chosen to be passed
only if the effect is there, not to say how large it is: those are the ones with ≥, and "below" in words.
"""

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

"""docs/differences.md: every row names the numbers that show it, and running the other side gives them."""

import re
from pathlib import Path

import pytest

from experiments.differences import ROWS

PAGE = Path(__file__).parents[1] / "docs" / "differences.md"
LINES = PAGE.read_text(encoding="utf-8").split("| row and numbers |")[1].split("\n\n")[0].splitlines()[2:]
SHOWN = dict(
    re.match(r"`(\w+)`: (.*?)(?: \([^=≤≥]*\))?$", line.split(" | ")[-1].removesuffix(" |")).groups() for line in LINES
)


def test_every_line_of_the_table_is_a_row():
    assert list(SHOWN) == list(dict.fromkeys(SHOWN))
    assert len(LINES) == len(SHOWN)
    assert set(SHOWN) == set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_the_numbers_of_the_row(name):
    """Equal to a tenth, or to two digits; at most; at least."""
    try:
        found = ROWS[name]()
    except FileNotFoundError as absent:
        pytest.skip(str(absent))
    except ModuleNotFoundError as absent:
        pytest.skip(f"{absent}: pip install saliency")
    for part in SHOWN[name].split("; "):
        what, relation, number = re.fullmatch(r"(.+) ([=≤≥]) (\S+)", part).groups()
        said = float(number)
        if relation == "=":
            assert found[what] == pytest.approx(said, rel=0.1), part
        else:
            assert found[what] <= said if relation == "≤" else found[what] >= said, part

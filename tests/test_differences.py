"""docs/differences.md: every row names the numbers that show it, and running the other side gives them."""

import re
from pathlib import Path

import pytest

from experiments.differences import ROWS
from theory_checks.recovery import EIGHT, TABLE

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


def test_the_table_of_recovery_is_the_one_that_is_checked():
    page = PAGE.read_text(encoding="utf-8").split("## Who recovers")[1]
    for name in EIGHT:
        cells = re.search(rf"\n\| {name} \| (.*) \|\n", page).group(1).split(" | ")
        for cell, (setting, (said, found)) in zip(cells, TABLE.items(), strict=True):
            assert ("yes" in cell) == (name in found), (name, setting)
            assert ("**" in cell) == ((name in said) != (name in found)), (name, setting)

"""Generated calls over the whole public API: each gives the oracle's number or is refused in words.

In a process of its own, as users run it: without the shape checks of the other tests.
"""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("seed", "cases"), [(0, 150), *(pytest.param(s, 1700, marks=pytest.mark.slow) for s in (1, 2, 3))]
)
def test_every_call_is_right_or_refused_in_words(seed, cases):
    command = [sys.executable, "-m", "tests.fuzzing", "--seed", str(seed), "--cases", str(cases)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-9000:] + done.stderr[-3000:]
    assert f"{cases} cases" in done.stdout

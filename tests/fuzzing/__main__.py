"""`python -m tests.fuzzing --seed 1 --cases 1700`; one case with its traceback: `--seed 1 --index 37`."""

import argparse
import dis
import io
import sys
import time
import traceback
import warnings
from collections import Counter, defaultdict
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import torch

import locapprox as lx

from . import areas, around, evaluations, refusals
from .oracle import Wrong
from .things import Chance

HOME = str(Path(lx.__file__).parent)
SENTENCES = (ValueError, TypeError, MemoryError, ImportError, IndexError)
AREAS = {  # how often, and what
    "inputs": (3, areas.inputs),
    "models": (4, areas.models),
    "methods": (2, areas.methods),
    "users' parts": (5, areas.users_parts),
    "units": (3, areas.units),
    "identities": (2, around.metamorphic),
    "explanations": (2, around.explanation),
    "files": (3, around.files),
    "perturbation": (2, evaluations.perturbation),
    "faithfulness": (2, evaluations.faithful),
    "names": (2, evaluations.names),
    "contexts": (2, evaluations.contexts),
    "images": (3, evaluations.images),
    "refusals": (12, refusals.must_be_refused),
    "alike": (2, refusals.alike),
    "owned": (1, refusals.owned),
}
SHARES = [name for name, (share, _) in AREAS.items() for _ in range(share)]
VERDICTS = ("right", "sentence", "raw", "silently wrong")


def place_of(error):
    """Where it was raised last, and whether that is a `raise` of the library."""
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    tb = error.__traceback__
    while tb.tb_next is not None:
        tb = tb.tb_next
    raising = dis.opname[frame.f_code.co_code[tb.tb_lasti]] == "RAISE_VARARGS"
    return f"{frame.f_code.co_filename}:{line}", raising and frame.f_code.co_filename.startswith(HOME)


def judge(seed, index, only=None):
    """(area, verdict, where, message, words, error) of one case."""
    chance = Chance(seed, index)
    area = only or SHARES[index * 37 % len(SHARES)]
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            AREAS[area][1](chance)
        except Wrong as error:
            return area, "silently wrong", chance.subject or area, str(error), chance.words, error
        except Exception as error:
            where, ours = place_of(error)
            kind = "sentence" if ours and isinstance(error, SENTENCES) else "raw"
            return area, kind, f"{type(error).__name__} {where}", str(error), chance.words, error
    return area, "right", "", "", chance.words, None


def report(seed, results, only=None):
    """Counts by area, then every failure by where it was raised."""
    counts = Counter((area, verdict) for _, (area, verdict, *_) in results)
    again = f"--seed {seed}" + (f" --area {only!r}" if only else "")
    lines = [f"{'area':<14}" + "".join(f"{v:>16}" for v in VERDICTS)]
    for area in (*AREAS, None):
        row = [sum(n for (a, v), n in counts.items() if v == verdict and area in (a, None)) for verdict in VERDICTS]
        lines.append(f"{area or 'all':<14}" + "".join(f"{n:>16}" for n in row))
    groups = defaultdict(list)
    for index, (area, verdict, where, message, words, _) in results:
        if verdict in VERDICTS[2:]:
            groups[verdict, area, where].append((index, message, words))
    for (verdict, area, where), cases in sorted(groups.items(), key=lambda item: (item[0][0], -len(item[1]))):
        lines.append(f"\n{len(cases)} × {verdict}, {area}: {where.replace(HOME, 'locapprox')}")
        for index, message, words in cases[:3]:
            lines += [
                f"    {message.splitlines()[0][:160] if message else ''}",
                f"    {again} --index {index}: {', '.join(words)}",
            ]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.fuzzing")
    for name, default in (("seed", 0), ("cases", 150), ("index", None)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--area", choices=AREAS)
    parser.add_argument("--sentences", action="store_true", help="print every sentence once, to be read")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.index is not None:
        area, verdict, _, message, words, error = judge(given.seed, given.index, given.area)
        traceback.print_exception(error)
        print(f"{area}: {verdict}. {', '.join(words)}\n{message}")
        return int(verdict in VERDICTS[2:])
    start = time.perf_counter()
    results = [(index, judge(given.seed, index, given.area)) for index in range(given.cases)]
    print(report(given.seed, results, given.area))
    print(f"\n{given.cases} cases of seed {given.seed} in {time.perf_counter() - start:.0f} s")
    if given.sentences:
        said = {r[2]: f"--index {i}: {r[3]}" for i, r in results if r[1] == "sentence"}
        print("\n".join(f"{where.replace(HOME, '')}\n    {text}" for where, text in sorted(said.items())))
    return int(any(verdict in VERDICTS[2:] for _, (_, verdict, *_) in results))


if __name__ == "__main__":
    sys.exit(main())

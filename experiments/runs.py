"""Finished results: tidy CSV files and a manifest that says where they come from. Results appear whole or not at all.

The manifest holds the sha256 of every file, and of itself. A folder is used again only if all of them are right and
config, code, data and packages are the same; else one line says what differs, and they are computed again: beside the
old ones, which they replace when they are whole.
"""

import hashlib
import importlib.metadata
import json
import platform
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import asdict, fields
from functools import cache
from multiprocessing import current_process
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import torch
from tqdm.auto import tqdm

from experiments import files
from experiments.files import digest, writing

PACKAGES = ("locapprox", "torch", "captum", "scikit-learn", "numpy", "pandas")
IDENTITY = ("config", "code", "data", "packages")
MANIFEST = "manifest.json"
STARTERS = {
    "paper.py",
    "paper_images.py",
    "demo.py",
    "schedule.py",
}  # start or time experiments, and compute no result
T = TypeVar("T")
ROOT = Path(__file__).resolve().parent.parent

Results = tuple[Mapping[str, pd.DataFrame], Mapping[str, Any]]  # tables, and what else the manifest should say


class UnfinishedError(Exception):
    """What has to be computed, and why."""


_asking: ContextVar[bool] = ContextVar("asking", default=False)


def reason(main: Callable[..., Any], *arguments: Any) -> str | None:
    """Why `main(*arguments)`, which calls `run`, would compute ("" if nothing is there yet); None if it would not."""
    token = _asking.set(True)
    try:
        main(*arguments)
    except UnfinishedError as answer:
        return str(answer)
    finally:
        _asking.reset(token)
    return None


def run(
    folder: Path,
    config: Any,
    data: Mapping[str, str],
    compute: Callable[[], Results],
    command: str,
    force: bool = False,
) -> Path:
    """Compute the tables and write them to `folder`, unless it holds those of the same config, code and data.

    `config` is a dataclass of all that the results depend on, `data` the sha256 of the inputs.
    """

    def fill(place: Path) -> Mapping[str, Any]:
        tables, notes = compute()
        with writing(folder):
            for name, table in tables.items():
                table.to_csv(place / f"{name}.csv", index=False)
        return {**notes, "command": command}

    settings = json.loads(json.dumps(asdict(config), default=str))
    return make(folder, {"config": settings, "code": code_version(), "data": dict(data)}, fill, force)


def make(
    folder: Path, sources: Mapping[str, Any], fill: Callable[[Path], Mapping[str, Any]], force: bool = False
) -> Path:
    """Let `fill` write files to the folder it is given and return notes, unless all is there from the same sources.

    What is in `folder` stays as it is until the new files are whole. ValueError says that another run writes there.
    """
    identity = {**sources, "packages": {name: importlib.metadata.version(name) for name in PACKAGES}}

    def why() -> str | None:
        return "" if force else trouble(folder, identity)

    found = why()
    if _asking.get():
        if found is None:
            return folder
        raise UnfinishedError(found)
    if found is not None:
        with files.alone(folder, files.PATIENCE):
            _recover(folder)
            if (found := why()) is not None:
                if found:
                    _say(f"{folder}: {found}; computed again")
                _make(folder, identity, fill)
                return folder
    _say(f"{folder}: already there (same config, code and data; --force computes it again)")
    return folder


def _make(folder: Path, identity: Mapping[str, Any], fill: Callable[[Path], Mapping[str, Any]]) -> None:
    with files.unfinished(folder) as place:
        with writing(folder), tempfile.TemporaryFile(dir=place) as probe:  # a full disk: better known now than later
            probe.write(b"0" * 4096)
        start = time.perf_counter()
        notes = fill(place)
        made = sorted(path for path in place.rglob("*") if path.is_file())
        record = {
            **identity,
            **notes,
            "files": {path.relative_to(place).as_posix(): digest(path) for path in made},
            "commit": commit(),
            "python": platform.python_version(),
            "threads": torch.get_num_threads(),
            "wall_seconds": round(time.perf_counter() - start, 2),
        }
        record = json.loads(json.dumps(record))
        text = json.dumps({**record, "sha256": _checksum(record)}, indent=2) + "\n"
        with writing(folder):
            (place / MANIFEST).write_text(text, encoding="utf-8")
            _swap(place, folder)


def _swap(place: Path, folder: Path) -> None:
    """Move the files of `place` to `folder`, the manifest last; of the run before, files that nobody edited go."""
    new, old = _written(place), _written(folder)
    for name in new:
        if (place / name).exists():  # not yet moved
            files.move(place / name, folder / name)
    for name in old.keys() - new.keys():
        if (folder / name).is_file() and digest(folder / name) == old[name]:
            (folder / name).unlink()
    files.move(place / MANIFEST, folder / MANIFEST)


def _written(folder: Path) -> dict[str, str]:
    """Name -> sha256 of the files that the manifest lists; none if it is not whole."""
    with suppress(OSError, ValueError, AttributeError, TypeError):
        record = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if record.pop("sha256", None) == _checksum(record):
            return dict(record["files"])
    return {}


def _recover(folder: Path) -> None:
    """Of what killed runs left in the folder, whole results that were on their way move in; the rest goes."""
    for place in files.left(folder):
        new = _written(place)
        if new and all(digest(place / name) == new[name] for name in new if (place / name).exists()):
            with writing(folder):
                _swap(place, folder)
        shutil.rmtree(place, ignore_errors=True)


def tidy(folder: Path) -> None:
    """`_recover`, unless another run writes to the folder."""
    if files.left(folder):
        with suppress(ValueError), files.alone(folder, patience=0):
            _recover(folder)


def trouble(folder: Path, identity: Mapping[str, Any]) -> str | None:
    """Why the folder cannot be used again; "" if nothing is there, None if all is right."""
    path = folder / MANIFEST
    if not path.is_file():
        return "no manifest.json: it was not finished" if any(folder.glob("[!.]*")) else ""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        found, names = record.pop("sha256", None), record.get("files")
    except (OSError, ValueError, AttributeError, TypeError) as error:
        return f"manifest.json cannot be read ({type(error).__name__}: half-written or damaged)"
    changed = [part for key in IDENTITY for part in _differences(key, record.get(key), identity.get(key))]
    if changed:
        return f"made from something else: {', '.join(changed)}"
    if found != _checksum(record) or not isinstance(names, dict):
        return "manifest.json does not have its own checksum (edited or damaged)"
    for name, sha256 in names.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if digest(folder / name) != sha256:
            return f"{name} is not what was written (its sha256 differs: half-written, edited or damaged)"
    return None


def _differences(key: str, old: Any, new: Any) -> Iterator[str]:
    """Names of what differs, with both values if they are short enough to say something."""
    if old == new:
        return
    if not (isinstance(old, dict) and isinstance(new, dict)):
        yield f"another version of the {key}" if isinstance(old, type(new)) else f"no {key} recorded"
        return
    for name in sorted(old.keys() | new.keys()):
        if old.get(name, ...) != new.get(name, ...):
            before, now = (repr(side[name]) if name in side else "nothing" for side in (old, new))
            hashes = key == "data"
            yield f"{key} {name}" + ("" if hashes else f" ({before} then, {now} now)")


def _checksum(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _say(message: str) -> None:
    """Worker processes are silent: the process that started them has said it."""
    if current_process().name == "MainProcess":
        tqdm.write(message)


def bar(iterable: Iterable[T], description: str) -> Iterable[T]:
    """A progress bar if it takes longer than two seconds; none in worker processes."""
    return tqdm(iterable, description, delay=2, leave=False, disable=in_worker())


def in_worker() -> bool:
    """Workers share one terminal, so they show no bars."""
    return current_process().name != "MainProcess"


@cache
def code_version() -> str:
    """sha256 of the sources that compute results: the library and the experiments, not what only starts or times them.

    One version for all experiments: a change in any source computes everything again, which is coarse but never wrong.
    """
    experiments = [path for path in ROOT.glob("experiments/*.py") if path.name not in STARTERS]
    return version_of([*ROOT.glob("locapprox/**/*.py"), *experiments])


def version_of(paths: Iterable[Path]) -> str:
    """One sha256 of all these files and their names."""
    names = {str(path.relative_to(ROOT)): digest(path) for path in paths}
    return _checksum(names)


def commit() -> str | None:
    """This project's git commit, with "+" if files differ from it; None outside its repository.

    A copy that lies in somebody else's repository has none, whether that tracks it or not.
    """
    try:
        head, changes, here = (
            subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
            for words in (
                ["rev-parse", "HEAD"],
                ["status", "--porcelain"],
                ["ls-files", "--full-name", "--error-unmatch", "experiments/runs.py"],
            )
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changes else "") if here == "experiments/runs.py" else None


def command(experiment: str, config: Any, out: Path) -> str:
    """What a shell is told to run this config again."""
    words = ["python", "-m", f"experiments.{experiment}"]
    for field in fields(config):
        value = getattr(config, field.name)
        if value != field.default:
            words += [f"--{field.name.replace('_', '-')}", *map(str, value if isinstance(value, tuple) else [value])]
    return shlex.join([*words, "--out", str(out)])

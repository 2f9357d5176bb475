"""Finished results: tidy CSV files and a manifest that says where they come from. Files appear whole or not at all.

The manifest holds the sha256 of every file, and of itself. A folder is used again only if all of them are right and
config, code, data and packages are the same; else one line says what differs, and it is emptied and computed again.
"""

import errno
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict
from functools import cache
from multiprocessing import current_process
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import torch
from tqdm.auto import tqdm

PACKAGES = ("locapprox", "torch", "captum", "scikit-learn", "numpy", "pandas")
IDENTITY = ("config", "code", "data", "packages")
OURS = {".csv", ".json", ".png", ".pdf", ".html"}  # files that a results folder is made of
STARTERS = {
    "paper.py",
    "paper_images.py",
    "demo.py",
    "schedule.py",
    "bench.py",
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

    `config` is a dataclass of all that the results depend on, `data` the sha256 of the inputs. The manifest is written
    last: a folder without one is unfinished.
    """

    def fill() -> Mapping[str, Any]:
        tables, notes = compute()
        for name, table in tables.items():
            write(folder / f"{name}.csv", lambda part, table=table: table.to_csv(part, index=False))  # type: ignore[misc]
        return {**notes, "command": command}

    settings = json.loads(json.dumps(asdict(config), default=str))
    return make(folder, {"config": settings, "code": code_version(), "data": dict(data)}, fill, force)


def make(folder: Path, sources: Mapping[str, Any], fill: Callable[[], Mapping[str, Any]], force: bool = False) -> Path:
    """Let `fill` write files to `folder` and return notes, unless all is there and made from the same sources."""
    identity = {**sources, "packages": {name: importlib.metadata.version(name) for name in PACKAGES}}
    why = None if force else trouble(folder, identity)
    if _asking.get():
        if why is None and not force:
            return folder
        raise UnfinishedError(why or "")
    if why is None and not force:
        _say(f"{folder}: already there (same config, code and data; --force computes it again)")
        return folder
    if why:
        _say(f"{folder}: {why}; computed again")
    with writing(folder):
        _emptied(folder)
    start = time.perf_counter()
    notes = fill()
    record = {
        **identity,
        **notes,
        "files": {path.relative_to(folder).as_posix(): digest(path) for path in _ours(folder)},
        "commit": commit(),
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "wall_seconds": round(time.perf_counter() - start, 2),
    }
    record = json.loads(json.dumps(record))
    text = json.dumps({**record, "sha256": _checksum(record)}, indent=2) + "\n"
    write(folder / "manifest.json", lambda part: part.write_text(text, encoding="utf-8"))
    return folder


def trouble(folder: Path, identity: Mapping[str, Any]) -> str | None:
    """Why the folder cannot be used again; "" if nothing is there, None if all is right."""
    path = folder / "manifest.json"
    if not path.is_file():
        return "no manifest.json: it was not finished" if _ours(folder) else ""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        found, files = record.pop("sha256", None), record.get("files")
    except (OSError, ValueError, AttributeError, TypeError) as error:
        return f"manifest.json cannot be read ({type(error).__name__}: half-written or damaged)"
    changed = [part for key in IDENTITY for part in _differences(key, record.get(key), identity.get(key))]
    if changed:
        return f"made from something else: {', '.join(changed)}"
    if found != _checksum(record) or not isinstance(files, dict):
        return "manifest.json does not have its own checksum (edited or damaged)"
    for name, sha256 in files.items():
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


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _ours(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in OURS and path.is_file())


def _emptied(folder: Path) -> None:
    """No file of another run is left, and files can be written: better known now than after the computation."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").unlink(missing_ok=True)  # first: what remains if this is interrupted is unfinished
    for path in _ours(folder):
        path.unlink()
    for path in sorted(folder.rglob("*"), reverse=True):  # deepest first
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(b"0" * 4096)


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


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """An OSError inside says which folder could not be written, and what to do."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        todo = f"{'Free some space, or choose' if full else 'Choose'} another place with --out"
        cause = f"{folder} cannot be written ({error.strerror or error})"
        raise OSError(error.errno, f"{cause}. {todo}; finished results are kept") from error


def write(path: Path, write_to: Callable[[Path], Any]) -> None:
    """Let `write_to` fill a file beside `path` and rename it: an interrupted write leaves no file."""
    part = path.with_name(f"{path.stem}.{os.getpid()}.part{path.suffix}")
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_to(part)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


@cache
def code_version() -> str:
    """sha256 of the sources that compute results: the library and the experiments, not what only starts or times them.

    One version for all experiments: a change in any source computes everything again, which is coarse but never wrong.
    """
    experiments = [path for path in ROOT.glob("experiments/**/*.py") if path.name not in STARTERS]
    return version_of([*ROOT.glob("locapprox/**/*.py"), *experiments])


def version_of(paths: Iterable[Path]) -> str:
    """One sha256 of all these files and their names."""
    names = {str(path.relative_to(ROOT)): digest(path) for path in paths}
    return _checksum(names)


def commit() -> str | None:
    """The git commit, with "+" if files differ from it; None outside a repository."""
    try:
        head, changes = (
            subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changes else "")

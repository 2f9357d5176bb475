"""Finished results: tidy CSV files and a manifest that says where they come from. Files appear whole or not at all."""

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from functools import cache
from multiprocessing import current_process
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import torch
from tqdm.auto import tqdm

PACKAGES = ("locapprox", "torch", "captum", "scikit-learn", "numpy", "pandas")
T = TypeVar("T")
ROOT = Path(__file__).resolve().parent.parent

Results = tuple[Mapping[str, pd.DataFrame], Mapping[str, Any]]  # tables, and what else the manifest should say


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
    settings = json.loads(json.dumps(asdict(config), default=str))
    identity = {"config": settings, "code": code_version(), "data": dict(data), "torch": torch.__version__}
    manifest = folder / "manifest.json"
    if not force and manifest.is_file() and _identity(manifest) == identity:
        tqdm.write(f"{folder}: already there (same config, code and data; --force computes it again)")
        return folder
    manifest.unlink(missing_ok=True)
    start = time.perf_counter()
    tables, notes = compute()
    for name, table in tables.items():
        write(folder / f"{name}.csv", lambda part, table=table: table.to_csv(part, index=False))  # type: ignore[misc]
    record = {
        **identity,
        **notes,
        "command": command,
        "commit": commit(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "threads": torch.get_num_threads(),
        "wall_seconds": round(time.perf_counter() - start, 2),
    }
    write(manifest, lambda part: part.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8"))
    return folder


def bar(iterable: Iterable[T], description: str) -> Iterable[T]:
    """A progress bar if it takes longer than two seconds; none in worker processes, which share one terminal."""
    inside_worker = current_process().name != "MainProcess"
    return tqdm(iterable, description, delay=2, leave=False, disable=inside_worker)


def write(path: Path, write_to: Callable[[Path], Any]) -> None:
    """Let `write_to` fill a file beside `path` and rename it: an interrupted write leaves no file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        write_to(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@cache
def code_version() -> str:
    """sha256 of the sources that compute results."""
    digest = hashlib.sha256()
    for path in sorted([*ROOT.glob("locapprox/**/*.py"), *ROOT.glob("experiments/**/*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


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


def _identity(manifest: Path) -> dict[str, Any]:
    record = json.loads(manifest.read_text(encoding="utf-8"))
    return {key: record.get(key) for key in ("config", "code", "data", "torch")}

"""Files that appear whole or not at all, in folders that one run writes at a time.

What is being made lies in a folder `.locapprox-unfinished-xxxxxxxx` (eight random characters) where it belongs, and is
moved out of it when it is whole. Only such folders are ever removed.
"""

import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import numpy as np
from tqdm.auto import tqdm

LOCK = ".locapprox.lock"
PATIENCE = 10.0  # seconds to wait for a folder: the workers of a killed run end sooner
UNFINISHED = ".locapprox-unfinished-"
CHECKSUM = "sha256"


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


@contextmanager
def alone(folder: Path, patience: float) -> Iterator[None]:
    """No other process writes to the folder meanwhile. The lock ends with its process, whatever ends that.

    Raises ValueError if another process still does after `patience` seconds (-1: wait for ever).
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            held = filelock.FileLock(folder / LOCK).acquire(timeout=patience)
        except filelock.Timeout as error:
            raise ValueError(f"another run writes to {folder}: wait for it, or choose another --out") from error
    with held:
        yield


@contextmanager
def unfinished(folder: Path) -> Iterator[Path]:
    """A folder inside `folder` to make files in; in the end it is gone, with what was not moved out."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=folder))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def left(folder: Path) -> list[Path]:
    """What killed runs left unfinished; of a folder that is locked."""
    pattern = re.compile(re.escape(UNFINISHED) + "[a-z0-9_]{8}")
    return [path for path in folder.glob(f"{UNFINISHED}*") if pattern.fullmatch(path.name) and path.is_dir()]


def move(part: Path, path: Path) -> None:
    """Rename a whole file to where it belongs; it is on the disk before, so a power cut leaves no empty file there."""
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    path.parent.mkdir(parents=True, exist_ok=True)
    part.replace(path)
    if os.name == "posix":  # elsewhere a folder cannot be opened
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write(path: Path, write_to: Callable[[Path], Any]) -> None:
    """Let `write_to` make a file and move it to `path`: an interrupted write changes nothing there."""
    with unfinished(path.parent) as place, writing(path.parent):
        write_to(place / path.name)
        move(place / path.name, path)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(arrays: Mapping[str, np.ndarray], *words: str) -> str:
    """sha256 of arrays, their names, types and shapes, and of `words`."""
    found = hashlib.sha256(repr(words).encode())
    for name, array in arrays.items():
        found.update(repr((name, array.dtype.str, array.shape)).encode() + array.tobytes())
    return found.hexdigest()


def store(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """An entry of a cache, .npz, with a checksum of its content and its name."""
    checksum = {CHECKSUM: np.array(fingerprint(arrays, path.name))}
    with alone(path.parent, patience=-1):  # so what is unfinished there is nobody's
        for place in left(path.parent):
            shutil.rmtree(place, ignore_errors=True)
        write(path, lambda part: np.savez(part, **arrays, **checksum))  # type: ignore[arg-type]


def stored(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of `store`; None if they are not there, or if the file is damaged or another's, which is said."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        if str(arrays.pop(CHECKSUM, "missing")) != fingerprint(arrays, path.name):
            raise ValueError("its checksum is not that of its content and name")
        return arrays
    except Exception as error:  # damaged archives raise anything
        tqdm.write(f"{path} cannot be used ({type(error).__name__}: {error}): computed again")
        return None

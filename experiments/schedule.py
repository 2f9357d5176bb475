"""Tasks in worker processes: what others need first, the longest first; a failure stops only what needs it."""

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm


@dataclass(frozen=True)
class Task:
    """Something to call in a process of its own, with a rough length that orders the queue and the progress bar."""

    name: str
    call: Callable[[], Any]  # must pickle
    seconds: float = 1.0
    needs: tuple[str, ...] = ()  # names of the tasks that must have finished


def run(tasks: Sequence[Task], jobs: int) -> dict[str, str]:
    """Runs them all, `jobs` at a time with one thread each; returns name -> error of those that failed.

    A need that is not among the tasks counts as met. On Ctrl-C and SIGTERM the workers are killed at once, and they
    end with this process whatever ends it: what they have finished is on disk, since files appear whole or not at all.
    """
    order = sorted(tasks, key=partial(_length, tasks), reverse=True)
    open_, waiting, running = {task.name for task in tasks}, list(order), dict[Future[str | None], Task]()
    failed: dict[str, str] = {}
    pool = _pool(jobs)
    with tqdm(total=sum(task.seconds for task in tasks), bar_format="{l_bar}{bar}| {elapsed}<{remaining}") as bar:
        try:
            while waiting or running:
                for task in _ready(waiting, open_)[: jobs - len(running)]:
                    waiting.remove(task)
                    with _deaf():
                        running[pool.submit(_guarded, task.call)] = task
                bar.set_description(f"{len(tasks) - len(open_)} of {len(tasks)} tasks")
                done, _ = wait(running, timeout=1 if sys.stderr.isatty() else None, return_when=FIRST_COMPLETED)
                for future in done:
                    task = running.pop(future)
                    bar.update(task.seconds)
                    try:
                        error = future.result()
                    except BrokenProcessPool:
                        error, pool = "its process, or the one beside it, was killed: out of memory?", _pool(jobs)
                    if error is None:
                        open_.remove(task.name)
                        tqdm.write(f"finished {task.name}")
                    else:
                        failed[task.name] = error
                        tqdm.write(f"failed   {task.name}")
                for task in [task for task in waiting if failed.keys() & set(task.needs)]:
                    waiting.remove(task)
                    bar.update(task.seconds)
                    cause = next(name for name in task.needs if name in failed)
                    failed[task.name] = f"it needs {cause}: {failed[cause]}"
        except BaseException:
            for child in multiprocessing.active_children():
                child.kill()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
    return failed


def _pool(jobs: int) -> ProcessPoolExecutor:
    """New processes rather than forks: a fork of a process with threads may hang."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(jobs, mp_context=context, initializer=_worker)


def _worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A pipe to the parent closes when that is gone, on Windows too."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _ready(waiting: Sequence[Task], open_: set[str]) -> list[Task]:
    return [task for task in waiting if open_.isdisjoint(task.needs)]


def _length(tasks: Sequence[Task], task: Task) -> float:
    """Of the longest chain that begins with it."""
    after = [_length(tasks, other) for other in tasks if task.name in other.needs]
    return task.seconds + max(after, default=0.0)


@contextmanager
def terminable() -> Iterator[None]:
    """Inside, SIGTERM, which `kill` and batch systems send, is a Ctrl-C. (Signals belong to the main thread.)"""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _deaf() -> Iterator[None]:
    """Processes that start here never hear a Ctrl-C, which a terminal sends to all: the main process, which hears it
    afterwards, ends them."""
    if os.name == "nt":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _guarded(call: Callable[[], Any]) -> str | None:
    """None, or the error in one line and where it came from: an exception itself need not survive the way back."""
    try:
        call()
    except Exception as error:
        message = "".join(traceback.format_exception_only(error)).strip()
        if isinstance(error, OSError):  # names the file or folder
            return message
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{message} ({Path(where.filename).name}:{where.lineno})"
    return None

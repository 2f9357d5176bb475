"""Experiments: a typed configuration in, tidy tables and a manifest out.

Each computes on one thread, whichever way it is started: numpy's own threads, which spin while they wait, make two
experiments side by side three times slower, and would be counted as a peer's time in a benchmark.

Worker processes (multiprocessing's and joblib's) end with the process that started them, whatever ended that.
"""

import os
import sys
import threading
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported first


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


# Here, because a worker imports for seconds before it is told anything. On Windows an id outlives its process.
if os.name == "posix" and any("--multiprocessing-fork" in word or ".loky." in word for word in sys.orig_argv):
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()

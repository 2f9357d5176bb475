"""Experiments: a typed configuration in, tidy tables and a manifest out.

Each computes on one thread, whichever way it is started: numpy's own threads, which spin while they wait, make two
experiments side by side three times slower, and would be counted as a peer's time in a benchmark.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported first

"""How resident memory grows with the number of draws: each run in a process of its own, with the default allocator."""

import subprocess
import sys

import pandas as pd

from experiments.runs import bar

DRAWS = (2_000, 20_000, 200_000)
METHODS = ("KernelSHAP", "LIME", "C-LIME", "SmoothGrad")
RUN = """
import resource, sys, torch
import locapprox as lx
torch.set_num_threads(1)
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(50, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1)).eval()
x, method = torch.randn(10, 50), lx.paper_methods()[sys.argv[1]]
method = lx.lime(5.3) if sys.argv[1] == "LIME" else method
lx.explain(net, x, method, n_samples=500, progress=False)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
lx.explain(net, x, method, n_samples=int(sys.argv[2]), progress=False)
print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def measured() -> pd.DataFrame:
    """Peak resident MiB of 10 instances with 50 features, and what of it `n` draws added."""
    rows = []
    for name, n in bar([(name, n) for name in METHODS for n in DRAWS], "memory"):
        done = subprocess.run([sys.executable, "-c", RUN, name, str(n)], capture_output=True, text=True, check=True)
        before, peak = (int(part) / 1024 for part in done.stdout.split())
        rows.append({"method": name, "n": n, "peak MiB": peak, "added MiB": peak - before})
    return pd.DataFrame(rows)

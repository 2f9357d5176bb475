"""What a call will need, refused before it is asked for; what was freed, kept."""

import os
from functools import lru_cache
from pathlib import Path

import torch

NUMBER = 8  # bytes
CONTROL_GROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def require_memory(numbers: int, what: str, device: torch.device, way_out: str) -> None:
    """Raise MemoryError if that many float64 numbers are more than the device has."""
    needed, there = NUMBER * numbers, memory(device)
    if needed > there:
        raise MemoryError(f"{what} would take {needed / 2**30:,.0f} GiB, and there are {there / 2**30:,.0f}: {way_out}")


@lru_cache
def memory(device: torch.device) -> float:
    """Bytes of the device: of a CPU what the system or its control group has; infinite if it does not say."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    if device.type != "cpu" or not hasattr(os, "sysconf"):
        return float("inf")
    limits = [float(os.sysconf("SC_PAGE_SIZE")) * os.sysconf("SC_PHYS_PAGES")]
    for name in CONTROL_GROUPS:
        text = Path(name).read_text().strip() if os.access(name, os.R_OK) else ""
        limits += [float(text)] if text.isdigit() else []
    return min(limits)


@lru_cache(maxsize=1)
def keep_freed_memory() -> None:
    """Once, before the first draw: a block that is never touched, and freed.

    The C library returns freed memory to the system when it is more than twice the largest block freed so far, and
    every page that is needed again costs a fault (thousands per call of `explain`). After this it keeps up to 32 MB.
    """
    torch.empty(2**22, device="cpu")

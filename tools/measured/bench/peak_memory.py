"""How much memory a piece of work holds at most, beyond what was held before it."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable

import psutil
import torch

POLL_SECONDS = 0.005


def peak_bytes(run: Callable[[], object]) -> int:
    """The most bytes held during a run, less those held before it.

    On the GPU that PyTorch uses this is what its allocator has handed out, exactly. On the CPU it is the resident set
    of the process, looked at every 5 ms from a thread of its own.
    """
    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    # The C library returns what is free to the system, where it can, or earlier work would hide later peaks.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
    process, finished = psutil.Process(), threading.Event()
    before = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not finished.wait(POLL_SECONDS):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        run()
    finally:
        finished.set()
        watcher.join()
    return peak - before

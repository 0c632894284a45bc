"""How much memory a piece of work holds at most, beyond what was held before it."""

from __future__ import annotations

import ctypes
import sys
import threading
from types import TracebackType

import psutil
import torch

POLL_SECONDS = 0.005


class PeakMemory:
    """Context manager; afterwards `extra` is the peak of the bytes held inside, less those held at entry.

    On the GPU that PyTorch uses this is what its allocator has handed out, exactly. On the CPU it is the resident set
    of the process, looked at every 5 ms from a thread of its own.
    """

    def __init__(self) -> None:
        self.extra = 0
        self._done = threading.Event()
        self._cuda = torch.cuda.is_available()

    def __enter__(self) -> PeakMemory:
        if not self._cuda:
            _give_back_freed()
        self._before = self._held()
        if self._cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        else:
            self._peak = self._before
            self._watcher = threading.Thread(target=self._watch, daemon=True)
            self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._cuda:
            torch.cuda.synchronize()
            peak = torch.cuda.max_memory_allocated()
        else:
            self._done.set()
            self._watcher.join()
            peak = self._peak
        self.extra = peak - self._before

    def _held(self) -> int:
        return torch.cuda.memory_allocated() if self._cuda else psutil.Process().memory_info().rss

    def _watch(self) -> None:
        while not self._done.wait(POLL_SECONDS):
            self._peak = max(self._peak, self._held())


def _give_back_freed() -> None:
    """Lets the C library return what is free to the system, where it can, or earlier work would hide later peaks."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)

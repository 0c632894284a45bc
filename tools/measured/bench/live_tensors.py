"""How many bytes of tensors are alive at most: exact on any device, whatever the allocator keeps for later."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


def live_mb(run: Callable[[], object]) -> float:
    """The most megabytes of tensors that a run holds at once, of those that it makes."""
    with LiveTensors() as live:
        run()
    return round(live.peak / 1e6, 1)


class LiveTensors(TorchDispatchMode):
    """Context manager; afterwards `peak` is the most bytes that tensors made inside held at once.

    Tensors without content, on the device "meta", count as well. With `device`, only tensors of that type of device do.

    Every operation of PyTorch is watched, which takes time: nothing that runs inside should be timed. What an operation
    needs while it runs and gives back before it ends is not seen.
    """

    def __init__(self, device: str | None = None) -> None:
        super().__init__()
        self.device = device
        self.held = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, arguments: tuple = (), named: dict | None = None) -> Any:
        given = {storage._cdata for storage in _storages((arguments, named))}
        result = function(*arguments, **(named or {}))
        for storage in _storages(result):
            # its address, also where it has no content
            address, size = storage._cdata, storage.nbytes()
            # a view of what was there before is nothing new
            if address in given or address in self._known or self.device not in (None, storage.device.type):
                continue
            self._known.add(address)
            self.held += size
            self.peak = max(self.peak, self.held)
            weakref.finalize(storage, self._freed, address, size)
        return result

    def _freed(self, address: int, size: int) -> None:
        self._known.discard(address)
        self.held -= size


def _storages(values: Any) -> Iterator[torch.UntypedStorage]:
    return (value.untyped_storage() for value in tree_iter(values) if isinstance(value, torch.Tensor))

"""What keyframes leave for the batches of a step: on the device as far as there is room, beyond it in host memory."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor


class KeyframeStore:
    """Rows of keyframes by kind and layer; a batch of frames gets those of the few keyframes that it reads.

    Args:
        device: where the rows are computed and read.

    Attributes:
        room: bytes that may still stay on the device. Where rows lie changes no number.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.room = math.inf
        self._rows: dict[Hashable, dict[int, list[Tensor]]] = {}

    def keep(self, kind: Hashable, layer: int, rows: Tensor) -> None:
        """Keeps rows [b, ...] of the next keyframes."""
        self._rows.setdefault(kind, {}).setdefault(layer, []).extend(self.placed(rows).unbind())

    def placed(self, rows: Tensor) -> Tensor:
        """Rows where there is room for them, without those of the same call that are not kept."""
        if rows.nbytes > self.room:
            return _in_host_memory(rows)
        self.room -= rows.nbytes
        return rows if rows.nbytes == rows.untyped_storage().nbytes() else rows.clone()

    def rows(self, kind: Hashable, layer: int, keyframes: Sequence[int]) -> Tensor:
        """The rows of some keyframes, [len(keyframes), ...], on the device."""
        rows = self._rows[kind][layer]
        found = rows[0].new_empty((len(keyframes), *rows[0].shape), device=self.device)
        for place, keyframe in enumerate(keyframes):
            # the device does its copies in order, so none of them is waited for
            found[place].copy_(rows[keyframe], non_blocking=found.is_cuda)
        return found

    def layers(self, kind: Hashable) -> list[int]:
        """The layers that have left rows of a kind."""
        return list(self._rows.get(kind, ()))

    def drop(self, kind: Hashable) -> None:
        """Forgets the rows of a kind."""
        self._rows.pop(kind, None)

    def clear(self) -> None:
        """Forgets all rows."""
        self._rows.clear()


def _in_host_memory(rows: Tensor) -> Tensor:
    try:
        # only from and to pinned memory are copies of CUDA's asynchronous
        host = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=rows.is_cuda)
    except RuntimeError:  # the system pins no more
        host = torch.empty(rows.shape, dtype=rows.dtype)
    return host.copy_(rows, non_blocking=rows.is_cuda)

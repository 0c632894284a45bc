"""The memory that the returned frames take: stated, checked and filled."""

from __future__ import annotations

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import VideoError

_GROWTH = 1.5


def bytes_needed(frames: int, size: tuple[int, int], channels: int = 3) -> int:
    """Bytes of `frames` float32 pictures of (width, height)."""
    return frames * size[0] * size[1] * channels * 4


def as_text(number: int) -> str:
    """Bytes in MB or GB."""
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"


def available_memory() -> int:
    """Bytes of system memory that can be taken without swapping."""
    return psutil.virtual_memory().available


class FrameBuffer:
    """Pictures [frames, height, width, channels] float32 in 0..1, laid out in one piece as they come.

    Sized for the number of frames that is expected, and grown if more come. `size` is (width, height). Raises
    VideoError where they do not fit into the free memory.
    """

    def __init__(self, expected: int, size: tuple[int, int], name: str, channels: int = 3) -> None:
        self._size, self._name, self._channels = size, name, channels
        self._count = 0
        self._images = self._allocate(max(expected, 1))

    def append(self, picture: NDArray) -> None:
        """Add a picture [height, width, channels]: uint8, or float32 in 0..1."""
        if self._count == len(self._images):
            grown = self._allocate(int(self._count * _GROWTH) + 1)
            grown[: self._count] = self._images
            self._images = grown
        row = self._images[self._count]
        if picture.dtype == np.uint8:
            # k / 255 comes back as k both by rounding and by the truncation that ComfyUI's writers do.
            torch.div(torch.from_numpy(np.array(picture)), 255.0, out=row)
        else:
            row.copy_(torch.from_numpy(np.array(picture)))
        self._count += 1

    def images(self) -> Tensor:
        """The pictures added so far."""
        return self._images[: self._count]

    def _allocate(self, frames: int) -> Tensor:
        width, height = self._size
        needed, free = bytes_needed(frames, self._size, self._channels), available_memory()
        if needed > free:
            fitting = free // bytes_needed(1, self._size, self._channels)
            lower = f"Lower frame_cap to {fitting} or less, or choose a smaller size."
            raise VideoError(
                f"{self._name}: {frames} frames of {width}x{height} need {as_text(needed)} of memory, but only "
                f"{as_text(free)} is free. {lower if fitting else 'Choose a smaller size.'}"
            )
        return torch.empty(frames, height, width, self._channels)

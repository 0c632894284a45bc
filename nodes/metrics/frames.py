"""Frames as the nodes that measure and draw take them: RGB on the CPU, and worked through with a word after each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Advance = Callable[[int], object]
"""Is told how many more frames are done, shows it, and may raise to end the work."""


def unwatched(frames: int) -> None:
    """For work that nobody waits for."""


def rgb(images: Any, purpose: str, name: str) -> Tensor:
    """The frames of an IMAGE [n, h, w, 1 to 4] as [n, h, w, 3] on the CPU, float32 at least.

    Grey is repeated, alpha left out.

    Raises:
        ValueError: it has no frame, or another shape.
    """
    shape = list(getattr(images, "shape", [])) or type(images).__name__
    if not isinstance(images, Tensor) or images.ndim != 4 or not 1 <= images.shape[-1] <= 4:
        raise ValueError(
            f"{purpose}: {name} is {shape}; a batch of pictures [frames, height, width, 1 to 4 channels] is needed. "
            "Connect an IMAGE, such as the output of VAE Decode."
        )
    if 0 in shape:
        raise ValueError(f"{purpose}: {name} is empty ({shape}). Check the node that made it.")
    frames = images.cpu().to(torch.promote_types(images.dtype, torch.float32))
    return frames[..., :3] if frames.shape[-1] >= 3 else frames[..., :1].expand(-1, -1, -1, 3)

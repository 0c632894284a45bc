"""How many frames a pass of TokenFlow holds, and what a step takes of a device's memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import comfy.model_management

from ..seams.comfyui_versions import free_memory

# Keyframes in a pass, where batches of frames are no larger.
KEYFRAMES_AT_ONCE = 8
# Numbers that a keyframe holds while others are computed, per latent pixel in units of the network's width: features
# that wait for the decoder, those that were joined with some, the block's own, queries, keys and values.
_WAITING_WIDTHS = 14


def keyframes_at_once(batch_size: int) -> int:
    """The most keyframes in one pass; what lives in the network is then that of a batch of frames."""
    return max(batch_size, KEYFRAMES_AT_ONCE)


def frames_at_once(frames: int, batch_size: int) -> int:
    """The most frames of a cond in one pass: those that share a keyframe, or keyframes."""
    return max(min(batch_size, frames), min(_keyframes(frames, batch_size), keyframes_at_once(batch_size)))


def frames_to_budget(base: Any, frames: int, batch_size: int, size: Sequence[int]) -> int:
    """For how many frames of two conds ComfyUI should leave room; `size` is the latent's."""
    rows, needed = frames_at_once(frames, batch_size), base.memory_required([1, 4, *size])
    return max(rows, math.ceil(_while_waiting(base, frames, batch_size, size) / (2 * needed)))


def room_for_keyframes(base: Any, frames: int, batch_size: int, size: Sequence[int]) -> float:
    """Bytes of the device that what keyframes leave may take, at the start of a step."""
    device = base.current_patcher.load_device
    if device.type in ("cpu", "mps"):
        return math.inf  # host memory is the same
    rows = 2 * frames_at_once(frames, batch_size)
    # ComfyUI computes two conds together where it has half as much again
    needed = max(1.5 * base.memory_required([rows, 4, *size]), _while_waiting(base, frames, batch_size, size))
    free = free_memory(base.current_patcher, device)
    return max(0.0, free - needed - comfy.model_management.minimum_inference_memory())


def _keyframes(frames: int, batch_size: int) -> int:
    return math.ceil(frames / batch_size)


def _while_waiting(base: Any, frames: int, batch_size: int, size: Sequence[int]) -> float:
    """Bytes of the passes over the edit's keyframes, where there are several: one is computed, the others wait."""
    keyframes, at_once = _keyframes(frames, batch_size), keyframes_at_once(batch_size)
    if keyframes <= at_once:
        return 0.0
    item = comfy.model_management.dtype_size(base.manual_cast_dtype or base.get_dtype())
    waiting = keyframes * _WAITING_WIDTHS * base.diffusion_model.model_channels * math.prod(size) * item
    return waiting + base.memory_required([at_once, 4, *size])

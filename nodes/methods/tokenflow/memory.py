"""How many frames a pass of TokenFlow holds, and what a step takes of a device's memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import comfy.model_management

from ..batching.memory_budget import CONDS, held_bytes, waiting_bytes
from .settings import TokenFlowSettings

# Keyframes in a pass, where batches of frames are no larger.
KEYFRAMES_AT_ONCE = 8
# Numbers that a keyframe holds while others are computed, counted, per latent pixel in units of the network's width:
# features that wait for the decoder, those that were joined with some, the block's own, queries, keys and values.
_WAITING_WIDTHS = 11.5


def keyframes_at_once(settings: TokenFlowSettings) -> int:
    """The most keyframes in one pass; what lives in the network is then that of a batch of frames."""
    return max(settings.batch_size, KEYFRAMES_AT_ONCE)


def few_beside(keyframes: int, frames: int) -> bool:
    """Whether so many keyframes add little to a call for a batch of frames, so that they go with it."""
    return 2 * keyframes <= frames


def frames_at_once(frames: int, settings: TokenFlowSettings) -> int:
    """The most frames of a cond in one pass: those that share a keyframe, or keyframes."""
    return max(min(settings.batch_size, frames), min(_keyframes(frames, settings), keyframes_at_once(settings)))


def bytes_in_one_call(base: Any, frames: int, settings: TokenFlowSettings, size: Sequence[int]) -> float:
    """What a step takes where the source and both conds of the same frames go through the network in one call."""
    return _largest_pass(base, frames, settings, size, CONDS) + held_bytes(base, frames, size)


def frames_to_budget(base: Any, frames: int, settings: TokenFlowSettings, size: Sequence[int], conds: int = 1) -> int:
    """For how many frames ComfyUI should leave room; `size` is the latent's, and `conds` go through in one call."""
    needed = _largest_pass(base, frames, settings, size, conds) + held_bytes(base, frames, size)
    return math.ceil(needed / base.memory_required([1, 4, *size]))


def room_for_keyframes(
    base: Any, frames: int, settings: TokenFlowSettings, size: Sequence[int], conds: int = 1
) -> float:
    """Bytes of the device that what keyframes leave may take, at the start of a step."""
    device = base.current_patcher.load_device
    if device.type in ("cpu", "mps"):
        return math.inf  # host memory is the same
    # without the weights that would give way: they are read in every pass, these rows once a batch
    free = comfy.model_management.get_free_memory(device) - comfy.model_management.minimum_inference_memory()
    return max(0.0, free - _largest_pass(base, frames, settings, size, conds))


def _largest_pass(base: Any, frames: int, settings: TokenFlowSettings, size: Sequence[int], conds: int) -> float:
    """Bytes of a call for a batch, or of those for the edit's keyframes."""
    at_once, keyframes = frames_at_once(frames, settings), _keyframes(frames, settings)
    if conds > 1 and few_beside(keyframes, settings.batch_size):
        at_once += keyframes
    of_pass = base.memory_required([conds * at_once, 4, *size])
    return max(of_pass, while_waiting(base, frames, settings, size))


def while_waiting(base: Any, frames: int, settings: TokenFlowSettings, size: Sequence[int]) -> float:
    """Bytes of the passes over the edit's keyframes, where there are several: one is computed, the others wait."""
    keyframes, at_once = _keyframes(frames, settings), keyframes_at_once(settings)
    if keyframes <= at_once:
        return 0.0
    return keyframes * waiting_bytes(base, size, _WAITING_WIDTHS) + base.memory_required([at_once, 4, *size])


def _keyframes(frames: int, settings: TokenFlowSettings) -> int:
    return math.ceil(frames / settings.batch_size)

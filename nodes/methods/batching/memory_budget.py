"""How many frames go through the network at a time, by ComfyUI's own estimates.

The number follows from what is the same in every run, not from what happens to be free: batches of another size round
differently, and the same workflow is to give the same pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import comfy.model_management

from ..seams.comfyui_versions import free_memory

# Numbers that live per latent pixel of every frame while others are computed, in units of the network's width. Most of
# them live in the first layer of the decoder at full resolution: features that still wait (2) and those that were
# joined with some (3), the input of the block, its current features and their normalised form (3), and what is gathered
# from all batches (1); with bases of keys, the queries, keys and values (3) and two gathered tensors.
_LIVE_WIDTHS = 12


def frames_that_fit(base: Any, frames: int, groups: int, size: Sequence[int], free: float) -> int:
    """The most frames of each of `groups` conds that can be computed at a time, 1 to `frames`, in `free` bytes.

    Args:
        base: ComfyUI's BaseModel.
        frames: of the clip.
        size: height and width of the latent.
    """
    needed = base.memory_required([groups, 4, *size])
    if frames * needed <= free:
        return frames
    left = free - groups * frames * live_bytes(base, size)
    return max(1, min(frames, int(left // needed)))


def frames_to_budget(base: Any, frames: int, batch: int, size: Sequence[int]) -> int:
    """For how many frames ComfyUI should leave room where `batch` of `frames` are computed at a time."""
    needed = base.memory_required([1, 4, *size])
    return min(frames, math.ceil(batch + frames * live_bytes(base, size) / needed))


def live_bytes(base: Any, size: Sequence[int]) -> float:
    """Bytes of one frame that live through a whole call of the network."""
    item = comfy.model_management.dtype_size(base.manual_cast_dtype or base.get_dtype())
    return _LIVE_WIDTHS * base.diffusion_model.model_channels * math.prod(size) * item


def usual_room(model: Any) -> float:
    """Bytes that a MODEL's device has for computing in every run, beside its weights and what ComfyUI leaves free."""
    left = comfy.model_management.get_total_memory(model.load_device)
    left -= comfy.model_management.minimum_inference_memory()
    return max(left if _streams_weights(model) else left - model.model_size(), _least_room())


def room_for(model: Any) -> float:
    """Bytes that a MODEL's device has for computing now, once ComfyUI has loaded it and unloaded all others."""
    device = model.load_device
    if _streams_weights(model):
        return free_memory(model, device)
    if comfy.model_management.is_device_cpu(device):
        return comfy.model_management.get_free_memory(device)  # weights are there in any case
    free = comfy.model_management.get_free_memory(device)
    held = sum(
        loaded.model_loaded_memory()
        for loaded in comfy.model_management.current_loaded_models
        if loaded.device == device and loaded.model is not None  # a MODEL that is gone, but not yet from the list
    )
    return max(free + held - model.model_size(), min(free + held, _least_room()))


def _least_room() -> float:
    """Bytes that ComfyUI leaves for computing even where the weights are too large for the device."""
    return comfy.model_management.minimum_inference_memory() - comfy.model_management.extra_reserved_memory()


def _streams_weights(model: Any) -> bool:
    """Whether weights of a MODEL give way to whatever is computed, as newer versions of ComfyUI let them."""
    return getattr(model, "is_dynamic", bool)()

"""How many frames go through the network at a time, by ComfyUI's own estimates.

The number follows from what is the same in every run, not from what happens to be free: batches of another size round
differently, and the same workflow is to give the same pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import comfy.model_management
import torch

from ....stem_kernels.prompt_alignment import TOKENS
from ..seams.comfyui_versions import free_memory
from ..seams.telling import tell

# What goes through the network in one call where there is room: the source, the positive and the negative prompt.
CONDS = 3
# Numbers of a frame that waits for others, per latent pixel, in units of the network's width. Most live in the first
# layer of the decoder at full resolution: features that wait for the decoder (2) and those that were joined with some
# (3), the input of the block and its current features (2), and their normalised form (1) or, with bases of keys, the
# queries, keys and values (3).
_WAITING_WIDTHS = 9
# Copies that a run holds for every frame, in float32: of its latent (noise, source and result, before and after each
# scaling) and of the prompt (repeated, and joined for the call).
_LATENTS, _PROMPTS = 12, 2


def frames_that_fit(
    base: Any, frames: int, groups: int, size: Sequence[int], free: float, meeting: int | None = None
) -> int:
    """The most frames of each of `groups` conds that can be computed at a time, 1 to `frames`, in `free` bytes.

    Args:
        base: ComfyUI's BaseModel.
        frames: of the clip.
        size: height and width of the latent.
        meeting: how many consecutive frames wait for each other in every layer; None for all of them.
    """
    meeting = frames if meeting is None else min(meeting, frames)
    needed = base.memory_required([groups, 4, *size])
    if frames * needed <= free:
        return frames
    left = free - held_bytes(base, frames, size)
    if left // needed >= meeting:
        return int(left // needed) // meeting * meeting  # in whole groups, so that none waits for another
    return max(1, min(meeting, int((left - groups * meeting * waiting_bytes(base, size)) // needed)))


def frames_to_budget(
    base: Any, frames: int, batch: int, size: Sequence[int], meeting: int, waiting_rows: float = 1
) -> int:
    """For how many frames ComfyUI should leave room where `batch` of `frames` are computed at a time.

    meeting: how many consecutive frames wait for each other in every layer; waiting_rows: with how many rows each.
    """
    beside = held_bytes(base, frames, size)
    if batch < min(meeting, frames):
        beside += min(meeting, frames) * waiting_rows * waiting_bytes(base, size)
    return min(frames, math.ceil(batch + beside / base.memory_required([1, 4, *size])))


def waiting_bytes(base: Any, size: Sequence[int], widths: float = _WAITING_WIDTHS) -> float:
    """Bytes of one frame that lives in the network while others are computed: `widths` numbers for each latent pixel,
    in units of the network's width."""
    item = comfy.model_management.dtype_size(base.manual_cast_dtype or base.get_dtype())
    return widths * base.diffusion_model.model_channels * math.prod(size) * item


def held_bytes(base: Any, frames: int, size: Sequence[int]) -> float:
    """Bytes for all frames that ComfyUI holds while it calls the network."""
    prompt = TOKENS * base.model_config.unet_config["context_dim"]
    return frames * (_LATENTS * 4 * math.prod(size) + _PROMPTS * prompt) * torch.float32.itemsize


def usual_room(model: Any) -> float:
    """Bytes that a MODEL's device has for computing in every run, beside its weights and what ComfyUI leaves free."""
    left = comfy.model_management.get_total_memory(model.load_device)
    left -= comfy.model_management.minimum_inference_memory()
    return max(left if _streams_weights(model) else left - model.model_size(), _least_room())


def source_and_edit_join(model: Any, needed: float) -> bool:
    """Whether source and edit of the same frames, which take `needed` bytes, go through MODEL's network in one call:
    where its device has room for that in every run, so that every run rounds alike."""
    if needed > usual_room(model):
        return False
    if needed > room_for(model):
        tell(
            "Source and edit were to go through the network in one call, but the memory that is free now has no room "
            "for it, so they go one after the other. The result may differ by rounding from that of other runs. For "
            "the same result in every run, free memory that other programs hold."
        )
        return False
    return True


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

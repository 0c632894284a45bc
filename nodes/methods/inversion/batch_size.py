"""How many frames of a video go through the network at a time: decided once, and kept with the INVERSION."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..attention.frame_context import OWN_FRAME
from ..attention.installing import install, installed_method
from ..batching.frame_batches import frames_at_a_time
from ..batching.memory_budget import frames_that_fit, room_for
from ..seams.patch_marks import is_bare
from ..seams.telling import tell
from ..stem.settings import MOST_FRAMES_PER_BATCH


def with_batch_size(model: Any, frames: int, size: Sequence[int], like: Any = None) -> Any:
    """MODEL for a run, with the number of frames at a time decided where the user has left it open.

    A MODEL with nothing on it computes every frame alone, so it can be split as well. What was decided for `like`, the
    MODEL of an INVERSION, is taken again. If memory is short, fewer frames go through, and the log says so.

    Args:
        frames: of the clip.
        size: height and width of the latent.
    """
    method = installed_method(model)
    if bare := method is None and is_bare(model):
        method = replace(OWN_FRAME, frames_per_batch=0)
    if method is None or not (method.decided or method.frames_per_batch == 0):
        return model
    if method.frames_per_batch == 0 and like is not None:
        taken = getattr(installed_method(like), "frames_per_batch", None)
        method = replace(method, frames_per_batch=taken or 0)
    usual = min(frames_at_a_time(model, method, frames, size), MOST_FRAMES_PER_BATCH)
    possible = frames_that_fit(model.model, frames, 1, size, room_for(model), method.frames_that_meet(frames))
    if possible < usual:
        setting = f", or set frames_per_batch of {method.name} to {possible}" if method.name == "STEM Bases" else ""
        tell(
            f"{usual} frames were to go through the network at a time, but the memory that is free now has room for "
            f"{possible}, so it will be {possible}. The result may differ by rounding from that of other runs. For the "
            f"same result in every run, free memory that other programs hold{setting}."
        )
    if bare and min(usual, possible) >= frames:
        return model
    return install(model, replace(method, frames_per_batch=min(usual, possible), decided=True))

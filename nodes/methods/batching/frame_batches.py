"""A video that goes through the network in batches of frames, in lockstep, because its attention needs all of them.

What outlives a layer exists for all frames at once: the current features and those that wait for the decoder. So do the
tokens that bases are fitted to, until the next fit. Whatever else a layer needs exists for one batch at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import comfy.model_management
from comfy.patcher_extension import WrappersMP
from einops import rearrange
from torch import Tensor

from ....stem_kernels.attention import joined
from ....stem_kernels.correspondence import batch_slices
from ..seams.frame_dependent_patches import with_tried_patches
from ..seams.network_call import NetworkCall, network_wrapper
from .lockstep import Meet, alone, run_in_lockstep
from .memory_budget import frames_that_fit, frames_to_budget, usual_room

_WRAPPER_KEY = "stem_inversion_frame_batches"
# Where the layers find which frames a call holds: a key of the transformer options.
BATCH = "stem_inversion_batch"


@dataclass(frozen=True)
class FrameBatch:
    """Which frames of the clip a call of the network holds (None: all), and how it meets the calls with the others."""

    frames: slice | None = None
    meet: Meet = alone

    def here(self, rows: int, groups: int) -> slice:
        """The frames of the clip that a call with this many rows holds."""
        return slice(0, rows // groups) if self.frames is None else self.frames

    def together(self, tensors: Sequence[Tensor], groups: int, compute: Callable[..., Any]) -> Any:
        """`compute` of the same tensors for all frames; it runs once, and every batch gets what it returns."""

        def of_all(arrived: list[Sequence[Tensor]]) -> Any:
            return compute(*(join_batches(parts, groups) for parts in zip(*arrived, strict=True)))

        return self.meet(tensors, of_all)

    def parts_together(self, *tensors: Tensor, groups: int, compute: Callable[[list[tuple]], Any]) -> Any:
        """The same of the frames and the rows of every batch, (frames, *tensors) each, without joining them."""
        return self.meet((self.here(tensors[0].shape[0], groups), *tensors), compute)


ALL_FRAMES = FrameBatch()


def batch_of(extra_options: dict) -> FrameBatch:
    """The batch that a call of the network holds, from its transformer options."""
    return extra_options.get(BATCH, ALL_FRAMES)


def add_batching(model: Any, method: Any, run_key: str) -> None:
    """Lets a MODEL's calls be split into batches of `frames_per_batch` of its `SelfAttentionMethod`.

    `run_key` is where the method's run is found among the transformer options.
    """
    if method.frames_per_batch is not None:
        wrapper = _split_call(model, method, run_key)
        model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, _WRAPPER_KEY, wrapper)
        model.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, _WRAPPER_KEY, _smaller_budget(method))


def remove_batching(model: Any) -> None:
    """The reverse of `add_batching`."""
    for kind in (WrappersMP.DIFFUSION_MODEL, WrappersMP.PREPARE_SAMPLING):
        model.remove_wrappers_with_key(kind, _WRAPPER_KEY)


def join_batches(parts: Sequence[Tensor], groups: int) -> Tensor:
    """Rows [groups * b, ...] of batches -> rows [groups * n, ...]; rows are group-major, frame-minor."""
    grouped = [rearrange(part, "(g b) ... -> g b ...", g=groups) for part in parts]
    return rearrange(joined(grouped, dim=1), "g n ... -> (g n) ...")


def rows_of(value: Any, frames: slice, groups: int, total: int, what: str) -> Any:
    """The rows of some frames, in a tensor or in lists and dictionaries of tensors; one row for all stays as it is.

    Raises:
        ValueError: a tensor has neither a row for each frame nor one for all.
    """
    if isinstance(value, dict):
        return {name: rows_of(part, frames, groups, total, what) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(rows_of(part, frames, groups, total, what) for part in value)
    if not isinstance(value, Tensor) or value.ndim == 0 or value.shape[0] == 1:
        return value
    if value.shape[0] != groups * total:
        raise ValueError(
            f"{what} has {value.shape[0]} rows for {groups} conditionings of {total} frames, so it cannot be split "
            f"into batches of frames. Disconnect it, or set frames_per_batch of STEM Bases to {total} or more."
        )
    return rearrange(rearrange(value, "(g n) ... -> g n ...", g=groups)[:, frames], "g b ... -> (g b) ...")


def _split_call(model: Any, method: Any, run_key: str) -> Callable:
    @network_wrapper
    def diffusion_model(executor: Any, whole: NetworkCall) -> Tensor:
        groups = len(whole.options["cond_or_uncond"])
        frames = whole.x.shape[0] // groups
        size = frames_at_a_time(model, method, frames, whole.x.shape[-2:], groups)
        if size >= frames:
            return whole.made(executor)
        options = with_tried_patches(whole.options, frames, method.name)

        def call(batch: slice, meet: Meet) -> Tensor:
            def rows(value: Any, what: str) -> Any:
                return rows_of(value, batch, groups, frames, f"{method.name}: {what}")

            comfy.model_management.throw_exception_if_processing_interrupted()
            of_batch = {run_key: method.of_batch(options[run_key]), BATCH: FrameBatch(batch, meet)}
            return NetworkCall(
                rows(whole.x, "the latent"),
                rows(whole.timesteps, "the timestep"),
                rows(whole.context, "the prompt"),
                rows(whole.y, "the vector conditioning"),
                rows(whole.control, "a ControlNet"),
                {**options, **of_batch},
                {name: rows(value, f"the conditioning '{name}'") for name, value in whole.more.items()},
            ).made(executor)

        outputs: list[Tensor] = []
        for batches in batches_that_meet(frames, size, method.frames_that_meet(frames)):
            outputs += run_in_lockstep([partial(call, batch) for batch in batches])
        return join_batches(outputs, groups)

    return diffusion_model


def frames_at_a_time(model: Any, method: Any, frames: int, size: Sequence[int], groups: int = 1) -> int:
    """How many of `frames` go through MODEL's network at a time with `method`; the same number in every run.

    Args:
        size: height and width of the latent.
        groups: conds that are joined.
    """
    if method is None or method.frames_per_batch is None:
        return frames
    if method.frames_per_batch:
        return min(frames, method.frames_per_batch)
    return frames_that_fit(model.model, frames, groups, size, usual_room(model), method.frames_that_meet(frames))


def batches_that_meet(frames: int, size: int, meeting: int) -> list[list[slice]]:
    """All frames in batches of `size` at most; those in one list need each other, others do not.

    meeting: how many consecutive frames need each other.
    """
    if size >= meeting:
        return [[batch] for batch in batch_slices(frames, size - size % meeting)]
    groups = []
    for start in range(0, frames, meeting):
        inside = batch_slices(min(meeting, frames - start), size)
        groups.append([slice(start + batch.start, start + batch.stop) for batch in inside])
    return groups


def budget_of(model: Any, method: Any, frames: int, size: Sequence[int]) -> int:
    """For how many frames ComfyUI should leave room in a run of MODEL with `method`; `size` is the latent's."""
    if method is None or method.frames_per_batch is None:
        return frames
    at_a_time = frames_at_a_time(model, method, frames, size)
    meeting = method.frames_that_meet(frames)
    return frames_to_budget(model.model, frames, at_a_time, size, meeting, method.waiting_rows)


def _smaller_budget(method: Any) -> Callable:
    def prepare_sampling(executor: Any, model: Any, noise_shape: Sequence[int], *args: Any, **kwargs: Any) -> Any:
        budget = budget_of(model, method, noise_shape[0], noise_shape[-2:])
        return executor(model, [budget, *noise_shape[1:]], *args, **kwargs)

    return prepare_sampling

"""Other nodes' patches on cross-attention in calls that hold some of the frames of a clip.

An IP-Adapter with one image does the same to every frame, so it may be asked for any of them. One with an image for
each frame holds as many embeddings and gives the first of them to whatever frames come. Nothing tells the two apart but
what they do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from einops import rearrange, repeat
from torch import Tensor

from .patch_marks import is_marked, origin

# Rows are taken to be equal where they differ by less than this share of the largest number.
_ROUNDING = 5e-3


def with_tried_patches(options: dict, frames: int, name: str) -> dict:
    """Transformer options whose patches on cross-attention are tried out before they are first used.

    Each is given as many equal rows as the clip has frames. It is refused, by a ValueError in the name of a method, if
    it does not do the same to all of them.
    """
    patches, replaced = options.get("patches", {}), options.get("patches_replace", {})
    known: set[tuple[int, Any]] = set()

    def tried(patch: Callable) -> Callable:
        return patch if is_marked(patch) else _tried(patch, frames, name, known)

    changed = {kind: [*map(tried, patches[kind])] for kind in ("attn2_patch", "attn2_output_patch") if kind in patches}
    cross = {key: tried(patch) for key, patch in replaced.get("attn2", {}).items()}
    return {**options, "patches": {**patches, **changed}, "patches_replace": {**replaced, "attn2": cross}}


def _tried(patch: Callable, frames: int, name: str, known: set) -> Callable:
    def patch_of_some_frames(*arguments: Any) -> Any:
        *tensors, extra_options = arguments
        layer = (id(patch), extra_options["transformer_index"])
        if layer not in known:
            groups = len(extra_options["cond_or_uncond"])
            out = patch(*(_repeated(tensor, groups, frames) for tensor in tensors), extra_options)
            for rows in out if isinstance(out, tuple) else (out,):
                if not _equal(rearrange(rows, "(g n) ... -> g n ...", n=frames)):
                    raise ValueError(
                        f"{name}: {origin(patch)} changes the cross-attention of different frames differently (as "
                        "IP-Adapter with one image per frame does), but only some of the frames go through the network "
                        "at a time, and it cannot know which. Give that node one image for all frames, or disconnect "
                        "it from the MODEL chain."
                    )
            known.add(layer)
        return patch(*arguments)

    return patch_of_some_frames


def _repeated(tensor: Tensor, groups: int, frames: int) -> Tensor:
    """The first row of every group, as often as there are frames."""
    return repeat(rearrange(tensor, "(g b) ... -> g b ...", g=groups)[:, 0], "g ... -> (g n) ...", n=frames)


def _equal(rows: Tensor) -> bool:
    return bool((rows - rows[:, :1]).abs().max() <= _ROUNDING * rows.abs().max())

"""Self-attention that reads other frames: the baselines that the paper compares STEM with (Eq. 6)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ....stem_kernels.attention import join_frames, split_frames
from ....stem_kernels.frame_context import FrameReference, context_frames, gather_frames
from ..batching.frame_batches import batch_of
from ..seams.layer_map import AttentionLayer
from .attention_map import AttentionMap, Gather
from .method import SelfAttentionMethod
from .rows import comfyui_attention, groups_of

_OWN = ((), (0,))


@dataclass(frozen=True)
class FrameContextAttention(SelfAttentionMethod):
    """Every frame attends to a list of frames, or to all of them.

    Attributes:
        references: see `parse_frame_references`; None means all frames of the clip.
        finest_level: layers of a finer resolution than this level keep to their own frame; 0 includes all.
    """

    references: tuple[FrameReference, ...] | None
    finest_level: int = 0
    frames_per_batch: int | None = None
    decided: bool = False
    name: str = "Frame Context"
    replay_obstacle = ""

    def frames_that_meet(self, frames: int) -> int:
        return 1 if self.references in _OWN else frames

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, extra_options: dict) -> Tensor:
        if self._keeps_to_own_frame(layer):
            return comfyui_attention(q, k, v, extra_options)
        groups = groups_of(q, extra_options)
        k, v = batch_of(extra_options).together((k, v), groups, _both)
        if self.references is None:
            joined = comfyui_attention(*(join_frames(tensor, groups) for tensor in (q, k, v)), extra_options)
            return split_frames(joined, q.shape[0] // groups)
        frames = self._context(q, k, groups, extra_options)
        return comfyui_attention(q, gather_frames(k, frames, groups), gather_frames(v, frames, groups), extra_options)

    def attend_pixels(
        self, tokens: Tensor, q: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, timestep: int, extra_options: dict
    ) -> Tensor:
        return self.attend(q, k, v, layer, extra_options)

    def recorded(
        self, q: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, extra_options: dict
    ) -> tuple[Tensor, list[AttentionMap]]:
        if self._keeps_to_own_frame(layer):
            return comfyui_attention(q, k, v, extra_options), [AttentionMap(slice(None), q, k, None, None)]
        k, v = batch_of(extra_options).together((k, v), 1, _both)
        gather = _ALL if self.references is None else GatherFrames(self._context(q, k, 1, extra_options))
        attention = AttentionMap(slice(None), q, gather(k), None, gather)
        return attention.attend(gather(v), extra_options), [attention]

    def _context(self, q: Tensor, k: Tensor, groups: int, extra_options: dict) -> Tensor:
        """The frames that each frame of a call reads, given its queries and the keys of all frames."""
        here = batch_of(extra_options).here(q.shape[0], groups)
        return context_frames(self.references, k.shape[0] // groups)[here]

    def _keeps_to_own_frame(self, layer: AttentionLayer) -> bool:
        return layer.level < self.finest_level or self.references in _OWN


OWN_FRAME = FrameContextAttention(references=(0,))


@dataclass(frozen=True, eq=False)
class GatherFrames(Gather):
    """The pixels of the frames that each frame reads, int64 [n, l]; of all frames for None."""

    frames: Tensor | None

    def __call__(self, values: Tensor) -> Tensor:
        return join_frames(values, 1) if self.frames is None else gather_frames(values, self.frames, groups=1)


_ALL = GatherFrames(None)


def _both(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return k, v

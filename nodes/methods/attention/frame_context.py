"""Self-attention that reads other frames: the baselines that the paper compares STEM with (Eq. 6)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ....stem_kernels.attention import join_frames, split_frames
from ....stem_kernels.frame_context import FrameReference, context_frames, gather_frames
from ..seams.layer_map import AttentionLayer
from .attention_map import AttentionMap
from .method import SelfAttentionMethod
from .rows import comfyui_attention, groups_of


@dataclass(frozen=True)
class FrameContextAttention(SelfAttentionMethod):
    """Every frame attends to a list of frames, or to all of them.

    Attributes:
        references: see `parse_frame_references`; None means all frames of the clip.
        finest_level: layers of a finer resolution than this level keep to their own frame; 0 includes all.
    """

    references: tuple[FrameReference, ...] | None
    finest_level: int = 0
    name: str = "Frame Context"
    replay_obstacle = ""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, extra_options: dict) -> Tensor:
        if self._keeps_to_own_frame(layer):
            return comfyui_attention(q, k, v, extra_options)
        groups = groups_of(q, extra_options)
        if self.references is None:
            joined = comfyui_attention(*(join_frames(tensor, groups) for tensor in (q, k, v)), extra_options)
            return split_frames(joined, q.shape[0] // groups)
        frames = context_frames(self.references, q.shape[0] // groups)
        return comfyui_attention(q, gather_frames(k, frames, groups), gather_frames(v, frames, groups), extra_options)

    def attend_pixels(
        self, tokens: Tensor, q: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, timestep: int, extra_options: dict
    ) -> Tensor:
        return self.attend(q, k, v, layer, extra_options)

    def recorded(
        self, q: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, extra_options: dict
    ) -> tuple[Tensor, list[AttentionMap]]:
        if self._keeps_to_own_frame(layer):
            gather = _unchanged
        elif self.references is None:
            gather = _joined
        else:
            frames = context_frames(self.references, q.shape[0])

            def gather(values: Tensor) -> Tensor:
                return gather_frames(values, frames, groups=1)

        attention = AttentionMap(slice(None), q, gather(k), None, gather)
        return attention.attend_pixels(v, extra_options), [attention]

    def _keeps_to_own_frame(self, layer: AttentionLayer) -> bool:
        return layer.level < self.finest_level or self.references in ((), (0,))


OWN_FRAME = FrameContextAttention(references=(0,))


def _unchanged(values: Tensor) -> Tensor:
    return values


def _joined(values: Tensor) -> Tensor:
    return join_frames(values, 1)

"""Self-attention that reads other frames: the baselines that the paper compares STEM with (Eq. 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...stem_kernels.attention import join_frames, split_frames
from ...stem_kernels.frame_context import FrameReference, context_frames, gather_frames
from .layer_map import AttentionLayer
from .self_attention import groups_of, host_attention


@dataclass(frozen=True)
class FrameContextAttention:
    """Every frame attends to a list of frames, or to all of them.

    Attributes:
        references: see `parse_frame_references`; None means all frames of the clip.
        finest_level: layers of a finer resolution than this level keep to their own frame; 0 includes all.
    """

    references: tuple[FrameReference, ...] | None
    finest_level: int = 0
    name: str = "Frame Context"

    def start_run(self, model: Any) -> None:
        return None

    def context(self, tokens: Tensor, layer: AttentionLayer, extra_options: dict) -> tuple[Tensor, Tensor]:
        return tokens, tokens

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, extra_options: dict) -> Tensor:
        if layer.level < self.finest_level:
            return host_attention(q, k, v, extra_options)
        groups = groups_of(q, extra_options)
        if self.references is None:
            joined = host_attention(*(join_frames(tensor, groups) for tensor in (q, k, v)), extra_options)
            return split_frames(joined, q.shape[0] // groups)
        frames = context_frames(self.references, q.shape[0] // groups)
        return host_attention(q, gather_frames(k, frames, groups), gather_frames(v, frames, groups), extra_options)

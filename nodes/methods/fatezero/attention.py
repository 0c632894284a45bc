"""Attention of a FateZero edit: the source's attention on the edit's values, and the source's words for the edit's.

Rows of the unconditional prompt, layers that are not fused and pixels inside the mask keep the edit's own attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ....stem_kernels.attention import joined
from ..attention.attention_map import attend_pixels
from ..attention.method import RUN, SelfAttentionMethod
from ..attention.rows import check_pass, comfyui_attention, rows_by_cond, size_of
from ..batching.frame_batches import batch_of
from ..seams.layer_map import AttentionLayer
from .replay import FusedStep, one_block, seen_words
from .source import Kind, SourceBefore, SourceBeside

POSITIVE = 0


@dataclass
class FateZeroRun:
    """State of one call of the edit; outside the calls of a step it is empty.

    Attributes:
        step: the step under way.
        source: where the source of the same frames is read.
        frames: how many frames the call holds.
        tokens: tokens on their way from `context` to `attend` of one layer.
        noted: attention to the words of the target, [n, h, w] for each layer of the mask's level.
    """

    step: FusedStep | None = None
    source: SourceBefore | SourceBeside | None = None
    frames: int | None = None
    tokens: Tensor | None = None
    noted: list[Tensor] = field(default_factory=list)

    def forget(self) -> None:
        """Nothing is left between steps: every call has its own state."""


@dataclass(frozen=True)
class FateZeroAttention(SelfAttentionMethod):
    """The method of the edit's MODEL.

    Attributes:
        own: attention of everything that is not fused.
        levels: resolution levels that are fused.
        fuse_unconditional: fuse the self-attention of the negative prompt's rows as well.
        meeting: how many consecutive frames wait for each other in every layer.
    """

    own: SelfAttentionMethod
    levels: frozenset[int]
    fuse_unconditional: bool = False
    frames_per_batch: int | None = None
    meeting: int = 1
    name: str = "FateZero Edit"
    # counted: that of the source, that of the edit, and what a layer's attention hands over
    waiting_rows = 2.5

    def frames_that_meet(self, frames: int) -> int:
        return min(frames, self.meeting)

    def fuses(self, cond: int) -> bool:
        """Whether the self-attention of a cond's rows can be the source's."""
        return cond == POSITIVE or self.fuse_unconditional

    def start_run(self, model: Any, timestep: int | None = None) -> FateZeroRun:
        return FateZeroRun()

    def context(self, tokens: Tensor, layer: AttentionLayer, extra_options: dict) -> tuple[Tensor, Tensor]:
        extra_options[RUN].tokens = tokens
        return tokens, tokens

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, extra_options: dict) -> Tensor:
        run = _run_of(q, extra_options)
        tokens, run.tokens = run.tokens, None
        conds = rows_by_cond(extra_options, tokens, q, k, v)
        return joined([self._attend_cond(cond, rows, layer, run, extra_options) for cond, rows in conds])

    def _attend_cond(
        self, cond: int, rows: Sequence[Tensor], layer: AttentionLayer, run: FateZeroRun, extra_options: dict
    ) -> Tensor:
        """Self-attention of one cond's frames, given its tokens, queries, keys and values [n, p, c]: the source's
        attention on the edit's values, but for the pixels that keep their own."""
        options, step = {**extra_options, "cond_or_uncond": [cond]}, run.step
        if not (step.fuses_self and layer.level in self.levels and self.fuses(cond)):
            return self.own.attend_pixels(*rows, layer, step.timestep, options)
        source = _of_source("self", layer, run, extra_options)
        fused = attend_pixels(source.maps, rows[-1], options)
        if step.keep_own is None:
            return fused
        kept = step.keep_own(source.size)[batch_of(options).frames]
        return torch.where(kept, self.own.attend_pixels(*rows, layer, step.timestep, options), fused)

    def controls(self, layer: AttentionLayer) -> bool:
        return layer.level in self.levels or layer.gives_masks

    def attend_cross(self, q: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, extra_options: dict) -> Tensor:
        run, outputs = _run_of(q, extra_options), []
        for cond, (queries, keys, values) in rows_by_cond(extra_options, q, k, v):
            if cond == POSITIVE:
                keys, values = one_block(keys, "the MODEL"), one_block(values, "the MODEL")
                if run.step.target_words is not None and layer.gives_masks:
                    run.noted.append(seen_words(queries, keys, run.step.target_words, extra_options))
                if layer.level in self.levels:
                    outputs.append(_controlled(queries, keys, values, layer, run, extra_options))
                    continue
            outputs.append(comfyui_attention(queries, keys, values, extra_options))
        return joined(outputs)


def _controlled(
    q: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, run: FateZeroRun, extra_options: dict
) -> Tensor:
    """Cross-attention under the control of the step, as attention of the source plus attention of the edit."""
    control = run.step.control
    if not control.changes_something:
        return comfyui_attention(q, k, v, extra_options)
    out = torch.zeros_like(q)
    if control.reads_source:
        source = _of_source("cross", layer, run, extra_options)
        out += comfyui_attention(source.queries.to(v), source.keys.to(v), control.source_values(v), extra_options)
    if control.reads_edit:
        out += comfyui_attention(q, k, control.edit_values(v), extra_options)
    return out


def _of_source(kind: Kind, layer: AttentionLayer, run: FateZeroRun, extra_options: dict) -> Any:
    """What the source has left of a layer, whose features must have the edit's height and width; ComfyUI's own nodes
    can shrink them inside the network."""
    found, size = run.source.take(kind, layer), size_of(extra_options)
    if size != found.size:
        raise ValueError(
            f"FateZero Edit: the features of layer {layer.name} are {size[1]}x{size[0]} in the edit and "
            f"{found.size[1]}x{found.size[0]} in the inversion, so the source's attention does not fit. A node that "
            "changes sizes inside the network (such as PatchModelAddDownscale) is on one of the two MODELs: use it, "
            "with the same settings, on both or on neither."
        )
    return found


def _run_of(tokens: Tensor, extra_options: dict) -> FateZeroRun:
    run: FateZeroRun = extra_options[RUN]
    check_pass(tokens, run.frames, extra_options, "FateZero Edit")
    return run

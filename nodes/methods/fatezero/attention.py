"""Attention of a FateZero edit: the source's attention on the edit's values, and the source's words for the edit's.

Rows of the unconditional prompt, layers that are not fused and pixels inside the mask keep the edit's own attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ....stem_kernels.cross_control import CrossControl
from ....stem_kernels.masks import word_attention
from ..attention.method import RUN, SelfAttentionMethod
from ..attention.rows import check_pass, comfyui_attention, rows_by_cond
from ..seams.layer_map import AttentionLayer
from .replay import SourceRecord, one_block

POSITIVE = 0


@dataclass(frozen=True)
class FusedStep:
    """What the edit pass of one step reads.

    Attributes:
        timestep: keys the draws of the edit's own STEM attention.
        frames: of the clip.
        source: the record of the source pass.
        fuse_self: whether the source's self-attention replaces that of the edit.
        keep_own: by height and width of a layer, the pixels that keep their own self-attention, bool [n, p, 1]; empty
            for none.
        control: of the cross-attention.
        watched: token columns of the target whose attention is noted, for the mask; empty for none.
    """

    timestep: int
    frames: int
    source: SourceRecord
    fuse_self: bool
    keep_own: dict[tuple[int, int], Tensor]
    control: CrossControl
    watched: Sequence[int] = ()


@dataclass
class FateZeroRun:
    """State of a run; only the step under way is kept.

    Attributes:
        step: the step under way.
        tokens: tokens on their way from `context` to `attend` of one layer.
        noted: attention of the edit to the watched words, [n, h, w] for each layer of the mask's level.
    """

    step: FusedStep | None = None
    tokens: Tensor | None = None
    noted: list[Tensor] = field(default_factory=list)

    def forget(self) -> None:
        self.step = self.tokens = None
        self.noted.clear()


@dataclass(frozen=True)
class FateZeroAttention(SelfAttentionMethod):
    """The method of the edit's MODEL.

    Attributes:
        own: attention of everything that is not fused.
        levels: resolution levels that are fused.
        fuse_unconditional: fuse the self-attention of the negative prompt's rows as well.
    """

    own: SelfAttentionMethod
    levels: frozenset[int]
    fuse_unconditional: bool = False
    name: str = "FateZero Edit"

    def start_run(self, model: Any) -> FateZeroRun:
        return FateZeroRun()

    def context(self, tokens: Tensor, layer: AttentionLayer, extra_options: dict) -> tuple[Tensor, Tensor]:
        extra_options[RUN].tokens = tokens
        return tokens, tokens

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, extra_options: dict) -> Tensor:
        run, step = _state(q, extra_options)
        tokens, run.tokens = run.tokens, None
        conds = rows_by_cond(extra_options, tokens, q, k, v)
        return torch.cat([self._attend_cond(cond, rows, layer, step, extra_options) for cond, rows in conds])

    def _attend_cond(
        self, cond: int, rows: Sequence[Tensor], layer: AttentionLayer, step: FusedStep, extra_options: dict
    ) -> Tensor:
        """Self-attention of one cond's frames, given its tokens, queries, keys and values [n, p, c]: the source's
        attention on the edit's values, but for the pixels that keep their own."""
        options = {**extra_options, "cond_or_uncond": [cond]}
        fused = step.fuse_self and layer.level in self.levels and (cond == POSITIVE or self.fuse_unconditional)
        if not fused:
            return self.own.attend_pixels(*rows, layer, step.timestep, options)
        size = _check_size(layer, step, extra_options)
        source = torch.cat([part.attend_pixels(rows[-1], options) for part in step.source.maps[layer.index]])
        if not step.keep_own:
            return source
        own = self.own.attend_pixels(*rows, layer, step.timestep, options)
        return torch.where(step.keep_own[size], own, source)

    def controls(self, layer: AttentionLayer) -> bool:
        return layer.level in self.levels or layer.gives_masks

    def attend_cross(self, q: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, extra_options: dict) -> Tensor:
        run, step = _state(q, extra_options)
        outputs = []
        for cond, (queries, keys, values) in rows_by_cond(extra_options, q, k, v):
            if cond == POSITIVE:
                keys, values = one_block(keys, "the MODEL"), one_block(values, "the MODEL")
                if step.watched and layer.gives_masks:
                    attention = word_attention(queries, keys, extra_options["n_heads"], step.watched)
                    run.noted.append(attention.unflatten(1, tuple(extra_options["activations_shape"][-2:])))
                if layer.level in self.levels:
                    outputs.append(_controlled(queries, keys, values, layer, step, extra_options))
                    continue
            outputs.append(comfyui_attention(queries, keys, values, extra_options))
        return torch.cat(outputs)


def _controlled(q: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, step: FusedStep, extra_options: dict) -> Tensor:
    """Cross-attention under the control of the step, as attention of the source plus attention of the edit."""
    control = step.control
    if not control.changes_something:
        return comfyui_attention(q, k, v, extra_options)
    out = torch.zeros_like(q)
    if control.reads_source:
        _check_size(layer, step, extra_options)
        source = step.source.cross[layer.index]
        queries, keys = source.queries.to(v.dtype), source.keys.to(v.dtype)
        out += comfyui_attention(queries, keys, control.source_values(v), extra_options)
    if control.reads_edit:
        out += comfyui_attention(q, k, control.edit_values(v), extra_options)
    return out


def _check_size(layer: AttentionLayer, step: FusedStep, extra_options: dict) -> tuple[int, int]:
    """Height and width of a layer's features, which must be those of the source; the host's own nodes can shrink them
    inside the network."""
    size, source = tuple(extra_options["activations_shape"][-2:]), step.source.cross[layer.index].size
    if size != source:
        raise ValueError(
            f"FateZero Edit: the features of layer {layer.name} are {size[1]}x{size[0]} in the edit and "
            f"{source[1]}x{source[0]} in the inversion, so the source's attention does not fit. A node that changes "
            "sizes inside the network (such as PatchModelAddDownscale) is on one of the two MODELs: use it, with the "
            "same settings, on both or on neither."
        )
    return size


def _state(tokens: Tensor, extra_options: dict) -> tuple[FateZeroRun, FusedStep]:
    run: FateZeroRun = extra_options[RUN]
    check_pass(tokens, run.step and run.step.frames, extra_options, "FateZero Edit")
    return run, run.step

"""The source pass of FateZero: one evaluation of the inversion run again, with what the edit reads from it kept.

FateZero stores the attention maps of a whole inversion. Here the evaluation that made them is repeated when its step of
the edit has come: the same latent, timestep, MODEL and random draws give the same attention, and it is dropped again
with the step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.patcher_extension
import torch
from torch import Tensor

from ....stem_kernels.prompt_alignment import TOKENS
from ..attention.attention_map import AttentionMap
from ..attention.frame_context import OWN_FRAME
from ..attention.installing import install, installed_method
from ..attention.method import RUN, SelfAttentionMethod, check_replayable
from ..attention.rows import comfyui_attention
from ..batching.frame_batches import FrameBatch, budget_of
from ..seams.cpu_attention import faster_on_cpu
from ..seams.layer_map import AttentionLayer


@dataclass(frozen=True)
class CrossAttention:
    """Cross-attention of one layer of the source: queries [n, p, c], keys [n, tokens, c], heads, height and width."""

    queries: Tensor
    keys: Tensor
    heads: int
    size: tuple[int, int]


@dataclass
class SourceRecord:
    """What one source pass leaves; keys are layer numbers."""

    maps: dict[int, list[AttentionMap]] = field(default_factory=dict)
    cross: dict[int, CrossAttention] = field(default_factory=dict)


@dataclass
class ReplayRun:
    """State of a source pass: what the inversion's own method remembers, and the record that is being made."""

    inner: Any
    record: SourceRecord


@dataclass(frozen=True)
class SourceReplay(SelfAttentionMethod):
    """The inversion's own self-attention, recorded.

    Attributes:
        inner: the method that the inversion was made with.
        levels: self- and cross-attention are recorded at these resolution levels, cross-attention also where it gives
            masks.
    """

    inner: SelfAttentionMethod
    levels: frozenset[int]
    name: str = "FateZero Edit, in the MODEL that the INVERSION was made with"

    @property
    def frames_per_batch(self) -> int | None:
        return self.inner.frames_per_batch

    def start_run(self, model: Any) -> ReplayRun:
        return ReplayRun(self.inner.start_run(model), SourceRecord())

    def of_batch(self, run: ReplayRun, batch: FrameBatch) -> ReplayRun:
        return ReplayRun(self.inner.of_batch(run.inner, batch), SourceRecord())

    def gather(self, run: ReplayRun, runs: Sequence[ReplayRun], batches: Sequence[slice]) -> None:
        self.inner.gather(run.inner, [one.inner for one in runs], batches)
        records = [one.record for one in runs]
        for layer in records[0].maps:
            run.record.maps[layer] = joined_maps([record.maps[layer] for record in records], batches)
        for layer in records[0].cross:
            run.record.cross[layer] = joined_cross([record.cross[layer] for record in records])

    def context(self, tokens: Tensor, layer: AttentionLayer, extra_options: dict) -> tuple[Tensor, Tensor]:
        return self.inner.context(tokens, layer, self._inner_options(extra_options))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, extra_options: dict) -> Tensor:
        inner_options = self._inner_options(extra_options)
        if layer.level not in self.levels:
            return self.inner.attend(q, k, v, layer, inner_options)
        out, extra_options[RUN].record.maps[layer.index] = self.inner.recorded(q, k, v, layer, inner_options)
        return out

    def controls(self, layer: AttentionLayer) -> bool:
        return layer.level in self.levels or layer.gives_masks

    def attend_cross(self, q: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, extra_options: dict) -> Tensor:
        size = tuple(extra_options["activations_shape"][-2:])
        keys = one_block(k, "the MODEL that the INVERSION was made with, and invert again")
        extra_options[RUN].record.cross[layer.index] = CrossAttention(q, keys, extra_options["n_heads"], size)
        return comfyui_attention(q, k, v, extra_options)

    def _inner_options(self, extra_options: dict) -> dict:
        return {**extra_options, RUN: extra_options[RUN].inner}


def joined_maps(parts: Sequence[Sequence[AttentionMap]], batches: Sequence[slice]) -> list[AttentionMap]:
    """The attention of all frames from that of batches; what shares bases becomes one part again."""
    joined: list[AttentionMap] = []
    for maps, batch in zip(parts, batches, strict=True):
        for part in maps:
            rows = slice(part.rows.start + batch.start, part.rows.stop + batch.start)
            if joined and joined[-1].gather is part.gather:
                last = joined.pop()
                queries = torch.cat([last.queries, part.queries])
                joined.append(replace(last, rows=slice(last.rows.start, rows.stop), queries=queries))
            else:
                joined.append(replace(part, rows=rows))
    return joined


def joined_cross(parts: Sequence[CrossAttention]) -> CrossAttention:
    """The cross-attention of all frames from that of batches."""
    queries, keys = (torch.cat([getattr(part, name) for part in parts]) for name in ("queries", "keys"))
    return replace(parts[0], queries=queries, keys=keys)


def one_block(tokens: Tensor, whose: str) -> Tensor:
    """The tokens of one prompt: ComfyUI repeats a prompt when it is joined with a longer one."""
    if tokens.shape[1] % TOKENS:
        raise ValueError(
            f"FateZero Edit: cross-attention reads {tokens.shape[1]} tokens, not the {TOKENS} of a prompt; another "
            f"node adds some (IP-Adapter does), so words cannot be told apart. Disconnect it from {whose}."
        )
    return tokens[:, :TOKENS]


def replayed(model: Any, levels: frozenset[int]) -> Any:
    """A clone of the MODEL of an inversion that records its attention.

    Raises:
        ValueError: a patch of another pack sits on one of the layers.
    """
    method = installed_method(model) or OWN_FRAME
    check_replayable(method, "FateZero Edit")
    return install(model, SourceReplay(method, levels))


def replay_options(model: Any, model_options: dict) -> dict:
    """Options for a source pass with a `replayed` MODEL, inside a run whose options are `model_options`."""
    options = comfy.model_patcher.create_model_options_clone(model.model_options)
    transformer_options = options["transformer_options"]
    # What ComfyUI does at the start of a run for the MODEL of that run.
    wrappers = transformer_options.setdefault("wrappers", {})
    comfy.patcher_extension.merge_nested_dicts(wrappers, model.wrappers, copy_dict1=False)
    transformer_options["sample_sigmas"] = model_options["transformer_options"]["sample_sigmas"]
    transformer_options[RUN] = installed_method(model).start_run(model)
    transformer_options |= faster_on_cpu(transformer_options, model.load_device)
    return options


@contextmanager
def weights_of(model: Any, edit_model: Any, shape: Sequence[int], beside: Sequence[Any] = ()) -> Iterator[Any]:
    """The network of `model`, with its own weights, in the middle of a run of `edit_model` on latents of `shape`.

    `beside` are the other models of that run (ControlNets), which ComfyUI may unload for the time of a source pass.

    A LoRA of the edit is taken off for the time of a source pass, which is slow and exact.
    """
    same = model.model is edit_model.model
    if same and model.patches_uuid == edit_model.patches_uuid:
        yield model.model
        return
    _load(model, shape)
    try:
        if not same:
            model.pre_run()
        yield model.model
    finally:
        if not same:
            model.cleanup()
        _load(edit_model, shape, beside)


def _load(model: Any, shape: Sequence[int], beside: Sequence[Any] = ()) -> None:
    """Loads a MODEL, with the room that ComfyUI leaves for a run: for two conds at best, for one at least."""
    frames, _, *size = shape
    frames = budget_of(model, installed_method(model), frames, size)
    best, least = (model.model.memory_required([conds * frames, 4, *size]) for conds in (2, 1))
    comfy.model_management.load_models_gpu([model, *beside], memory_required=best, minimum_memory_required=least)

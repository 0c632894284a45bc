"""The source pass of FateZero: one evaluation of the inversion run again, with what the edit reads from it handed over.

FateZero stores the attention maps of a whole inversion. Here the evaluation that made them is repeated when its step of
the edit has come: the same latent, timestep, MODEL and random draws give the same attention, and it is dropped again
with the step, or with the layer (see `source`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.patcher_extension
from torch import Tensor

from ....stem_kernels.cross_control import CrossControl
from ....stem_kernels.masks import word_attention
from ....stem_kernels.prompt_alignment import TOKENS
from ..attention.frame_context import OWN_FRAME
from ..attention.installing import install, installed_method
from ..attention.method import RUN, SelfAttentionMethod, check_replayable
from ..attention.rows import comfyui_attention, size_of
from ..batching.frame_batches import budget_of
from ..batching.memory_budget import CONDS, frames_that_fit, usual_room
from ..inversion.inversion import Inversion
from ..seams.cpu_attention import faster_on_cpu
from ..seams.layer_map import AttentionLayer
from ..seams.shared_prompt import share_prompt
from .source import CrossAttention, SelfAttention, SourceBefore, SourceBeside


@dataclass(frozen=True)
class FusedStep:
    """What all calls of one step share.

    Attributes:
        timestep: keys the draws of the edit's own STEM attention.
        fuses_self: whether the source's self-attention replaces that of the edit.
        control: of the cross-attention, on the device of the run.
        source_words, target_words: int64 token columns whose attention is noted for the masks, or None.
        keep_own: for height and width of a layer, the pixels of all frames that keep their own self-attention,
            bool [n, p, 1]; None for none.
    """

    timestep: int
    fuses_self: bool
    control: CrossControl
    source_words: Tensor | None = None
    target_words: Tensor | None = None
    keep_own: Callable[[tuple[int, int]], Tensor] | None = None


@dataclass
class ReplayRun:
    """State of one call of a source pass.

    Attributes:
        inner: what the inversion's own method remembers.
        step: the step under way, and
        source: where what its edit reads goes; None where nothing is read.
        noted: attention to the words of the source, [n, h, w] for each layer of the masks' level.
    """

    inner: Any
    step: FusedStep | None = None
    source: SourceBefore | SourceBeside | None = None
    noted: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class SourceReplay(SelfAttentionMethod):
    """The inversion's own self-attention, which leaves for the edit what it reads.

    Attributes:
        inner: the method that the inversion was made with.
        levels: resolution levels whose self- and cross-attention an edit may read.
    """

    inner: SelfAttentionMethod
    levels: frozenset[int]
    frames_per_batch: int | None = None
    name: str = "FateZero Edit, in the MODEL that the INVERSION was made with"

    def start_run(self, model: Any, timestep: int | None = None) -> ReplayRun:
        return ReplayRun(self.inner.start_run(model, timestep))

    def of_batch(self, run: ReplayRun) -> ReplayRun:
        return replace(run, inner=self.inner.of_batch(run.inner), noted=[])

    def context(self, tokens: Tensor, layer: AttentionLayer, extra_options: dict) -> tuple[Tensor, Tensor]:
        return self.inner.context(tokens, layer, self._inner_options(extra_options))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, extra_options: dict) -> Tensor:
        run, inner_options = extra_options[RUN], self._inner_options(extra_options)
        if run.source is None or not run.step.fuses_self or layer.level not in self.levels:
            return self.inner.attend(q, k, v, layer, inner_options)
        out, maps = self.inner.recorded(q, k, v, layer, inner_options)
        run.source.give("self", layer, SelfAttention(maps, size_of(extra_options)))
        return out

    def controls(self, layer: AttentionLayer) -> bool:
        return layer.level in self.levels or layer.gives_masks

    def attend_cross(self, q: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, extra_options: dict) -> Tensor:
        run: ReplayRun = extra_options[RUN]
        keys = one_block(k, "the MODEL that the INVERSION was made with, and invert again")
        if run.step.source_words is not None and layer.gives_masks:
            run.noted.append(seen_words(q, keys, run.step.source_words, extra_options))
        if run.source is not None and run.step.control.reads_source and layer.level in self.levels:
            run.source.give("cross", layer, CrossAttention(q, keys, size_of(extra_options)))
        return comfyui_attention(q, k, v, extra_options)

    def _inner_options(self, extra_options: dict) -> dict:
        return {**extra_options, RUN: extra_options[RUN].inner}


def seen_words(q: Tensor, k: Tensor, columns: Sequence[int] | Tensor, extra_options: dict) -> Tensor:
    """Attention of a layer's pixels [n, p, c] to some of the tokens [n, tokens, c], [n, h, w]."""
    return word_attention(q, k, extra_options["n_heads"], columns).unflatten(1, size_of(extra_options))


def one_block(tokens: Tensor, whose: str) -> Tensor:
    """The tokens of one prompt: ComfyUI repeats a prompt when it is joined with a longer one."""
    if tokens.shape[1] % TOKENS:
        raise ValueError(
            f"FateZero Edit: cross-attention reads {tokens.shape[1]} tokens, not the {TOKENS} of a prompt; another "
            f"node adds some (IP-Adapter does), so words cannot be told apart. Disconnect it from {whose}."
        )
    return tokens[:, :TOKENS]


def frames_per_batch(model: Any, inversion: Inversion) -> int:
    """How many frames of an edit by MODEL go through the network at a time: as many as the user has set for the
    inversion, else as many as went through then, or fewer where the source's attention would not fit beside two conds.
    """
    frames, method = inversion.frames, installed_method(inversion.model)
    number = method and method.frames_per_batch
    if number and not method.decided:
        return min(frames, number)
    fit = frames_that_fit(model.model, frames, CONDS, inversion.size, usual_room(model))
    return min(frames, fit, number or frames)


def frames_that_meet(inversion: Inversion, own: SelfAttentionMethod) -> int:
    """How many consecutive frames of an edit wait for each other in every layer, with this attention of its own."""
    methods = installed_method(inversion.model) or OWN_FRAME, own
    return max(method.frames_that_meet(inversion.frames) for method in methods)


def replayed(model: Any, levels: frozenset[int], frames_per_batch: int) -> Any:
    """A clone of the MODEL of an inversion that hands over its attention.

    Raises:
        ValueError: a patch of another pack sits on one of the layers.
    """
    method = installed_method(model) or OWN_FRAME
    check_replayable(method, "FateZero Edit")
    return install(model, SourceReplay(method, levels, frames_per_batch))


def replay_options(model: Any, model_options: dict, timestep: int) -> dict:
    """Options for a source pass with a `replayed` MODEL at a timestep, in a run whose options are `model_options`."""
    options = comfy.model_patcher.create_model_options_clone(model.model_options)
    transformer_options = options["transformer_options"]
    share_prompt(transformer_options)
    # What ComfyUI does at the start of a run for the MODEL of that run.
    wrappers = transformer_options.setdefault("wrappers", {})
    comfy.patcher_extension.merge_nested_dicts(wrappers, model.wrappers, copy_dict1=False)
    transformer_options["sample_sigmas"] = model_options["transformer_options"]["sample_sigmas"]
    transformer_options[RUN] = installed_method(model).start_run(model, timestep)
    transformer_options |= faster_on_cpu(transformer_options, model.load_device)
    return options


def share_weights(model: Any, other: Any) -> bool:
    """Whether two MODELs can run by turns: they are one network, with the same LoRAs."""
    return model.model is other.model and model.patches_uuid == other.patches_uuid


@contextmanager
def weights_of(model: Any, edit_model: Any, shape: Sequence[int], beside: Sequence[Any] = ()) -> Iterator[Any]:
    """The network of `model`, with its own weights, in the middle of a run of `edit_model` on latents of `shape`.

    `beside` are the other models of that run (ControlNets), which ComfyUI may unload for the time of a source pass.

    A LoRA of the edit is taken off for the time of a source pass, which is slow and exact.
    """
    if share_weights(model, edit_model):
        yield model.model
        return
    same = model.model is edit_model.model
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

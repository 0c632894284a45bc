"""Self-attention of a TokenFlow edit: record the source, edit the keyframes together, propagate to all frames.

A step is a sequence of passes through the model. The source passes run first and leave behind, for every layer, what
the edit passes read. Nothing depends on which conditionings ComfyUI joins into one batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from einops import repeat
from torch import Tensor

from ....stem_kernels.attention import join_frames, split_frames
from ....stem_kernels.correspondence import Correspondence, PropagationPlan, correspond, propagate
from ..attention.method import RUN, SelfAttentionMethod
from ..attention.rows import check_pass, comfyui_attention, rows_by_cond
from ..seams.layer_map import AttentionLayer
from ..stem.attention import StemSelfAttention
from ..stem.fitting import FitKey
from .passes import KeyRow

SourceRows = Literal["true", "propagated"]
_SOURCE = "source"


@dataclass(frozen=True)
class Pass:
    """One call of the model within a step.

    Attributes:
        source: whether these are rows of the source video or of the edit.
        frames: how many frames a conditioning has in this pass.
        plan: how their features come from the keyframes; None in a pass over the keyframes themselves.
        key: in a source pass, the keyframe that the edit pass has beside these frames.
        inject_attention: source queries and keys replace those of the edit.
        inject_features: the source's convolution feature replaces that of the edit.
    """

    source: bool
    frames: int
    plan: PropagationPlan | None = None
    key: KeyRow | None = None
    inject_attention: bool = False
    inject_features: bool = False


@dataclass
class TokenFlowRun:
    """What passes leave for each other within a step; keys of the dictionaries are layer numbers.

    Attributes:
        current: the pass under way.
        timestep: of the step; keys the draws of STEM attention.
        key_tokens: normalised tokens of the source keyframes, [keyframes, p, c].
        queries_keys: source queries and keys of the keyframes, at injected layers, until their edit has read them.
        outputs: attention outputs of the keyframes before the output projection, by cond (its number, or
            "source") and layer.
        matches: correspondences of the batch under way.
        edit_tokens: tokens of the edit's keyframes on their way to STEM attention in the same layer.
        key_feature: the source's convolution feature of the keyframes, [keyframes, c, h, w].
        feature: that feature for the next edit pass, [frames, c, h, w].
    """

    current: Pass | None = None
    timestep: int = 0
    key_tokens: dict[int, Tensor] = field(default_factory=dict)
    queries_keys: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    outputs: dict[tuple[int | str, int], Tensor] = field(default_factory=dict)
    matches: dict[int, Correspondence] = field(default_factory=dict)
    edit_tokens: Tensor | None = None
    key_feature: Tensor | None = None
    feature: Tensor | None = None

    def match_tokens(self, layer: int, tokens: Tensor, plan: PropagationPlan, key: KeyRow | None) -> None:
        """Finds the tokens of a batch's source, [frames, p, c] without its keyframe `key`, in the keyframes."""
        of_keyframes = self.key_tokens[layer]
        rows = tokens if key is None else key.put(tokens, of_keyframes)
        self.matches[layer] = correspond(rows, of_keyframes, plan)

    def match_keyframe(self, plan: PropagationPlan, key: KeyRow) -> None:
        """Does the same in all layers for a batch that is its keyframe alone, and takes its feature."""
        for layer, of_keyframes in self.key_tokens.items():
            self.match_tokens(layer, of_keyframes[:0], plan, key)
        if self.key_feature is not None:
            self.feature = key.put(self.key_feature[:0], self.key_feature)

    def keep_feature(self, feature: Tensor) -> None:
        """Keeps the source's convolution feature of the pass under way."""
        if self.current.plan is None:
            self.key_feature = feature
        self.feature = feature if self.current.key is None else self.current.key.put(feature, self.key_feature)

    def forget(self) -> None:
        """Drop everything that a step has left."""
        for store in (self.key_tokens, self.queries_keys, self.outputs, self.matches):
            store.clear()
        self.current = self.edit_tokens = self.key_feature = self.feature = None


@dataclass(frozen=True)
class TokenFlowAttention(SelfAttentionMethod):
    """Self-attention of every pass of a TokenFlow step.

    Attributes:
        source_rows: "true" runs the source batches with their own attention; "propagated" propagates in them as well,
            as the reference code does.
        stem: None for extended attention over the keyframes, else their keys and values come from bases.
    """

    source_rows: SourceRows = "true"
    stem: StemSelfAttention | None = None
    name: str = "TokenFlow Edit"

    def start_run(self, model: Any) -> TokenFlowRun:
        return TokenFlowRun()

    def context(self, tokens: Tensor, layer: AttentionLayer, extra_options: dict) -> tuple[Tensor, Tensor]:
        run, current = _state(tokens, extra_options)
        if current.plan is None:
            if current.source:
                run.key_tokens[layer.index] = tokens
            elif self.stem is not None:
                run.edit_tokens = tokens
            return tokens, tokens
        if current.source:
            run.match_tokens(layer.index, tokens, current.plan, current.key)
            if self.source_rows == "true":
                return tokens, tokens
        # Propagation reads no query, key or value: one token spares the projections of the rest.
        return tokens[:, :1], tokens[:, :1]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, extra_options: dict) -> Tensor:
        run, current = _state(q, extra_options)
        conds = [_SOURCE] if current.source else extra_options["cond_or_uncond"]
        if current.plan is not None and not (current.source and self.source_rows == "true"):
            matches = run.matches[layer.index]
            return torch.cat([propagate(run.outputs[cond, layer.index], matches, current.plan) for cond in conds])
        if current.source:
            out = comfyui_attention(q, k, v, extra_options)
        else:
            out = self._attend_keyframes(q, k, v, layer, run, extra_options)
        if current.plan is None:
            if current.source and current.inject_attention and layer.injected:
                run.queries_keys[layer.index] = (q, k)
            # the source's own rows are read again only where its batches propagate as well
            if not current.source or self.source_rows == "propagated":
                for cond, rows in zip(conds, out.chunk(len(conds)), strict=True):
                    run.outputs[cond, layer.index] = rows
        return out

    def _attend_keyframes(
        self, q: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, run: TokenFlowRun, extra_options: dict
    ) -> Tensor:
        """The edit's keyframes, each group for itself, with the source's queries and keys where they are injected."""
        current, groups = run.current, len(extra_options["cond_or_uncond"])
        injected = current.inject_attention and layer.injected

        def for_all_conds(source: Tensor) -> Tensor:
            return repeat(source, "n p c -> (g n) p c", g=groups)

        if injected:
            q, k = (for_all_conds(source).to(q.device) for source in run.queries_keys[layer.index])
        if self.stem is None:
            joined = comfyui_attention(*(join_frames(tensor, groups) for tensor in (q, k, v)), extra_options)
            return split_frames(joined, current.frames)
        tokens = for_all_conds(run.key_tokens[layer.index]) if injected else run.edit_tokens
        run.edit_tokens = None
        outputs = []
        for cond, (queries, keys, values, features) in rows_by_cond(extra_options, q, k, v, tokens):
            key = FitKey(run.timestep, layer.index, cond)
            shared = self.stem.bases.of_pixels(features, keys, values, key, extra_options["n_heads"])
            outputs.append(shared.map_of(queries).attend(shared.values, extra_options))
        return torch.cat(outputs)


def _state(tokens: Tensor, extra_options: dict) -> tuple[TokenFlowRun, Pass]:
    run: TokenFlowRun = extra_options[RUN]
    check_pass(tokens, run.current and run.current.frames, extra_options, "TokenFlow Edit")
    return run, run.current

"""Self-attention of a TokenFlow edit: record the source, edit the keyframes together, propagate to all frames.

A step is a sequence of passes through the model, with one conditioning each. The source's come first, or are the first
in a call for several, and leave behind for every layer what the edit's passes read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ....stem_kernels.correspondence import propagate
from ..attention.method import RUN, SelfAttentionMethod
from ..attention.rows import check_pass, comfyui_attention
from ..seams.layer_map import AttentionLayer
from ..stem.attention import StemSelfAttention
from ..stem.fitting import FitKey
from .keyframe_attention import AllKeyframes, KeyframeRows, extended_attention, stem_attention
from .keyframe_store import KeyframeStore
from .run import KEYS, QUERIES, SOURCE, TOKENS, VALUES, Pass, TokenFlowRun
from .settings import SourceRows


@dataclass(frozen=True)
class TokenFlowAttention(SelfAttentionMethod):
    """Self-attention of every pass of a TokenFlow step.

    Attributes:
        source_rows: "true" runs the source batches with their own attention; "propagated" propagates in them as well,
            as the reference code does.
        stem: None for extended attention over the keyframes, else their keys and values come from bases.
        keyframe_window: to how many keyframes each attends, without bases; 0 for all.
    """

    source_rows: SourceRows = "true"
    stem: StemSelfAttention | None = None
    keyframe_window: int = 0
    name: str = "TokenFlow Edit"

    def start_run(self, model: Any, timestep: int | None = None) -> TokenFlowRun:
        return TokenFlowRun(KeyframeStore(model.load_device))

    def context(self, tokens: Tensor, layer: AttentionLayer, extra_options: dict) -> tuple[Tensor, Tensor] | None:
        current = _pass(tokens, extra_options)
        if current.plan is None:
            if current.source:
                current.run.kept.keep(TOKENS, layer.index, tokens)
            elif self.stem is not None and not current.injects(layer):
                current.tokens = tokens
            return tokens, tokens
        if current.source:
            current.match(layer.index, tokens)
            if self.source_rows == "true":
                return tokens, tokens
        return None  # propagation reads no query, key or value

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, extra_options: dict) -> Tensor:
        current: Pass = extra_options[RUN]
        (cond,) = [SOURCE] if current.source else extra_options["cond_or_uncond"]
        if current.plan is not None and not (current.source and self.source_rows == "true"):
            rows = current.of_keyframes(cond, layer.index)
            return propagate(rows, current.run.matches[layer.index], current.plan)
        if not current.source:
            return self._attend_keyframes(q, k, v, layer, current, extra_options)
        out = comfyui_attention(q, k, v, extra_options)
        if current.plan is None:
            kept = current.run.kept
            if current.injects(layer):
                kept.keep(QUERIES, layer.index, q)
                kept.keep(KEYS, layer.index, k)
            # the source's own rows are read again only where its batches propagate as well
            if self.source_rows == "propagated":
                kept.keep(SOURCE, layer.index, out)
        return out

    def _attend_keyframes(
        self, q: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, current: Pass, extra_options: dict
    ) -> Tensor:
        """The edit's keyframes of one pass, together with those of the other passes."""
        kept, (cond,) = current.run.kept, extra_options["cond_or_uncond"]

        def together(parts: list[KeyframeRows]) -> dict[int, Tensor]:
            every = AllKeyframes(parts, layer.index, kept if current.injects(layer) else None)
            if self.stem is None:
                outputs = extended_attention(every, self.keyframe_window, extra_options)
            else:
                key = FitKey(current.run.timestep, layer.index, cond)
                outputs = stem_attention(every, self.stem, key, extra_options)
            for out in outputs:
                kept.keep(cond, layer.index, out)
            return {part.keyframes.start: out for part, out in zip(parts, outputs, strict=True)}

        here = KeyframeRows(current.keyframes, {QUERIES: q, KEYS: k, VALUES: v, TOKENS: current.tokens})
        current.tokens = None
        # each takes its own away, so that none waits in memory for the next meeting
        return current.meet(here, together).pop(here.keyframes.start)


def _pass(tokens: Tensor, extra_options: dict) -> Pass:
    current = extra_options[RUN]
    check_pass(tokens, len(current.frames) if isinstance(current, Pass) else None, extra_options, "TokenFlow Edit")
    return current

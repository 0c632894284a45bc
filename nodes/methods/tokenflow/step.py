"""One step of a TokenFlow edit: passes over the keyframes, then over batches of frames that take features from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ....stem_kernels.attention import joined
from ..attention.method import RUN
from ..batching.lockstep import Meet, run_in_lockstep
from ..seams.control_hints import controls_of_frames
from .passes import BatchPasses
from .run import KEYS, QUERIES, Pass, TokenFlowRun


@dataclass(frozen=True)
class Step:
    """What the passes of a step have in common.

    Attributes:
        run_model: conds, latents, noise levels and model options -> predictions by cond (`EditGuider.run_model`).
        run: what passes leave for each other.
        conds: of the edit; a cond may be None.
        source_conds: of the source.
        x, source: latents of the edit and of the source, [n, 4, h, w].
        sigma: noise level, [n].
        inject_attention, inject_features: whether this is such a step.
    """

    run_model: Callable[[list, Tensor, Tensor, dict], list[Tensor]]
    run: TokenFlowRun
    conds: list
    source_conds: list
    x: Tensor
    source: Tensor
    sigma: Tensor
    model_options: dict
    inject_attention: bool
    inject_features: bool

    def predict(self, keyframes: Tensor, parts: Sequence[slice], batches: Sequence[BatchPasses]) -> list[Tensor]:
        """Clean latents by cond, [n, 4, h, w]; the keyframes go through the network in `parts`."""
        of_keyframes = self.keyframes(keyframes, parts)
        predicted = [torch.empty_like(self.x) for _ in self.conds]
        for batch in batches:
            for out, found in zip(predicted, self.batch(batch), strict=True):
                out.index_copy_(0, self._here(batch.edit), found)
            if batch.reused is not None:
                frame, number = batch.reused
                for out, found in zip(predicted, of_keyframes, strict=True):
                    out[frame] = found[number]
        return predicted

    def keyframes(self, frames: Tensor, parts: Sequence[slice]) -> list[Tensor]:
        """The source's keyframes, then the edit's, whose predictions are returned by cond."""
        for part in parts:
            self._call(self._pass(True, frames[part], range(part.start, part.stop)))
        found = [self._keyframes_of(place, frames, parts) for place in range(len(self.conds))]
        for kind in (QUERIES, KEYS):
            self.run.kept.drop(kind)
        return found

    def batch(self, batch: BatchPasses) -> list[Tensor]:
        """The source of a batch, then its edit, whose predictions are returned by cond."""
        if not len(batch.edit):
            return [self.x[:0] for _ in self.conds]
        # once for all layers
        plan = batch.plan.on(self.x.device)
        of_source = self._pass(True, batch.source, batch.keyframes, plan, batch.key)
        if len(batch.source):
            self._call(of_source)
        else:
            of_source.match_key()
        return self._call(self._pass(False, batch.edit, batch.keyframes, plan))

    def _keyframes_of(self, place: int, frames: Tensor, parts: Sequence[slice]) -> Tensor:
        """Of one cond, whose passes meet: what they hold lives at the same time."""
        conds = [cond if place == here else None for here, cond in enumerate(self.conds)]

        def of_part(part: slice, meet: Meet) -> Tensor:
            current = self._pass(False, frames[part], range(part.start, part.stop), meet=meet)
            return self._call(current, conds)[place]

        return joined(run_in_lockstep([partial(of_part, part) for part in parts]))

    def _pass(self, source: bool, frames: Tensor, *of_keyframes: Any, **more: Any) -> Pass:
        injected = {"inject_attention": self.inject_attention, "inject_features": self.inject_features}
        return Pass(self.run, source, frames, *of_keyframes, **injected, **more)

    def _call(self, current: Pass, conds: list | None = None) -> list[Tensor]:
        options = {**self.model_options["transformer_options"], RUN: current}
        model_options = {**self.model_options, "transformer_options": options}
        video, conds = (self.source, self.source_conds) if current.source else (self.x, conds or self.conds)
        rows, conds = self._here(current.frames), controls_of_frames(conds, current.frames)
        return self.run_model(conds, video[rows], self.sigma[rows], model_options)

    def _here(self, frames: Tensor) -> Tensor:
        return frames.to(self.x.device, non_blocking=True)

"""One step of a TokenFlow edit: passes over the keyframes, then over batches of frames that take features from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from ....stem_kernels.attention import joined
from ..attention.method import RUN
from ..attention.one_call import as_one_call
from ..batching.lockstep import Meet, run_in_lockstep
from ..seams.control_hints import controls_of_frames
from .memory import few_beside
from .passes import BatchPasses
from .run import KEYS, QUERIES, Pass, TokenFlowRun


@dataclass(frozen=True)
class PassesOfFrames:
    """source: of some frames, None where it is not run; edits: of the same frames, by cond; batch: its number, None for
    keyframes."""

    source: Pass | None
    edits: list[Pass]
    batch: int | None = None


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
        matches: whether correspondences are found in this step, or those of an earlier one are read.
        read_again: whether later steps read those of this one.
        joins: whether the source and all conds of the same frames go through the network in one call.
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
    matches: bool = True
    read_again: bool = False
    joins: bool = False

    def predict(self, keyframes: Tensor, parts: Sequence[slice], batches: Sequence[BatchPasses]) -> list[Tensor]:
        """Clean latents by cond, [n, 4, h, w]; the keyframes go through the network in `parts`."""
        predicted, of_first = [torch.empty_like(self.x) for _ in self.conds], None
        if self.joins and few_beside(len(keyframes), batches[0].frames) and len(batches[0].source):
            of_keyframes, of_first = self._of_conds(self._of_keyframes(keyframes), self._of_batch(batches[0]))
        else:
            of_keyframes = self.keyframes(keyframes, parts)
        for kind in (QUERIES, KEYS):
            self.run.kept.drop(kind)
        for batch in batches:
            of_batch = self.batch(batch) if of_first is None else of_first
            of_first = None
            for out, found in zip(predicted, of_batch, strict=True):
                out.index_copy_(0, self._here(batch.edit), found)
            if batch.reused is not None:
                frame, number = batch.reused
                for out, found in zip(predicted, of_keyframes, strict=True):
                    out[frame] = found[number]
        return predicted

    def keyframes(self, frames: Tensor, parts: Sequence[slice]) -> list[Tensor]:
        """The source's keyframes, then the edit's, whose predictions are returned by cond."""
        if len(parts) == 1:
            (found,) = self._of_conds(self._of_keyframes(frames))
            return found
        if self.reads_keyframes:
            for part in parts:
                self._call(self._pass(True, frames[part], range(part.start, part.stop)))
        return [self._keyframes_of(place, frames, parts) for place in range(len(self.conds))]

    def batch(self, batch: BatchPasses) -> list[Tensor]:
        """The source of a batch, then its edit, whose predictions are returned by cond."""
        if not len(batch.edit):
            return [self.x[:0] for _ in self.conds]
        (found,) = self._of_conds(self._of_batch(batch))
        return found

    @property
    def reads_keyframes(self) -> bool:
        """Whether something of the source's keyframes is read."""
        return self.matches or self.inject_attention or self.inject_features

    def _of_keyframes(self, frames: Tensor) -> PassesOfFrames:
        everyone = range(len(frames))
        source = self._pass(True, frames, everyone) if self.reads_keyframes else None
        return PassesOfFrames(source, self._edits(frames, everyone))

    def _of_batch(self, batch: BatchPasses) -> PassesOfFrames:
        plan, source = batch.plan.on(self.x.device), None  # once for all layers
        if self.matches:
            source = self._pass(True, batch.source, batch.keyframes, plan, batch.key)
        return PassesOfFrames(source, self._edits(batch.edit, batch.keyframes, plan), batch.number)

    def _of_conds(self, *groups: PassesOfFrames) -> list[list[Tensor]]:
        """What is predicted for some frames after others, by cond; in one call of the network where they join."""
        passes: list[tuple[Pass, int | None]] = []
        for group in groups:
            if group.source is not None and len(group.source.frames):
                passes.append((group.source, None))
            elif group.source is not None:
                group.source.match_key()
            elif group.batch is not None:
                self.run.recall(group.batch)
            passes += [(edit, place) for place, edit in enumerate(group.edits) if self.conds[place] is not None]
        calls = [partial(self._call, *of_pass) for of_pass in passes]
        outputs = as_one_call(calls) if self.joins else [call({}) for call in calls]
        found = {edit: out for (edit, _), out in zip(passes, outputs, strict=True)}
        for group in groups:
            if group.batch is not None and self.read_again:
                self.run.hold(group.batch)
        nothing = torch.zeros_like(self.x)
        return [[found.get(edit, nothing[: len(edit.frames)]) for edit in group.edits] for group in groups]

    def _keyframes_of(self, place: int, frames: Tensor, parts: Sequence[slice]) -> Tensor:
        """Of one cond, whose passes meet: what they hold lives at the same time."""
        if self.conds[place] is None:
            return torch.zeros_like(self.x[: len(frames)])

        def of_part(part: slice, meet: Meet) -> Tensor:
            return self._call(self._pass(False, frames[part], range(part.start, part.stop), meet=meet), place)

        return joined(run_in_lockstep([partial(of_part, part) for part in parts]))

    def _edits(self, frames: Tensor, *of_keyframes: Any) -> list[Pass]:
        here = self._here(frames)  # once for all conds
        return [self._pass(False, frames, *of_keyframes, here=here) for _ in self.conds]

    def _pass(self, source: bool, frames: Tensor, *of_keyframes: Any, here: Tensor | None = None, **more: Any) -> Pass:
        injected = {"inject_attention": self.inject_attention, "inject_features": self.inject_features}
        here = self._here(frames) if here is None else here
        return Pass(self.run, source, frames, here, *of_keyframes, **injected, **more)

    def _call(self, current: Pass, place: int | None = None, more: Mapping[str, Any] = MappingProxyType({})) -> Tensor:
        """What the network predicts in a pass of the source, or of the cond at a place."""
        options = {**self.model_options["transformer_options"], RUN: current, **more}
        model_options = {**self.model_options, "transformer_options": options}
        if current.source:
            video, conds, place = self.source, self.source_conds, 0
        else:
            video, conds = self.x, [cond if place == here else None for here, cond in enumerate(self.conds)]
        here, conds = current.here, controls_of_frames(conds, current.frames)
        return self.run_model(conds, video[here], self.sigma[here], model_options)[place]

    def _here(self, frames: Tensor) -> Tensor:
        return frames.to(self.x.device, non_blocking=True)

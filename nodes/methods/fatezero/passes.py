"""The passes of one step of FateZero, of the source and of the edit, each a call of the network for every batch.

Source and edit of the same frames run in lockstep, so that what the edit reads lives for one layer. Where all frames go
through at once, or a LoRA of the edit has to be taken off first, the source runs before the edit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from ....stem_kernels.attention import joined
from ....stem_kernels.correspondence import batch_slices
from ....stem_kernels.masks import mean_attention
from ..attention.installing import install, installed_method
from ..attention.method import RUN
from ..attention.one_call import as_one_call
from ..batching.frame_batches import BATCH, FrameBatch, budget_of
from ..batching.lockstep import Meet, alone, run_in_lockstep
from ..batching.memory_budget import CONDS, source_and_edit_join
from ..editing.guider import EditGuider
from ..inversion.guidance import StepSchedule
from ..inversion.inversion import Inversion
from ..seams.control_hints import controls_of_frames
from ..seams.frame_dependent_patches import with_tried_patches
from .attention import POSITIVE, FateZeroAttention, FateZeroRun
from .replay import FusedStep, replay_options, replayed, share_weights, weights_of
from .source import Kind, SourceBefore, SourceBeside

# Who makes a call: the edit, with the conds of these numbers, or the source.
Role = tuple[int, ...]
SOURCE: Role = ()


@dataclass(frozen=True)
class Call:
    """One call of the network.

    Attributes:
        role: who makes it.
        place: number of the batch.
        batch: its frames, and how it meets the calls of the same role with the others.
        among: how it meets the calls of some roles, its own among them, with the same frames.
        more: transformer options.
    """

    role: Role
    place: int
    batch: FrameBatch
    among: Callable[[Sequence[Role]], Meet]
    more: Mapping[str, Any] = field(default_factory=dict)

    def options(self, model_options: dict, run: Any) -> dict:
        """Options of a model for this call, with its own run."""
        transformer_options = {**model_options["transformer_options"], RUN: run, BATCH: self.batch, **self.more}
        return {**model_options, "transformer_options": transformer_options}


def run_calls(roles: Sequence[Role], batches: Sequence[slice], run: Callable[[Call], Any]) -> dict[Role, list]:
    """Runs a call of every role for every batch, in lockstep; the results of each role, in the order of the batches."""
    places = range(len(batches))

    def number(role: Role, place: int) -> int:
        return place * len(roles) + roles.index(role)

    def call(role: Role, place: int, meet: Meet) -> Any:
        def among(others: Sequence[Role]) -> Meet:
            return partial(meet, members=tuple(number(other, place) for other in others))

        everywhere = tuple(number(role, other) for other in places)
        return run(Call(role, place, FrameBatch(batches[place], partial(meet, members=everywhere)), among))

    results = run_in_lockstep([partial(call, role, place) for place in places for role in roles])
    return {role: results[first :: len(roles)] for first, role in enumerate(roles)}


class PassesGuider(EditGuider):
    """A guider of an edit whose source runs again beside it.

    Attributes:
        method: of the edit's MODEL.
        batches: frames that go through the network at a time.
        source: the MODEL of the inversion, which hands over its attention.
        joins: whether source and edit of all frames may go through the network in one call.
    """

    def __init__(
        self, model: Any, inversion: Inversion, method: FateZeroAttention, schedule: StepSchedule, mask: Tensor | None
    ) -> None:
        super().__init__(install(model, method), inversion, schedule, mask)
        self.method = method
        self.batches = batch_slices(inversion.frames, method.frames_per_batch)
        self.frames_at_once = budget_of(model, method, inversion.frames, inversion.size)
        self.source = replayed(inversion.model, method.levels, method.frames_per_batch)
        needed = model.model.memory_required([CONDS * inversion.frames, 4, *inversion.size])
        self.joins = len(self.batches) == 1 and source_and_edit_join(model, needed)


class StepPasses:
    """The passes of a step.

    Attributes:
        source_words, target_words: the attention of all pixels to them, [n, h, w], once it has been seen.
    """

    def __init__(
        self, guider: PassesGuider, step: FusedStep, conds: list, x: Tensor, sigma: Tensor, model_options: dict
    ) -> None:
        self.guider, self.step, self.conds, self.x, self.sigma = guider, step, conds, x, sigma
        self.whole = len(guider.batches) == 1
        self.edit_options = model_options
        self.source_options = replay_options(guider.source, model_options, step.timestep)
        if not self.whole:
            self.edit_options, self.source_options = map(self._tried, (self.edit_options, self.source_options))
        self.source_words: Tensor | None = None
        self.target_words: Tensor | None = None

    def run(
        self, latents: Tensor | None, keep_own: Callable[[Tensor, tuple[int, int]], Tensor] | None = None
    ) -> list[Tensor]:
        """Clean latents predicted for each cond, [n, 4, h, w].

        Args:
            latents: of the source, or None where nothing of it is read.
            keep_own: from the attention to the source's words and the size of a layer to the pixels that keep their own
                self-attention, as `FusedStep.keep_own`; None for no pixel.
        """
        guider, kept = self.guider, None
        roles: list[Role] = [(number,) for number, cond in enumerate(self.conds) if cond is not None]
        beside: list[Role] = []
        shared = share_weights(guider.source, guider.model_patcher)
        joins_source = guider.joins and shared and latents is not None and keep_own is None
        if latents is not None:
            readers = self._readers(roles)
            if not self.whole and shared:
                beside = [role for role in roles if any(role in of for of in readers.values())]
            if not beside:
                counts = {kind: len(of) for kind, of in readers.items()}
                kept = [SourceBefore(counts, in_host_memory=not self.whole) for _ in guider.batches]
            # where words are decides about the edit's first layers, and is seen in the source's last
            if keep_own is not None or not (beside or joins_source):
                self._run_source(latents, kept)
            if keep_own is not None:
                self.step = replace(self.step, keep_own=cache(partial(keep_own, self.source_words)))
        if guider.joins:
            return self._predicted(self._run_joined(latents if joins_source else None, roles, kept))
        found = self._run_beside(latents, beside) if beside else {}
        # calls that meet have to be alike
        for role in roles:
            if role not in beside:
                found |= run_calls([role], guider.batches, lambda call: self._edit(call, kept and kept[call.place]))
        return self._predicted(found)

    def _run_joined(
        self, latents: Tensor | None, roles: Sequence[Role], kept: list[SourceBefore] | None
    ) -> dict[Role, list]:
        """All frames of the edit's conds, after those of the source if `latents` are given, in one call."""
        source = kept and kept[0]

        def run(role: Role, more: Mapping[str, Any]) -> Any:
            call = Call(role, 0, FrameBatch(self.guider.batches[0]), lambda _: alone, more)
            if role == SOURCE:
                return self._source(call, latents, self.guider.source.model, source)
            return self._edit(call, source)

        everyone = [*([] if latents is None else [SOURCE]), *roles]
        outputs = as_one_call([partial(run, role) for role in everyone])
        found = {role: [out] for role, out in zip(everyone, outputs, strict=True)}
        if latents is not None:
            self._see_source_words(found.pop(SOURCE))
        return found

    def _run_source(self, latents: Tensor, kept: list[SourceBefore] | None) -> None:
        """The source alone: what its edit reads is kept, and its words are seen."""
        guider = self.guider
        with weights_of(guider.source, guider.model_patcher, self.x.shape, guider.loaded_models) as network:
            found = run_calls(
                [SOURCE],
                guider.batches,
                lambda call: self._source(call, latents, network, kept and kept[call.place]),
            )
        self._see_source_words(found[SOURCE])

    def _run_beside(self, latents: Tensor, beside: Sequence[Role]) -> dict[Role, list]:
        """The source, and those of the edit's calls that read it."""
        readers = self._readers(beside)

        def run(call: Call) -> Any:
            source = SourceBeside({kind: call.among([*roles, SOURCE]) for kind, roles in readers.items()})
            if call.role == SOURCE:
                return self._source(call, latents, self.guider.source.model, source)
            return self._edit(call, source)

        found = run_calls([*beside, SOURCE], self.guider.batches, run)
        self._see_source_words(found.pop(SOURCE))
        return found

    def _source(
        self, call: Call, latents: Tensor, network: Any, source: SourceBefore | SourceBeside | None
    ) -> list[Tensor]:
        """One call of the source; returns what it has noted of its words."""
        guider, frames = self.guider, call.batch.frames
        run = installed_method(guider.source).of_batch(self.source_options["transformer_options"][RUN])
        run = replace(run, step=self.step, source=source)
        options = call.options(self.source_options, run)
        guider.run_model(guider.source_conds, latents[frames], self.sigma[frames], options, network)
        return run.noted

    def _edit(self, call: Call, source: SourceBefore | SourceBeside | None) -> tuple[list[Tensor], list[Tensor]]:
        """One call of the edit; returns what it predicts for each cond, and what it has noted of its words."""
        frames = call.batch.frames
        conds = [cond if number in call.role else None for number, cond in enumerate(self.conds)]
        if not self.whole:
            conds = controls_of_frames(conds, torch.arange(frames.start, frames.stop))
        run = FateZeroRun(self.step, source, frames.stop - frames.start)
        options = call.options(self.edit_options, run)
        return self.guider.run_model(conds, self.x[frames], self.sigma[frames], options), run.noted

    def _predicted(self, found: dict[Role, list]) -> list[Tensor]:
        """The predictions for all frames; those of the conds that are not there are 0."""
        predicted = [torch.zeros_like(self.x) for _ in self.conds]
        for role, calls in found.items():
            for number in role:
                predicted[number] = joined([outputs[number] for outputs, _ in calls])
            if POSITIVE in role:
                self.target_words = _of_all_frames([noted for _, noted in calls])
        return predicted

    def _see_source_words(self, noted: Sequence[Sequence[Tensor]]) -> None:
        if self.step.source_words is not None:
            self.source_words = _of_all_frames(noted)
            self.step = replace(self.step, source_words=None)  # once is enough

    def _readers(self, roles: Sequence[Role]) -> dict[Kind, list[Role]]:
        """Which calls of the edit read the source's self- and cross-attention."""
        return {
            "self": [role for role in roles if self.step.fuses_self and self.guider.method.fuses(*role)],
            "cross": [role for role in roles if self.step.control.reads_source and role == (POSITIVE,)],
        }

    def _tried(self, model_options: dict) -> dict:
        options = with_tried_patches(model_options["transformer_options"], len(self.x), self.guider.purpose)
        return {**model_options, "transformer_options": options}


def _of_all_frames(noted: Sequence[Sequence[Tensor]]) -> Tensor | None:
    """The attention to words that each batch has noted at some layers, [b, h, w] each: their mean, [n, h, w]."""
    layers = [joined(parts) for parts in zip(*noted, strict=True)]
    return mean_attention(layers) if layers else None

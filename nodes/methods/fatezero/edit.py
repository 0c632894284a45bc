"""FateZero editing of an inverted video, and with an inversion through STEM Bases, STEM-FateZero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ....stem_kernels.cross_control import CrossControl
from ....stem_kernels.ddim import select_timesteps, to_exploding
from ....stem_kernels.masks import Resizing, attention_mask
from ....stem_kernels.prompt_alignment import Window, window_range
from ..attention.frame_context import OWN_FRAME
from ..attention.method import SelfAttentionMethod
from ..inversion.guidance import StepSchedule
from ..inversion.inversion import Inversion
from ..inversion.sampling import Tail
from .attention import FateZeroAttention, FateZeroRun
from .passes import PassesGuider, StepPasses
from .replay import FusedStep, frames_per_batch, frames_that_meet
from .word_control import WordControl


@dataclass(frozen=True)
class FateZeroSettings:
    """What FateZero Edit offers beside the words.

    Attributes:
        cfg: classifier-free guidance scale.
        cfg_window: the steps in which it acts, as shares of the schedule from its noisy end.
        self_window: the steps whose self-attention is the source's, as fractions of all steps from the noisy end.
        blend_self: pixels where the source's words are keep the edit's own self-attention.
        blend_latents: outside the words of both prompts, the latent is put back to the source's after a step.
        latent_window: the steps that do so.
        threshold: of the masks (see `attention_mask`).
        accumulate: masks of the latents read the attention of all steps so far, on both sides.
        resizing: how masks are brought to a layer's size.
        levels: resolution levels whose attention is fused and controlled; 0 is that of the latent.
        fuse_unconditional: fuse the negative prompt's rows as well.
        own: attention of all that is not fused.
        mask: see `EditGuider`.
        steps: 0 for those of the inversion.
        tail: see `denoising_sigmas`.
    """

    cfg: float = 7.5
    cfg_window: Window = 1.0
    self_window: Window = 0.8
    blend_self: bool = False
    blend_latents: bool = False
    latent_window: Window = (0.2, 0.8)
    threshold: float = 0.3
    accumulate: bool = False
    resizing: Resizing = "nearest"
    levels: frozenset[int] = frozenset((1, 2, 3))
    fuse_unconditional: bool = False
    own: SelfAttentionMethod = OWN_FRAME
    mask: Tensor | None = None
    steps: int = 0
    tail: Tail = "alpha0"


@dataclass(frozen=True)
class Edited:
    """samples: LATENT samples [n, 4, h, w]; mask: [n, h, w], how far a pixel was free to change: the share of the steps
    with a mask that let it, times the user's mask."""

    samples: Tensor
    mask: Tensor


def edit(
    model: Any,
    inversion: Inversion,
    positive: list,
    negative: list,
    words: WordControl,
    settings: FateZeroSettings,
) -> Edited:
    """Edit an inverted video with MODEL.

    Args:
        model: MODEL of the edit; a LoRA or patches outside attention are kept, a method of this pack is replaced.
        positive, negative: CONDITIONING of the target prompt and of what to avoid.
        words: made for as many steps as the edit has.

    Raises:
        ValueError: the steps do not match the inversion, a window is wrong, or another pack's patch sits on attention.
    """
    timesteps = select_timesteps(inversion.timesteps, settings.steps)
    guider = FateZeroGuider(model, inversion, words, settings, StepSchedule(timesteps, len(timesteps)))
    start = inversion.latent(inversion.entry(timesteps[-1]))
    samples = guider.edit(positive, negative, start, settings.tail)
    changed = guider.masks.mean(samples)
    return Edited(samples, changed if settings.mask is None else changed * settings.mask)


@dataclass
class Masks:
    """Masks of the steps so far.

    Attributes:
        latent: of the step under way, bool [n, h, w], or None.
        source_attention, target_attention: sums over the steps so far, where they are accumulated.
        total: sum of all masks, for the picture; count: how many.
    """

    latent: Tensor | None = None
    source_attention: Tensor | float = 0.0
    target_attention: Tensor | float = 0.0
    total: Tensor | float = 0.0
    count: int = 0

    def note(self, mask: Tensor) -> None:
        self.total = self.total + mask.float()
        self.count += 1

    def mean(self, samples: Tensor) -> Tensor:
        """[n, h, w] for samples [n, 4, h, w]; all ones where there was no mask, because everything may change then."""
        return (self.total / self.count).cpu() if self.count else torch.ones_like(samples[:, 0], device="cpu")


@dataclass(frozen=True)
class StepPlan:
    """What one step takes from the source.

    Attributes:
        control: of the cross-attention.
        fuses_self: the source's self-attention replaces that of the edit,
        keeps_words: but not where the source's words are.
        blends_latents: outside the words, the latent is put back to the source's after the step.
        accumulates: the attention to the words is added up over the steps.
    """

    control: CrossControl
    fuses_self: bool
    keeps_words: bool
    blends_latents: bool
    accumulates: bool

    @property
    def finds_words(self) -> bool:
        return self.keeps_words or self.blends_latents or self.accumulates

    @property
    def reads_source(self) -> bool:
        return self.fuses_self or self.control.reads_source or self.finds_words


class FateZeroGuider(PassesGuider):
    """One step of FateZero as ComfyUI's guider: the source's evaluation again, then the edit that reads from it."""

    purpose = "FateZero Edit"

    def __init__(
        self, model: Any, inversion: Inversion, words: WordControl, settings: FateZeroSettings, schedule: StepSchedule
    ) -> None:
        batch, meeting = frames_per_batch(model, inversion), frames_that_meet(inversion, settings.own)
        method = FateZeroAttention(settings.own, settings.levels, settings.fuse_unconditional, batch, meeting)
        super().__init__(model, inversion, method, schedule, settings.mask)
        self.set_guidance(settings.cfg, settings.cfg_window)
        self.words = words
        self.settings = settings
        self.self_steps = window_range(settings.self_window, len(schedule.timesteps), "The self-attention window")
        self.latent_steps = window_range(settings.latent_window, len(schedule.timesteps), "The latent blend's window")
        self.masks = Masks()

    def blends_latents(self, step: int) -> bool:
        """Whether the latent is put back to the source's outside the mask after a step."""
        return self.settings.blend_latents and step in self.latent_steps

    def predict(
        self, timestep: int, run: FateZeroRun, conds: list, x: Tensor, sigma: Tensor, model_options: dict
    ) -> list[Tensor]:
        plan = self._plan(self.schedule.number(timestep))
        passes = StepPasses(self, self._fused_step(plan, timestep, x.device), conds, x, sigma, model_options)
        source = self._source_latents(timestep, x, sigma) if plan.reads_source else None
        predicted = passes.run(source, self.keep_own if plan.keeps_words else None)
        self.masks.latent = None
        if plan.finds_words:
            self._note_masks(plan, passes.source_words, passes.target_words, tuple(x.shape[-2:]))
        return predicted

    def _source_latents(self, timestep: int, x: Tensor, sigma: Tensor) -> Tensor:
        """The latents `x` from which the inversion estimated the noise at this timestep."""
        entry = self.inversion.entry(timestep) - (self.inversion.convention == "next")
        return to_exploding(self.inversion.latent(entry).to(x), sigma[0])

    def _fused_step(self, plan: StepPlan, timestep: int, device: torch.device) -> FusedStep:
        def columns(words: Sequence[int], wanted: bool) -> Tensor | None:
            return torch.tensor(words, dtype=torch.int64, device=device) if wanted else None

        targets = self.words.target_words
        return FusedStep(
            timestep=timestep,
            fuses_self=plan.fuses_self,
            control=plan.control.on(device),
            source_words=columns(self.words.source_words, plan.finds_words),
            target_words=columns(targets, bool(targets) and (plan.blends_latents or plan.accumulates)),
        )

    def _plan(self, step: int) -> StepPlan:
        fuses_self = step in self.self_steps
        return StepPlan(
            control=self.words.at(step),
            fuses_self=fuses_self,
            keeps_words=fuses_self and self.settings.blend_self,
            blends_latents=self.blends_latents(step),
            accumulates=self._accumulates,
        )

    def _note_masks(self, plan: StepPlan, source: Tensor, target: Tensor | None, size: tuple[int, int]) -> None:
        """The mask of the latents after a step, from the attention of the source's and of the edit's words."""
        source, target = self.latent_attention(source, target)
        mask = self._latent_mask(source, target if plan.blends_latents else None, size)
        if plan.blends_latents:
            self.masks.latent = mask
        if plan.blends_latents or plan.keeps_words:
            self.masks.note(mask)

    def latent_attention(self, source: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What the mask of the latents is made from, given both sides' attention to their words at this step."""
        if not self._accumulates:
            return source, target
        self.masks.source_attention = self.masks.source_attention + source
        if target is not None:
            self.masks.target_attention = self.masks.target_attention + target
        return self.masks.source_attention, None if target is None else self.masks.target_attention

    def after_move(self, x: Tensor, timestep: int, sigma: Tensor) -> Tensor:
        """The edit's latent after a step, put back to the source's outside the masks of the words and of the user."""
        return super().after_move(self.put_back(x, self.masks.latent, timestep, sigma), timestep, sigma)

    @property
    def _accumulates(self) -> bool:
        return self.settings.accumulate and self.settings.blend_latents

    def _mask(self, attention: Tensor, size: tuple[int, int]) -> Tensor:
        return attention_mask(attention, size, self.settings.threshold, self.settings.resizing)

    def keep_own(self, attention: Tensor, size: tuple[int, int]) -> Tensor:
        """The pixels that keep their own self-attention in layers of a size, bool [n, p, 1], given the attention to the
        source's words."""
        return self._mask(attention, size).flatten(1)[..., None]

    def _latent_mask(self, source: Tensor, target: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Where either side's words are, bool [n, h, w]."""
        mask = self._mask(source, size)
        return mask if target is None else mask | self._mask(target, size)

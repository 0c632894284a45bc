"""TokenFlow editing of an inverted video: a pass over the keyframes, then batches of propagated frames."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ....stem_kernels.correspondence import (
    batch_slices,
    choose_keyframes,
    propagation_plan,
)
from ....stem_kernels.ddim import add_noise, alpha_of, renoise, select_timesteps, to_preserving
from ....stem_kernels.random_streams import KEYFRAMES, SHARED_NOISE, keyed_generator
from ..attention.installing import install
from ..batching.memory_budget import CONDS, source_and_edit_join
from ..editing.guider import EditGuider
from ..inversion.guidance import StepSchedule
from ..inversion.inversion import Inversion
from ..seams.frame_dependent_patches import with_tried_patches
from ..seams.layer_map import feature_block, self_attention_layers
from ..seams.network_call import network_wrapper
from .attention import TokenFlowAttention
from .feature_injection import inject_feature
from .memory import bytes_in_one_call, frames_to_budget, keyframes_at_once, room_for_keyframes
from .passes import batch_passes
from .run import TokenFlowRun
from .settings import TokenFlowSettings
from .step import Step

_WRAPPER_KEY = "stem_inversion_tokenflow"


def edit(
    model: Any,
    inversion: Inversion,
    positive: list,
    negative: list,
    settings: TokenFlowSettings,
    start_samples: Tensor | None = None,
) -> Tensor:
    """Edit an inverted video with MODEL; returns LATENT samples [n, 4, h, w].

    Args:
        model: MODEL of the edit; a LoRA or patches outside self-attention are kept, a method of this pack is replaced.
        positive, negative: CONDITIONING of the target prompt and of what to avoid.
        start_samples: LATENT samples to start from instead, at the noise level of the first step.

    Raises:
        ValueError: the steps do not match the inversion, or another pack's patch sits on self-attention.
    """
    timesteps = select_timesteps(inversion.timesteps, settings.steps)
    schedule = StepSchedule(timesteps, max(1, round(settings.start * len(timesteps))))
    guider = TokenFlowGuider(model, inversion, settings, schedule)
    first = schedule.descending[0]
    if start_samples is None:
        start = start_latent(inversion, first, settings)
    else:
        sigma = inversion.sigmas[inversion.entry(first)]
        start = to_preserving(model.model.process_latent_in(start_samples), sigma)
    return guider.edit(positive, negative, start, settings.tail)


def start_latent(inversion: Inversion, timestep: int, settings: TokenFlowSettings) -> Tensor:
    """`z` to start from at a timestep, [n, 4, h, w]."""
    video, alpha = inversion.latent(0), alpha_of(inversion.sigmas[inversion.entry(timestep)])
    if settings.start_noise == "renoised":
        return renoise(video, inversion.latent(-1), alpha_of(inversion.sigmas[-1]), alpha)
    if settings.start_noise == "shared":
        generator = keyed_generator(settings.seed, SHARED_NOISE, timestep)
        noise = torch.randn(video.shape[1:], generator=generator)
        return add_noise(video, noise, alpha)
    return inversion.latent(inversion.entry(timestep))


class TokenFlowGuider(EditGuider):
    """One step of TokenFlow as ComfyUI's guider."""

    purpose = "TokenFlow Edit"

    def __init__(self, model: Any, inversion: Inversion, settings: TokenFlowSettings, schedule: StepSchedule) -> None:
        frames, size = inversion.frames, inversion.size
        joins = source_and_edit_join(model, bytes_in_one_call(model.model, frames, settings, size))
        self.conds_at_once = CONDS if joins else 1
        super().__init__(prepared(model, settings, self.conds_at_once), inversion, schedule, settings.mask)
        self.set_guidance(settings.cfg, settings.cfg_window)
        self.settings = settings
        self.batches = batch_slices(frames, settings.batch_size)
        # what a run is told to take
        self.frames_at_once = frames_to_budget(model.model, frames, settings, size, self.conds_at_once)
        # where the rows of the source take features from other frames, those of a keyframe are not what they were
        self.reuses_keyframes = settings.source_rows == "true"

    def keyframes_at(self, timestep: int) -> Tensor:
        """Frame numbers of the keyframes of a step, one of every batch, ascending."""
        generator = keyed_generator(self.settings.seed, KEYFRAMES, self.matched_at(timestep))
        return choose_keyframes(self.batches, self.settings.keyframes, generator)

    def matched_at(self, timestep: int) -> int:
        """The step in which the correspondences of a step are found."""
        steps = self.schedule.descending
        place = steps.index(timestep)
        return steps[place - place % self.settings.steps_sharing(len(self.schedule.timesteps))]

    def _is_read_again(self, timestep: int) -> bool:
        """Whether the step after this one reads its correspondences."""
        following = self.schedule.descending[self.schedule.descending.index(timestep) + 1 :]
        return bool(following) and self.matched_at(following[0]) == timestep

    def predict(
        self, timestep: int, run: TokenFlowRun, conds: list, x: Tensor, sigma: Tensor, model_options: dict
    ) -> list[Tensor]:
        base, settings = self.inner_model, self.settings
        run.timestep, fresh = timestep, self.matched_at(timestep) == timestep
        if fresh:
            run.matched.clear()
        run.kept.room = room_for_keyframes(base, len(x), settings, x.shape[-2:], self.conds_at_once)
        transformer_options = with_tried_patches(model_options["transformer_options"], len(x), self.purpose)
        keyframes = self.keyframes_at(timestep)
        plan = propagation_plan(self.batches, keyframes, settings.weights)
        step = Step(
            self.run_model,
            run,
            conds,
            self.source_conds,
            x,
            self.inversion.at(timestep, x.device),
            sigma,
            {**model_options, "transformer_options": transformer_options},
            self.schedule.within(timestep, settings.attention_injection),
            self.schedule.within(timestep, settings.feature_injection),
            fresh,
            fresh and self._is_read_again(timestep),
            self.conds_at_once > 1,
        )
        parts = batch_slices(len(keyframes), keyframes_at_once(settings))
        return step.predict(keyframes, parts, batch_passes(self.batches, keyframes, plan, self.reuses_keyframes))


def prepared(model: Any, settings: TokenFlowSettings, conds: int = 1) -> Any:
    """A clone of the edit MODEL with TokenFlow self-attention, feature injection and the budget of its passes, in calls
    of so many conds."""
    layers = self_attention_layers(model.model.diffusion_model)
    method = TokenFlowAttention(settings.source_rows, settings.stem, settings.keyframe_window)
    clone = install(model, method, layers)
    inject = network_wrapper(partial(inject_feature, feature_block(layers)))
    clone.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, _WRAPPER_KEY, inject)

    def prepare_sampling(executor: Any, model: Any, noise_shape: Any, *args: Any, **kwargs: Any) -> Any:
        # ComfyUI budgets for all frames in one batch; no pass here holds as many
        budget = frames_to_budget(model.model, noise_shape[0], settings, noise_shape[-2:], conds)
        return executor(model, [budget, *noise_shape[1:]], *args, **kwargs)

    clone.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, _WRAPPER_KEY, prepare_sampling)
    return clone

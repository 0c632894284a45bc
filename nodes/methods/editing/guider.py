"""What every edit of an inversion shares: a guider that predicts all frames of a step together."""

from __future__ import annotations

from typing import Any

import comfy.model_management
from torch import Tensor

from ....stem_kernels.ddim import to_exploding
from ....stem_kernels.masks import blend
from ..attention.method import RUN
from ..inversion.guidance import ScheduledGuider, StepSchedule, one_by_one
from ..inversion.inversion import Inversion
from ..inversion.sampling import Tail, denoise, denoising_sigmas
from ..seams.control_hints import own_controls, without_controls


class EditGuider(ScheduledGuider):
    """Predicts the clean latents of all frames at a step of an edit; subclasses say how, in `predict`.

    mask: outside it the edit has the source's own latents at every step (see `latent_mask`), None for no mask.
    """

    purpose = "Edit"

    def __init__(self, model: Any, inversion: Inversion, schedule: StepSchedule, mask: Tensor | None) -> None:
        super().__init__(model, inversion, schedule)
        self.mask = mask
        self.frames_at_once = inversion.frames

    def edit(self, positive: list, negative: list, start: Tensor, tail: Tail) -> Tensor:
        """Denoise from `start` (`z` at the first step, [n, 4, h, w]); returns LATENT samples [n, 4, h, w]."""
        self.inner_set_conds(
            own_controls({"positive": positive, "negative": negative, "source": self.inversion.source})
        )
        descending = self.schedule.descending
        if self.mask is not None:
            start = blend(start, self.inversion.latent(self.inversion.entry(descending[0])), self.mask)
        sigmas = denoising_sigmas(self.inversion, descending[::-1], tail)
        return denoise(self, start, sigmas, descending, self.purpose, self.after_move)

    def after_move(self, x: Tensor, timestep: int, sigma: Tensor) -> Tensor:
        """ComfyUI's latent after the step that has left `timestep` and reached `sigma`."""
        return self.put_back(x, self.mask, timestep, sigma)

    def put_back(self, x: Tensor, mask: Tensor | None, timestep: int, sigma: Tensor) -> Tensor:
        """That latent, with the source's outside a mask [n or 1, h, w]."""
        if mask is None:
            return x
        source = to_exploding(self.source_latent(timestep).to(x), sigma)
        return blend(x, source, mask.to(x.device))

    def source_latent(self, timestep: int) -> Tensor:
        """`z` of the inversion that an edit has reached when it has left a timestep, [n, 4, h, w]."""
        timesteps = self.schedule.timesteps
        reached = timesteps.index(timestep) - 1
        return self.inversion.latent(self.inversion.entry(timesteps[reached]) if reached >= 0 else 0)

    @property
    def source_conds(self) -> list:
        """The source's prompt, to be run without a ControlNet: ComfyUI gives that of the edit to all prompts."""
        return [without_controls(self.conds["source"])]

    def predict(
        self, timestep: int, run: Any, conds: list, x: Tensor, sigma: Tensor, model_options: dict
    ) -> list[Tensor]:
        """Clean latents predicted for each of `conds` (a cond may be None), [n, 4, h, w]."""
        raise NotImplementedError

    def run_model(
        self, conds: list, x: Tensor, sigma: Tensor, model_options: dict, network: Any = None
    ) -> list[Tensor]:
        """One pass through the edit's network or another, for each of `conds`."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        return one_by_one(network or self.inner_model, conds, x, sigma, model_options)

    def predict_conds(self, args: dict) -> list[Tensor]:
        options = args["model_options"]
        run = options["transformer_options"][RUN]
        timestep = self.timestep_of(args["sigma"])
        try:
            return self.predict(timestep, run, args["conds"], args["input"], args["sigma"], options)
        finally:
            run.forget()  # everything that the step has left

"""What every edit of an inversion shares: its schedule, and a guider that knows the step it is at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.samplers
import torch
from torch import Tensor

from ..attention.method import RUN
from ..inversion.inversion import Inversion
from ..inversion.sampling import Tail, denoise, denoising_sigmas
from ..seams.control_hints import own_controls, without_controls


@dataclass(frozen=True)
class StepSchedule:
    """Timesteps of an edit, ascending: all of the schedule, and how many of them (the least noisy) are run."""

    timesteps: tuple[int, ...]
    kept: int

    @property
    def descending(self) -> tuple[int, ...]:
        return self.timesteps[: self.kept][::-1]

    def number(self, timestep: int) -> int:
        """Which step of the whole schedule a timestep belongs to; 0 is the noisiest."""
        return len(self.timesteps) - 1 - self.timesteps.index(timestep)

    def within(self, timestep: int, share: float) -> bool:
        """Whether a timestep is among the noisiest `share` of the whole schedule."""
        return self.number(timestep) < int(len(self.timesteps) * share)


class EditGuider(comfy.samplers.CFGGuider):
    """Predicts the clean latents of all frames at a step of an edit; subclasses say how, in `predict`."""

    purpose = "Edit"

    def __init__(self, model: Any, inversion: Inversion, schedule: StepSchedule) -> None:
        super().__init__(model)
        self.inversion = inversion
        self.schedule = schedule

    def edit(self, positive: list, negative: list, cfg: float, start: Tensor, tail: Tail) -> Tensor:
        """Denoise from `start` (`z` at the first step, [n, 4, h, w]); returns LATENT samples [n, 4, h, w]."""
        self.inner_set_conds(
            own_controls({"positive": positive, "negative": negative, "source": self.inversion.source})
        )
        self.set_cfg(cfg)
        descending = self.schedule.descending
        sigmas = denoising_sigmas(self.inversion, descending[::-1], tail)
        return denoise(self, start, sigmas, descending, self.purpose, self.after_move)

    def after_move(self, x: Tensor, timestep: int, sigma: Tensor) -> Tensor:
        """ComfyUI's latent after the step that has left `timestep` and reached `sigma`."""
        return x

    @property
    def source_conds(self) -> list:
        """The source's prompt, to be run without a ControlNet: ComfyUI gives that of the edit to all prompts."""
        return [without_controls(self.conds["source"])]

    def predict(
        self, timestep: int, run: Any, conds: list, x: Tensor, sigma: Tensor, model_options: dict
    ) -> list[Tensor]:
        """Clean latents predicted for each of `conds` (a cond may be None), [n, 4, h, w]."""
        raise NotImplementedError

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options: dict | None = None, seed: Any = None) -> Tensor:
        options = comfy.model_patcher.create_model_options_clone(model_options or {})
        # ComfyUI then applies guidance and every guidance patch to all frames at once.
        options["sampler_calc_cond_batch_function"] = self._predict_conds
        conds = (self.conds["negative"], self.conds["positive"])
        return comfy.samplers.sampling_function(
            self.inner_model, x, timestep, *conds, self.cfg, model_options=options, seed=seed
        )

    def run_model(
        self, conds: list, x: Tensor, sigma: Tensor, model_options: dict, network: Any = None
    ) -> list[Tensor]:
        """One pass through the edit's network or another, with ComfyUI's own batching of conds."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        return comfy.samplers.calc_cond_batch(network or self.inner_model, conds, x, sigma, model_options)

    def _predict_conds(self, args: dict) -> list[Tensor]:
        options = args["model_options"]
        run = options["transformer_options"][RUN]
        timestep = self._timestep_of(float(args["sigma"][0]))
        try:
            return self.predict(timestep, run, args["conds"], args["input"], args["sigma"], options)
        finally:
            run.forget()  # everything that the step has left

    def _timestep_of(self, sigma: float) -> int:
        timesteps = self.schedule.timesteps
        levels = torch.tensor([self.inversion.sigmas[self.inversion.entry(t)] for t in timesteps])
        nearest = int((levels - sigma).abs().argmin())
        if abs(float(levels[nearest]) - sigma) > 1e-4 * sigma:
            raise ValueError(
                f"{self.purpose}: the noise level {sigma:.5g} is not one of the inversion's (the nearest is "
                f"{float(levels[nearest]):.5g}), so there is no source to read at this step. Use the noise levels of "
                "the inversion."
            )
        return timesteps[nearest]

"""Classifier-free guidance in some steps of a schedule only (Kynkäänniemi et al. 2024, "Applying guidance in a limited
interval")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import comfy.samplers
import torch
from torch import Tensor

from ....stem_kernels.prompt_alignment import Window, window_range
from ..seams.patch_marks import origin
from .inversion import Inversion


@dataclass(frozen=True)
class StepSchedule:
    """Timesteps of a denoising run, ascending: all of the schedule, and how many of them (the least noisy) are run."""

    timesteps: tuple[int, ...]
    kept: int

    @property
    def descending(self) -> tuple[int, ...]:
        return self.timesteps[: self.kept][::-1]

    def number(self, timestep: int) -> int:
        """Which step of the whole schedule a timestep belongs to; 0 is the noisiest."""
        return len(self.timesteps) - 1 - self.timesteps.index(timestep)

    def within(self, timestep: int, window: Window) -> bool:
        """Whether a timestep is in a window of the whole schedule; see `window_range`."""
        return self.number(timestep) in window_range(window, len(self.timesteps))


class ScheduledGuider(comfy.samplers.CFGGuider):
    """ComfyUI's guider for denoising an inversion: it knows its step, and guides in `guided_steps` only.

    In the other steps cfg is 1, where ComfyUI runs the positive prompt alone, unless a patch of guidance asked for the
    negative prompt even then (`disable_cfg1_optimization`). Patches of guidance act in all steps.
    """

    purpose = "Reconstruct"

    def __init__(self, model: Any, inversion: Inversion, schedule: StepSchedule) -> None:
        super().__init__(model)
        self.inversion = inversion
        self.schedule = schedule
        self.guided_steps = range(len(schedule.timesteps))
        # noise level of a step and its timestep, so that a device is asked once
        self.read: tuple[Tensor | None, int] = None, -1

    def set_guidance(self, cfg: float, window: Window) -> None:
        """The guidance scale, and the steps in which it acts, as shares of the schedule from its noisy end.

        Raises:
            ValueError: the window is wrong (see `window_range`).
        """
        self.set_cfg(cfg)
        self.guided_steps = window_range(window, len(self.schedule.timesteps), "The guidance interval")

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options: dict | None = None, seed: Any = None) -> Tensor:
        guided = self.schedule.number(self.timestep_of(timestep)) in self.guided_steps
        # ComfyUI then applies guidance and every guidance patch to all frames at once
        options = {**(model_options or {}), "sampler_calc_cond_batch_function": self.predict_conds}
        conds = self.conds["negative"], self.conds["positive"], self.cfg if guided else 1.0
        try:
            return comfy.samplers.sampling_function(self.inner_model, x, timestep, *conds, options, seed)
        except RuntimeError as error:
            if "Boolean value of Tensor" not in str(error):
                raise
            patches = " or ".join(_guidance_patches(options))
            raise ValueError(
                f"{self.purpose}: {patches} changes guidance for one picture at a time, and fails on a batch (in "
                "ComfyUI's own samplers too); here all frames come together. Disconnect that node from the MODEL chain."
            ) from error

    def predict_conds(self, args: dict) -> list[Tensor]:
        """The clean latents predicted for each of `conds` (a cond may be None), given ComfyUI's arguments."""
        return one_by_one(args["model"], args["conds"], args["input"], args["sigma"], args["model_options"])

    def timestep_of(self, sigma: Tensor) -> int:
        """The timestep of the schedule that has the noise level `sigma` [frames].

        Raises:
            ValueError: none has.
        """
        if self.read[0] is sigma:
            return self.read[1]
        level, timesteps = float(sigma[0]), self.schedule.timesteps
        levels = torch.tensor([self.inversion.sigmas[self.inversion.entry(t)] for t in timesteps])
        nearest = int((levels - level).abs().argmin())
        if abs(float(levels[nearest]) - level) > 1e-4 * level:
            raise ValueError(
                f"{self.purpose}: the noise level {level:.5g} is not one of the inversion's (the nearest is "
                f"{float(levels[nearest]):.5g}), so there is no source to read at this step. Use the noise levels of "
                "the inversion."
            )
        self.read = sigma, timesteps[nearest]
        return timesteps[nearest]


def one_by_one(network: Any, conds: list, x: Tensor, sigma: Tensor, model_options: dict) -> list[Tensor]:
    """ComfyUI's predictions for each of `conds`, in a call of their own: whether it joins several depends on how much
    memory happens to be free, and results would with it, by rounding."""

    def predicted(place: int) -> Tensor:
        # a cond's place is told to patches
        alone = [cond if number == place else None for number, cond in enumerate(conds)]
        return comfy.samplers.calc_cond_batch(network, alone, x, sigma, model_options)[place]

    return [predicted(place) for place in range(len(conds))]


def _guidance_patches(model_options: dict) -> list[str]:
    """Where the functions of other nodes come from that change guidance."""
    kinds = ("sampler_cfg_function", "sampler_pre_cfg_function", "sampler_post_cfg_function")
    found = [model_options.get(kind) or [] for kind in kinds]
    return [origin(patch) for of in found for patch in (of if isinstance(of, list) else [of])]

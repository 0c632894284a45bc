"""Back from the inverted noise to the video: the test of an inversion before any edit."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ....stem_kernels.ddim import select_timesteps
from ....stem_kernels.prompt_alignment import Window
from .batch_size import with_batch_size
from .guidance import ScheduledGuider, StepSchedule
from .inversion import Inversion
from .sampling import SourceGuider, Tail, denoise, denoising_sigmas


def reconstruct(
    inversion: Inversion,
    model: Any,
    positive: list,
    negative: list | None = None,
    cfg: float = 1.0,
    cfg_window: Window = 1.0,
    steps: int = 0,
    tail: Tail = "alpha0",
) -> Tensor:
    """Denoise the end of the trajectory with MODEL; returns LATENT samples [n, 4, h, w].

    Args:
        positive: CONDITIONING, normally the one of the inversion.
        negative: CONDITIONING for guidance; needed where `cfg` is not 1.
        cfg_window: the steps with guidance, as shares of the schedule from its noisy end.
        steps: 0 for those of the inversion.
        tail: see `denoising_sigmas`.

    Raises:
        ValueError: `steps` does not match the inversion.
    """
    timesteps = select_timesteps(inversion.timesteps, steps)
    model = with_batch_size(model, inversion.frames, inversion.size, like=inversion.model)
    guider = SourceGuider(model, positive)
    if cfg != 1.0:
        guider = ScheduledGuider(model, inversion, StepSchedule(timesteps, len(timesteps)))
        guider.set_conds(positive, negative)
        guider.set_guidance(cfg, cfg_window)
    start = inversion.latent(inversion.entry(timesteps[-1]))
    return denoise(guider, start, denoising_sigmas(inversion, timesteps, tail), timesteps[::-1], "Reconstruction")

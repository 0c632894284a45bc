"""Timesteps and noise levels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from ....stem_kernels.ddim import alpha_of, inversion_timesteps
from . import golden
from .comparison import Comparison, compared, share_that_differs


def comparisons(folder: Path) -> Iterator[Comparison]:
    """Every recorded schedule, and the table of alphas where it is recorded."""
    for name, run in golden.settings(folder, "ddim").items():
        recorded = torch.tensor(run["timesteps"])
        ours = torch.tensor(inversion_timesteps(len(recorded)))
        yield Comparison(f"schedule {name}", share_that_differs(ours, recorded), 0.0)
    if (folder / "common.safetensors").is_file() and (folder / "unet_ldm.safetensors").is_file():
        sigmas = golden.model(folder).get_model_object("model_sampling").sigmas
        recorded = golden.arrays(folder, "common")["alphas_cumprod"]
        yield compared("schedule alphas of the host", alpha_of(sigmas), recorded, 1e-5)

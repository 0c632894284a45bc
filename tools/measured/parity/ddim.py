"""The UNet, and plain DDIM inversion and reconstruction."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import comfy.samplers
import torch
from torch import Tensor

from ....nodes.methods.inversion.inversion import noise_levels
from ....nodes.methods.inversion.sampling import SourceGuider, denoise, invert_between
from . import golden
from .comparison import Comparison, compared

FORWARDS = (
    ("forward.t001", "source", "n8_16x16"),
    ("forward.t401", "source", "n8_16x16"),
    ("forward.t981", "source", "n8_16x16"),
    ("forward_12x20.t401", "target", "n11_12x20"),
)


def comparisons(folder: Path) -> Iterator[Comparison]:
    """Single forwards, then every recorded inversion row by row and its reconstruction."""
    common, model = golden.arrays(folder, "common"), golden.model(folder)
    for name, prompt, clip in FORWARDS:
        recorded = common[f"{name}.out"]
        z = golden.clip(folder, clip)[: len(recorded)]
        timestep = torch.full((len(z),), float(name.rsplit("t", 1)[1]))
        context = common[f"embeds.{prompt}"].expand(len(z), -1, -1)
        yield compared(name, model.model.diffusion_model(z, timestep, context=context), recorded, 1e-5)
    for name, run in golden.settings(folder, "ddim").items():
        recorded, timesteps = golden.arrays(folder, "ddim"), run["timesteps"]
        sigmas, guider = noise_levels(model, timesteps), SourceGuider(model, golden.conditioning(folder, run["prompt"]))
        samples = golden.to_samples(model, golden.clip(folder, name))
        ours = invert_between(guider, samples, sigmas, timesteps, "next")
        rows = [timesteps.index(t) + 1 for t in run["stored_timesteps"]]
        yield compared(f"ddim {name} inversion", ours[rows], recorded[f"{name}.traj"], 1e-4)
        ours = reconstructed(guider, recorded[f"{name}.traj"][-1], sigmas, timesteps)
        yield compared(f"ddim {name} reconstruction", ours, recorded[f"{name}.recon"], 1e-4)


def reconstructed(guider: comfy.samplers.CFGGuider, start: Tensor, sigmas: Tensor, timesteps: list[int]) -> Tensor:
    """`z` at the table's first noise level after denoising from `start`, `z` at the last."""
    samples = denoise(guider, start, sigmas.flip(0), timesteps[::-1], "Reconstruction")
    return guider.model_patcher.model.process_latent_in(samples)

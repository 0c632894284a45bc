"""The UNet, and plain DDIM inversion and reconstruction."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import comfy.samplers
import torch
from torch import Tensor

from ....nodes.methods.inversion.inversion import noise_levels
from ....nodes.methods.inversion.sampling import SourceGuider, denoise, invert_between
from ..errors import relative_error
from . import golden
from .case import Case


def cases(folder: Path) -> Iterator[Case]:
    """Single forwards, then every recorded inversion row by row and its reconstruction."""
    yield from _forwards(folder)
    model, recorded = golden.model(folder), golden.arrays(folder, "ddim")
    for name, run in golden.settings(folder, "ddim").items():
        clip = golden.arrays(folder, "common")[f"clip.{name.split('.')[0]}"]
        timesteps = run["timesteps"]
        sigmas = noise_levels(model, timesteps)
        source = golden.conditioning(folder, run["prompt"])
        samples = golden.to_samples(model, clip)
        ours = invert_between(SourceGuider(model, source), samples, sigmas, timesteps, "next")
        rows = [timesteps.index(t) + 1 for t in run["stored_timesteps"]]
        yield Case(f"ddim {name} inversion", relative_error(ours[rows], recorded[f"{name}.traj"]), 1e-4)
        start = recorded[f"{name}.traj"][-1]
        reconstruction = reconstructed(SourceGuider(model, source), start, sigmas, timesteps)
        yield Case(f"ddim {name} reconstruction", relative_error(reconstruction, recorded[f"{name}.recon"]), 1e-4)


def reconstructed(guider: comfy.samplers.CFGGuider, start: Tensor, sigmas: Tensor, timesteps: list[int]) -> Tensor:
    """`z` at the table's first noise level after denoising from `start`, `z` at the last."""
    samples = denoise(guider, start, sigmas.flip(0), timesteps[::-1], "Reconstruction")
    return guider.model_patcher.model.process_latent_in(samples)


def _forwards(folder: Path) -> Iterator[Case]:
    common, unet = golden.arrays(folder, "common"), golden.model(folder).model.diffusion_model
    for key, prompt, clip in (
        ("forward.t001", "source", "n8_16x16"),
        ("forward.t401", "source", "n8_16x16"),
        ("forward.t981", "source", "n8_16x16"),
        ("forward_12x20.t401", "target", "n11_12x20"),
    ):
        recorded = common[f"{key}.out"]
        z = common[f"clip.{clip}"][: len(recorded)]
        timestep = torch.full((len(z),), float(key.rsplit("t", 1)[1]))
        context = common[f"embeds.{prompt}"].expand(len(z), -1, -1)
        yield Case(key, relative_error(unet(z, timestep, context=context), recorded), 1e-5)

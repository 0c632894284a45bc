"""Whether a MODEL and a LATENT belong to an INVERSION."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .inversion import Inversion, ModelIdentity, identity_of, noise_levels


def check_same_checkpoint(model: Any, inversion: Inversion, purpose: str) -> None:
    """Raise unless MODEL is the checkpoint, with or without LoRA, and has the noise levels of the inversion."""
    if model.model is not inversion.model.model:
        check_identity(model, inversion.identity, purpose)
    check_noise_levels(model, inversion, purpose)


def check_identity(model: Any, theirs: ModelIdentity, purpose: str) -> None:
    """Raise if MODEL is another checkpoint than an inversion was made with."""
    ours = identity_of(model)
    differ = theirs.family != ours.family
    if not differ and theirs.fingerprint is not None and ours.fingerprint is not None:
        numbers = [torch.tensor(identity.fingerprint) for identity in (theirs, ours)]
        differ = numbers[0].shape != numbers[1].shape or not torch.allclose(*numbers, rtol=1e-3)
    if differ:
        same = theirs.family == ours.family
        how = f"whose weights differ (both are {ours.family})" if same else f"of another kind ({theirs.family})"
        raise ValueError(
            f"{purpose}: the INVERSION was made with a checkpoint {how}, so its noise means nothing to this MODEL "
            f"({ours.family}). Connect the same checkpoint to both nodes (a LoRA on top is fine), or invert again."
        )


def check_noise_levels(model: Any, inversion: Inversion, purpose: str) -> None:
    """Raise unless MODEL has the noise levels of the inversion at its timesteps."""
    ours = noise_levels(model, inversion.timesteps)
    if not torch.allclose(ours, torch.tensor(inversion.sigmas), rtol=1e-4):
        raise ValueError(
            f"{purpose}: the noise levels of this MODEL differ from those of the INVERSION ({float(ours[-1]):.4g} and "
            f"{inversion.sigmas[-1]:.4g} at timestep {inversion.timesteps[-1]}), so the steps do not match. Give both "
            "nodes the same ModelSampling node, or none."
        )


def check_start(samples: Tensor, inversion: Inversion, purpose: str) -> None:
    """Raise unless a LATENT to start from has the frames and the size of the inversion."""
    if tuple(samples.shape) != tuple(inversion.trajectory.shape[1:]):
        n, _, h, w = samples.shape
        height, width = inversion.size
        raise ValueError(
            f"{purpose}: the start latent has {n} frames of {w}×{h}, the INVERSION {inversion.frames} of "
            f"{width}×{height} (in latent pixels, an eighth of the picture's). Make both from the same frames at the "
            "same size."
        )

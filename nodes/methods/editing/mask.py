"""A user's mask: where an edit may change the frames."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import interpolate

from ..inversion.inversion import Inversion


def checked_mask(mask: Tensor, frames: int, purpose: str) -> Tensor:
    """A MASK, or the noise mask of a LATENT, as [n or 1, height, width], from 0 to 1.

    Raises:
        ValueError: it is neither one for all frames nor one for each, or not finite.
    """
    mask = mask.float().reshape(-1, *mask.shape[-2:])
    if len(mask) not in (1, frames):
        raise ValueError(
            f"{purpose}: there are {len(mask)} masks for {frames} frames, so it is unclear which mask belongs to which "
            "frame. Connect one mask, or one for each frame that Video Load returned."
        )
    if not mask.isfinite().all():
        raise ValueError(f"{purpose}: the mask contains NaN or infinity. Check the node that made it.")
    return mask.clamp(0.0, 1.0)


def latent_mask(mask: Tensor | None, start_latent: dict | None, inversion: Inversion, purpose: str) -> Tensor | None:
    """Where an edit may change the latents, [n or 1, h, w] at their size, or None for everywhere.

    Of the MASK connected to the edit, the noise mask of the LATENT that it starts from, and that of the LATENT that was
    inverted, the first that is there. A latent's mask is the mean over its pixels, so that soft edges stay soft.
    """
    candidates = (mask, (start_latent or {}).get("noise_mask"), inversion.mask)
    chosen = next((candidate for candidate in candidates if candidate is not None), None)
    if chosen is None:
        return None
    chosen = checked_mask(chosen, inversion.frames, purpose)
    return interpolate(chosen[:, None], inversion.size, mode="area")[:, 0].cpu()

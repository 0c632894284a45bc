"""Which bases the attention sees: empty ones are left out, or masked."""

from __future__ import annotations

import torch
from torch import Tensor

from ....stem_kernels.em import Bases
from ..attention.rows import prefers_masks
from .settings import StemSettings


def logit_bias(bases: Bases, settings: StemSettings, dtype: torch.dtype) -> Tensor | None:
    """What attention adds to the logits of the bases, [..., k]: logarithms of masses where the settings ask for them,
    and to empty bases what no other logit makes up for. None for nothing."""
    masked = settings.em.empty_bases == "masked"
    # a CPU need not be waited for
    if masked and bases.mass.device.type == "cpu":
        masked = not bool(bases.live(settings.em).all())
    if not masked and not settings.mass_weighted:
        return None
    bias = bases.log_mass if settings.mass_weighted else torch.zeros_like(bases.mass)
    return (bias.masked_fill(~bases.live(settings.em), torch.finfo(dtype).min) if masked else bias).to(dtype)


def seen_bases(bases: Bases, settings: StemSettings, dtype: torch.dtype) -> tuple[slice | Tensor, Tensor | None]:
    """For bases [k, c]: which to keep, as an index of k, and what to add to the logits of those, [1, 1, 1, k]."""
    if settings.em.empty_bases == "kept" or prefers_masks(bases.mass.device):
        kept, bias = slice(None), logit_bias(bases, settings, dtype)
    else:
        kept = bases.live(settings.em)
        bias = bases.log_mass[kept].to(dtype) if settings.mass_weighted else None
    return kept, None if bias is None else bias[None, None, None]

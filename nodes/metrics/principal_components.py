"""Features as colours: their first three principal components."""

from __future__ import annotations

import torch
from torch import Tensor

# Share of the values beyond which a colour is cut off at either end, so that single outliers do not grey all others.
_CUT = 0.01


def principal_components(features: Tensor, count: int = 3) -> Tensor:
    """Features [m, c] along their directions of greatest variance, float64 [m, count]; zeros where c is smaller.

    Signs are fixed so that the largest entry of a direction is positive: equal features give equal colours.
    """
    centred = features.double() - features.double().mean(dim=0, keepdim=True)
    _, directions = torch.linalg.eigh(centred.T @ centred)  # ascending
    directions = directions.flip(-1)[:, :count]
    largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
    found = centred @ (directions * largest.sign())
    return torch.nn.functional.pad(found, (0, count - found.shape[1]))


def colours(features: Tensor) -> Tensor:
    """Features [m, c] as RGB, float32 [m, 3] in [0, 1]: similar ones have similar colours."""
    components = principal_components(features)
    low, high = (torch.quantile(components, share, dim=0) for share in (_CUT, 1 - _CUT))
    spread = (high - low).clamp_min(torch.finfo(components.dtype).tiny)
    return ((components - low) / spread).clamp(0, 1).where(high > low, torch.tensor(0.5, dtype=torch.float64)).float()

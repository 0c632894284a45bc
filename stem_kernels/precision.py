"""In which precision the kernels count, whatever the model's own is."""

from __future__ import annotations

import torch
from torch import Tensor


def arithmetic_dtype(tokens: Tensor) -> torch.dtype:
    """float64 stays float64, everything else is computed in float32."""
    return torch.float64 if tokens.dtype == torch.float64 else torch.float32

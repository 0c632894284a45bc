"""In which precision the pack computes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Natural logarithm of the room left above the smallest normal number, for the mass that a responsibility is divided by.
_ROOM = 12.0


def arithmetic_dtype(tensor: Tensor) -> torch.dtype:
    """float64 for float64 numbers, float32 for all others."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def least_logit(dtype: torch.dtype) -> float:
    """How far below the largest logit of a softmax another counts as minus infinity: -75.3 in float32.

    Its exponential would be subnormal or nearly so. CPUs take tens of times longer to multiply such numbers, and near
    hard responsibilities hold many of them, while together they weigh less than a rounding error.
    """
    return math.log(torch.finfo(dtype).tiny) + _ROOM

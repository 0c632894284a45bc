"""In which precision the pack computes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether float32 matrix products on CUDA may round their factors to TF32's 11 digits, whatever others have set."""
    products = torch.backends.cuda.matmul
    # PyTorch of late has a second name for this; the first cannot be read where TF32 was allowed by the second alone
    newer = getattr(products, "fp32_precision", None)
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:
        before = "highest"
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        if newer is not None:
            products.fp32_precision = newer

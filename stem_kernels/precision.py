"""In which precision the pack computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

# Room left above the smallest normal number, for the mass that a responsibility is divided by.
_ROOM = 1e5


def arithmetic_dtype(tensor: Tensor) -> torch.dtype:
    """float64 for float64 numbers, float32 for all others."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def least_weight(dtype: torch.dtype) -> float:
    """Below which a weight of a softmax counts as 0: 1.2e-33 in float32.

    It would be subnormal or nearly so. CPUs take tens of times longer to multiply such numbers, and near hard
    responsibilities hold many of them, while together they weigh less than a rounding error.
    """
    return torch.finfo(dtype).tiny * _ROOM


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

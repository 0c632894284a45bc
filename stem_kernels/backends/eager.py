"""E step and sums of the M step in plain PyTorch, one block of tokens at a time. Serves every device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..precision import least_logit

# Enough to fill a matrix product, few enough that m x k never exists as a whole and a block stays in the cache.
BLOCK_TOKENS = 2048


def refusal(tokens: Tensor, directions: Tensor) -> str | None:
    """Why these tensors cannot be served; never."""
    return None


def verified(tokens: Tensor) -> bool:
    """Whether this may be taken without being asked for; always."""
    return True


def accumulate(
    tokens: Tensor, values: Sequence[Tensor], directions: Tensor, temperature: float, block: int = BLOCK_TOKENS
) -> tuple[Tensor, list[Tensor]]:
    """See `choice.accumulate`; tokens [l, m, c], values [l, m, d] each, directions [l, k, c]."""
    heads, count, _ = tokens.shape
    k, dtype = directions.shape[1], directions.dtype
    # Eq. 9 divides every logit; dividing the bases is m times cheaper.
    scaled = (directions / temperature).transpose(1, 2)  # [l, c, k]
    buffer = directions.new_empty(heads, min(block, count), k)
    mass = directions.new_zeros(heads, k)
    # [l, d, k]: with few channels a product is several times faster this way round.
    totals = [directions.new_zeros(heads, value.shape[-1], k) for value in values]
    for start in range(0, count, block):
        part = slice(start, min(start + block, count))
        features = tokens[:, part].to(dtype)
        weights = _expectation_(features, scaled, buffer[:, : part.stop - part.start])
        mass += weights.sum(dim=1)
        for total, value in zip(totals, values, strict=True):
            seen = features if value is tokens else value[:, part].to(dtype)
            total.baddbmm_(seen.transpose(1, 2), weights)
    return mass, [total.transpose(1, 2).contiguous() for total in totals]


def _expectation_(features: Tensor, scaled: Tensor, buffer: Tensor) -> Tensor:
    """`em.expectation` of one block, in `buffer` [l, b, k]."""
    torch.bmm(features, scaled, out=buffer)
    buffer -= buffer.amax(dim=-1, keepdim=True)
    torch.nn.functional.threshold_(buffer, least_logit(buffer.dtype), -torch.inf)
    return torch.softmax(buffer, dim=-1, out=buffer)

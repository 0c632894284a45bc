"""E and M step in plain PyTorch, one block of tokens at a time. Serves every device."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..precision import least_weight

# Responsibilities that exist at a time: on a CPU what stays in its cache, elsewhere what keeps a GPU busy.
CPU_BLOCK, BLOCK = 2**20, 2**24
# Enough to fill a matrix product.
LEAST_TOKENS = 256


def refusal(tokens: Tensor, directions: Tensor) -> str | None:
    """Why these tensors cannot be served; never."""
    return None


def verified(tokens: Tensor) -> bool:
    """Whether this may be taken without being asked for; always."""
    return True


def block_tokens(directions: Tensor) -> int:
    """Tokens of a block, for directions [l, k, c]."""
    heads, k, _ = directions.shape
    return max(LEAST_TOKENS, (CPU_BLOCK if directions.device.type == "cpu" else BLOCK) // (heads * k))


def weighted_means(
    tokens: Tensor,
    values: Sequence[Tensor],
    directions: Tensor,
    temperature: float,
    divisor: Callable[[Tensor], Tensor],
    block: int | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """See `choice.weighted_means`; tokens [l, m, c], values [l, m, d] each, directions [l, k, c]."""
    heads, count, _ = tokens.shape
    k, dtype = directions.shape[1], directions.dtype
    block = min(block or block_tokens(directions), count)
    buffer = directions.new_empty(heads, block, k)
    mass = divided = None
    # [l, d, k]: with few channels a product is several times faster this way round.
    means: list[Tensor] = []
    for start in range(0, count, block):
        part = slice(start, min(start + block, count))
        features = tokens[:, part].to(dtype)
        weights = _expectation_(features, directions, temperature, buffer[:, : part.stop - part.start])
        mass = weights.sum(dim=1) if mass is None else mass + weights.sum(dim=1)
        before, divided = divided, divisor(mass)
        # Divided before they are summed up, so that a base which one token makes is exactly that token.
        weights /= divided.unsqueeze(1)
        seen = [(features if value is tokens else value[:, part].to(dtype)).transpose(1, 2) for value in values]
        if before is None:
            means = [torch.bmm(of_values, weights) for of_values in seen]
            continue
        kept = (before / divided).unsqueeze(1)
        for mean, of_values in zip(means, seen, strict=True):
            mean.mul_(kept).baddbmm_(of_values, weights)
    return mass, [mean.transpose(1, 2).contiguous() for mean in means]


def _expectation_(features: Tensor, directions: Tensor, temperature: float, buffer: Tensor) -> Tensor:
    """`em.expectation` of one block, in `buffer` [l, b, k]."""
    torch.bmm(features, directions.transpose(1, 2), out=buffer)
    # Dividing the bases would be cheaper, but round them once more, by an error that every token shares.
    buffer /= temperature
    least = least_weight(buffer.dtype)
    if buffer.device.type == "cpu":
        # Otherwise softmax itself would compute with the subnormal numbers that are left out below.
        buffer -= buffer.amax(dim=-1, keepdim=True)
        torch.nn.functional.threshold_(buffer, math.log(least), -math.inf)
    torch.softmax(buffer, dim=-1, out=buffer)
    return torch.nn.functional.threshold_(buffer, least, 0.0)

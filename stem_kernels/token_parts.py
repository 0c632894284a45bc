"""Tokens in parts: those of several batches of frames, used as one without a joined copy."""

from __future__ import annotations

import torch
from torch import Tensor

# [..., m, c], or parts of it along m.
Tokens = Tensor | tuple[Tensor, ...]


def parts_of(tokens: Tokens) -> tuple[Tensor, ...]:
    """The parts; a tensor is its only one."""
    return (tokens,) if isinstance(tokens, Tensor) else tokens


def count_of(tokens: Tokens) -> int:
    """m."""
    return sum(part.shape[-2] for part in parts_of(tokens))


def split_like(values: Tokens, tokens: Tokens) -> tuple[Tensor, ...]:
    """Values [..., m, d] in parts of as many rows as the tokens have; parts stay as they are."""
    if not isinstance(values, Tensor):
        return values
    return values.split([part.shape[-2] for part in parts_of(tokens)], dim=-2)


def tokens_at(tokens: Tokens, index: Tensor) -> Tensor:
    """The tokens at `index`, int64 [k] in any order: [..., k, c]."""
    parts = parts_of(tokens)
    found = parts[0].new_empty(*parts[0].shape[:-2], len(index), parts[0].shape[-1])
    index, start = index.to(found.device), 0
    for part in parts:
        here = (index >= start) & (index < start + part.shape[-2])
        found[..., here, :] = part.index_select(-2, index[here] - start)
        start += part.shape[-2]
    return found


def moments(tokens: Tokens, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Mean and unbiased standard deviation of each channel, [..., 1, c] of `dtype`; one token has no spread."""
    parts, count = parts_of(tokens), count_of(tokens)
    mean = sum(part.to(dtype).sum(dim=-2, keepdim=True) for part in parts) / count
    # EM magnifies the last digit of where it starts; Apple's and some of Intel's GPUs have no float64.
    exact = torch.float64 if mean.device.type in ("cpu", "cuda") else dtype
    squares = sum((part.to(dtype) - mean).square_().sum(dim=-2, keepdim=True, dtype=exact) for part in parts)
    return mean, (squares / max(1, count - 1)).sqrt().to(dtype)

"""Where EM starts: bases drawn from the tokens or from their moments."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .precision import arithmetic_dtype
from .random_streams import distinct_numbers
from .token_parts import Tokens, count_of, moments, parts_of, tokens_at

Initialisation = Literal["tokens", "gaussian"]


def initial_bases(
    tokens: Tokens, num_bases: int, method: Initialisation, generator: torch.Generator, clamp: bool = True
) -> Tensor:
    """Bases to start EM from, [..., k, c], float32 (float64 for float64 tokens).

    Args:
        tokens: [..., m, c], or parts of it along m.
        num_bases: K. With `clamp`, and always for "tokens", no more than there are tokens.
        method: "tokens" takes distinct tokens; "gaussian" draws from their moments, as the reference code does.
        generator: on the CPU, so that every device starts from the same bases.
    """
    count, first = count_of(tokens), parts_of(tokens)[0]
    if clamp or method == "tokens":
        num_bases = min(num_bases, count)
    if method == "tokens":
        return tokens_at(tokens, distinct_numbers(num_bases, count, generator)).to(arithmetic_dtype(first))
    noise = torch.randn(*first.shape[:-2], num_bases, first.shape[-1], generator=generator)
    return bases_from_noise(tokens, noise)


def bases_from_noise(tokens: Tokens, noise: Tensor) -> Tensor:
    """Standard normal numbers [..., k, c] with the channel-wise mean and unbiased deviation of tokens [..., m, c]."""
    first = parts_of(tokens)[0]
    mean, deviation = moments(tokens, arithmetic_dtype(first))
    return mean + deviation * noise.to(mean)

"""Where EM starts: bases drawn from the tokens or from their moments, reproducibly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from .precision import arithmetic_dtype
from .random_streams import Purpose, keyed_generator
from .token_parts import Tokens, count_of, moments, parts_of, taken

Initialisation = Literal["tokens", "gaussian"]


@dataclass(frozen=True)
class DrawKey:
    """What a draw is for. Equal keys give equal draws, in whatever order layers, steps and passes are run."""

    timestep: int
    layer: int
    chunk: int = 0


class Draws(Protocol):
    """Source of the random numbers of EM. Every method returns CPU tensors that depend on `key` alone."""

    def distinct(self, key: DrawKey, count: int, population: int) -> Tensor:
        """`count` distinct indices below `population`, int64 [count]."""

    def standard_normal(self, key: DrawKey, shape: tuple[int, ...]) -> Tensor:
        """Standard normal numbers, float32 [shape]."""


@dataclass(frozen=True)
class SeededDraws:
    """Draws from a private generator keyed by (seed, timestep, layer, chunk), so that a replay meets the same ones."""

    seed: int = 0

    def distinct(self, key: DrawKey, count: int, population: int) -> Tensor:
        return torch.randperm(population, generator=self._generator(key))[:count]

    def standard_normal(self, key: DrawKey, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=self._generator(key))

    def _generator(self, key: DrawKey) -> torch.Generator:
        return keyed_generator(self.seed, Purpose.BASES, key.timestep, key.layer, key.chunk)


def initial_bases(
    tokens: Tokens, num_bases: int, method: Initialisation, draws: Draws, key: DrawKey, clamp: bool = True
) -> Tensor:
    """Bases to start EM from, [..., k, c], float32 (float64 for float64 tokens).

    Args:
        tokens: [..., m, c], or parts of it along m.
        num_bases: K. With `clamp`, and always for "tokens", no more than there are tokens.
        method: "tokens" takes distinct tokens; "gaussian" draws from the channel-wise mean and unbiased standard
            deviation of the tokens, as the reference code does.
        draws: source of random numbers.
        key: what the draw is for.
    """
    count, first = count_of(tokens), parts_of(tokens)[0]
    if clamp or method == "tokens":
        num_bases = min(num_bases, count)
    dtype = arithmetic_dtype(first)
    if method == "tokens":
        return taken(tokens, draws.distinct(key, num_bases, count)).to(dtype)
    mean, deviation = moments(tokens, dtype)
    shape = (*first.shape[:-2], num_bases, first.shape[-1])
    return mean + deviation * draws.standard_normal(key, shape).to(first.device, dtype)

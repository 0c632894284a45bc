"""Private random streams: what is drawn depends on what it is for, never on when or in which order."""

from __future__ import annotations

import numpy
import torch
from torch import Tensor

# What a stream is for; equal seeds then still give unrelated numbers. The values are part of every result.
BASES, KEYFRAMES, SHARED_NOISE = range(3)


# torch.compile cannot trace numpy in inference mode, in which ComfyUI runs nodes.
@torch.compiler.disable
def keyed_generator(seed: int, purpose: int, *key: int) -> torch.Generator:
    """A CPU generator whose stream depends on the arguments alone; seeds are taken modulo 2^64."""
    # A spawn key, unlike entropy, tells (1,) from (1, 0).
    sequence = numpy.random.SeedSequence(seed % 2**64, spawn_key=(purpose, *key))
    return torch.Generator().manual_seed(int(sequence.generate_state(1, numpy.uint64)[0]) % 2**63)


@torch.compiler.disable
def distinct_numbers(how_many: int, below: int, generator: torch.Generator) -> Tensor:
    """Different numbers below `below`, in random order, int64 on the CPU; all sets and orders are equally likely.

    torch could only permute them all, which takes hundreds of times as long for the tokens of a long clip.
    """
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    return torch.from_numpy(numpy.random.default_rng(seed).choice(below, how_many, replace=False))

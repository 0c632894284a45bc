"""The two Triton kernels of expectation-maximisation. Importing this needs Triton.

Strides are passed and offsets are 64-bit, so that slices of long videos need no copy. Products are computed in TF32
with the rounding errors of both factors made up for (three products for one), which keeps float32's accuracy; factors
in half precision are exact in TF32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..precision import least_weight

# Numbers that one program keeps in registers as responsibilities of its tokens.
_RESPONSIBILITIES = 16384
_LEAST_LOGIT = math.log(least_weight(torch.float32))
# Of the sums: programs that fill a GPU, and tokens that are worth one.
_PROGRAMS, _LEAST_SPLIT = 512, 256


@dataclass(frozen=True)
class Tiles:
    """How a kernel cuts its work: constants of the kernel, and options of its compilation."""

    constants: dict[str, float]
    options: dict[str, int]


def expectation_tiles(k: int) -> Tiles:
    """Of `expectation` for k bases."""
    bases = max(16, triton.next_power_of_2(k))
    constants = {
        "LEAST_LOGIT": _LEAST_LOGIT,
        "ROWS": max(16, min(128, _RESPONSIBILITIES // bases)),
        "BASES": bases,
        "CHANNELS": 32 if bases < 256 else 16,
    }
    return Tiles(constants, {"num_warps": 8, "num_stages": 1})


def sums_tiles(channels: int) -> Tiles:
    """Of `sums` for values of so many channels."""
    constants = {"ROWS": 32, "BASES": 64, "CHANNELS": min(128, max(16, triton.next_power_of_2(channels)))}
    return Tiles(constants, {"num_warps": 4, "num_stages": 2})


def expectation(tokens: Tensor, directions: Tensor, temperature: float, weights: Tensor) -> Tensor:
    """Eq. 9: `softmax_k(mu_k . X_m / tau)` into `weights` [l, m, k]; tokens [l, m, c], directions [l, k, c].

    Returns the masses [l, k].
    """
    heads, count, channels = tokens.shape
    k = directions.shape[1]
    tiles = expectation_tiles(k)
    programs = triton.cdiv(count, tiles.constants["ROWS"])
    mass = weights.new_empty(programs, heads, k)
    _expectation[(programs, heads)](
        tokens,
        directions,
        weights,
        mass,
        1 / temperature,
        count,
        k,
        channels,
        *tokens.stride(),
        *directions.stride(),
        *weights.stride(),
        *mass.stride(),
        **tiles.constants,
        **tiles.options,
    )
    return mass.sum(dim=0)


def sums(weights: Tensor, divisor: Tensor, values: Tensor) -> Tensor:
    """Eq. 10: sums over the tokens, [l, k, d]; weights [l, m, k] and divisor [l, k] float32, values [l, m, d].

    Weights are divided before they are summed up, so that a base which one token makes depends on that token alone.
    The tokens are split among programs, and what they find is added up afterwards: always in the same order.
    """
    heads, count, k = weights.shape
    channels = values.shape[-1]
    tiles = sums_tiles(channels)
    rows, bases, width = (tiles.constants[name] for name in ("ROWS", "BASES", "CHANNELS"))
    grid = triton.cdiv(k, bases) * triton.cdiv(channels, width)
    splits = max(1, min(_PROGRAMS // (grid * heads), triton.cdiv(count, _LEAST_SPLIT)))
    split = triton.cdiv(triton.cdiv(count, splits), rows) * rows
    total = weights.new_empty(splits, heads, k, channels)
    _sums[(grid, splits, heads)](
        weights,
        divisor,
        values,
        total,
        count,
        k,
        channels,
        split,
        *weights.stride(),
        *divisor.stride(),
        *values.stride(),
        *total.stride(),
        **tiles.constants,
        **tiles.options,
    )
    return total.sum(dim=0)


@triton.jit
def _expectation(
    tokens,
    directions,
    weights,
    mass,
    rate,
    count,
    k,
    channels,
    tokens_head,
    tokens_row,
    tokens_channel,
    directions_head,
    directions_base,
    directions_channel,
    weights_head,
    weights_row,
    weights_base,
    mass_program,
    mass_head,
    mass_base,
    LEAST_LOGIT: tl.constexpr,
    ROWS: tl.constexpr,
    BASES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """One program: the responsibilities of ROWS tokens for all bases, and the masses of these tokens."""
    head = tl.program_id(1).to(tl.int64)
    program = tl.program_id(0).to(tl.int64)
    rows = program * ROWS + tl.arange(0, ROWS)
    bases = tl.arange(0, BASES)
    logits = tl.zeros((ROWS, BASES), dtype=tl.float32)
    for start in range(0, channels, CHANNELS):
        channel = start + tl.arange(0, CHANNELS)
        x = tl.load(
            tokens + head * tokens_head + rows[:, None] * tokens_row + channel[None, :] * tokens_channel,
            mask=(rows[:, None] < count) & (channel[None, :] < channels),
            other=0.0,
        ).to(tl.float32)
        mu = tl.load(
            directions
            + head * directions_head
            + bases[None, :] * directions_base
            + channel[:, None] * directions_channel,
            mask=(bases[None, :] < k) & (channel[:, None] < channels),
            other=0.0,
        )
        logits += tl.dot(x, mu, input_precision="tf32x3")
    logits = tl.where(bases[None, :] < k, logits * rate, -float("inf"))
    logits -= tl.max(logits, axis=1)[:, None]
    odds = tl.where(logits > LEAST_LOGIT, tl.exp(logits), 0.0)
    z = odds / tl.sum(odds, axis=1)[:, None]
    tl.store(
        weights + head * weights_head + rows[:, None] * weights_row + bases[None, :] * weights_base,
        z,
        mask=(rows[:, None] < count) & (bases[None, :] < k),
    )
    masses = tl.sum(tl.where(rows[:, None] < count, z, 0.0), axis=0)
    tl.store(mass + program * mass_program + head * mass_head + bases * mass_base, masses, mask=bases < k)


@triton.jit
def _sums(
    weights,
    divisor,
    values,
    total,
    count,
    k,
    channels,
    split,
    weights_head,
    weights_row,
    weights_base,
    divisor_head,
    divisor_base,
    values_head,
    values_row,
    values_channel,
    total_split,
    total_head,
    total_base,
    total_channel,
    ROWS: tl.constexpr,
    BASES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """One program: a tile of the sums, over the tokens of one split."""
    tiles = tl.cdiv(channels, CHANNELS)
    part = tl.program_id(1).to(tl.int64)
    head = tl.program_id(2).to(tl.int64)
    bases = (tl.program_id(0) // tiles).to(tl.int64) * BASES + tl.arange(0, BASES)
    channel = (tl.program_id(0) % tiles).to(tl.int64) * CHANNELS + tl.arange(0, CHANNELS)
    found = tl.zeros((BASES, CHANNELS), dtype=tl.float32)
    divided_by = tl.load(divisor + head * divisor_head + bases * divisor_base, mask=bases < k, other=1.0)
    for start in range(0, split, ROWS):
        rows = part * split + start + tl.arange(0, ROWS)
        z = tl.load(
            weights + head * weights_head + rows[None, :] * weights_row + bases[:, None] * weights_base,
            mask=(rows[None, :] < count) & (bases[:, None] < k),
            other=0.0,
        )
        v = tl.load(
            values + head * values_head + rows[:, None] * values_row + channel[None, :] * values_channel,
            mask=(rows[:, None] < count) & (channel[None, :] < channels),
            other=0.0,
        ).to(tl.float32)
        found += tl.dot(tl.div_rn(z, divided_by[:, None]), v, input_precision="tf32x3")
    tl.store(
        total + part * total_split + head * total_head + bases[:, None] * total_base + channel[None, :] * total_channel,
        found,
        mask=(bases[:, None] < k) & (channel[None, :] < channels),
    )

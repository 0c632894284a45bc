"""E step and sums of the M step as Triton kernels, for NVIDIA GPUs; see `triton_kernels` for the kernels themselves."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib.util import find_spec

import torch
from torch import Tensor

# Tokens whose responsibilities exist at a time, 32 MB of them for 1024 bases: they stay in a large GPU's L2 cache.
CHUNK_TOKENS = 8192
MOST_BASES = 1024
# Of the GPU: TF32 is needed.
LEAST_CAPABILITY = (8, 0)
# GPUs, by compute capability, on which the kernels' results and speed were verified. Elsewhere they have to be asked
# for: Triton's interpreter proves the arithmetic, not that they compile and fit everywhere.
VERIFIED_CAPABILITIES: frozenset[tuple[int, int]] = frozenset()
_TYPES = (torch.float32, torch.float16, torch.bfloat16)


def refusal(tokens: Tensor, directions: Tensor) -> str | None:
    """Why these tensors cannot be served, or None."""
    if find_spec("triton") is None:
        return "Triton is not installed"
    if not interpreted():
        if tokens.device.type != "cuda" or torch.version.hip is not None:
            return f"the kernels need an NVIDIA GPU, not {'AMD' if torch.version.hip else tokens.device.type}"
        if torch.cuda.get_device_capability(tokens.device) < LEAST_CAPABILITY:
            return f"the kernels need a GPU of compute capability {'.'.join(map(str, LEAST_CAPABILITY))} or newer"
    if tokens.dtype not in _TYPES:
        return f"the kernels take {', '.join(str(kind).removeprefix('torch.') for kind in _TYPES)}"
    if directions.shape[1] > MOST_BASES:
        return f"the kernels hold at most {MOST_BASES} bases, not {directions.shape[1]}"
    return None


def verified(tokens: Tensor) -> bool:
    """Whether the kernels may be taken without being asked for."""
    on_gpu = tokens.device.type == "cuda"
    return interpreted() or (on_gpu and torch.cuda.get_device_capability(tokens.device) in VERIFIED_CAPABILITIES)


def interpreted() -> bool:
    """Whether Triton's interpreter is on, which runs kernels on the CPU, slowly, for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def weighted_means(
    tokens: Tensor,
    values: Sequence[Tensor],
    directions: Tensor,
    temperature: float,
    divisor: Callable[[Tensor], Tensor],
    chunk: int = CHUNK_TOKENS,
) -> tuple[Tensor, list[Tensor]]:
    """See `choice.weighted_means`; tokens [l, m, c], values [l, m, d] each, directions [l, k, c] in float32.

    The result does not depend on the order in which programs run: none of them adds to what another one writes.
    """
    from . import triton_kernels

    heads, count, _ = tokens.shape
    k = directions.shape[1]
    weights = directions.new_empty(heads, min(chunk, count), k)
    mass = directions.new_zeros(heads, k)
    means = [directions.new_zeros(heads, k, value.shape[-1]) for value in values]
    # Triton launches on the current device, whichever the tensors are on
    with torch.cuda.device(tokens.device) if tokens.device.type == "cuda" else nullcontext():
        for start in range(0, count, chunk):
            part = slice(start, min(start + chunk, count))
            block = weights[:, : part.stop - part.start]
            before, mass = mass, mass + triton_kernels.expectation(tokens[:, part], directions, temperature, block)
            kept = (divisor(before) / divisor(mass)).unsqueeze(-1)
            for mean, value in zip(means, values, strict=True):
                mean.mul_(kept).add_(triton_kernels.sums(block, divisor(mass), value[:, part]))
    return mass, means

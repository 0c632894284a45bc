"""EM alone beside its floor: the time of its two matrix products by torch.matmul, and the bytes it has to move."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from ....stem_kernels.backends import eager
from ....stem_kernels.backends.choice import chosen
from ....stem_kernels.em import EMSettings, fit_bases
from .results import VideoSize
from .timing import Workload

FLOOR = "its matrix products alone"
NUM_BASES = (128, 256, 512)
# Tokens at a time of the eager backend: from what fits a CPU's cache to what fills a GPU.
BLOCKS = (2048, 8192, 32768, 65536, 131072)
# Of SD1.5: the level of each layer, and the channels of each level.
LEVELS = (0, 0, 1, 1, 2, 2, 3, 2, 2, 2, 1, 1, 1, 0, 0, 0)
CHANNELS = (320, 640, 1280, 1280)


def layer_shapes(video: VideoSize) -> list[tuple[int, int]]:
    """Tokens of all frames, and channels, of the sixteen layers of SD 1.5."""
    latent = (video.height // 8, video.width // 8)
    # every halving rounds up
    tokens = [math.prod(-(-side // 2**level) for side in latent) for level in LEVELS]
    return [(video.frames * count, CHANNELS[level]) for count, level in zip(tokens, LEVELS, strict=True)]


def workloads(video: VideoSize, settings: EMSettings, dtype: torch.dtype, device: str) -> list[Workload]:
    """The floor, and the fit, of all layers of a step."""
    step = StepOfFits.made(video, settings, dtype, device)
    tokens, bases = step.layers[0]
    backend = chosen(tokens[None], bases[None].float()).__name__.rpartition(".")[2]
    return [
        step.workload(FLOOR, products),
        step.workload("EM, written plainly", written_plainly),
        step.workload(f"EM, {backend}", fit_bases),
    ]


def by_block(video: VideoSize, settings: EMSettings, dtype: torch.dtype, device: str) -> list[Workload]:
    """The floor, and EM in plain PyTorch by how many tokens it takes at a time."""
    step = StepOfFits.made(video, settings, dtype, device)
    return [
        step.workload(FLOOR, products),
        *(step.workload(f"{block} tokens at a time", partial(in_blocks, block=block)) for block in BLOCKS),
    ]


@dataclass(frozen=True)
class StepOfFits:
    """The fits of all layers of a step.

    Attributes:
        layers: tokens and first bases of each; features of low rank with noise, as a video's are.
        settings: of the fits.
        counts: operations and bytes of all of them.
    """

    layers: list[tuple[torch.Tensor, torch.Tensor]]
    settings: EMSettings
    counts: dict[str, int]

    @classmethod
    def made(cls, video: VideoSize, settings: EMSettings, dtype: torch.dtype, device: str) -> StepOfFits:
        shapes, k, iterations = layer_shapes(video), settings.num_bases, settings.iterations
        made = {shape: tokens_and_bases(*shape, k, dtype, device) for shape in set(shapes)}
        counts = {
            "flops": sum(flops(*shape, k, iterations) for shape in shapes),
            "bytes": sum(moved(*shape, k, dtype.itemsize, iterations) for shape in shapes),
        }
        return cls([made[shape] for shape in shapes], settings, counts)

    def workload(self, name: str, fit: Callable[[torch.Tensor, torch.Tensor, EMSettings], object]) -> Workload:
        """`fit` in every layer."""

        def run() -> None:
            for tokens, bases in self.layers:
                fit(tokens, bases, self.settings)

        return Workload(name, run, self.settings.num_bases, self.counts)


def products(tokens: torch.Tensor, bases: torch.Tensor, settings: EMSettings) -> None:
    """The two matrix products of each iteration, in the tokens' own type, with nothing between them."""
    bases = bases.to(tokens.dtype)
    for _ in range(settings.iterations):
        logits = tokens @ bases.T
        _ = logits.T @ tokens


def in_blocks(tokens: torch.Tensor, bases: torch.Tensor, settings: EMSettings, block: int) -> None:
    """What costs time in a fit of the eager backend, with so many tokens at a time."""
    tokens, bases = tokens[None], bases[None].float()
    for _ in range(settings.iterations):
        eager.weighted_means(tokens, (tokens,), bases, settings.temperature, settings.divisor, block)


def written_plainly(tokens: torch.Tensor, bases: torch.Tensor, settings: EMSettings) -> torch.Tensor:
    """Eq. 8-11 as they stand, with the bases normalised, and all responsibilities in memory."""
    tokens = tokens.float()
    for _ in range(settings.iterations):
        directions = bases / (bases.norm(dim=-1, keepdim=True) + settings.norm_eps)
        z = torch.softmax(tokens @ directions.T / settings.temperature, dim=-1)
        bases = z.T @ tokens / z.sum(dim=0).clamp_min(settings.mass_eps)[:, None]
    return bases


def flops(tokens: int, channels: int, k: int, iterations: int) -> int:
    """Of the matrix products: two of them, a multiplication and an addition each."""
    return iterations * 2 * 2 * tokens * channels * k


def moved(tokens: int, channels: int, k: int, item: int, iterations: int) -> int:
    """Bytes that have to be read: the tokens once in each iteration, the bases, and written: the bases and masses."""
    return iterations * (tokens * channels * item + 4 * (2 * k * channels + k))


def tokens_and_bases(
    tokens: int, channels: int, k: int, dtype: torch.dtype, device: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random features [tokens, channels] of low rank with noise, and bases [k, channels] among them, in float32."""
    # drawn on the device: a CPU takes seconds for as many
    generator = torch.Generator(device).manual_seed(tokens)
    low, high, noise = (
        torch.randn(shape, generator=generator, device=device)
        for shape in ((tokens, 24), (24, channels), (tokens, channels))
    )
    x = 0.5 * torch.nn.functional.layer_norm(low @ high / 24**0.5 + 0.3 * noise, (channels,))
    chosen_tokens = torch.randperm(tokens, generator=generator, device=device)[: min(k, tokens)]
    return x.to(dtype), x[chosen_tokens]

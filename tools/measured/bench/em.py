"""EM alone beside its floor: the time of its two matrix products by torch.matmul, and the bytes it has to move."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from ....stem_kernels.backends.choice import chosen
from ....stem_kernels.em import EMSettings, fit_bases
from .results import VideoSize
from .timing import Workload

FLOOR = "its matrix products alone"
NUM_BASES = (128, 256, 512)
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
    """The floor, and the fit, of all layers of a step; features of low rank with noise, as a video's are."""
    shapes = layer_shapes(video)
    k, iterations = settings.num_bases, settings.iterations
    made = {shape: _tokens_and_bases(*shape, k, dtype, device) for shape in set(shapes)}
    layers = [made[shape] for shape in shapes]
    counts = {
        "flops": sum(flops(*shape, k, iterations) for shape in shapes),
        "bytes": sum(moved(*shape, k, dtype.itemsize, iterations) for shape in shapes),
    }

    def in_every_layer(name: str, fit: Callable, setting: object) -> Workload:
        def run() -> None:
            for tokens, bases in layers:
                fit(tokens, bases, setting)

        return Workload(name, run, k, counts)

    tokens, bases = layers[0]
    backend = chosen(tokens[None], bases[None].float()).__name__.rpartition(".")[2]
    return [
        in_every_layer(FLOOR, products, iterations),
        in_every_layer("EM, written plainly", written_plainly, settings),
        in_every_layer(f"EM, {backend}", fit_bases, settings),
    ]


def products(tokens: torch.Tensor, bases: torch.Tensor, iterations: int) -> None:
    """The two matrix products of each iteration, in the tokens' own type, with nothing between them."""
    bases = bases.to(tokens.dtype)
    for _ in range(iterations):
        logits = tokens @ bases.T
        _ = logits.T @ tokens


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


def _tokens_and_bases(
    tokens: int, channels: int, k: int, dtype: torch.dtype, device: str
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(tokens)
    low, high = torch.randn(tokens, 24, generator=generator), torch.randn(24, channels, generator=generator)
    x = low @ high / 24**0.5 + 0.3 * torch.randn(tokens, channels, generator=generator)
    x = 0.5 * torch.nn.functional.layer_norm(x, (channels,))
    return x.to(device, dtype), x[torch.randperm(tokens, generator=generator)[: min(k, tokens)]].to(device)

"""FateZero's group normalisation over all frames of a clip, for the time of a comparison.

Its inflated UNet normalises five-dimensional tensors in the residual blocks and the output head, so that mean and
variance of a channel group are those of the whole clip. A plain Stable Diffusion UNet normalises each frame alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import group_norm

_NAMES = ("in_layers.0", "out_layers.0", "out.0")


@contextmanager
def pooled_group_norm(unet: nn.Module, frames: int) -> Iterator[None]:
    """While this lasts, the residual blocks and the head of `unet` normalise over clips of `frames` rows."""

    def pool(module: nn.GroupNorm, inputs: tuple[Tensor, ...], output: Any) -> Tensor:
        (x,) = inputs
        clips = rearrange(x, "(g n) c h w -> g c n h w", n=frames)
        pooled = group_norm(clips, module.num_groups, module.weight, module.bias, module.eps)
        return rearrange(pooled, "g c n h w -> (g n) c h w").contiguous()

    modules = unet.named_modules()
    norms = [module for name, module in modules if isinstance(module, nn.GroupNorm) and name.endswith(_NAMES)]
    hooks = [module.register_forward_hook(pool) for module in norms]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()

"""Where the self-attention layers of a Stable Diffusion UNet sit, in ComfyUI's own numbering.

What is done at a layer depends on its resolution level and on its place in the decoder, not on its number, so the same
rules hold for SD 1.x, SD 2.x and SDXL.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from comfy.ldm.modules.attention import SpatialTransformer, SpatialVideoTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, Upsample
from torch import nn

# FateZero reads its masks from the cross-attention of this level: a quarter of the latent, 16x16 for 512x512 pixels.
_MASK_LEVEL = 2


@dataclass(frozen=True)
class AttentionLayer:
    """One self-attention layer.

    Attributes:
        index: order of execution; 0..15 in SD 1.x and 2.x, 0..69 in SDXL.
        block, number, transformer: ComfyUI's name of the block, such as ("output", 4), and which of its transformers.
        level: 0 for the resolution of the latent, one more for every halving.
        injected: whether plug-and-play injects source queries and keys here: the decoder, but for its first block.
    """

    index: int
    block: str
    number: int
    level: int
    transformer: int = 0
    injected: bool = False

    @property
    def key(self) -> tuple[str, int, int]:
        """ComfyUI's name of the layer."""
        return self.block, self.number, self.transformer

    @property
    def name(self) -> str:
        """The same in words."""
        return f"{self.block} {self.number}" + (f", transformer {self.transformer}" if self.transformer else "")

    @property
    def gives_masks(self) -> bool:
        """Whether FateZero reads its masks from the cross-attention here."""
        return self.level == _MASK_LEVEL


def self_attention_layers(unet: Any) -> tuple[AttentionLayer, ...]:
    """The layers of a UNet, found by walking its blocks. Only the structure is read, never a weight.

    Raises:
        ValueError: it is not the UNet of SD 1.x, SD 2.x or SDXL, or of a model that is built like them.
    """
    found = list(_walk(unet)) if hasattr(unet, "input_blocks") and hasattr(unet, "output_blocks") else []
    decoder = [number for block, number, *_ in found if block == "output"]
    temporal = any(isinstance(module, SpatialVideoTransformer) for module in unet.modules())
    if temporal or not decoder:
        blocks = len({place[:2] for place in found})
        what = "has attention over time" if temporal else f"has self-attention in {blocks} known blocks"
        raise ValueError(
            f"This MODEL ({type(unet).__name__}) {what}, so it is not built like Stable Diffusion 1.x, 2.x or XL, and "
            "the layers to work on are unknown. Load a checkpoint of one of these families."
        )
    return tuple(
        AttentionLayer(index, *place, injected=place[0] == "output" and place[1] > decoder[0])
        for index, place in enumerate(found)
    )


def feature_block(layers: Sequence[AttentionLayer]) -> int:
    """The output block whose residual part gives the features that plug-and-play injects: the second of the decoder's
    blocks with self-attention. In SD 1.x it is block 4, in SDXL block 1."""
    return min(layer.number for layer in layers if layer.block == "output") + 1


def _walk(unet: Any) -> Iterator[tuple[str, int, int, int]]:
    """(block, number, level, transformer) of every self-attention, in order of execution."""
    level = 0
    for number, block in enumerate(unet.input_blocks):
        level += _holds(block, Downsample)
        yield from _transformers("input", number, level, block)
    yield from _transformers("middle", 0, level, unet.middle_block)
    for number, block in enumerate(unet.output_blocks):
        yield from _transformers("output", number, level, block)
        level -= _holds(block, Upsample)


def _transformers(name: str, number: int, level: int, block: nn.Module) -> Iterator[tuple[str, int, int, int]]:
    for child in block.modules():
        if isinstance(child, SpatialTransformer):
            yield from ((name, number, level, transformer) for transformer in range(len(child.transformer_blocks)))


def _holds(block: nn.Module, kind: type) -> bool:
    return any(isinstance(child, kind) for child in block.modules())

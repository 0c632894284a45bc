"""Where the self-attention layers of a Stable Diffusion 1.x UNet sit, in the host's own numbering."""

from __future__ import annotations

from dataclasses import dataclass

# (block, number) as the host reports it, and the resolution level: 0 is that of the latent, 3 an eighth of it.
_SD1_LAYERS = (
    *(("input", number, level) for number, level in ((1, 0), (2, 0), (4, 1), (5, 1), (7, 2), (8, 2))),
    ("middle", 0, 3),
    *(("output", number, 2 - (number - 3) // 3) for number in range(3, 12)),
)
_FIRST_INJECTED_LAYER = 8
# Plug-and-play injects the features of this residual block, after its second convolution and before its skip is added.
FEATURE_BLOCK = 4
# FateZero reads its masks from the cross-attention of this level: a quarter of the latent, 16x16 for 512x512 pixels.
_MASK_LEVEL = 2


@dataclass(frozen=True)
class AttentionLayer:
    """One self-attention layer.

    Attributes:
        index: order of execution, 0..15.
        block, number: the host's name of the block, such as ("output", 4).
        level: 0 for the resolution of the latent, one more for every halving.
    """

    index: int
    block: str
    number: int
    level: int

    @property
    def injected(self) -> bool:
        """Whether plug-and-play injects source queries and keys here: the decoder, but for its first layer."""
        return self.index >= _FIRST_INJECTED_LAYER

    @property
    def gives_masks(self) -> bool:
        """Whether FateZero reads its masks from the cross-attention here."""
        return self.level == _MASK_LEVEL


def size_at(level: int, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the features of a level, for a latent of `size`: every halving rounds up."""
    height, width = size
    for _ in range(level):
        height, width = -(-height // 2), -(-width // 2)
    return height, width


SD1_LAYERS = tuple(AttentionLayer(i, *layer) for i, layer in enumerate(_SD1_LAYERS))


def self_attention_layers(diffusion_model: object) -> tuple[AttentionLayer, ...]:
    """The layers of a UNet, found by walking its blocks.

    Raises:
        ValueError: the blocks are not those of SD 1.x. Only the structure is read, never a weight.
    """
    found = _transformer_blocks(diffusion_model)
    expected = [(layer.block, layer.number) for layer in SD1_LAYERS]
    if found != expected:
        name = type(diffusion_model).__name__
        raise ValueError(
            f"This MODEL ({name}) has self-attention in {len(found)} places {_summary(found)}, not in the 16 of "
            "Stable Diffusion 1.x, so the layers to work on are unknown. Load an SD 1.x checkpoint (1.4 or 1.5, or a "
            "fine-tune of them)."
        )
    return SD1_LAYERS


def _transformer_blocks(diffusion_model: object) -> list[tuple[str, int]]:
    found = []
    for name in ("input", "middle", "output"):
        blocks = getattr(diffusion_model, f"{name}_block" + ("" if name == "middle" else "s"), None)
        if blocks is None:
            continue
        modules = [blocks] if name == "middle" else blocks
        for number, module in enumerate(modules):
            found += [(name, number) for child in module.modules() for _ in getattr(child, "transformer_blocks", ())]
    return found


def _summary(found: list[tuple[str, int]]) -> str:
    if not found:
        return "(none that this pack knows)"
    return "(" + ", ".join(f"{block} {number}" for block, number in found[:4]) + (", …)" if len(found) > 4 else ")")

"""The closed vocabulary of the rendered clips, and which combinations are kept out of training."""

from __future__ import annotations

import zlib

OBJECTS = tuple(
    "apple bell bird butterfly car cat crown fish guitar house key mushroom rocket star tree turtle".split()
)
STYLES = ("3d", "cartoon", "flat", "sketch")
COLOURS = {
    "red": (0.86, 0.13, 0.13),
    "orange": (0.96, 0.52, 0.08),
    "yellow": (0.96, 0.84, 0.15),
    "green": (0.16, 0.65, 0.25),
    "blue": (0.15, 0.36, 0.90),
    "purple": (0.55, 0.24, 0.80),
    "pink": (0.96, 0.48, 0.70),
    "gray": (0.50, 0.50, 0.50),
}
WORDS = {"object": OBJECTS, "style": STYLES, "colour": tuple(COLOURS)}
TEXTURES = ("plain", "gradient", "striped", "checkered")
# Of every this many combinations of object, style and colour, about one never occurs in training.
HELD_OUT_SHARE = 8


def held_out(object: str, style: str, colour: str) -> bool:
    """Whether this combination is kept out of training. Each of its words occurs there, in other combinations."""
    return zlib.crc32(f"{object} {style} {colour}".encode()) % HELD_OUT_SHARE == 0

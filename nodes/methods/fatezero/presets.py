"""Settings of FateZero's published edits; guidance and levels by what was measured (docs/defaults.md)."""

from __future__ import annotations

from dataclasses import dataclass

from ....stem_kernels.prompt_alignment import Window
from .word_control import Control


@dataclass(frozen=True)
class FateZeroPreset:
    """Control, windows of cross- and self-attention, weight of a word without a number, blending, guidance, levels."""

    control: Control
    cross_window: Window
    self_window: Window
    weight: float = 10.0
    blend_self: bool = False
    threshold: float = 0.3
    cfg_window: Window = (0.0, 0.75)
    levels: frozenset[int] = frozenset((0, 1, 2, 3))


# Replacing needs prompts of as many words; with others, "auto" refines, as the published code does.
PRESETS = {
    "style": FateZeroPreset("refine", 0.8, 0.8),
    "attribute": FateZeroPreset("refine", 0.5, 0.5, cfg_window=(1 / 6, 0.5)),
    "replace object": FateZeroPreset("auto", 0.7, 0.7),
    "shape": FateZeroPreset("auto", 0.5, 0.5, blend_self=True),
}

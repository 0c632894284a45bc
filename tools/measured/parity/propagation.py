"""TokenFlow's weights of the two keyframes that a frame takes its features from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from ....stem_kernels.correspondence import batch_slices, choose_keyframes, propagation_plan
from . import golden
from .comparison import Comparison, compared

# The weights are recorded to four decimals.
ROUNDING = 5e-5


def comparisons(folder: Path) -> Iterator[Comparison]:
    """The share of the keyframe of a frame's own batch, for every frame of a clip."""
    recorded = golden.settings(folder, "propagation")
    batches = batch_slices(recorded["frames"], recorded["batch_size"])
    keyframes = choose_keyframes(batches, "centre", torch.Generator())
    ours = propagation_plan(batches, keyframes, "reference").weight
    name = f"propagation weights of {recorded['frames']} frames, batches of {recorded['batch_size']}"
    yield compared(name, ours, torch.tensor(recorded["weights"]), ROUNDING)

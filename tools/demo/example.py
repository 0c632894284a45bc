"""The demo's own clip, for the trained small model: rendered, so that the true result of each edit is known."""

from __future__ import annotations

import random
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from ..rendered_clips import Background, Scene, Thing, random_motion, render
from ..rendered_clips.rendering import SIDE
from . import pictures
from .workflow import Wish

SCENE = Scene((Thing("apple", "cartoon", "red"),), Background("striped", "blue"))
MOTION = random_motion(random.Random(3))
TARGETS = {
    "object: car": SCENE.with_thing(object="car"),
    "style: sketch": SCENE.with_thing(style="sketch"),
    "colour: green": SCENE.with_thing(colour="green"),
}
FRAMES = 16
RATE = Fraction(8)
# Videos store colours at half the size of the picture: at twice the size none is lost.
ENLARGED = 2


def wishes() -> tuple[Wish, ...]:
    """The edits, by what changes."""
    return tuple(Wish(label, scene.caption) for label, scene in TARGETS.items())


def write_clip(file: Path) -> None:
    """Writes the clip as a video of ENLARGED x SIDE pixels."""
    frames = as_bytes(render(SCENE, MOTION, FRAMES).frames)
    pictures.write_mp4(file, frames.repeat(ENLARGED, axis=1).repeat(ENLARGED, axis=2), RATE)


def truths() -> dict[str, np.ndarray]:
    """What each edit should give, by label: uint8 [FRAMES, SIDE, SIDE, 3]."""
    return {label: as_bytes(render(scene, MOTION, FRAMES, SIDE).frames) for label, scene in TARGETS.items()}


def as_bytes(frames: torch.Tensor) -> np.ndarray:
    """[N, H, W, 3] in [0, 1] as uint8."""
    return (frames * 255).round().to(torch.uint8).numpy()

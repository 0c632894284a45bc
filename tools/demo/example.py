"""The demo's own clip, for the trained small model: rendered, so that the true result of each edit is known."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

from ..small_model.rendered_clips import Background, Scene, Thing, random_motion, render
from ..small_model.rendered_clips.rendering import SIDE, as_bytes
from . import pictures
from .workflow import DDIM_FATEZERO, STEM_FATEZERO, TOKENFLOW, Field, Wish, Workflow

SCENE = Scene((Thing("apple", "cartoon", "red"),), Background("striped", "blue"))
MOTION = random_motion(random.Random(3))
CAR = SCENE.with_thing(object="car")
SHAPE = {("FateZero Edit", "preset"): "shape", ("FateZero Edit", "word_weights"): ""}


@dataclass(frozen=True)
class Target:
    """What an edit should give, and the workflow that is to give it."""

    scene: Scene
    workflow: Workflow = TOKENFLOW
    settings: Mapping[Field, object] = field(default_factory=dict)


TARGETS = {
    "object: car": Target(CAR),
    "style: sketch": Target(SCENE.with_thing(style="sketch")),
    "colour: green": Target(SCENE.with_thing(colour="green")),
    "car by STEM-FateZero": Target(CAR, STEM_FATEZERO, SHAPE),
    "car by FateZero": Target(CAR, DDIM_FATEZERO, SHAPE),
}
FRAMES = 16
RATE = Fraction(8)
# Videos store colours at half the size of the picture: at twice the size none is lost.
ENLARGED = 2


def wishes() -> tuple[Wish, ...]:
    """The edits, by what changes."""
    return tuple(
        Wish(label, target.scene.caption, target.workflow, target.settings) for label, target in TARGETS.items()
    )


def write_clip(file: Path) -> None:
    """Writes the clip as a video of ENLARGED x SIDE pixels."""
    frames = as_bytes(render(SCENE, MOTION, FRAMES).frames).numpy()
    pictures.write_mp4(file, frames.repeat(ENLARGED, axis=1).repeat(ENLARGED, axis=2), RATE)


def truths() -> dict[str, np.ndarray]:
    """What each edit should give, by label: uint8 [FRAMES, SIDE, SIDE, 3]."""
    return {
        label: as_bytes(render(target.scene, MOTION, FRAMES, SIDE).frames).numpy() for label, target in TARGETS.items()
    }

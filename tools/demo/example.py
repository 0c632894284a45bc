"""The demo's own clip, for the trained small model: rendered, so that the true result of each edit is known."""

from __future__ import annotations

import random
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np

from ..small_model.rendered_clips import Background, Scene, Thing, random_motion, render
from ..small_model.rendered_clips.rendering import as_bytes
from . import pictures
from .workflow import DDIM_FATEZERO, STEM_FATEZERO, Wish

SCENE = Scene((Thing("apple", "cartoon", "red"),), Background("striped", "blue"))
MOTION = random_motion(random.Random(3))
CAR = SCENE.with_thing(object="car")
SKETCH, GREEN = SCENE.with_thing(style="sketch"), SCENE.with_thing(colour="green")
SHAPE = {("FateZero Edit", "preset"): "shape", ("FateZero Edit", "word_weights"): ""}
# Styles and colours keep the source's first steps: docs/defaults.md.
LATER = {("TokenFlow Edit", "cfg_start_percent"): 0.167}
# The first of them is made by default.
WISHES = (
    Wish("colour: green", GREEN.caption, settings=LATER),
    Wish("object: car", CAR.caption),
    Wish("style: sketch", SKETCH.caption, settings=LATER),
    Wish("car by STEM-FateZero", CAR.caption, STEM_FATEZERO, SHAPE),
    Wish("car by FateZero", CAR.caption, DDIM_FATEZERO, SHAPE),
)
FRAMES = 16
RATE = Fraction(8)
# Videos store colours at half the size of the picture: at twice the size none is lost.
ENLARGED = 2


def write_clip(file: Path) -> None:
    """Writes the clip as a video, ENLARGED times as wide and as high as it is rendered."""
    frames = _rendered(SCENE)
    pictures.write_mp4(file, frames.repeat(ENLARGED, axis=1).repeat(ENLARGED, axis=2), RATE)


def truths(wishes: Iterable[Wish] = WISHES, frames: int = FRAMES) -> dict[str, np.ndarray]:
    """What each of these edits should give, by label: uint8 [frames, SIDE, SIDE, 3]."""
    scenes = {scene.caption: scene for scene in (CAR, SKETCH, GREEN)}
    return {wish.label: _rendered(scenes[wish.prompt])[:frames] for wish in wishes}


def _rendered(scene: Scene) -> np.ndarray:
    return as_bytes(render(scene, MOTION, FRAMES).frames).numpy()

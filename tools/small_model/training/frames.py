"""Training pictures: single frames of random clips, none of a held-out combination, with their captions."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import trange

from ..rendered_clips.motion import Motion, random_motion
from ..rendered_clips.rendering import SIDE, as_bytes, render_frame
from ..rendered_clips.scene import Scene, random_scene

TWO_THINGS = 0.15


@dataclass(frozen=True)
class Frames:
    """pictures: [n, 3, SIDE, SIDE] uint8; scenes: what they show."""

    pictures: Tensor
    scenes: tuple[Scene, ...]


def drawn(number: int, seed: int) -> tuple[Scene, Motion, float]:
    """What picture `number` shows: a scene, its motion, and the moment of it."""
    rng = random.Random(seed * 1_000_003 + number)
    things = 2 if rng.random() < TWO_THINGS else 1
    return random_scene(rng, things), random_motion(rng, things), rng.random()


def training_frames(count: int, seed: int = 0) -> Frames:
    """Renders `count` pictures; the same ones for the same seed."""
    pictures = torch.empty(count, 3, SIDE, SIDE, dtype=torch.uint8)
    scenes = []
    for i in trange(count, desc="frames", mininterval=5):
        scene, motion, moment = drawn(i, seed)
        pictures[i] = as_bytes(render_frame(scene, motion, moment))
        scenes.append(scene)
    return Frames(pictures, tuple(scenes))

"""How the things of a clip move: translation, rotation and scale, smooth in time."""

from __future__ import annotations

import math
import random
from dataclasses import astuple, dataclass


@dataclass(frozen=True)
class Pose:
    """Centre and size as shares of the frame's side; angle in radians, clockwise as seen."""

    x: float
    y: float
    size: float
    angle: float


@dataclass(frozen=True)
class Path:
    """From `start` to `end`, with a sinusoidal swing across of `swing` (share of the side), `waves` half periods."""

    start: Pose
    end: Pose
    swing: float
    waves: float

    def at(self, time: float) -> Pose:
        """The pose at a time in [0, 1]."""
        x, y, *rest = (a + (b - a) * time for a, b in zip(astuple(self.start), astuple(self.end), strict=True))
        return Pose(x, y + self.swing * math.sin(math.pi * self.waves * time), *rest)


@dataclass(frozen=True)
class Motion:
    """paths: one for each thing of a scene; pan: how far the background moves from time 0 to 1, shares of the side."""

    paths: tuple[Path, ...]
    pan: tuple[float, float]


# Size and centre of one thing, and of each of two, as shares of the side.
ONE = ((0.58, 0.80), ((0.40, 0.60),), (0.40, 0.60))
TWO = ((0.42, 0.50), ((0.25, 0.31), (0.69, 0.75)), (0.38, 0.62))
LARGEST_ANGLE = math.radians(25)
LARGEST_PAN = 0.25
LARGEST_SWING = 0.06


def random_motion(rng: random.Random, things: int = 1) -> Motion:
    """A motion of one or two things that stay in the frame."""
    sizes, columns, rows = ONE if things == 1 else TWO

    def pose(column: tuple[float, float]) -> Pose:
        angle = rng.uniform(-LARGEST_ANGLE, LARGEST_ANGLE)
        return Pose(rng.uniform(*column), rng.uniform(*rows), rng.uniform(*sizes), angle)

    paths = tuple(
        Path(pose(column), pose(column), rng.uniform(0, LARGEST_SWING), rng.uniform(1, 3)) for column in columns
    )
    return Motion(paths, (rng.uniform(-LARGEST_PAN, LARGEST_PAN), rng.uniform(-LARGEST_PAN, LARGEST_PAN)))

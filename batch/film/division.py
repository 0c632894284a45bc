"""What is edited at a time: a shot, or parts of one that is too long, which overlap and may share a few frames."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..jobs import JobsError


@dataclass(frozen=True)
class Shot:
    """Frames from `start` up to `end`, and what the table of cuts sets for them, as the columns of a job."""

    start: int
    end: int
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Division:
    """How long shots are divided.

    Attributes:
        longest: frames that are edited at a time; 0 for shots as they are.
        overlap: frames that two neighbours have in common, over which one fades into the other.
        anchors: frames of the shot that stand in front of all of its parts, so that these agree.
    """

    longest: int = 120
    overlap: int = 8
    anchors: int = 0

    def __post_init__(self) -> None:
        if self.longest and self.longest < self.anchors + 2 * self.overlap + 2:
            raise JobsError(
                f"Parts of {self.longest} frames, of which {self.anchors} are anchors and {self.overlap} overlap on "
                "both sides, have none of their own. Allow more frames, or fewer anchors or a shorter overlap."
            )


@dataclass(frozen=True)
class Piece:
    """Frames of the film from `start` up to `end`, behind some `anchors`, and the columns of its job."""

    name: str
    shot: int
    start: int
    end: int
    anchors: tuple[int, ...]
    values: Mapping[str, Any]

    @property
    def frames(self) -> int:
        return len(self.anchors) + self.end - self.start


def divided(shots: Iterable[Shot], division: Division) -> list[Piece]:
    """The pieces of all shots, in order. A piece's name tells its frames and prompts from others."""
    pieces = []
    for number, shot in enumerate(shots):
        length = shot.end - shot.start
        ranges, anchors = [(shot.start, shot.end)], ()
        if division.longest and length > division.longest:
            ranges = _overlapping(shot, division.longest - division.anchors, division.overlap)
            share = length / max(1, division.anchors)
            anchors = tuple(shot.start + int((place + 0.5) * share) for place in range(division.anchors))
        for start, end in ranges:
            content = json.dumps([start, end, anchors, dict(shot.values)], sort_keys=True, default=str)
            name = f"shot{number + 1:04d}-{start:07d}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
            pieces.append(Piece(name, number, start, end, anchors, shot.values))
    return pieces


def _overlapping(shot: Shot, most: int, overlap: int) -> list[tuple[int, int]]:
    """Ranges of one length, at most `most`, which cover a shot and overlap by at least `overlap`."""
    length = shot.end - shot.start
    count = math.ceil((length - overlap) / (most - overlap))
    size = math.ceil((length + (count - 1) * overlap) / count)
    starts = [shot.start + round(number * (length - size) / (count - 1)) for number in range(count)]
    return [(start, start + size) for start in starts]

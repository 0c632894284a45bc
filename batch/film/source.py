"""The film as Video Load sees it: its frames by number, and when each is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...nodes.video import BrokenStreamError, VideoError
from ...nodes.video.frame_selection import Selection
from ...nodes.video.sources import VideoFile
from ..jobs import JobsError


@dataclass(frozen=True)
class Film:
    """A film that has been read once.

    Attributes:
        file: of it.
        begins: seconds at which each frame is shown, from the first one on, in order.
        rate: frames a second.
        origin: seconds of the file's clock at the first frame, as its sound counts them.
        tick: seconds that its times are multiples of.
        width, height: of its pictures, in pixels.
        pixel_aspect: a pixel's width over its height.
    """

    file: Path
    begins: tuple[Fraction, ...]
    rate: Fraction
    origin: Fraction
    tick: Fraction
    width: int
    height: int
    pixel_aspect: Fraction

    @property
    def frames(self) -> int:
        return len(self.begins)


def read_film(file: Path, look: Callable[[int, NDArray[np.uint8]], object] | None = None) -> Film:
    """Reads a film from end to end; `look` is given each frame's number and picture, RGB [height, width, 3].

    Raises:
        JobsError: it is no film, or breaks off.
    """
    begins: list[Fraction] = []
    try:
        source = VideoFile(str(file), file.name)
        with closing(source.frames(Selection(), _never)) as frames:
            for frame in frames:
                begins.append(max(frame.begin, begins[-1] if begins else frame.begin))
                if look is not None:
                    look(frame.index, source.picture(frame)[..., :3])
    except VideoError as error:
        raise JobsError(str(error)) from None
    except BrokenStreamError as error:
        raise JobsError(
            f"{file.name} breaks off after frame {len(begins)} (FFmpeg: {error}). Copy it again, or repair it."
        ) from None
    info = source.info
    tick = info.tick or 1 / info.rate
    return Film(file, tuple(begins), info.rate, info.origin, tick, info.width, info.height, info.pixel_aspect)


def pictures(file: Path, start: int, end: int) -> Iterator[NDArray[np.uint8]]:
    """The pictures of the frames from `start` up to `end`, as `read_film` shows them."""
    source = VideoFile(str(file), file.name)
    with closing(source.frames(Selection(Fraction(start)), _never)) as frames:
        for frame in frames:
            if frame.index >= end:
                return
            if frame.index >= start:
                yield source.picture(frame)[..., :3]


def _never() -> None:
    """Nobody interrupts this."""

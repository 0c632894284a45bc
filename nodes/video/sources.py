"""Where frames come from: a file that is decoded as it is read, or pictures that are in memory already."""

from __future__ import annotations

import io
from collections.abc import Callable, Generator
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .audio import cut_audio, read_audio
from .container import DAMAGE, ClipInfo, broken, probe
from .decoding import count_packets, read_frames
from .errors import VideoError
from .frame_selection import Selection, ShownFrame
from .orientation import turn_upright

Interrupt = Callable[[], None]


class ClipSource(Protocol):
    """What load_clip needs of a source."""

    info: ClipInfo

    def count(self, interrupt: Interrupt) -> int:
        """How many frames the clip has, as far as can be told without decoding."""

    def frames(self, selection: Selection, interrupt: Interrupt) -> Generator[ShownFrame, None, None]:
        """The frames from the selection's start, or from some frame before it, to the clip's end."""

    def picture(self, frame: ShownFrame) -> NDArray:
        """The RGB picture [height, width, 3] of a frame: uint8, or float32 in 0..1."""

    def audio(self, begin: Fraction, length: Fraction, interrupt: Interrupt) -> dict[str, Any] | None:
        """The sound of [begin, begin + length) seconds after the first frame, as a host AUDIO."""


class VideoFile:
    """A video file, given by its path or as a buffer with its content. Raises VideoError if it is not a video."""

    def __init__(self, source: str | io.BytesIO, name: str) -> None:
        self._source = source
        self.info = probe(source, name)

    def count(self, interrupt: Interrupt) -> int:
        return self.info.frames or count_packets(self._source, self.info, interrupt)

    def frames(self, selection: Selection, interrupt: Interrupt) -> Generator[ShownFrame, None, None]:
        return read_frames(self._source, self.info, selection, interrupt)

    def picture(self, frame: ShownFrame) -> NDArray[np.uint8]:
        # FFmpeg converts from the frame's own bit depth, colour matrix and range (limited or full).
        try:
            return turn_upright(frame.picture.to_ndarray(format="rgb24"), self.info.matrix)
        except (*DAMAGE, ValueError) as error:
            raise broken(error) from error

    def audio(self, begin: Fraction, length: Fraction, interrupt: Interrupt) -> dict[str, Any] | None:
        return read_audio(self._source, self.info.name, self.info.origin + begin, length, interrupt)


class PicturesInMemory:
    """Pictures [frames, height, width, channels ≥ 3] in 0..1 at an even rate, with their AUDIO or None."""

    def __init__(self, images: Tensor, rate: Fraction, audio: dict[str, Any] | None, name: str) -> None:
        if images.shape[0] == 0:
            raise VideoError(f"{name} holds 0 frames. Check the node that made it.")
        if rate <= 0:
            raise VideoError(f"{name} plays at {float(rate):g} frames a second. Give it a rate above 0.")
        self._images = images
        self._audio = audio
        count, height, width = images.shape[:3]
        self.info = ClipInfo(name=name, width=width, height=height, rate=rate, frames=count, length=count / rate)

    def count(self, interrupt: Interrupt) -> int:
        return self._images.shape[0]

    def frames(self, selection: Selection, interrupt: Interrupt) -> Generator[ShownFrame, None, None]:
        for index, picture in enumerate(self._images):
            interrupt()
            yield ShownFrame(index, index / self.info.rate, (index + 1) / self.info.rate, picture)

    def picture(self, frame: ShownFrame) -> NDArray[np.float32]:
        return frame.picture[..., :3].float().cpu().numpy()

    def audio(self, begin: Fraction, length: Fraction, interrupt: Interrupt) -> dict[str, Any] | None:
        return cut_audio(self._audio, begin, length)

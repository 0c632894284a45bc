"""Writing pictures to a video file, and reading those of an edited one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

# Encoders count a rate by numbers of so many bits.
_LARGEST = 65535


@dataclass(frozen=True)
class Encoding:
    """How pictures are stored. The default is that of ComfyUI's Save Video."""

    codec: str = "libx264"
    pixels: str = "yuv420p"
    options: dict[str, str] = field(default_factory=dict)
    pixel_aspect: Fraction = Fraction(1)


def encode(pictures: Iterable[NDArray[np.uint8]], file: Path, rate: Fraction, encoding: Encoding = Encoding()) -> None:
    """Writes pictures, RGB [height, width, 3], at least one and all of one size, at an even rate."""
    remaining = iter(pictures)
    first = next(remaining)
    with av.open(str(file), "w") as container:
        stream = container.add_stream(encoding.codec, rate=rate.limit_denominator(_LARGEST), options=encoding.options)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = encoding.pixels
        if encoding.pixel_aspect != 1:
            stream.sample_aspect_ratio = encoding.pixel_aspect
        for picture in chain((first,), remaining):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())


def decoded(file: Path) -> Iterator[NDArray[np.uint8]]:
    """The pictures of an edited file, RGB [height, width, 3]."""
    with av.open(str(file)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def count_frames(file: Path) -> int:
    """Of an edited file."""
    with av.open(str(file)) as container:
        return sum(1 for packet in container.demux(video=0) if packet.size)

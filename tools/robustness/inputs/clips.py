"""Video files that are broken, odd or long, each written by its name."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from .clip_factory import LOSSLESS, numbered_picture, set_display_matrix, write_clip

FRAMES = 24
SIZE = (64, 48)
LONG = 10_000
# Every tenth picture is a keyframe; the index comes first, so that what is left of a cut file can be read.
INDEX_FIRST = {"options": {"g": "10"}, "container_options": {"movflags": "faststart"}}


def _good(file: Path) -> None:
    write_clip(file, FRAMES, **INDEX_FIRST)


def _cut(file: Path) -> None:
    content, start = _intra(file)
    file.write_bytes(content[: start + (len(content) - start) // 2])


def _cut_before_index(file: Path) -> None:
    write_clip(file, FRAMES)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 6 // 10])


def _damaged(file: Path) -> None:
    """Random bytes in the place of the second half of the pictures."""
    content, start = _intra(file)
    middle = start + (len(content) - start) // 2
    file.write_bytes(content[:middle] + np.random.default_rng(0).bytes(len(content) - middle))


def _intra(file: Path) -> tuple[bytes, int]:
    """A clip whose pictures take much the same space each, and where they begin."""
    write_clip(file, FRAMES, options={"g": "1", "crf": "10"}, container_options={"movflags": "faststart"})
    content = file.read_bytes()
    return content, content.index(b"mdat")


def _no_frames(file: Path) -> None:
    with av.open(str(file), "w", options={"movflags": "empty_moov"}) as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        container.start_encoding()


def _sound_alone(file: Path) -> None:
    with av.open(str(file), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 8000, 0, Fraction(1, 8000)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _ten_bits(file: Path) -> None:
    write_clip(file, 3, pix_fmt="yuv420p10le", options={"crf": "0"})


def _turned(file: Path) -> None:
    write_clip(file, 3, options={"crf": "0"})
    set_display_matrix(file, (0, 1, -1, 0))


def _variable_rate(file: Path) -> None:
    write_clip(file, 6, times=[0, 20, 120, 220, 500, 600])


def _long(file: Path) -> None:
    """LONG frames that count from 0 to 15 again and again: sixteen pictures are encoded, and their packets repeated."""
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mjpeg", rate=25, options={"qmin": "1", "qmax": "2"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuvj420p"
        encoded = []
        for number in range(16):
            frame = av.VideoFrame.from_ndarray(numbered_picture(number, *SIZE), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            encoded += [bytes(packet) for packet in stream.encode(frame)]
        for number in range(LONG):
            packet = av.Packet(encoded[number % 16])
            packet.stream, packet.is_keyframe = stream, True
            packet.pts = packet.dts = number
            packet.duration, packet.time_base = 1, Fraction(1, 25)
            container.mux(packet)


CLIPS: dict[str, Callable[[Path], object]] = {
    "good.mp4": _good,
    "text.mp4": lambda file: file.write_text("This is a text.\n" * 100),
    "empty.mp4": lambda file: file.write_bytes(b""),
    "cut.mp4": _cut,
    "cut_before_index.mp4": _cut_before_index,
    "damaged.mp4": _damaged,
    "no_frames.mp4": _no_frames,
    "one_frame.mp4": lambda file: write_clip(file, 1),
    "sound_alone.mp4": _sound_alone,
    "ten_bits.mp4": _ten_bits,
    "turned.mp4": _turned,
    "variable_rate.mp4": _variable_rate,
    "odd_size.mkv": lambda file: write_clip(file, 3, size=(71, 53), **LOSSLESS),
    "long.mp4": _long,
    "ünï codé 视频 😀.mp4": _good,
}


def write(name: str, folder: Path) -> Path:
    """Writes the clip of this name into `folder`."""
    file = folder / name
    CLIPS[name](file)
    return file

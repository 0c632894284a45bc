"""Makes small clips whose frames carry their own number, and reads it back from a picture of any size."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np

_GRID = 4
NTSC_FILM = Fraction(24000, 1001)
LOSSLESS = {"codec": "ffv1", "pix_fmt": "bgr0"}
"""Codec settings that give back the very pixels, every frame a keyframe."""


def numbered_picture(number: int, width: int, height: int) -> np.ndarray:
    """A picture [height, width, 3] of 4·4 grey blocks: the bits of `number`."""
    rows = np.arange(height) * _GRID // height
    columns = np.arange(width) * _GRID // width
    bits = (number >> (rows[:, None] * _GRID + columns[None, :])) & 1
    return np.repeat((32 + bits * 192).astype(np.uint8)[..., None], 3, axis=-1)


def read_number(picture: Any) -> int:
    """The number in a picture [height, width, 3] of values in 0..1."""
    picture = np.asarray(picture)
    height, width = picture.shape[:2]
    centres = [(2 * k + 1) / (2 * _GRID) for k in range(_GRID)]
    bits = [picture[int(y * height), int(x * width)].mean() > 0.5 for y in centres for x in centres]
    return sum(int(bit) << position for position, bit in enumerate(bits))


def write_clip(
    path: pathlib.Path,
    frames: int = 48,
    *,
    rate: Fraction = NTSC_FILM,
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    times: Sequence[int] | None = None,
    audio: np.ndarray | None = None,
    audio_codec: str = "pcm_s16le",
    sample_rate: int = 8000,
    pictures: Sequence[np.ndarray] | None = None,
    container_options: dict[str, str] | None = None,
    format: str | None = None,
) -> pathlib.Path:
    """Write numbered frames at `rate`, or at `times` in milliseconds, and `audio` [channels, samples] in -1..1."""
    with av.open(str(path), "w", format=format, options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        sound = None if audio is None else _audio_stream(container, audio_codec, sample_rate, audio.shape[0])
        for number in range(frames):
            picture = numbered_picture(number, *size) if pictures is None else pictures[number]
            frame = av.VideoFrame.from_ndarray(picture, format="rgba" if picture.shape[2] == 4 else "rgb24")
            frame.pts = number if times is None else times[number]
            frame.time_base = 1 / rate if times is None else Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            write_audio(container, sound, audio, sample_rate)
    return path


def _audio_stream(container: Any, codec: str, sample_rate: int, channels: int) -> Any:
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[channels]
    return container.add_stream(codec, rate=sample_rate, layout=layout)


def write_audio(container: Any, stream: Any, audio: np.ndarray, sample_rate: int) -> None:
    """Encode sound [channels, samples] in -1..1 into a stream of a container."""
    piece = 1024
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[audio.shape[0]]
    for first in range(0, audio.shape[1], piece):
        samples = np.ascontiguousarray(audio[:, first : first + piece].astype(np.float32))
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = sample_rate, first, Fraction(1, sample_rate)
        converter = av.AudioResampler(format=stream.format.name, layout=layout, rate=sample_rate)
        for converted in converter.resample(frame):
            container.mux(stream.encode(converted))
    container.mux(stream.encode(None))


def set_display_matrix(path: pathlib.Path, matrix: tuple[int, int, int, int]) -> None:
    """Write (a, b, c, d) into the track header of an MP4: how players turn or mirror its pictures."""
    data = bytearray(path.read_bytes())
    header = data.index(b"tkhd") + 4
    assert data[header] == 0, "a version 0 track header is expected"
    a, b, c, d = (value * 65536 for value in matrix)
    values = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], dtype=">i4").tobytes()
    data[header + 40 : header + 76] = values
    path.write_bytes(bytes(data))

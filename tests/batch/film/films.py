"""Films to test with: moving pictures of known frames, with cuts at known places, and sound."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, RATE = 96, 64, Fraction(24)


def scene(number: int, frames: int) -> list[NDArray[np.uint8]]:
    """A textured picture, another one for each number, that drifts."""
    random = np.random.default_rng(number)
    small = random.integers(0, 256, (9, 18, 3), dtype=np.uint8)
    tint = random.integers(0, 128, 3)
    wide = cv2.resize(small, (2 * WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) // 2 + tint.astype(np.uint8)
    return [np.ascontiguousarray(wide[:, step : step + WIDTH]) for step in np.arange(frames) % WIDTH]


def write(
    file: Path,
    frames: Iterable[NDArray[np.uint8]],
    sound: str | None = "aac",
    times: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """A film; times: of its frames, in 600ths of a second, where they are not evenly spaced."""
    frames = list(frames)
    with av.open(str(file), "w") as container:
        picture = container.add_stream("libx264", rate=RATE, options=options or {})
        picture.width, picture.height, picture.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        picture.time_base = picture.codec_context.time_base = Fraction(1, 600)
        heard = (
            container.add_stream(sound, rate=48000, layout="mono" if "pcm" in sound else "stereo") if sound else None
        )
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts, frame.time_base = (times or range(0, 25 * len(frames), 25))[number], Fraction(1, 600)
            container.mux(picture.encode(frame))
        container.mux(picture.encode())
        if heard is not None:
            wave = np.sin(np.arange(2000 * len(frames)) / 9)
            samples = np.stack([wave, wave / 2]).astype(np.float32)
            for start in range(0, samples.shape[1], 1024):
                block = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[:, start : start + 1024]), "fltp")
                block.pts, block.sample_rate, block.time_base = start, 48000, Fraction(1, 48000)
                container.mux(heard.encode(block))
            container.mux(heard.encode())
    return file


def sound_packets(file: Path) -> list[tuple[Fraction, bytes]]:
    """When each packet of a file's sound is heard, and its bytes."""
    with av.open(str(file)) as container:
        return [(packet.pts * packet.time_base, bytes(packet)) for packet in container.demux(audio=0) if packet.size]


def shown(file: Path) -> list[tuple[Fraction, NDArray[np.uint8]]]:
    """When each frame of a file is shown, and its picture."""
    with av.open(str(file)) as container:
        return [(frame.pts * frame.time_base, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]

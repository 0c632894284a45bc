"""Loading a clip: select, decode, resize, and say beforehand what it will take."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from . import BrokenStreamError, VideoError
from .frame_buffer import FrameBuffer, as_text, available_memory, bytes_needed
from .frame_selection import Selection, ShownFrame, expected_count, hold_until_next, result_rate, select_frames
from .resizing import Fit, fit_picture, target_size
from .sources import ClipSource

logger = logging.getLogger(__name__)

# A clip that ends this much before its claimed end (seconds, and share of its length) is cut off.
_MISSING_SECONDS = Fraction(1, 2)
_MISSING_SHARE = Fraction(1, 10)


@dataclass(frozen=True)
class LoadedClip:
    """images [frames, height, width, 3] float32 in 0..1, their rate in frames a second, the sound of the same span."""

    images: Tensor
    rate: Fraction
    audio: dict[str, Any] | None


def load_clip(
    source: ClipSource,
    selection: Selection,
    width: int = 0,
    height: int = 0,
    fit: Fit = "crop",
    interrupt: Callable[[], None] = lambda: None,
    progress: Callable[[int, int], None] = lambda done, expected: None,
) -> LoadedClip:
    """Read the selected frames of a clip, decoding no more of it than they need.

    `width` or `height` 0 follows the other side; both 0 keep the clip's size.
    `interrupt` is called for every frame that is decoded or returned, and may raise; `progress` with the number of
    frames done and expected. Raises VideoError where nothing would come out, the clip breaks off, or memory does not
    suffice.
    """
    info = source.info
    size = target_size(width, height, info.width * info.pixel_aspect, info.height)
    expected = expected_count(source.count(interrupt), info.rate, selection)
    _announce(source, expected, size)
    buffer = FrameBuffer(expected, size, info.name)
    progress(0, max(expected, 1))
    reading = _Reading()
    for picture in _pictures(source, selection, size, fit, reading, interrupt):
        buffer.append(picture)
        progress(len(reading.times), max(expected, len(reading.times)))
    times = reading.times
    if not selection.frame_cap or len(times) < selection.frame_cap:
        _check_whole(source, reading)
    if not times:
        raise _nothing_selected(source, selection, reading.last)

    rate = result_rate(times, info.rate, info.tick, selection)
    logger.info("Video Load: %s: %d frames at %.6g fps.", info.name, len(times), float(rate))
    return LoadedClip(buffer.images(), rate, source.audio(times[0], len(times) / rate, interrupt))


@dataclass
class _Reading:
    """How far a clip has been read: the returned frames' times, the last frame seen, the decoder's last words."""

    times: list[Fraction] = field(default_factory=list)
    last: ShownFrame | None = None
    failure: str | None = None

    def watch(self, frames: Iterable[ShownFrame]) -> Iterator[ShownFrame]:
        for self.last in frames:
            yield self.last


def _pictures(
    source: ClipSource,
    selection: Selection,
    size: tuple[int, int],
    fit: Fit,
    reading: _Reading,
    interrupt: Callable[[], None],
) -> Iterator[NDArray]:
    """The selected pictures at their size, up to the end or a break of the clip. Repeated frames are resized once."""
    previous: ShownFrame | None = None
    with closing(source.frames(selection, interrupt)) as frames:
        try:
            for time, frame in select_frames(reading.watch(hold_until_next(frames)), selection):
                interrupt()
                if frame is not previous:
                    picture = fit_picture(source.picture(frame), source.info.pixel_aspect, size, fit)
                    previous = frame
                reading.times.append(time)
                yield picture
        except BrokenStreamError as error:
            reading.failure = str(error)


def _announce(source: ClipSource, expected: int, size: tuple[int, int]) -> None:
    """Say what will be read and how much memory that takes."""
    info = source.info
    logger.info(
        "Video Load: %s (%dx%d, %.6g fps): about %d frames of %dx%d will be read and take %s of memory; %s is free.",
        info.name,
        info.width,
        info.height,
        float(info.rate),
        expected,
        *size,
        as_text(bytes_needed(expected, size)),
        as_text(available_memory()),
    )


def _check_whole(source: ClipSource, reading: _Reading) -> None:
    """Raise VideoError if the clip broke off before its end."""
    count, failure = len(reading.times), reading.failure
    length = None if source.joined else source.info.length
    end = reading.last.end if reading.last else Fraction(0)
    missing = length - end if length else Fraction(0)
    if failure is None and missing <= max(_MISSING_SECONDS, _MISSING_SHARE * (length or 0)):
        return
    claimed = f" of the {float(length):.2f} s it claims to last" if length else ""
    why = f" (FFmpeg: {failure})" if failure else ""
    remedy = f"set frame_cap to {count} or less to use them" if count else "choose an earlier start"
    raise VideoError(
        f"{source.info.name} breaks off after {float(end):.2f} s{claimed}{why}. Before that, {count} of the requested "
        f"frames could be read, the last few perhaps with gaps. Copy or upload the file again, or {remedy}."
    )


def _nothing_selected(source: ClipSource, selection: Selection, last: ShownFrame | None) -> VideoError:
    name = source.info.name
    if last is None:
        return VideoError(f"{name} contains no readable frame. The file is damaged: upload it again.")
    if selection.start_unit == "frame":
        return VideoError(
            f"{name} has {last.index + 1} frames ({float(last.end):.2f} s), numbered from 0, so there is nothing from "
            f"frame {int(selection.start)} on. Choose a start below {last.index + 1}."
        )
    return VideoError(
        f"{name} is {float(last.end):.2f} s long, so there is nothing from {float(selection.start):g} s on. "
        f"Choose a start below {float(last.end):.2f} s."
    )

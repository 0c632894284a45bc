"""Loading a clip: select, decode, resize, and say beforehand what it will take."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import BrokenStreamError, VideoError
from .frame_buffer import FrameBuffer, as_text, available_memory, bytes_needed
from .frame_selection import Selection, ShownFrame, expected_count, hold_until_next, result_rate, select_frames
from .resizing import Framing, fit_picture, target_size
from .sources import ClipSource

logger = logging.getLogger(__name__)

# A clip that ends this much before its claimed end (seconds, and share of its length) is cut off.
_MISSING_SECONDS = Fraction(1, 2)
_MISSING_SHARE = Fraction(1, 10)


@dataclass(frozen=True)
class LoadedClip:
    """A clip in memory.

    Attributes:
        images: [frames, height, width, 3] float32 in 0..1.
        rate: their frames a second.
        audio: the sound of the same span.
        mask: [frames, height, width], 1 where the clip is transparent; one of zeros where it never is.
    """

    images: Tensor
    rate: Fraction
    audio: dict[str, Any] | None
    mask: Tensor


@dataclass(frozen=True)
class Look:
    """How the pictures of a clip are shown: `framing` in a picture of another shape, transparent over `background`, a
    shade of grey in 0..1."""

    framing: Framing = Framing()
    background: float = 0.0


def load_clip(
    source: ClipSource,
    selection: Selection,
    width: int = 0,
    height: int = 0,
    look: Look = Look(),
    interrupt: Callable[[], None] = lambda: None,
    progress: Callable[[int, int], None] = lambda done, expected: None,
) -> LoadedClip:
    """Read the selected frames of a clip, decoding no more of it than they need.

    `width` or `height` 0 follows the other side; both 0 keep the clip's size. `look`: see there.
    `interrupt` is called for every frame that is decoded or returned, and may raise; `progress` with the number of
    frames done and expected. Raises VideoError where nothing would come out, the clip breaks off, or memory does not
    suffice.
    """
    info = source.info
    size = target_size(width, height, info.width * info.pixel_aspect, info.height)
    expected = expected_count(source.count(interrupt), info.rate, selection)
    _announce(source, expected, size)
    buffer, masks = FrameBuffer(expected, size, info.name), None
    progress(0, max(expected, 1))
    reading = _Reading()
    for picture, transparency in _pictures(source, selection, size, look, reading, interrupt):
        buffer.append(picture)
        if transparency is not None:
            masks = masks or FrameBuffer(expected, size, f"the mask of {info.name}", 1)
            masks.append(transparency)
        progress(len(reading.times), max(expected, len(reading.times)))
    times = reading.times
    if not selection.frame_cap or len(times) < selection.frame_cap:
        _check_whole(source, reading)
    if not times:
        raise _nothing_selected(source, selection, reading.last)

    rate = result_rate(times, info.rate, info.tick, selection)
    logger.info("Video Load: %s: %d frames at %.6g fps.", info.name, len(times), float(rate))
    audio = source.audio(times[0], len(times) / rate, interrupt)
    mask = torch.zeros(1, size[1], size[0]) if masks is None else masks.images()[..., 0]
    return LoadedClip(buffer.images(), rate, audio, mask)


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
    look: Look,
    reading: _Reading,
    interrupt: Callable[[], None],
) -> Iterator[tuple[NDArray, NDArray | None]]:
    """The selected pictures at their size, up to the end or a break of the clip, and of clips with transparency how
    transparent they are. Repeated frames are resized once."""
    previous: ShownFrame | None = None
    aspect = source.info.pixel_aspect
    with closing(source.frames(selection, interrupt)) as frames:
        try:
            for time, frame in select_frames(reading.watch(hold_until_next(frames)), selection):
                interrupt()
                if frame is not previous:
                    picture, clear = _over_background(source.picture(frame), look.background)
                    picture = fit_picture(picture, aspect, size, look.framing)
                    clear = None if clear is None else fit_picture(clear, aspect, size, look.framing)
                    previous = frame
                reading.times.append(time)
                yield picture, clear
        except BrokenStreamError as error:
            reading.failure = str(error)


def _over_background(picture: NDArray, background: float) -> tuple[NDArray, NDArray | None]:
    """A picture [h, w, 3], or [h, w, 4] over the background; and how transparent the latter is, [h, w, 1]."""
    if picture.shape[-1] == 3:
        return picture, None
    white = 255 if picture.dtype == np.uint8 else 1
    clear = white - picture[..., 3:]
    shown = picture[..., :3] + (background * white - picture[..., :3]) * (clear.astype(np.float32) / white)
    return (shown.round() if white == 255 else shown).astype(picture.dtype), clear


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
    fields = "it is interlaced, so the fields of each frame are joined by FFmpeg's bwdif" if info.interlaced else ""
    for remark in filter(None, (info.colours.remark, fields)):
        logger.warning("Video Load: %s: %s.", info.name, remark)


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

"""Opening a file with FFmpeg and reading what it says of itself."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from .errors import BrokenStreamError, VideoError
from .file_format import HEAD_BYTES, KNOWN, recognise
from .orientation import UPRIGHT, Matrix, display_matrix, is_turned

# What PyAV raises on damaged files: besides FFmpeg's errors, an index error where a stream appears half-way, and an
# overflow for a time beyond 64 bits.
DAMAGE = (av.error.FFmpegError, IndexError, OverflowError)
# They store a time with every picture. Elsewhere (MPEG-PS, Ogg) times are worked out while reading, and come out
# differently after a seek; those are read from the first frame on.
_SEEKABLE_FORMATS = {"mov", "matroska", "mpegts", "flv", "nut", "mxf"}
# Their timestamps count stored pictures, not shown ones; the rate is constant by definition.
_UNTIMED_FORMATS = {"avi"}
# Their packets may hold pictures that are never shown, so packets cannot be counted in place of frames.
_UNCOUNTABLE_CODECS = {"vp8"}
_DURATION_TAG = re.compile(r"(\d+):(\d+):(\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class ClipInfo:
    """What is known of a clip before it is read.

    `width` and `height` in pixels as shown, `pixel_aspect` a pixel's width over its height, `matrix` how stored
    pictures are turned to be shown. `rate` in frames a second, `tick` the timestamps' resolution in seconds,
    `first_pts` the timestamp of the first frame and `origin` the same in seconds. `frames` and `length` (seconds) are
    what the file claims, None where it does not.
    Without `timed` the frames are taken to be evenly spaced; without `seekable` they are read from the first on.
    """

    name: str
    width: int
    height: int
    rate: Fraction
    pixel_aspect: Fraction = Fraction(1)
    matrix: Matrix = UPRIGHT
    tick: Fraction = Fraction(0)
    first_pts: int = 0
    origin: Fraction = Fraction(0)
    frames: int | None = None
    length: Fraction | None = None
    timed: bool = True
    seekable: bool = True


@contextmanager
def open_container(source: str | io.BytesIO, name: str) -> Iterator[InputContainer]:
    """Open a path or a buffer from its beginning. Raises VideoError for what is not a video file."""
    head = _read_head(source)
    if not head:
        raise VideoError(f"{name} is empty (0 bytes). The upload probably failed: upload the video again.")
    format_name = recognise(head)
    if format_name is None:
        raise VideoError(
            f"{name} is not a video that can be read, whatever its name says: it begins like none of {KNOWN}. "
            "If it plays elsewhere, convert it to MP4 or MKV."
        )
    try:
        container = av.open(source, mode="r", format=format_name, metadata_errors="replace")
    except (*DAMAGE, OSError) as error:
        raise VideoError(
            f"{name} begins like a video, but cannot be opened (FFmpeg: {reason(error)}). The file is damaged or cut "
            "off: copy or upload it again."
        ) from error
    with container:
        yield container


def video_stream(container: InputContainer, name: str) -> VideoStream:
    """The first stream of moving pictures. Raises VideoError where there is none (sound with a cover is none)."""
    for stream in container.streams.video:
        if stream.codec_context is not None and not stream.disposition & Disposition.attached_pic:
            # One thread a picture or a slice, as the codec allows: several times faster, same pictures.
            stream.thread_type = "AUTO"
            return stream
    if container.streams.video and container.streams.video[0].codec_context is None:
        raise VideoError(f"{name} uses a video codec that FFmpeg cannot decode here. Convert it to H.264.")
    if container.streams.audio:
        raise VideoError(f"{name} holds sound but no video. Choose a video file.")
    raise VideoError(f"{name} holds no video. The file is probably cut off before its index: copy or upload it again.")


def probe(source: str | io.BytesIO, name: str) -> ClipInfo:
    """Read a clip's facts from its metadata and its first frame. Raises VideoError where there is no frame."""
    with open_container(source, name) as container:
        stream = video_stream(container, name)
        try:
            first = next(container.decode(stream), None)
        except DAMAGE as error:
            raise VideoError(
                f"{name}: the first frame cannot be decoded (FFmpeg: {reason(error)}). The file is damaged or cut off."
            ) from error
        if first is None:
            raise VideoError(f"{name} holds a video stream with 0 frames. The file is damaged or cut off.")
        return _describe(container, stream, first, name, recognise(_read_head(source)))


def reason(error: BaseException) -> str:
    """FFmpeg's own words, without the path and number around them."""
    return getattr(error, "strerror", None) or str(error)


def broken(error: BaseException) -> BrokenStreamError:
    return BrokenStreamError(reason(error))


def _read_head(source: str | io.BytesIO) -> bytes:
    if isinstance(source, io.BytesIO):
        head = bytes(source.getbuffer()[:HEAD_BYTES])
        source.seek(0)
        return head
    with open(source, "rb") as file:
        return file.read(HEAD_BYTES)


def _describe(
    container: InputContainer, stream: VideoStream, first: VideoFrame, name: str, format_name: str | None
) -> ClipInfo:
    timed = first.pts is not None and format_name not in _UNTIMED_FORMATS
    rate = _nominal_rate(stream)
    origin = first.pts * stream.time_base if timed else Fraction(0)
    length = _declared_length(container, stream, origin)
    aspect = Fraction(stream.sample_aspect_ratio or 1)
    matrix = display_matrix(first)
    turned = is_turned(matrix)
    return ClipInfo(
        name=name,
        width=first.height if turned else first.width,
        height=first.width if turned else first.height,
        rate=rate,
        pixel_aspect=1 / aspect if turned else aspect,
        matrix=matrix,
        tick=Fraction(stream.time_base) if timed else Fraction(0),
        first_pts=first.pts if timed else 0,
        origin=origin,
        frames=stream.frames or (round(length * rate) if length else None),
        length=length,
        timed=timed,
        seekable=timed and format_name in _SEEKABLE_FORMATS and _pairs_off(stream, first),
    )


def _pairs_off(stream: VideoStream, first: VideoFrame) -> bool:
    """Whether each packet holds one shown picture. The two fields of an interlaced one may have a packet each."""
    return not first.interlaced_frame and stream.codec_context.name not in _UNCOUNTABLE_CODECS


def _nominal_rate(stream: VideoStream) -> Fraction:
    """Frames a second. A mean over rounded timestamps that all but equals the rate FFmpeg deduces stands for that."""
    mean, deduced = stream.average_rate, stream.guessed_rate
    if mean and deduced and abs(deduced / mean - 1) < Fraction(1, 1000):
        return Fraction(deduced)
    return Fraction(mean or deduced or 25)


def _declared_length(container: InputContainer, stream: VideoStream, origin: Fraction) -> Fraction | None:
    """The length in seconds that the file claims for its pictures; the sound's length must not pass for it."""
    if stream.duration:
        return stream.duration * stream.time_base
    if tag := _DURATION_TAG.match(stream.metadata.get("DURATION", "")):
        hours, minutes, seconds = (Fraction(part) for part in tag.groups())
        return hours * 3600 + minutes * 60 + seconds - origin
    if container.duration and len(container.streams) == 1:
        return Fraction(container.duration, av.time_base)
    return None

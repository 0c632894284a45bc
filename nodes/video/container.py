"""Opening a file with FFmpeg and reading what it says of itself.

FFmpeg is told which format to read, never left to guess: among the formats that it guesses are playlists (concat, HLS,
DASH), which open the files they name, wherever those lie and whatever the playlist itself is called.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from . import VideoError
from .colours import Colours, colours_of

_HEAD_BYTES = 1024
_KNOWN = "MP4, MOV, MKV, WebM, AVI, MPEG-TS, MPEG, WMV, FLV, Ogg, MXF, NUT, IVF, GIF or APNG"
_BEGINNINGS = {
    b"\x1aE\xdf\xa3": "matroska",
    b"\x00\x00\x01\xba": "mpeg",
    b"\x00\x00\x01\xb3": "mpegvideo",
    b"0&\xb2u\x8ef\xcf\x11": "asf",
    b"FLV\x01": "flv",
    b"OggS": "ogg",
    b"\x06\x0e+4": "mxf",
    b"nut/multimedia container\x00": "nut",
    b"DKIF": "ivf",
    b"GIF8": "gif",
}
_MOVIE_BOXES = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"}
# Length of a transport stream packet and the offset of its sync byte: plain, with time codes, with error correction.
_TRANSPORT_PACKETS = ((188, 0), (192, 4), (204, 0))
# Names under which such files are kept, beside those that ComfyUI knows for videos.
ENDINGS = tuple(
    f".{ending}"
    for ending in "mp4 m4v mov qt 3gp 3g2 mj2 mkv mk3d webm avi divx ts m2t m2ts mts tp trp mpg mpeg mpe m2p ps vob "
    "m1v m2v mpv wmv asf flv f4v ogv ogg ogm mxf nut ivf gif apng".split()
)
# What PyAV raises on damaged files: besides FFmpeg's errors, an index error where a stream appears half-way, and an
# overflow for a time beyond 64 bits.
DAMAGE = (av.error.FFmpegError, IndexError, OverflowError)
# They store a time with every picture. Elsewhere (MPEG-PS, Ogg) times are worked out while reading, and come out
# differently after a seek; those are read from the first frame on.
_SEEKABLE_FORMATS = {"mov", "matroska", "mpegts", "flv", "nut", "mxf"}
# Recordings of broadcasts: pieces are joined byte by byte, and clocks are set anew.
_BROADCAST_FORMATS = {"mpegts", "mpeg"}
# Their timestamps count stored pictures, which tell when one is shown only where a decoder neither reorders nor waits.
_COUNTING_FORMATS = {"avi"}
# Their packets may hold pictures that are never shown, so packets cannot be counted in place of frames.
_UNCOUNTABLE_CODECS = {"vp8"}
# FFmpeg's own decoders of these pass over the transparency that Matroska and WebM keep beside a picture.
_TRANSPARENT_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
_DURATION_TAG = re.compile(r"(\d+):(\d+):(\d+(?:\.\d+)?)")

Matrix = tuple[int, int, int, int]
"""(a, b, c, d): a stored point (x, y) is shown at (a·x + c·y, b·x + d·y)."""
UPRIGHT: Matrix = (1, 0, 0, 1)


@dataclass(frozen=True)
class ClipInfo:
    """What is known of a clip before it is read.

    `width` and `height` in pixels as shown, `pixel_aspect` a pixel's width over its height, `matrix` how stored
    pictures are turned to be shown. `rate` in frames a second, `tick` the timestamps' resolution in seconds,
    `first_pts` the timestamp of the first frame and `origin` the same in seconds. `frames` and `length` (seconds) are
    what the file claims, None where it does not. `interlaced` pictures hold two fields of different moments.
    Without `timed` the frames are taken to be evenly spaced; without `seekable` they are read from the first on. With
    `jumps` their times may leap forwards where another recording begins.
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
    jumps: bool = False
    interlaced: bool = False
    colours: Colours = Colours()

    def time_of(self, pts: int) -> Fraction:
        """Seconds since the clip's first frame of a presentation timestamp.

        Containers round timestamps to their ticks (a millisecond in Matroska). A time within one tick of the grid of
        `rate` is put back onto it, so that 24000/1001 stays 24000/1001 after any number of frames.
        """
        time = (pts - self.first_pts) * self.tick
        # A tick as long as a frame counts frames: such times are exact, and another rate must not bend them.
        if self.tick * self.rate * 4 > 1:
            return time
        nearest = Fraction(round(time * self.rate)) / self.rate
        return nearest if abs(nearest - time) <= self.tick else time


@contextmanager
def open_container(source: str | io.BytesIO, name: str) -> Iterator[InputContainer]:
    """Open a path or a buffer from its beginning. Raises VideoError for what is not a video file."""
    head = _read_head(source)
    if not head:
        raise VideoError(f"{name} is empty (0 bytes). The upload probably failed: upload the video again.")
    format_name = _format_of(head)
    if format_name is None:
        raise VideoError(
            f"{name} is not a readable video, whatever its name says: it does not begin like {_KNOWN}. "
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


@contextmanager
def open_video(source: str | io.BytesIO, name: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file and the stream of moving pictures that FFmpeg and players choose: the default, else the best one.

    Raises VideoError where there is none; sound with a cover picture has none.
    """
    with open_container(source, name) as container:
        stream = container.streams.best("video")
        if stream is None or stream.codec_context is None or stream.disposition & Disposition.attached_pic:
            if container.streams.video and container.streams.video[0].codec_context is None:
                raise VideoError(f"{name} uses a video codec that FFmpeg cannot decode here. Convert it to H.264.")
            if container.streams.audio:
                raise VideoError(f"{name} contains sound but no video. Choose a video file.")
            raise VideoError(
                f"{name} contains no video. The file is probably cut off before its index: copy or upload it again."
            )
        # One thread a picture or a slice, as the codec allows: several times faster, same pictures.
        stream.thread_type = "AUTO"
        yield container, stream


def decoder_of(stream: VideoStream) -> Callable[[av.Packet], list[VideoFrame]]:
    """What makes frames of the stream's packets."""
    name = _TRANSPARENT_DECODERS.get(stream.codec_context.name)
    if stream.metadata.get("alpha_mode") != "1" or name not in av.codecs_available:
        return lambda packet: packet.decode()
    return av.CodecContext.create(name, "r").decode


def decoded(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """All frames from where the container stands."""
    decode = decoder_of(stream)
    for packet in container.demux(stream):
        yield from decode(packet)


def probe(source: str | io.BytesIO, name: str) -> ClipInfo:
    """Read a clip's facts from its metadata and its first frame. Raises VideoError where there is no frame."""
    with open_video(source, name) as (container, stream):
        try:
            first = next(decoded(container, stream), None)
        except DAMAGE as error:
            raise VideoError(
                f"{name}: the first frame cannot be decoded (FFmpeg: {reason(error)}). The file is damaged or cut off."
            ) from error
        if first is None:
            raise VideoError(f"{name} contains a video stream with 0 frames. The file is damaged or cut off.")
        format_name = _format_of(_read_head(source))
        waits = stream.codec_context.has_b_frames or first.pts
        timed = first.pts is not None and not (waits and format_name in _COUNTING_FORMATS)
        # The two fields of an interlaced picture may have a packet each.
        paired = not first.interlaced_frame and stream.codec_context.name not in _UNCOUNTABLE_CODECS
        origin = first.pts * stream.time_base if timed else Fraction(0)
        rate = _nominal_rate(stream)
        length = _declared_length(container, stream, origin)
        aspect = Fraction(stream.sample_aspect_ratio or 1)
        matrix = _display_matrix(first)
        turned = _is_turned(matrix)
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
            seekable=timed and paired and format_name in _SEEKABLE_FORMATS,
            jumps=timed and format_name in _BROADCAST_FORMATS,
            interlaced=bool(first.interlaced_frame),
            colours=colours_of(container, stream, first),
        )


def turn_upright(picture: NDArray, matrix: Matrix) -> NDArray:
    """The shown picture [height, width, 3] of a stored one; a view."""
    a, b, c, d = matrix
    if _is_turned(matrix):
        picture = picture.transpose(1, 0, 2)
        a, d = c, b
    picture = picture[:, ::-1] if a < 0 else picture
    return picture[::-1] if d < 0 else picture


def reason(error: BaseException) -> str:
    """FFmpeg's own words, without the path and number around them."""
    return getattr(error, "strerror", None) or str(error)


def _read_head(source: str | io.BytesIO) -> bytes:
    if isinstance(source, io.BytesIO):
        source.seek(0)
        return bytes(source.getbuffer()[:_HEAD_BYTES])
    with open(source, "rb") as file:
        return file.read(_HEAD_BYTES)


def _format_of(head: bytes) -> str | None:
    """FFmpeg's name for the format of a file that begins with `head`, or None if it is none of those known."""
    for beginning, name in _BEGINNINGS.items():
        if head.startswith(beginning):
            return name
    if head[4:8] in _MOVIE_BOXES:
        return "mov"
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return "avi"
    if head.startswith(b"\x89PNG") and b"acTL" in head:
        return "apng"
    if any(head[offset : 4 * length : length] == b"GGGG" for length, offset in _TRANSPORT_PACKETS):
        return "mpegts"
    return None


def _display_matrix(frame: VideoFrame) -> Matrix:
    """How the metadata of a decoded frame says that its clip is to be turned and mirrored.

    Not for every frame: PyAV keeps one whose side data was looked at until the next garbage collection.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return UPRIGHT
    a, b, _, c, d = np.frombuffer(bytes(data), dtype=np.int32)[:5].tolist()
    return a, b, c, d


def _is_turned(matrix: Matrix) -> bool:
    """Whether pictures are stored lying on their side, so that the stored width is the shown height."""
    return abs(matrix[1]) > abs(matrix[0])


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

"""Decoded frames in display order, one at a time: from the first frame, or from a keyframe before the wanted one."""

from __future__ import annotations

import io
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from .container import DAMAGE, ClipInfo, broken, open_container, video_stream
from .frame_selection import FrameClock, Selection, ShownFrame

# Decoders reorder by at most 16 pictures (H.264 and HEVC); this many further packets settle the order of those before.
_REORDERED_PACKETS = 32
# Where a seek lands after the wanted frame, it is tried again this many seconds earlier.
_SEEK_MARGINS = (0, 2, 10)


class _SeekMissedError(Exception):
    """The wanted frame cannot be reached exactly by a seek; nothing has been handed over yet."""


@dataclass(frozen=True)
class _Start:
    """A frame to begin at: its timestamp, and the clip's first timestamps in display order where it has a number."""

    pts: int
    order: dict[int, int] | None = None
    index: int = 0


def read_frames(
    source: str | io.BytesIO, info: ClipInfo, selection: Selection, interrupt: Callable[[], None]
) -> Generator[ShownFrame, None, None]:
    """Frames of a clip from the selection's start, or from some frame before it, to the clip's end.

    `picture` is the decoded av.VideoFrame, `end` is begin plus the frame's own duration. Indices count from the clip's
    first frame, except after a seek to a start in seconds. `interrupt` is called for each decoded frame and may raise.
    Raises BrokenStreamError where the decoder fails, after the frames before that.
    """
    clock = FrameClock(info.first_pts, info.tick, info.rate)
    start = _find_start(source, info, selection, interrupt) if info.seekable and selection.start > 0 else None
    if start is not None:
        try:
            for index, frame in enumerate(_decode_from(source, info, start, interrupt), start.index):
                yield _shown(index, frame, info, clock)
            return
        except _SeekMissedError:
            pass
    for index, frame in enumerate(_decode_all(source, info, interrupt)):
        yield _shown(index, frame, info, clock)


def count_packets(source: str | io.BytesIO, info: ClipInfo, interrupt: Callable[[], None]) -> int:
    """The number of stored pictures up to the end or a break, by reading the file through without decoding."""
    count = 0
    with open_container(source, info.name) as container, suppress(*DAMAGE):
        for _ in _packets(container, video_stream(container, info.name), interrupt):
            count += 1
    return count


def _shown(index: int, frame: VideoFrame, info: ClipInfo, clock: FrameClock) -> ShownFrame:
    timed = info.timed and frame.pts is not None
    begin = clock.time(frame.pts) if timed else index / info.rate
    own = getattr(frame, "duration", 0) * info.tick  # older PyAV has none
    return ShownFrame(index, begin, begin + (own or 1 / info.rate), frame)


def _find_start(
    source: str | io.BytesIO, info: ClipInfo, selection: Selection, interrupt: Callable[[], None]
) -> _Start | None:
    """The frame to seek to. A frame number is looked up among the packets' timestamps: nothing is decoded for it."""
    if selection.start_unit == "seconds":
        return _Start(info.first_pts + int(selection.start / info.tick))
    wanted = int(selection.start)
    times: list[int] = []
    try:
        with open_container(source, info.name) as container:
            for packet in _packets(container, video_stream(container, info.name), interrupt):
                if packet.pts is None:
                    return None
                times.append(packet.pts)
                if len(times) > wanted + _REORDERED_PACKETS:
                    break
    except DAMAGE:
        return None
    order = {pts: index for index, pts in enumerate(sorted(times))}
    if len(order) < len(times) or order.get(info.first_pts) != 0:
        return None
    index = min(wanted, len(times) - 1)
    return _Start(sorted(times)[index], order, index)


def _packets(container: InputContainer, stream: VideoStream, interrupt: Callable[[], None]) -> Iterator[av.Packet]:
    """Packets that hold a shown picture: an edit list marks those before a cut to be decoded and dropped."""
    for packet in container.demux(stream):
        interrupt()
        if packet.size and not packet.is_discard:
            yield packet


def _decode_all(source: str | io.BytesIO, info: ClipInfo, interrupt: Callable[[], None]) -> Iterator[VideoFrame]:
    with open_container(source, info.name) as container:
        try:
            for frame in container.decode(video_stream(container, info.name)):
                interrupt()
                yield frame
        except DAMAGE as error:
            raise broken(error) from error


def _decode_from(
    source: str | io.BytesIO, info: ClipInfo, start: _Start, interrupt: Callable[[], None]
) -> Iterator[VideoFrame]:
    """Frames from the start's number on, or from the keyframe before a start in seconds."""
    handed_over = False
    with open_container(source, info.name) as container:
        frames = _from_keyframe(container, video_stream(container, info.name), start.pts, interrupt)
        try:
            for frame in frames if start.order is None else _from_number(frames, start.order, start.pts):
                handed_over = True
                yield frame
        except DAMAGE as error:
            if handed_over:
                raise broken(error) from error
    if not handed_over:
        raise _SeekMissedError


def _from_keyframe(
    container: InputContainer, stream: VideoStream, pts: int, interrupt: Callable[[], None]
) -> Iterator[VideoFrame]:
    """Frames from the last keyframe at or before `pts` that the container's index leads to."""
    keyframe, packets = _seek_keyframe(container, stream, pts)
    arrived = False
    for packet in chain((keyframe,), packets):
        for frame in packet.decode():
            interrupt()
            # The first picture must be the keyframe's. A stream that refreshes gradually has none to show there, and
            # a picture shown before an open group's keyframe would lean on the group before it.
            if not arrived and frame.pts != keyframe.pts:
                raise _SeekMissedError
            arrived = True
            yield frame


def _seek_keyframe(container: InputContainer, stream: VideoStream, pts: int) -> tuple[av.Packet, Iterator[av.Packet]]:
    """A keyframe's packet at or before `pts`, and the packets after it."""
    for margin in _SEEK_MARGINS:
        container.seek(pts - int(margin / stream.time_base), stream=stream)
        packets = container.demux(stream)
        keyframe = next((packet for packet in packets if packet.is_keyframe and packet.pts is not None), None)
        if keyframe is not None and keyframe.pts <= pts:
            return keyframe, packets
    raise _SeekMissedError


def _from_number(frames: Iterator[VideoFrame], order: dict[int, int], pts: int) -> Iterator[VideoFrame]:
    """Frames from timestamp `pts` on, once packets and frames before it are seen to pair off one to one."""
    previous = None
    for frame in frames:
        if previous != order[pts]:
            number = order.get(frame.pts)
            if number is None or (previous is not None and number != previous + 1):
                raise _SeekMissedError
            previous = number
        if previous == order[pts]:
            yield frame

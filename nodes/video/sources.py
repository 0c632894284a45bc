"""Where frames come from: a file that is decoded as it is read, or pictures that are in memory already."""

from __future__ import annotations

import io
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import Any

import av
import numpy as np
import torch
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray
from torch import Tensor

from . import BrokenStreamError, VideoError
from .audio import cut_audio, read_audio
from .colours import Converter
from .container import DAMAGE, ClipInfo, decoded, decoder_of, open_video, probe, reason, turn_upright
from .filters import deinterlaced
from .frame_selection import Selection, ShownFrame
from .timeline import Timeline, starts_again

Interrupt = Callable[[], None]
# Decoders reorder by at most 16 pictures (H.264 and HEVC); this many further packets settle the order of those before.
_REORDERED_PACKETS = 32
# Where a seek lands after the wanted frame, it is tried again this many seconds earlier.
_SEEK_MARGINS = (0, 2, 10)


class VideoFile:
    """A video file, given by its path or as a buffer with its content. Raises VideoError if it is not a video."""

    def __init__(self, source: str | io.BytesIO, name: str) -> None:
        self._source = source
        self.info = probe(source, name)
        self._timeline = Timeline(self.info.jumps)
        self._convert = Converter(self.info.colours)

    @property
    def joined(self) -> bool:
        """Whether timestamps started again in what was read, so that the claimed length is not that of the clip."""
        return len(self._timeline.shifts) > 1

    def count(self, interrupt: Interrupt) -> int:
        """How many frames the clip has, as far as can be told without decoding."""
        return self.info.frames or self.count_packets(interrupt)

    def count_packets(self, interrupt: Interrupt) -> int:
        """The number of stored pictures up to the end or a break, by reading the file through."""
        count = 0
        with open_video(self._source, self.info.name) as (container, stream), suppress(*DAMAGE):
            for _ in _packets(container, stream, interrupt):
                count += 1
        return count

    def frames(self, selection: Selection, interrupt: Interrupt) -> Generator[ShownFrame, None, None]:
        """The frames from the selection's start, or from some frame before it, to the clip's end, in display order and
        deinterlaced.

        `end` is begin plus the frame's own duration. Indices count from the clip's first frame, except after a seek to
        a start in seconds. Where timestamps start again, the clip goes on. `interrupt` is called for each decoded frame
        and may raise.
        Raises BrokenStreamError where the decoder fails, after the frames before that.
        """
        yield from deinterlaced(self._shown(selection, interrupt))

    def _shown(self, selection: Selection, interrupt: Interrupt) -> Iterator[ShownFrame]:
        info = self.info
        self._timeline = Timeline(info.jumps)
        for index, frame in self._numbered(selection, interrupt):
            length = getattr(frame, "duration", 0) * info.tick or 1 / info.rate  # older PyAV has none
            if info.timed and frame.pts is not None:
                begin = self._timeline.put(info.time_of(frame.pts), length)
            else:
                begin = index / info.rate
            yield ShownFrame(index, begin, begin + length, frame)

    def picture(self, frame: ShownFrame) -> NDArray[np.uint8]:
        """The RGB picture [height, width, 3] of a frame, or [height, width, 4] with its opacity."""
        try:
            return turn_upright(self._convert(frame.picture), self.info.matrix)
        except (*DAMAGE, ValueError) as error:
            raise BrokenStreamError(reason(error)) from error

    def audio(self, begin: Fraction, length: Fraction, interrupt: Interrupt) -> dict[str, Any] | None:
        """The sound of [begin, begin + length) seconds after the first frame, as an AUDIO."""
        timeline = Timeline(self.info.jumps, self._timeline.shifts) if self.joined else None
        return read_audio(self._source, self.info.name, self.info.origin + begin, length, interrupt, timeline)

    def _numbered(self, selection: Selection, interrupt: Interrupt) -> Iterator[tuple[int, VideoFrame]]:
        """Decoded frames from the first one on, or from where a seek leads."""
        start = self._find_start(selection, interrupt) if self.info.seekable and selection.start > 0 else None
        if start is not None:
            with suppress(_SeekMissedError):
                yield from enumerate(self._decoded_from(start, interrupt), start.index)
                return
        with open_video(self._source, self.info.name) as (container, stream):
            try:
                for numbered in enumerate(decoded(container, stream)):
                    interrupt()
                    yield numbered
            except DAMAGE as error:
                raise BrokenStreamError(reason(error)) from error

    def _find_start(self, selection: Selection, interrupt: Interrupt) -> _Start | None:
        """The frame to seek to, None where timestamps before it start again or are missing.

        It is looked up among the packets, without decoding; a start in seconds only in formats whose times may leap.
        """
        info = self.info
        wanted, target = int(selection.start), None
        if selection.start_unit == "seconds":
            target = info.first_pts + int(selection.start / info.tick)
            if not info.jumps:
                return _Start(target)
        times: list[int] = []
        before = position = None
        try:
            with open_video(self._source, info.name) as (container, stream):
                for packet in _packets(container, stream, interrupt):
                    read_at = packet.pts if packet.dts is None else packet.dts
                    if packet.pts is None:
                        return None
                    if before is not None and starts_again(before, read_at * info.tick, info.jumps):
                        return None
                    before = read_at * info.tick
                    position = packet.pos if info.jumps else None
                    times.append(packet.pts)
                    if len(times) > wanted + _REORDERED_PACKETS if target is None else read_at > target:
                        break
        except DAMAGE:
            return None
        if target is not None:
            return _Start(target, position=position)
        order = {pts: index for index, pts in enumerate(sorted(times))}
        if len(order) < len(times) or order.get(info.first_pts) != 0:
            return None
        index = min(wanted, len(times) - 1)
        return _Start(sorted(times)[index], order, index, position)

    def _decoded_from(self, start: _Start, interrupt: Interrupt) -> Iterator[VideoFrame]:
        """Frames from the start's number on, or from the keyframe before a start in seconds."""
        handed_over = False
        with open_video(self._source, self.info.name) as (container, stream):
            frames = _from_keyframe(container, stream, start, interrupt)
            try:
                for frame in frames if start.order is None else _from_number(frames, start.order, start.pts):
                    handed_over = True
                    yield frame
            except DAMAGE as error:
                if handed_over:
                    raise BrokenStreamError(reason(error)) from error
        if not handed_over:
            raise _SeekMissedError


class PicturesInMemory:
    """Pictures [frames, height, width, channels] in 0..1 at an even rate, with their AUDIO or None.

    They are grey, in colour, or in colour with their opacity, which may also come as `alpha` of as many frames. Offers
    what a VideoFile does; its pictures are float32 in 0..1.
    """

    joined = False

    def __init__(
        self, images: Tensor, rate: Fraction, audio: dict[str, Any] | None, name: str, alpha: Tensor | None = None
    ) -> None:
        if images.shape[0] == 0:
            raise VideoError(f"{name} contains 0 frames. Check the node that made it.")
        if rate <= 0:
            raise VideoError(f"{name} plays at {float(rate):g} frames per second. Set a rate above 0.")
        self._images = images if images.shape[-1] >= 3 else images[..., :1].expand(-1, -1, -1, 3)
        self._alpha = alpha
        self._audio = audio
        count, height, width = images.shape[:3]
        self.info = ClipInfo(name=name, width=width, height=height, rate=rate, frames=count, length=count / rate)

    def count(self, interrupt: Interrupt) -> int:
        return len(self._images)

    def frames(self, selection: Selection, interrupt: Interrupt) -> Generator[ShownFrame, None, None]:
        for index, picture in enumerate(self._images):
            interrupt()
            yield ShownFrame(index, index / self.info.rate, (index + 1) / self.info.rate, picture)

    def picture(self, frame: ShownFrame) -> NDArray[np.float32]:
        picture = frame.picture.float().cpu()
        if self._alpha is not None:
            alpha = self._alpha[frame.index].float().cpu().reshape(*picture.shape[:2], 1)
            picture = torch.cat([picture[..., :3], alpha], dim=-1)
        return picture[..., :4].numpy()

    def audio(self, begin: Fraction, length: Fraction, interrupt: Interrupt) -> dict[str, Any] | None:
        return cut_audio(self._audio, begin, length)


ClipSource = VideoFile | PicturesInMemory


class _SeekMissedError(Exception):
    """The wanted frame cannot be reached exactly by a seek; nothing has been handed over yet."""


@dataclass(frozen=True)
class _Start:
    """A frame to begin at: its timestamp, and the clip's first timestamps in display order where it has a number.

    `position` is a byte of the file by which it has come, in formats where its timestamp may come again.
    """

    pts: int
    order: dict[int, int] | None = None
    index: int = 0
    position: int | None = None


def _packets(container: InputContainer, stream: VideoStream, interrupt: Interrupt) -> Iterator[av.Packet]:
    """Packets that hold a shown picture: an edit list marks those before a cut to be decoded and dropped."""
    for packet in container.demux(stream):
        interrupt()
        if packet.size and not packet.is_discard:
            yield packet


def _from_keyframe(
    container: InputContainer, stream: VideoStream, start: _Start, interrupt: Interrupt
) -> Iterator[VideoFrame]:
    """Frames from the last keyframe at or before the start that the container's index leads to."""
    keyframe, packets = _seek_keyframe(container, stream, start.pts)
    decode = decoder_of(stream)
    if start.position is not None and not 0 <= (keyframe.pos or 0) <= start.position:
        raise _SeekMissedError
    arrived = False
    for packet in chain((keyframe,), packets):
        for frame in decode(packet):
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


def _from_number(frames: Iterable[VideoFrame], order: dict[int, int], pts: int) -> Iterator[VideoFrame]:
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

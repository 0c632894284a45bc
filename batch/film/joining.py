"""Edited pieces become a film again: their packets one after the other, beside those of the film's sound."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from ..jobs import JobsError
from .division import Piece
from .encoding import Encoding, decoded, encode
from .source import Film

# Of the film where shots cannot be joined as they are: close to what they were.
_CLOSE = Encoding(options={"crf": "16"})
# Finest clock of the joined film, in ticks a second.
_MOST_TICKS = 1_000_000


@dataclass(frozen=True)
class Part:
    """An edited shot: a file with the frames of the film from `start` up to `end`."""

    file: Path
    start: int
    end: int


def faded(pieces: Sequence[Piece], files: Sequence[Path]) -> Iterator[NDArray[np.uint8]]:
    """The pictures of a shot whose pieces fade into each other where they overlap; their anchors are left out."""
    with ExitStack() as opened:
        streams = [decoded(file) for file in files]
        for stream, piece in zip(streams, pieces, strict=True):
            opened.callback(stream.close)
            for _ in piece.anchors:
                next(stream)
        for number in range(pieces[0].start, pieces[-1].end):
            weights = _weights(pieces, number)
            total = sum(weights.values())
            mixed = sum(weight / total * next(streams[place]).astype(np.float32) for place, weight in weights.items())
            yield mixed.round().astype(np.uint8)


def _weights(pieces: Sequence[Piece], number: int) -> dict[int, float]:
    """How much each piece that holds a frame counts there: less towards its ends, where a neighbour takes over."""
    weights = {}
    for place, piece in enumerate(pieces):
        if piece.start <= number < piece.end:
            before = pieces[place - 1].end - piece.start if place else 0
            after = piece.end - pieces[place + 1].start if place + 1 < len(pieces) else 0
            weights[place] = min(1, (number - piece.start + 1) / (before + 1), (piece.end - number) / (after + 1))
    return weights


def join(film: Film, parts: Sequence[Part], file: Path) -> Path:
    """Writes the film: the parts' pictures at the film's own times, and its sound as it is.

    file: to write, without its ending; returns it with the ending. It is MP4, or Matroska where MP4 does not take the
    film's sound.

    Raises:
        JobsError: the parts do not follow each other, or are not of one size.
    """
    if [part.start for part in parts] != [0, *(part.end for part in parts[:-1])] or parts[-1].end != film.frames:
        raise JobsError("The edited shots do not cover the film.")
    sizes = {_kind(part.file)[:2]: part for part in reversed(parts)}
    if len(sizes) > 1:
        found = ", ".join(
            f"{width}x{height} from frame {part.start}" for (width, height), part in reversed(sizes.items())
        )
        raise JobsError(f"The edited shots differ in size ({found}), so they are not one film. Edit all at one size.")
    whole = file.with_name(f"{file.name}.unfinished.mp4")
    if len({_kind(part.file) for part in parts}) > 1:
        encode((picture for part in parts for picture in decoded(part.file)), whole, film.rate, _CLOSE)
        parts = [Part(whole, 0, film.frames)]
    try:
        for ending in ("mp4", "mkv"):
            unfinished, done = (file.with_name(f"{file.name}{middle}.{ending}") for middle in (".joined", ""))
            try:
                _remux(film, parts, unfinished)
            except (ValueError, av.error.FFmpegError):
                unfinished.unlink(missing_ok=True)
                if ending == "mkv":
                    raise
                continue
            unfinished.replace(done)
            return done
    finally:
        whole.unlink(missing_ok=True)
    raise AssertionError("one of the two has been written, or has said why not")


def _kind(file: Path) -> tuple:
    """What two files share whose packets one decoder can read one after the other."""
    with av.open(str(file)) as container:
        context = container.streams.video[0].codec_context
        return context.width, context.height, context.name, context.pix_fmt, bytes(context.extradata or b"")


def _remux(film: Film, parts: Sequence[Part], file: Path) -> None:
    with ExitStack() as opened:
        source = opened.enter_context(av.open(str(film.file), metadata_errors="replace"))
        first = opened.enter_context(av.open(str(parts[0].file)))
        # MP4 rounds the start of a film to the clock of the whole file
        clock = {"movie_timescale": str(_ticks(film))} if file.suffix == ".mp4" else {}
        target = opened.enter_context(av.open(str(file), "w", options=clock))
        video = target.add_stream_from_template(first.streams.video[0])
        sounds = {stream.index: target.add_stream_from_template(stream) for stream in source.streams.audio}
        video.time_base = Fraction(1, _ticks(film))

        def heard() -> Iterator[tuple[float, int, av.Packet]]:
            for packet in source.demux(*source.streams.audio) if sounds else ():
                if packet.dts is not None:
                    time = float(packet.dts * packet.time_base)
                    packet.stream = sounds[packet.stream.index]
                    yield time, 1, packet

        for _, _, packet in heapq.merge(_seen(film, parts, video), heard(), key=lambda entry: entry[:2]):
            target.mux(packet)


def _seen(film: Film, parts: Sequence[Part], stream: av.VideoStream) -> Iterator[tuple[float, int, av.Packet]]:
    """The parts' packets at the film's own times, each with the time to decode it.

    A picture may be decoded only before it is shown, so decoding begins as many frames early as any waits for its turn.
    """
    tick = Fraction(1, _ticks(film))
    shown = [round((film.origin + begin) / tick) for begin in film.begins]
    for number in range(1, len(shown)):
        shown[number] = max(shown[number], shown[number - 1] + 1)
    orders = [_display_order(part.file) for part in parts]
    wait = max(place - number for order in orders for place, number in enumerate(order))
    step = max(1, round(1 / film.rate / tick))
    early = [shown[0] - step * (wait - number) for number in range(wait)]
    clock = [*early, *shown]
    for part, order in zip(parts, orders, strict=True):
        with av.open(str(part.file)) as container:
            packets = (packet for packet in container.demux(video=0) if packet.size)
            for place, (packet, number) in enumerate(zip(packets, order, strict=True)):
                frame = part.start + number
                packet.time_base, packet.pts, packet.dts = tick, shown[frame], clock[part.start + place]
                packet.duration = (shown[frame + 1] if frame + 1 < len(shown) else shown[frame] + step) - shown[frame]
                packet.stream = stream
                yield float(packet.dts * tick), 0, packet


def _display_order(file: Path) -> list[int]:
    """For each packet of a file, which of its frames it holds, counted as they are shown."""
    with av.open(str(file)) as container:
        times = [packet.pts for packet in container.demux(video=0) if packet.size]
    number = {time: place for place, time in enumerate(sorted(times))}
    return [number[time] for time in times]


def _ticks(film: Film) -> int:
    """Ticks a second in which the film's times are whole, as far as that can be."""
    ticks = math.lcm(film.tick.denominator, film.rate.numerator)
    return ticks if ticks <= _MOST_TICKS else 90_000

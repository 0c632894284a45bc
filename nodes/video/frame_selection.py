"""Which frames of a clip are returned, and at what rate: one rule for every source, in exact arithmetic.

A frame is on screen from its own time until the next frame's. Times are exact fractions of a second, counted from
the clip's first frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, floor
from typing import Any, Literal

from . import BrokenStreamError, VideoError

_NTSC_RATES = tuple(Fraction(rate * 1000, 1001) for rate in (24, 30, 48, 60, 120))
_NTSC_TOLERANCE = Fraction(1, 200)
# A frame that stays on screen for longer (seconds) does so because its timestamp, or the next one's, is damaged.
_LONGEST_STILL = 600


@dataclass(frozen=True)
class Selection:
    """What the user asks for.

    `start` is a frame number or seconds, by `start_unit`. `target_rate` (frames a second, None to keep the clip's own
    frames) is applied first: it lays an even grid over the clip from `start` on. `every_nth` then keeps every n-th of
    those frames, and `frame_cap` (0: no limit) counts the frames that are returned.
    """

    start: Fraction = Fraction(0)
    start_unit: Literal["frame", "seconds"] = "frame"
    frame_cap: int = 0
    every_nth: int = 1
    target_rate: Fraction | None = None

    def __post_init__(self) -> None:
        for name, least in (("start", 0), ("frame_cap", 0), ("every_nth", 1)):
            if (value := getattr(self, name)) < least:
                raise VideoError(f"{name} is {float(value):g}, which selects nothing. Use {least} or more.")


@dataclass(frozen=True)
class ShownFrame:
    """Frame number `index` of a clip, on screen during [begin, end) seconds. `picture` is the reader's own affair."""

    index: int
    begin: Fraction
    end: Fraction
    picture: Any = None


def exact_rate(value: float) -> Fraction | None:
    """A rate typed as a decimal as the exact fraction it means: 23.976 and 23.98 are 24000/1001. 0 is None."""
    rate = Fraction(repr(float(value)))
    if rate <= 0:
        return None
    return next((ntsc for ntsc in _NTSC_RATES if abs(ntsc - rate) < _NTSC_TOLERANCE), rate)


def hold_until_next(frames: Iterable[ShownFrame]) -> Iterator[ShownFrame]:
    """Give each frame the next one's begin as its end, reading one frame ahead; the last keeps its own end.

    Times that run backwards, as damaged files have them, are raised to the time before.
    """
    held: ShownFrame | None = None
    try:
        for frame in frames:
            if held is not None:
                begin = max(frame.begin, held.begin)
                yield replace(held, end=begin)
                frame = replace(frame, begin=begin)
            held = frame
    except BrokenStreamError:
        if held is not None:
            yield held
        raise
    if held is not None:
        yield held


def select_frames(shown: Iterable[ShownFrame], selection: Selection) -> Iterator[tuple[Fraction, ShownFrame]]:
    """The frames of a clip that are returned, in order, as they come by: each with the time that it stands for.

    Reads no further than the last frame it returns. `shown` must ascend and cover the start; it may begin late, and
    then its indices must be the clip's own if the start is a frame number. With a target rate the picture for each
    time of the grid is the latest frame whose time <= that time, so that frames are repeated or left out; the start
    in seconds follows the same rule.
    """
    step = None if selection.target_rate is None else selection.every_nth / selection.target_rate
    origin: Fraction | None = None
    first_index = count = 0
    in_frames = selection.start_unit == "frame"
    for frame in shown:
        if origin is None:
            reached = frame.index >= selection.start if in_frames else frame.end > selection.start
            if not reached:
                continue
            origin = frame.begin if step is None or in_frames else selection.start
            first_index = frame.index
        if step is None:
            wanted = [frame.begin] if (frame.index - first_index) % selection.every_nth == 0 else []
        else:
            wanted = _grid_times(origin, step, count, frame)
        for time in wanted:
            yield time, frame
            count += 1
            if count == selection.frame_cap:
                return


def result_rate(times: Sequence[Fraction], source_rate: Fraction, tick: Fraction, selection: Selection) -> Fraction:
    """Frames a second of the returned frames, given the times [n] of select_frames.

    The target rate, or the clip's rate, divided by every_nth. Where the returned frames of a clip of variable rate do
    not keep to that within `tick` seconds, their mean rate, which keeps the length and so the sound in step (unless
    damaged timestamps put them far apart).
    """
    rate = (selection.target_rate or source_rate) / selection.every_nth
    gaps = [after - before for before, after in zip(times, times[1:], strict=False)]
    drift = max((abs(time - times[0] - position / rate) for position, time in enumerate(times)), default=Fraction(0))
    if drift <= tick or times[-1] == times[0] or max(gaps) > _LONGEST_STILL:
        return rate
    return (len(times) - 1) / (times[-1] - times[0])


def expected_count(frames: int, rate: Fraction, selection: Selection) -> int:
    """How many frames select_frames returns for a clip of `frames` frames at a constant `rate`, in closed form."""
    in_frames = selection.start_unit == "frame"
    first = ceil(selection.start) if in_frames else floor(selection.start * rate)
    if first >= frames:
        return 0
    if selection.target_rate is None:
        count = ceil(Fraction(frames - first, selection.every_nth))
    else:
        origin = first / rate if in_frames else selection.start
        count = ceil((frames / rate - origin) * selection.target_rate / selection.every_nth)
    return min(count, selection.frame_cap) if selection.frame_cap else count


def _grid_times(origin: Fraction, step: Fraction, count: int, frame: ShownFrame) -> Iterator[Fraction]:
    """The times origin + k·step of the grid from k = count up to, not including, the frame's end."""
    while (time := origin + count * step) < frame.end:
        if time - frame.begin > _LONGEST_STILL:
            seconds = float(frame.end - frame.begin)
            raise VideoError(
                f"At {float(frame.begin):.2f} s one frame would be repeated for {seconds:.0f} s, so the clip's "
                "timestamps are probably damaged. Set target_fps to 0, or skip that part with start or frame_cap."
            )
        yield time
        count += 1

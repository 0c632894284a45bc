"""One clock for a clip whose timestamps start again, as in recordings that were joined byte by byte."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

# A time that lies further back than this (seconds) belongs to another recording; less is the jitter of damaged files.
_JITTER = Fraction(1, 2)
# So does, in formats for broadcasts, one that lies further ahead: FFmpeg's own limit for them.
_LONGEST_STEP = 10


def starts_again(before: Fraction, time: Fraction, jumps: bool) -> bool:
    """Whether a time (seconds) cannot follow the one before; `jumps` where the format knows leaps forwards as well."""
    return time < before - _JITTER or (jumps and time > before + _LONGEST_STEP)


class Timeline:
    """Puts the parts of a stream one after the other; `shifts` are the seconds that were added to each part so far.

    known: the shifts of the pictures, for a stream of sound: it takes those, and starts again no more often than they.
    """

    def __init__(self, jumps: bool, known: Sequence[Fraction] | None = None) -> None:
        self.shifts = [Fraction(0)]
        self._jumps = jumps
        self._known = known
        self._last: Fraction | None = None
        self._step: Fraction | None = None

    def put(self, time: Fraction, length: Fraction) -> Fraction:
        """The time on the one clock of what has `time` and `length` in its own part, all in seconds."""
        number = len(self.shifts)
        last, self._last = self._last, time
        if last is not None and (self._known is None or number < len(self._known)):
            if starts_again(last, time, self._jumps):
                end = last + self.shifts[-1] + (self._step or length)
                self.shifts.append(end - time if self._known is None else self._known[number])
            elif time > last:
                self._step = time - last
        return time + self.shifts[-1]

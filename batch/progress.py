"""How far a run of many clips is: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from typing import TextIO

from tqdm import tqdm

from .pool import State

_BAR = "{n_fmt}/{total_fmt} |{bar:24}| {postfix}"
_LINE_SECONDS = 60


class Progress:
    """Shows clips an hour, the time that is left, failures by reason, and the workers."""

    def __init__(self, clips: int, out: TextIO) -> None:
        self.clips, self.out = clips, out
        self._started = self._said = time.monotonic()
        self._bar: tqdm | None = None

    def __enter__(self) -> Progress:
        if self.out.isatty():
            self._bar = tqdm(total=self.clips, bar_format=_BAR, file=self.out)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, state: State) -> None:
        now = time.monotonic()
        if self._bar is not None:
            self._bar.n = state.counts["done"] + state.counts["failed"]
            self._bar.set_postfix_str(self.text(state, now), refresh=False)
            self._bar.refresh() if now - self._said > 0.2 else None
            self._said = now if now - self._said > 0.2 else self._said
        elif now - self._said > _LINE_SECONDS:
            self._said = now
            ended = state.counts["done"] + state.counts["failed"]
            print(f"{ended} of {self.clips}: {self.text(state, now)}", file=self.out, flush=True)

    def text(self, state: State, now: float) -> str:
        """Of one line."""
        ended = state.counts["done"] + state.counts["failed"]
        parts = []
        if ended:
            rate = ended / (now - self._started)
            parts.append(f"{rate * 3600:.0f} clips/h, {_duration((self.clips - ended) / rate)} left")
        states = Counter(slot.state for slot in state.slots)
        parts.append(f"workers: {', '.join(f'{count} {name}' for name, count in sorted(states.items()))}")
        if state.reasons:
            parts.append(f"failed: {', '.join(f'{count} {kind}' for kind, count in state.reasons.most_common(3))}")
        return "; ".join(parts)


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min" if minutes else f"{seconds:.0f} s"

"""ComfyUI's progress in the terminal: a bar for each node, or plain lines where there is no terminal."""

from __future__ import annotations

import shutil
from typing import TextIO

from tqdm import tqdm

from ...batch.comfyui.events import Event

TITLE_WIDTH = 22
BAR = "{desc} {percentage:3.0f} % |{bar:30}| {elapsed}"
PLAIN_STEP = 0.25


class ProgressLines:
    """Call it with the events of a run; `close` ends a bar that was left open."""

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.bar: tqdm | None = None
        self._said = 0.0

    def __call__(self, event: Event) -> None:
        (self._draw if self.out.isatty() else self._say)(event)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _draw(self, event: Event) -> None:
        if event.kind == "started":
            self.close()
            # tqdm draws nothing in a terminal that does not know its width; this has a width for that case
            width = shutil.get_terminal_size().columns
            title = f"{event.title:<{TITLE_WIDTH}}"
            self.bar = tqdm(total=1, desc=title, bar_format=BAR, file=self.out, ncols=width)
        elif self.bar is not None and event.kind == "progress":
            self.bar.total, self.bar.n = event.maximum, event.value
            self.bar.refresh()
        elif self.bar is not None and event.kind == "finished":
            self.bar.n = self.bar.total
            self.bar.refresh()
            self.close()

    def _say(self, event: Event) -> None:
        title = f"{event.title:<{TITLE_WIDTH}}"
        if event.kind == "started":
            self._said = 0.0
        elif event.kind == "finished":
            print(f"{title} {event.seconds:.1f} s", file=self.out, flush=True)
        elif PLAIN_STEP <= event.value / event.maximum - self._said and event.value < event.maximum:
            self._said = event.value / event.maximum
            print(f"{title} {100 * self._said:3.0f} %", file=self.out, flush=True)

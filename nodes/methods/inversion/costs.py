"""What a run costs, told in the log and on its node: memory before it, time from its first step on."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from ..batching.memory_budget import room_for
from ..seams.telling import show, tell
from .inversion import PIXELS_PER_LATENT


def tell_memory(what: str, model: Any, shape: tuple[int, ...], rows: int, steps: int, kept: int = 0) -> None:
    """Tells what a run needs and what is free.

    Args:
        what: runs.
        shape: of the latents, [n, 4, h, w].
        rows: latents that ComfyUI is asked to leave room for.
        kept: bytes of memory that its result takes.
    """
    frames, _, height, width = shape
    needed, free = model.model.memory_required([rows, *shape[1:]]), room_for(model)
    size = f"{width * PIXELS_PER_LATENT}x{height * PIXELS_PER_LATENT}"
    result = f", and {_gigabytes(kept)} for its result" if kept else ""
    tell(
        f"{what}: {frames} frames of {size}, {steps} steps. By ComfyUI's estimate it takes {_gigabytes(needed)} to "
        f"compute{result}; {_gigabytes(free)} is free."
    )


@dataclass
class Clock:
    """Tells how far a run is and how long the rest will take, at the pace of the steps so far.

    Attributes:
        what: runs.
        steps: that it has.
        started: when, in seconds.
    """

    what: str
    steps: int
    started: float = field(default_factory=time.monotonic)

    def tick(self, done: int) -> None:
        """After step `done`, counted from 1."""
        passed = time.monotonic() - self.started
        if done == self.steps:
            show(f"{done} steps in {duration(passed)}")
            return
        left = duration(passed / done * (self.steps - done))
        if done == 1:
            tell(f"{self.what}: step 1 of {self.steps} took {duration(passed)}, so the others will take about {left}.")
        show(f"step {done} of {self.steps}, about {left} left")


def duration(seconds: float) -> str:
    """As a person would say it: 0.4 s, 45 s, 6 min, 1 h 20 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.0f} MB"

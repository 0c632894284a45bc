"""What Ray's dashboard, and whatever collects its metrics, can show of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Of a clip; what a worker says of itself is told by its state.
_STATES = ("done", "failed", "lost", "retried")


class Counters:
    """Counters by `ray.util.metrics`; Ray is connected."""

    def __init__(self) -> None:
        from ray.util.metrics import Counter

        self._clips = Counter("stem_batch_clips", "Clips, by what became of them.", ("state",))
        self._workers = Counter("stem_batch_workers", "Workers, by what became of them.", ("state",))
        self._seconds = Counter("stem_batch_seconds", "Seconds that clips took which are done.")

    def count(self, event: str, content: Mapping[str, Any]) -> None:
        """Adds an event of the pool."""
        if event in _STATES:
            self._clips.inc(1, {"state": event})
        if event == "done":
            self._seconds.inc(content["seconds"])
        if event == "worker":
            self._workers.inc(1, {"state": content["state"]})

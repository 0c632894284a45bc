"""A run of many clips in a process of its own, and the folder that it leaves."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path

import psutil

from ... import locations
from .machines import SECONDS, Machine, descendants

BATCH = (locations.ROOT / "batch",)
STUB = (locations.TOOLS / "launch.py", "robustness.batch_runs.stub_worker")


class Driver:
    """A run under way on a machine.

    program: BATCH, or STUB for workers without ComfyUI; arguments: of that.
    """

    def __init__(
        self,
        machine: Machine,
        program: tuple[object, ...],
        *arguments: object,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._log = machine.folder / f"{uuid.uuid4().hex}.log"
        self.process = machine.start(self._log, dict(environment or {}), sys.executable, *program, *arguments)

    def said(self, seconds: float = SECONDS) -> str:
        """What it has said at its end. TimeoutError when that does not come."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"The run did not end within {seconds:g} s. It said: {self.so_far()}") from None
        return self.so_far()

    def so_far(self) -> str:
        """What it has said."""
        return self._log.read_text()

    def processes(self, part: str = "") -> list[psutil.Process]:
        """All that it has started and that still runs, or those with a part of a command line: "ray::Worker"."""
        return descendants(self.process, part)


def events(out: Path, kind: str | None = None) -> list[dict]:
    """What has happened in a folder of results."""
    file = out / "events.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    return [line for line in lines if kind in (None, line["event"])]


def done(out: Path) -> dict[str, int]:
    """The clips that are done, with the time at which their reports were written."""
    return {report.parent.name: report.stat().st_mtime_ns for report in out.glob("clips/*/*/report.json")}


def whole(out: Path) -> bool:
    """Whether nothing lies there in part."""
    unfinished = [*out.glob("tmp/*"), *out.rglob(".*")]
    return not unfinished and len(list(out.glob("clips/*/*"))) == len(done(out))


def since_start(out: Path) -> list[dict]:
    """What has happened in the last run in a folder."""
    found = events(out)
    starts = [number for number, event in enumerate(found) if event["event"] == "started"]
    return found[starts[-1] :] if starts else []


def workers_with_clips(out: Path) -> set[int]:
    """Those that the last run has sent a clip."""
    return {event["worker"] for event in since_start(out) if event["event"] == "sent"}


def clips_on(machine: Machine, out: Path) -> set[str]:
    """Clips that the last run has sent to a machine and that are neither done nor lost."""
    found = since_start(out)
    workers = {event["number"] for event in found if event.get("machine") == machine.folder.name}
    sent = {event["id"] for event in found if event["event"] == "sent" and event["worker"] in workers}
    return sent - {event["id"] for event in found if event["event"] in ("done", "lost", "failed")}

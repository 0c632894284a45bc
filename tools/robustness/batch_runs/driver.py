"""A run of many clips in a process of its own, and the folder that it leaves."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import psutil

from ....batch.comfyui.keeper import kill_tree
from ... import locations
from .machines import SECONDS, Machine, command_line, without_ray

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
        descriptor, log = tempfile.mkstemp(dir=machine.folder, prefix="driver-", suffix=".log")
        self._log = Path(log)
        with open(descriptor, "w") as output:
            self.process = subprocess.Popen(
                machine.command(sys.executable, *program, *arguments),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=without_ray() | dict(environment or {}),
            )

    def said(self, seconds: float = SECONDS) -> str:
        """What it has said at its end; it is ended by force when it does not end in time."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            kill_tree(self.process.pid)
            self.process.wait()
            raise TimeoutError(f"The run did not end within {seconds:g} s. It said: {self.so_far()}") from None
        return self.so_far()

    def so_far(self) -> str:
        """What it has said."""
        return self._log.read_text()

    def signal(self, number: signal.Signals) -> None:
        """To the process itself; nsenter becomes what it starts."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """As `kill -9` does."""
        self.process.kill()
        self.process.wait()

    def processes(self, part: str = "") -> list[psutil.Process]:
        """All that it has started and that still runs, or those with "ray::Worker" in their command lines."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        return [one for one in family if part in command_line(one)]


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
    return not list((out / "tmp").glob("*")) and len(list(out.glob("clips/*/*"))) == len(done(out))


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

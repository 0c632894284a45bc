"""`make soak ARGS=--batch`: what the engine for many clips costs by itself, and how it grows with workers.

The workers only wait in the place of ComfyUI, and commit an empty result: all else is as in a real run.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from ...batch.jobs import Job
from ...batch.results import Results
from ...batch.run import RunSettings, run_jobs
from ...batch.worker import Outcome, WorkerSettings
from .. import locations

FILE = locations.ROOT / "docs" / "scale.json"
MANY, PARTS = 10_000, 10
WORKERS, CLIPS_EACH, SECONDS = (1, 2, 4, 8, 16), 24, 1.0
WORKFLOW = {"1": {"class_type": "STEMVideoLoad", "inputs": {"file": ""}, "_meta": {"title": "Video Load"}}}


class Waiting:
    """A worker that takes so many seconds for a clip."""

    def __init__(self, results: str, environment: Mapping[str, str], **others: object) -> None:
        self.results, self.seconds = Results(Path(results)), float(environment["SECONDS"])

    def ready(self, workflow: dict) -> dict[str, Any]:
        return {"machine": "", "device": "", "made_with": {}}

    def object_info(self) -> dict[str, dict]:
        return {"STEMVideoLoad": {"input": {"required": {"file": ["STRING"]}}}}

    def run(self, job: Job, workflow: dict, less_memory: bool) -> Outcome:
        time.sleep(self.seconds)
        self.results.commit(job.id, {}, {"id": job.id, "files": []})
        return Outcome("done")

    def interrupt(self) -> None:
        """There is nothing to break off."""

    def stop(self) -> None:
        """There is nothing to end."""


def carried_out(folder: Path, clips: int, workers: int, seconds: float) -> list[dict]:
    """The events of a run; a clip has a video of its own."""
    videos = folder / "videos"
    videos.mkdir(parents=True)
    jobs = [Job(f"clip{number:06d}", str(videos / f"{number}.mp4")) for number in range(clips)]
    worker = WorkerSettings(str(folder / "out"), "", "", environment={"SECONDS": str(seconds)})
    settings = RunSettings(worker, workers, kind=("tools.robustness.batch_load", "Waiting"))
    status = run_jobs(Results(folder / "out"), WORKFLOW, jobs, settings, lambda text: None)
    lines = [json.loads(line) for line in (folder / "out" / "events.jsonl").read_text().splitlines()]
    done = [line for line in lines if line["event"] == "done"]
    if status != 0 or len({line["id"] for line in done}) != clips:
        raise RuntimeError(f"{len(done)} of {clips} clips were done, exit status {status}")
    return lines


def rate(events: list[dict]) -> float:
    """Clips an hour while all workers are busy: from when the last one is ready until the last clip is sent."""
    begin = max(line["time"] for line in events if line["event"] == "worker" and line["state"] == "ready")
    end = max(line["time"] for line in events if line["event"] == "sent")
    done = sum(begin < line["time"] <= end for line in events if line["event"] == "done")
    return 3600 * done / (end - begin)


def overhead() -> dict:
    """Milliseconds a clip and the driver's memory, in each tenth of a run of many clips that take no time."""
    own, memory, over = psutil.Process(), [], threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            memory.append((time.time(), own.memory_info().rss / 1e6))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with tempfile.TemporaryDirectory(prefix="stem-load-") as folder:
            events = carried_out(Path(folder), MANY, 2, 0.0)
    finally:
        over.set()
        watcher.join()
    ends = [line["time"] for line in events if line["event"] == "done"]
    size, parts = MANY // PARTS, []
    for part in range(PARTS):
        first, last = ends[part * size], ends[(part + 1) * size - 1]
        seen = [megabytes for when, megabytes in memory if when <= last]
        parts.append({"ms_each": round(1000 * (last - first) / (size - 1), 3), "driver_mb": round(seen[-1], 1)})
    return {"clips": MANY, "workers": 2, "parts": parts}


def scaling() -> list[dict]:
    """Clips an hour by workers, for clips of so many seconds."""
    rows = []
    for workers in WORKERS:
        with tempfile.TemporaryDirectory(prefix="stem-load-") as folder:
            found = rate(carried_out(Path(folder), CLIPS_EACH * workers, workers, SECONDS))
        rows.append({"workers": workers, "seconds_each": SECONDS, "clips_an_hour": round(found)})
        print(rows[-1], flush=True)
    return rows


def main() -> int:
    """Measures, writes docs/scale.json, and returns the exit status."""
    found = {"overhead": overhead(), "scaling": scaling()}
    FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found["overhead"]["parts"]), f"\nwritten: {FILE}")
    return 0

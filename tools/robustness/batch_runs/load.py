"""`make soak ARGS=--batch`: what the engine for many clips costs by itself, and how it grows with workers.

The workers have no ComfyUI, and commit an empty result: all else is as in a real run.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from ....batch.jobs import Job
from ....batch.results import Results
from ....batch.run import RunSettings, run_jobs
from ....batch.worker import WorkerSettings
from ... import locations
from .stub_worker import KIND, WORKFLOW

FILE = locations.ROOT / "docs" / "scale.json"
MANY, PARTS = 10_000, 10
WORKERS, CLIPS_EACH, SECONDS = (1, 2, 4, 8, 16), 24, 1.0


def carried_out(folder: Path, clips: int, workers: int, seconds: float) -> list[dict]:
    """The events of a run; a clip has a video of its own."""
    videos = folder / "videos"
    videos.mkdir(parents=True)
    jobs = [Job(f"clip{number:06d}", str(videos / f"{number}.mp4")) for number in range(clips)]
    worker = WorkerSettings(str(folder / "out"), "", "", environment={"SECONDS": str(seconds)})
    settings = RunSettings(worker, workers, kind=KIND)
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


def overhead(workers: int) -> dict:
    """Of a run of many clips that take no time: milliseconds a clip and the driver's memory, in each tenth; the
    milliseconds that the driver computes for a clip."""
    own, memory, over = psutil.Process(), [], threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            memory.append((time.time(), own.memory_info().rss / 1e6))

    watcher, computed = threading.Thread(target=watch), sum(own.cpu_times()[:2])
    watcher.start()
    try:
        with tempfile.TemporaryDirectory(prefix="stem-load-") as folder:
            events = carried_out(Path(folder), MANY, workers, 0.0)
    finally:
        over.set()
        watcher.join()
    computed = sum(own.cpu_times()[:2]) - computed
    ends = [line["time"] for line in events if line["event"] == "done"]
    size, parts = MANY // PARTS, []
    for part in range(PARTS):
        first, last = ends[part * size], ends[(part + 1) * size - 1]
        seen = [megabytes for when, megabytes in memory if when <= last]
        parts.append({"ms_each": round(1000 * (last - first) / (size - 1), 3), "driver_mb": round(seen[-1], 1)})
    return {"clips": MANY, "workers": workers, "driver_ms_each": round(1000 * computed / MANY, 3), "parts": parts}


def scaling() -> list[dict]:
    """Clips an hour by workers, for clips of so many seconds."""
    rows = []
    for workers in WORKERS:
        with tempfile.TemporaryDirectory(prefix="stem-load-") as folder:
            found = rate(carried_out(Path(folder), CLIPS_EACH * workers, workers, SECONDS))
        rows.append({"workers": workers, "seconds_each": SECONDS, "clips_an_hour": round(found)})
        print(rows[-1], flush=True)
    return rows


@dataclass(frozen=True)
class Site:
    """What a large run meets: the assumptions of docs/scale.md.

    Attributes:
        clips: of the run.
        seconds: that ComfyUI takes for one, on one worker.
        overhead: seconds that a worker spends beside.
        driver: seconds that the driver computes for one.
        files: made for one, on shared storage that makes so many a second (`files_a_second`).
        crashes: share of the clips that end ComfyUI, which takes `restart` seconds to come back.
        model: gigabytes that every worker reads from shared storage of so many a second (`read`), or from its own disk
            when they were put there before (`staged`).
        start: seconds until the first clip is sent, but for the model.
    """

    clips: int = 100_000
    seconds: float = 30.0
    overhead: float = 0.05
    driver: float = 0.004
    files: float = 6.0
    files_a_second: float = 2000.0
    crashes: float = 0.002
    restart: float = 30.0
    model: float = 2.1
    read: float = 1.25
    start: float = 30.0
    staged: bool = False

    def clips_an_hour(self, workers: int) -> float:
        """Over the whole run: the slowest of workers, driver and files, after the start."""
        each = self.seconds * (1 + self.crashes / 2) + self.crashes * self.restart + self.overhead
        rate = min(workers / each, 1 / self.driver, self.files_a_second / self.files)
        loading = 2.0 if self.staged else workers * self.model / self.read
        return 3600 * self.clips / (self.start + loading + self.clips / rate + self.seconds / 2)


def main() -> int:
    """Measures, writes docs/scale.json, and returns the exit status."""
    found = {"overhead": [overhead(2), overhead(16)], "scaling": scaling()}
    driver = found["overhead"][1]["driver_ms_each"] / 1000
    found["extrapolated"] = [
        {
            "workers": workers,
            "shared": round(Site(driver=driver).clips_an_hour(workers)),
            "staged": round(Site(driver=driver, staged=True).clips_an_hour(workers)),
        }
        for workers in (8, 64, 512, 4096)
    ]
    FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1), f"\nwritten: {FILE}")
    return 0

"""A worker without ComfyUI, and a run of it: `python tools/launch.py robustness.batch_runs.stub_worker OUT CLIPS`.

What a clip does is in its id: "broken" fails, "hungry" runs out of memory the first time, "deadly" kills its worker
each time, "once" the first time, "breaking" leaves its worker unusable the first time, "endless" waits to be
interrupted, "hung" does not even heed that, "greedy" takes 3 GB the first time, "large" and "huge" are files of some
size; all others are done after some seconds.
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from pathlib import Path

from ....batch.jobs import Job, JobsError
from ....batch.results import Results
from ....batch.run import RunSettings, run_jobs
from ....batch.worker import Outcome, WorkerSettings

# The try that ends, of clips that do not end by themselves.
TRIES = {"greedy": 2, "hung": 2, "endless": 3}
# What Ray makes actors of, and a workflow for them.
KIND = (__name__.partition(".")[2], "StubWorker")
WORKFLOW = {"1": {"class_type": "STEMVideoLoad", "inputs": {"file": ""}, "_meta": {"title": "Video Load"}}}
BYTES = {"large": 40_000_000, "huge": 260_000_000}


class StubWorker:
    """Stands where a ComfyUIWorker stands; what makes its clips is the file `model` of its machine."""

    def __init__(self, results: str, environment: dict, **others: object) -> None:
        self.results = Results(Path(results))
        self.seconds = float(environment["SECONDS"])
        self.machine = Path(os.environ.get("STUB_MACHINE", "alone"))
        self.interrupted = self.broken = False

    def ready(self, workflow: dict) -> dict:
        if self.broken:
            raise RuntimeError("ComfyUI does not start any more")
        model = self.machine / "model"
        made_with = {"models": model.read_text() if model.is_file() else "the same"}
        return {"machine": self.machine.name, "device": "none", "made_with": made_with}

    def object_info(self) -> dict:
        return {"STEMVideoLoad": {"input": {"required": {"file": ["STRING"]}}}}

    def run(self, job: Job, workflow: dict, less_memory: bool) -> Outcome:
        if self.results.is_done(job.id):
            return Outcome("done")
        kind, tries = job.id.rstrip("0123456789"), self._tries(job.id)
        if kind == "broken":
            return Outcome("failed", "Video Load failed: it is broken", "error")
        if kind == "hungry" and not less_memory:
            return Outcome("out of memory", "OutOfMemoryError", "out of memory")
        if kind == "breaking" and tries == 1:
            self.broken = True
            return Outcome("not started")
        if kind == "deadly" or (kind == "once" and tries == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        deadline, taken = time.monotonic() + self.seconds, []
        while time.monotonic() < deadline or tries < TRIES.get(kind, 0):
            if kind == "greedy" and tries == 1 and len(taken) < 150:
                taken.append(b"x" * 20_000_000)
            if self.interrupted and kind != "hung":
                self.interrupted = False
                return Outcome("interrupted")
            time.sleep(0.02)
        return self._committed(job.id, kind, less_memory)

    def _tries(self, job: str) -> int:
        with (self.results.folder / f"{job}.tries").open("ab") as file:
            file.write(b"-")
            return file.tell()

    def _committed(self, job: str, kind: str, less_memory: bool) -> Outcome:
        files = {}
        if kind in BYTES:
            files["edited.mp4"] = self.machine / f"{job}.mp4"
            with files["edited.mp4"].open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, BYTES[kind])
        try:
            first = self.results.commit(job, files, {"id": job, "files": list(files), "less_memory": less_memory})
        except OSError as error:
            return Outcome("disk full", f"{job} could not be written: {error}")
        with (self.results.folder / "commits.txt").open("a") as file:
            file.write(f"{job} {'came first' if first else 'came second'}\n")
        return Outcome("done")

    def interrupt(self) -> None:
        self.interrupted = True

    def stop(self) -> None:
        pass


def main(arguments: list[str]) -> int:
    """Runs clips; returns the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("clips")
    parser.add_argument("--seconds", default="0.05", help="of a clip")
    parser.add_argument("--limit", type=float, default=600, help="seconds that it may take")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--address", default="local")
    options = parser.parse_args(arguments)
    environment = {"SECONDS": options.seconds}
    settings = RunSettings(
        WorkerSettings(options.out, comfyui="", python="", environment=environment, seconds=options.limit),
        workers=options.workers,
        address=options.address,
        kind=KIND,
    )
    jobs = [Job(name, __file__) for name in options.clips.split(",")]
    try:
        return run_jobs(Results(Path(options.out)), WORKFLOW, jobs, settings, lambda text: print(text, flush=True))
    except JobsError as error:
        print(f"batch stopped: {error}")
        return 1

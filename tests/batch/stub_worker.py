"""A worker without ComfyUI, and a run of it in a process of its own: `python stub_worker.py OUT CLIPS [SECONDS]`.

What a clip does is in its id: "broken" fails, "hungry" runs out of memory the first time, "deadly" kills its worker
each time, "once" kills it the first time; all others are done after some seconds.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.modules.setdefault("comfyui_stem", types.ModuleType("comfyui_stem")).__path__ = [str(ROOT)]
jobs = importlib.import_module("comfyui_stem.batch.jobs")
results = importlib.import_module("comfyui_stem.batch.results")
worker = importlib.import_module("comfyui_stem.batch.worker")


class StubWorker:
    def __init__(self, results: str, environment: dict, **others) -> None:
        self.results = importlib.import_module("comfyui_stem.batch.results").Results(Path(results))
        self.seconds = float(environment["SECONDS"])
        self.interrupted = False

    def ready(self, workflow):
        return {"machine": os.uname().nodename, "device": "none", "made_with": {"models": {}}}

    def object_info(self):
        return {"STEMVideoLoad": {"input": {"required": {"file": ["STRING"]}}}}

    def run(self, job, workflow, less_memory):
        mark = self.results.folder / f"{job.id}.tried"
        if job.id.startswith("broken"):
            return worker.Outcome("failed", "Video Load failed: it is broken", "error")
        if job.id.startswith("hungry") and not less_memory:
            return worker.Outcome("out of memory", "OutOfMemoryError", "out of memory")
        if job.id.startswith("deadly") or (job.id.startswith("once") and not mark.exists()):
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        deadline = time.monotonic() + self.seconds
        while time.monotonic() < deadline:
            if self.interrupted:
                self.interrupted = False
                return worker.Outcome("interrupted")
            time.sleep(0.02)
        self.results.commit(job.id, {}, {"id": job.id, "files": [], "less_memory": less_memory})
        return worker.Outcome("done")

    def interrupt(self):
        self.interrupted = True

    def stop(self):
        pass


def main(out: str, clips: str, seconds: str = "0.05") -> int:
    run = importlib.import_module("comfyui_stem.batch.run")
    settings = run.RunSettings(
        worker.WorkerSettings(results=out, comfyui="", python="", environment={"SECONDS": seconds}),
        workers=2,
        kind=("tests.batch.stub_worker", "StubWorker"),
    )
    workflow = {"1": {"class_type": "STEMVideoLoad", "inputs": {"file": ""}, "_meta": {"title": "Video Load"}}}
    wanted = [jobs.Job(name, __file__) for name in clips.split(",")]
    try:
        return run.run_jobs(
            results.Results(Path(out)), workflow, wanted, settings, lambda text: print(text, flush=True)
        )
    except jobs.JobsError as error:
        print(error)
        return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

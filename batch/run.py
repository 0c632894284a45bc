"""A run of many clips, from the table to the summary."""

from __future__ import annotations

import hashlib
import json
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from .cluster import PoolSettings, WorkerClass, connected
from .counters import Counters
from .jobs import Job, JobsError
from .pool import Pool, Slot, State
from .progress import Progress
from .results import Heart, Results
from .todo import Todo
from .worker import ComfyUIWorker, WorkerSettings
from .workflow import Workflow, check_places, checked

DONE, STOPPED, SOME_FAILED, NOT_ALL, INTERRUPTED = 0, 1, 3, 4, 130
# Ended clips after which a share of failures says something.
_ENOUGH = 20
# CPUs of a worker where there is no GPU: more would wait for each other.
_CPUS = 4


@dataclass(frozen=True)
class RunSettings:
    """What a run is asked to do, as `retry` needs it again.

    Attributes:
        worker: of each worker.
        workers: how many; 0 for one on each GPU, or for every four CPUs where there is none.
        address: of a Ray cluster, or "local".
        most_failures: share of the clips that have ended, above which a run is stopped as plainly wrong.
        dashboard: whether Ray's page is served, and counters are kept for it.
        kind: module and class of the workers.
    """

    worker: WorkerSettings
    workers: int = 0
    address: str = "local"
    most_failures: float = 1.0
    dashboard: bool = False
    kind: tuple[str, str] = ("batch.worker", "ComfyUIWorker")


@dataclass
class Run:
    """A run under way: what it is told, and what it makes of that."""

    results: Results
    workflow: Workflow
    jobs: list[Job]
    settings: RunSettings
    heart: Heart
    say: Callable[[str], None]
    asked: int = 0
    counters: Counters | None = None
    made_with: Mapping[str, Any] = field(default_factory=dict)

    def open_jobs(self) -> list[Job]:
        """Those that are neither done nor known to fail."""
        todo = [job for job in self.jobs if not self.results.is_done(job.id)]
        fresh = [job for job in todo if not self.results.failure(job.id)]
        if len(todo) < len(self.jobs):
            self.say(f"{len(self.jobs) - len(todo)} of {len(self.jobs)} clips are done already.")
        if len(fresh) < len(todo):
            self.say(f"{len(todo) - len(fresh)} have failed before and are left out; `retry` runs them again.")
        return fresh

    def carry_out(self) -> int:
        """Runs what is open; returns the exit status."""
        self.results.sweep()
        todo = self.open_jobs()
        if not todo:
            return self._finish(None)
        if why := self._may_send():
            return self._finish(State(Todo(todo), stopped=why))
        check_places(self.workflow, todo)
        asked = self.settings
        if asked.address != "local":
            self.say(f"Connecting to Ray at {asked.address}.")
        with connected(asked.address, asked.dashboard) as ray:
            self.counters = Counters() if asked.dashboard else None
            machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            settings = self._pool_settings(machines, len(todo))
            kind = WorkerClass(*asked.kind, arguments=asdict(asked.worker))
            pool = Pool(
                ray,
                settings,
                kind,
                self.workflow,
                todo,
                self._on_event,
                lambda slot: self._on_ready(ray, pool, slot),
                self._may_send,
            )
            return self._finish(self._loop(pool, len(todo)))

    def _pool_settings(self, machines: list[Mapping[str, float]], clips: int) -> PoolSettings:
        gpus = sum(int(machine.get("GPU", 0)) for machine in machines)
        cpus = [int(machine.get("CPU", 0)) for machine in machines]

        def places(each: int) -> int:
            """A worker has its CPUs on one machine."""
            return sum(count // each for count in cpus)

        each = max(1, min([_CPUS, *cpus]))
        workers = min(self.settings.workers or gpus or max(1, places(each)), clips)
        each = 1 if gpus else next((each for each in range(_CPUS, 1, -1) if places(each) >= workers), 1)
        if not gpus and self.settings.address == "local" and places(1) < workers:
            # no other machine will join, so these share what there is
            each = sum(cpus) / workers
        self.say(f"{clips} clips, {workers} workers, each with {'a GPU' if gpus else f'{each:g} CPUs'}.")
        if (found := gpus or places(max(1, int(each)))) < workers and each >= 1:
            self.say(f"There is room for {found} of them; the others wait until more machines join.")
        self.results.event("started", clips=clips, workers=workers, gpus=gpus, cpus=cpus)
        return PoolSettings(workers, each, min(1, gpus), self.settings.worker.seconds)

    def _loop(self, pool: Pool, clips: int) -> State:
        heard = 0

        def on_tick(state: State) -> None:
            nonlocal heard
            self.heart.beat()
            progress.show(state)
            while heard < self.asked:
                heard += 1
                if heard == 1:
                    self.say("No more clips are sent; those under way end. Once more breaks them off.")
                    pool.stop_sending("interrupted")
                elif heard == 2:
                    self.say("Clips under way are broken off. Once more ends the run whatever they do.")
                    pool.interrupt()
                else:
                    raise KeyboardInterrupt
            ended = state.counts["done"] + state.counts["failed"]
            if ended >= min(_ENOUGH, clips) and state.counts["failed"] > self.settings.most_failures * ended:
                pool.stop_sending(f"{state.counts['failed']} of {ended} clips have failed")

        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with Progress(clips, sys.stdout) as progress:
                return pool.run(on_tick)
        finally:
            pool.close()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: Any) -> None:
        self.asked += 1

    def _on_event(self, event: str, **content: Any) -> None:
        if self.counters is not None:
            self.counters.count(event, content)
        if event == "failed":
            self.results.fail(content["id"], content)
            self.say(f"{content['id']} failed: {content['reason']}")
        elif event in ("lost", "retried"):
            self.say(f"{content['id']} runs again: {content['reason']}")
        elif event == "worker" and content["state"] != "ready":
            self.say(f"worker {content['number']} {content['state']}: {content['reason']}")
        content.pop("log", None)
        self.results.event(event, **content)

    def _on_ready(self, ray: Any, pool: Pool, slot: Slot) -> str | None:
        """Holds a worker against the workflow, and against what has made the clips so far."""
        made_with = dict(slot.facts["made_with"])
        before = self.made_with or self.results.run().get("made_with") or made_with
        if made_with != before:
            return (
                f"{self.results.folder} was made with {_differences(before, made_with)} as on {slot.facts['machine']}. "
                "Name another folder, or use what it was made with."
            )
        if not self.made_with:
            jobs = checked(self.workflow, pool.state.todo, ray.get(slot.actor.object_info.remote()))
            pool.state.todo = Todo(jobs)
            self.made_with = made_with
            self.results.keep_run({**self.results.run(), "made_with": made_with})
        return None

    def _may_send(self) -> str | None:
        return None if self.results.has_room() else f"the disk of {self.results.folder} is full"

    def _finish(self, state: State | None) -> int:
        # of workers that were killed as they wrote
        self.results.sweep()
        summary = self.results.summarise(self.jobs)
        self.say(
            f"{summary['done']} of {summary['clips']} clips are done, {summary['failed']} failed, {summary['open']} "
            f"are open: {self.results.folder / 'summary.csv'}"
        )
        stopped = state.stopped if state is not None else None
        self.results.event("ended", stopped=stopped, **summary)
        if stopped:
            self.say(f"Stopped: {stopped}. The same command goes on where this one stopped.")
            return INTERRUPTED if stopped == "interrupted" else NOT_ALL
        return SOME_FAILED if summary["failed"] else NOT_ALL if summary["open"] else DONE


def run_jobs(
    results: Results, workflow: Workflow, jobs: list[Job], settings: RunSettings, say: Callable[[str], None]
) -> int:
    """Runs jobs into a folder; the same call goes on where an earlier one was stopped. Returns the exit status.

    Raises:
        JobsError: nothing was run, because the jobs, the workflow, the folder or Ray is not as it has to be.
    """
    with results.lock() as heart:
        fingerprint = hashlib.sha256(json.dumps(workflow, sort_keys=True).encode()).hexdigest()[:20]
        before = results.run()
        if before.get("workflow") not in (None, fingerprint):
            raise JobsError(f"{results.folder} was made with another workflow. Name another folder for this one.")
        _check_unchanged(results, jobs)
        results.keep_run({**before, "workflow": fingerprint, "arguments": asdict(settings), "graph": workflow})
        results.keep_jobs(jobs)
        try:
            return Run(results, workflow, jobs, settings, heart, say).carry_out()
        except OSError as error:
            say(
                f"Stopped: the results in {results.folder} cannot be written ({error}). What is done is kept; the same "
                "command goes on when there is room."
            )
            return NOT_ALL


def _check_unchanged(results: Results, jobs: list[Job]) -> None:
    """Raise when a clip that is done was made with other settings than it has now, which nobody would notice."""
    known = {job.id: job.content for job in results.jobs()} if results.holds_jobs() else {}
    for job in jobs:
        if known.get(job.id, job.content) != job.content and results.is_done(job.id):
            raise JobsError(
                f"{job.row}: {job.id} is done, but with another video or other settings. Give the row another id, or "
                f"delete {results.place(job.id)} to have it made again."
            )


def dry_run(workflow: Workflow, jobs: list[Job], settings: RunSettings) -> int:
    """Holds table and workflow against one ComfyUI on this machine; returns how many clips would run."""
    check_places(workflow, jobs)
    worker = ComfyUIWorker(**asdict(settings.worker))
    try:
        worker.ready(workflow)
        return len(checked(workflow, jobs, worker.object_info()))
    finally:
        worker.stop()


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    return "; ".join(f"{name} {one.get(name)}, not {other.get(name)}" for name in names)

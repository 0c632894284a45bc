"""The loop over Ray's actors: the next clip goes to the next worker that is ready.

Placement, membership and restarts are Ray's. Here is what becomes of a clip: done, failed by its own fault, or run
again because a machine, an actor or a ComfyUI went away under it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from .cluster import PoolSettings, WorkerClass, actor_class
from .jobs import Job, JobsError
from .todo import Todo
from .worker import Outcome
from .workflow import Workflow

# Losses of a clip's machine that are not the clip's fault; one that kills its worker each time must end.
MOST_LOSSES = 5
# Tries to start ComfyUI, of a worker that has not run one.
MOST_STARTS = 3
# A worker that a clip's own time limit has not ended is taken for hung this much later.
GRACE_SECONDS = 120
_RETRY_SECONDS = 1


@dataclass
class Attempts:
    """Of one clip."""

    losses: int = 0
    less_memory: bool = False


@dataclass
class Slot:
    """A worker as the driver sees it."""

    number: int
    actor: Any
    starts: int = 0
    job: Job | None = None
    # of its last clip
    video: str | None = None
    since: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)
    retry_at: float = 0.0
    state: str = "waiting"
    # why it is not there; a machine that stays away is told once
    lost: str = ""


@dataclass
class State:
    """Of a run, for whoever shows it."""

    todo: Todo
    counts: Counter = field(default_factory=Counter)
    reasons: Counter = field(default_factory=Counter)
    slots: list[Slot] = field(default_factory=list)
    # None while clips are sent; then why none is sent any more
    stopped: str | None = None


class Pool:
    """Runs jobs on workers of a cluster.

    Args:
        ray: the module, connected.
        workflow: that all clips go through.
        jobs: sent in their order, but those of one video one after the other to the same worker.
        on_event: is told what happens: sent, done, failed, lost, retried, worker or stopped, with details.
        on_ready: looks at what a worker that has started says of itself; gives a reason not to use it, or None. A
            JobsError that it raises ends the run.
        may_send: None, or why no further clip can be sent (the disk is full).
    """

    def __init__(
        self,
        ray: Any,
        settings: PoolSettings,
        kind: WorkerClass,
        workflow: Workflow,
        jobs: Iterable[Job],
        on_event: Callable[..., None],
        on_ready: Callable[[Slot], str | None],
        may_send: Callable[[], str | None],
    ) -> None:
        self.ray, self.settings, self.kind, self.workflow = ray, settings, kind, workflow
        self.on_event, self.on_ready, self.may_send = on_event, on_ready, may_send
        self.state = State(Todo(jobs))
        self._attempts: dict[str, Attempts] = {}
        self._pending: dict[Any, Slot] = {}
        self._shared_workflow: Any = None

    def run(self, on_tick: Callable[[State], None]) -> State:
        """Until every job is done or failed, or no more are sent and the last has ended; `on_tick` is called often.

        Raises:
            JobsError: no worker can be started; with what the last one said.
        """
        make = actor_class(self.ray, self.settings)
        self._shared_workflow = self.ray.put(self.workflow)
        self.state.slots = [Slot(number, make.remote(asdict(self.kind))) for number in range(self.settings.workers)]
        for slot in self.state.slots:
            self._start(slot)
        while self._has_work():
            for reference in self._ended():
                slot = self._pending.pop(reference)
                (self._ran if slot.job is not None else self._started)(slot, reference)
            self._look_after()
            on_tick(self.state)
        return self.state

    def _ended(self) -> list[Any]:
        """Waits a moment for something to end, and returns all that has: with thousands of workers, many at a time."""
        waiting = list(self._pending)
        if not waiting:
            time.sleep(0.2)
            return []
        done, _ = self.ray.wait(waiting, num_returns=1, timeout=0.5)
        if done and len(waiting) > 1:
            done, _ = self.ray.wait(waiting, num_returns=len(waiting), timeout=0)
        return done

    def stop_sending(self, why: str) -> None:
        """Clips under way end, no more are sent."""
        if self.state.stopped is None:
            self.state.stopped = why
            self.on_event("stopped", reason=why)

    def interrupt(self) -> None:
        """Clips under way are broken off too; they are open again."""
        for slot in self._busy():
            slot.actor.interrupt.remote()

    def close(self) -> None:
        """Ends the workers and their ComfyUIs."""
        goodbyes = {slot.actor.stop.remote(): slot for slot in self.state.slots}
        running = [goodbye for goodbye, slot in goodbyes.items() if slot.state in ("ready", "busy", "retired")]
        self.ray.wait(running, num_returns=len(running), timeout=30)
        # the others may be starting, or gone, or wait for a place until the end of time
        self.ray.wait(list(goodbyes), num_returns=len(goodbyes), timeout=3)
        for slot in self.state.slots:
            self.ray.kill(slot.actor)

    def _busy(self) -> list[Slot]:
        return [slot for slot in self.state.slots if slot.job is not None]

    def _has_work(self) -> bool:
        return bool(self._busy()) or (bool(self.state.todo) and self.state.stopped is None)

    def _start(self, slot: Slot) -> None:
        slot.state = "starting"
        self._pending[slot.actor.ready.remote(self._shared_workflow)] = slot

    def _started(self, slot: Slot, reference: Any) -> None:
        try:
            slot.facts = self.ray.get(reference)
            unusable = self.on_ready(slot)
        except self.ray.exceptions.RayTaskError as error:
            slot.starts += 1
            reason = str(error.cause or error)
            self.on_event("worker", number=slot.number, state="did not start", reason=reason)
            if slot.starts < MOST_STARTS:
                self._start(slot)
            else:
                self._retire(slot, reason)
            return
        except self.ray.exceptions.RayError as error:
            self._wait_for(slot, error)
            return
        slot.starts, slot.lost = 0, ""
        if unusable:
            self._retire(slot, unusable)
            return
        self.on_event("worker", number=slot.number, state="ready", **slot.facts)
        slot.state = "ready"
        self._send(slot)

    def _retire(self, slot: Slot, reason: str) -> None:
        slot.state = "retired"
        self.on_event("worker", number=slot.number, state="retired", reason=reason)
        if all(other.state == "retired" for other in self.state.slots):
            why = f"No worker can be used. The last one said: {reason}"
            if not self.state.counts:
                raise JobsError(why)
            self.stop_sending(why)

    def _wait_for(self, slot: Slot, error: Exception) -> None:
        """The actor is gone; Ray makes it again, here or on another machine, now or when there is one."""
        slot.state, slot.retry_at = "lost", time.monotonic() + _RETRY_SECONDS
        before, slot.lost = slot.lost, f"{type(error).__name__}: {error}"[:500]
        if slot.lost != before:
            self.on_event("worker", number=slot.number, state="lost", reason=slot.lost)

    def _send(self, slot: Slot) -> None:
        if not self.state.todo or self.state.stopped is not None:
            return
        if why := self.may_send():
            self.stop_sending(why)
            return
        others = {other.video for other in self.state.slots if other is not slot}
        job = self.state.todo.take(slot.video, others)
        slot.video = job.video
        slot.job, slot.since, slot.state = job, time.monotonic(), "busy"
        less = self._attempts.get(job.id, Attempts()).less_memory
        self._pending[slot.actor.run.remote(asdict(job), self._shared_workflow, less)] = slot
        self.on_event("sent", id=job.id, worker=slot.number)

    def _ran(self, slot: Slot, reference: Any) -> None:
        job, slot.job = slot.job, None
        seconds = round(time.monotonic() - slot.since, 3)
        try:
            outcome = Outcome(**self.ray.get(reference))
        except self.ray.exceptions.RayTaskError as error:
            # a fault of the worker's own code, which it would repeat
            outcome = Outcome("failed", str(error.cause or error), "fault of the worker")
        except self.ray.exceptions.RayError as error:
            self._lost(job, f"{type(error).__name__}: {error}"[:500])
            self._wait_for(slot, error)
            return
        if outcome.state == "not started":
            # by a worker that Ray has made again, or whose ComfyUI does not start any more
            self.state.todo.put_back(job)
            self._start(slot)
            return
        self._settle(job, outcome, slot, seconds)
        slot.state = "ready"
        self._send(slot)

    def _settle(self, job: Job, outcome: Outcome, slot: Slot, seconds: float) -> None:
        attempts = self._attempts.setdefault(job.id, Attempts())
        if outcome.state == "done":
            self.state.counts["done"] += 1
            del self._attempts[job.id]
            self.on_event("done", id=job.id, worker=slot.number, seconds=seconds)
        elif outcome.state == "lost":
            self._lost(job, outcome.reason)
        elif outcome.state == "out of memory" and not attempts.less_memory:
            attempts.less_memory = True
            self.state.todo.put_back(job)
            self.state.counts["retried"] += 1
            self.on_event("retried", id=job.id, reason=outcome.reason)
        elif outcome.state == "disk full":
            self.state.todo.put_back(job)
            self.stop_sending(outcome.reason)
        elif outcome.state == "interrupted":
            self.state.todo.put_back(job)
        else:
            self._failed(job, outcome)

    def _lost(self, job: Job, reason: str) -> None:
        attempts = self._attempts.setdefault(job.id, Attempts())
        attempts.losses += 1
        self.state.counts["lost"] += 1
        self.on_event("lost", id=job.id, losses=attempts.losses, reason=reason)
        if attempts.losses < MOST_LOSSES:
            self.state.todo.put_back(job)
        else:
            why = f"Its worker went away {attempts.losses} times while it ran. The last time: {reason}"
            self._failed(job, Outcome("failed", why, "kills its worker"))

    def _failed(self, job: Job, outcome: Outcome) -> None:
        self._attempts.pop(job.id, None)
        self.state.counts["failed"] += 1
        self.state.reasons[outcome.kind] += 1
        content = {"id": job.id, "kind": outcome.kind, "reason": outcome.reason, "row": job.row, **outcome.content}
        self.on_event("failed", **content)

    def _look_after(self) -> None:
        """Gives work to those who wait for it, and gives up those who are hung."""
        now = time.monotonic()
        for slot in self.state.slots:
            if slot.state == "lost" and now >= slot.retry_at:
                self._start(slot)
            elif slot.state == "ready":
                self._send(slot)
            elif slot.state == "busy" and now - slot.since > self.settings.seconds + GRACE_SECONDS:
                why = f"it has not come back from {slot.job.id} {GRACE_SECONDS} s after the time limit"
                self.on_event("worker", number=slot.number, state="is ended", reason=why)
                # its reference fails, and Ray makes it again
                self.ray.kill(slot.actor, no_restart=False)
                slot.since = now

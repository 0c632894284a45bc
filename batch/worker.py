"""One ComfyUI, and the clips that go through it one after the other. Ray makes an actor of it; it needs no Ray."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .comfyui.client import HostError, HostLost, OutOfTime, Result
from .comfyui.events import title_of
from .comfyui.memory import Memory
from .comfyui.process import HostProcess, device_arguments
from .host_files import bring_in, clear, saved
from .jobs import Job, add_ends
from .results import Results
from .workflow import Workflow, filled, with_less_memory

PACK = Path(__file__).resolve().parents[1]
# What a model's file is known by without being read as a whole.
_ENDS = 1 << 20
_MODELS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
_DISK_FULL = os.strerror(errno.ENOSPC)
_OUT_OF_MEMORY = ("OutOfMemory", "out of memory", "Allocation on device")
_LOG_LINES = 30

State = Literal["done", "failed", "out of memory", "lost", "disk full", "interrupted", "not started"]


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker runs, and how.

    Attributes:
        results: the folder of the run, on storage that all machines see.
        comfyui: folder that holds ComfyUI's main.py.
        python: the interpreter that runs it.
        packs: by the name that they get among its custom nodes; None for what is installed there, models too.
        models: files that it shall have too, by the folder of ComfyUI's models that they belong to.
        arguments: more of main.py.
        environment: variables of its process.
        seconds: that a clip may take.
        stall: seconds without progress after which ComfyUI is started again.
        recycle: ComfyUI is started again after so many clips; 0 for never.
        keep: "videos", or "all" that the workflow saves.
    """

    results: str
    comfyui: str
    python: str
    packs: Mapping[str, str] | None = None
    models: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 6 * 3600
    stall: float = 1800
    recycle: int = 0
    keep: Literal["videos", "all"] = "videos"


@dataclass(frozen=True)
class Outcome:
    """What became of a clip.

    Attributes:
        state: "done" is on the disk; "failed" is the clip's own fault; "lost" is not; "not started": not tried.
        reason: for a person.
        kind: of failure, in a word or two.
        content: the report of a clip that is done; else the end of ComfyUI's log.
    """

    state: State
    reason: str = ""
    kind: str = ""
    content: Mapping[str, Any] = field(default_factory=dict)


class ComfyUIWorker:
    """Starts its ComfyUI in `ready`, and again whenever it is gone."""

    def __init__(self, **settings: Any) -> None:
        self.settings = WorkerSettings(**settings)
        self.results = Results(Path(self.settings.results))
        self._host: HostProcess | None = None
        self._folder: tempfile.TemporaryDirectory | None = None
        self._clips = 0

    def ready(self, workflow: Workflow) -> dict[str, Any]:
        """Starts ComfyUI; says where it runs, and what models and code the workflow meets there.

        Raises:
            HostError: it does not start; with the end of its log.
        """
        host = self._running()
        device = host.client.system_stats()
        return {
            "machine": socket.gethostname(),
            "device": device["devices"][0]["name"],
            "made_with": {
                "comfyui": device["system"].get("comfyui_version"),
                "pack": _hash_of_code(),
                "models": self._models(workflow),
            },
        }

    def object_info(self) -> dict[str, Any]:
        """ComfyUI's nodes by name."""
        return self._running().client.object_info()

    def run(self, job: Job, workflow: Workflow, less_memory: bool = False) -> Outcome:
        """Edits a clip and puts it among the results. What goes wrong is an outcome, not an exception."""
        if self.results.is_done(job.id):
            return Outcome("done", content=self.results.report(job.id) or {})
        if self.settings.recycle and self._clips >= self.settings.recycle:
            self.stop()
        started = time.monotonic()
        try:
            host = self._running()
        except (HostError, OSError) as error:
            return Outcome("not started", str(error))
        self._clips += 1
        try:
            outcome = self._edited(host, job, with_less_memory(workflow) if less_memory else workflow, started)
        finally:
            clear(host.base)
        if outcome.state in ("lost", "out of memory"):
            self.stop()
        return outcome

    def interrupt(self) -> None:
        """Ends the clip under way, which is then nowhere."""
        if self._host is not None:
            try:
                self._host.client.interrupt()
            except OSError:
                pass

    def stop(self) -> None:
        """Ends ComfyUI and removes its files."""
        if self._host is not None:
            self._host.stop()
            self._host = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _running(self) -> HostProcess:
        if self._host is not None and self._host.process.poll() is None:
            return self._host
        self.stop()
        settings = self.settings
        self._folder = tempfile.TemporaryDirectory(prefix="stem-batch-", ignore_cleanup_errors=True)
        packs = settings.packs and {name: Path(folder) for name, folder in settings.packs.items()}
        self._host = HostProcess(
            Path(self._folder.name),
            Path(settings.comfyui),
            Path(settings.python),
            packs,
            [*device_arguments(settings.python), *settings.arguments],
            {folder: [Path(file) for file in files] for folder, files in settings.models.items()},
            settings.environment,
            temporary=True,
        )
        self._clips = 0
        try:
            return self._host.start()
        except BaseException:
            self.stop()
            raise

    def _edited(self, host: HostProcess, job: Job, workflow: Workflow, started: float) -> Outcome:
        memory = Memory(host)
        try:
            result = host.client.run(
                filled(workflow, job, bring_in(Path(job.video), host.base)),
                lambda event: memory.look(),
                timeout=self.settings.seconds,
                stall=self.settings.stall,
                check=False,
            )
        except OutOfTime as error:
            outcome = self._failed(host, str(error), "time limit")
            # what does not end in time may not heed an interruption either
            self.stop()
            return outcome
        except (HostLost, OSError) as error:
            if _DISK_FULL in str(error):
                return self._full(host, job, str(error))
            return Outcome("lost", f"{error}", "ComfyUI is gone", {"log": _end_of_log(host)})
        except HostError as error:
            return self._failed(host, str(error), "refused")
        if result.status == "interrupted":
            return Outcome("interrupted", result.error or "")
        if result.status != "success":
            reason = result.error or ""
            if _DISK_FULL in reason:
                return self._full(host, job, reason)
            if any(word in reason for word in _OUT_OF_MEMORY):
                peak = memory.as_dict()
                return Outcome("out of memory", reason, "out of memory", {"log": _end_of_log(host), **peak})
            return self._failed(host, reason, "error")
        return self._committed(memory, job, workflow, result, started)

    def _committed(self, memory: Memory, job: Job, workflow: Workflow, result: Result, started: float) -> Outcome:
        host = memory.host
        files = saved(host.base, workflow, result, self.settings.keep)
        if not files:
            return self._failed(host, "The workflow saved no video. It needs a Save Video.", "no video")
        report = {
            "id": job.id,
            "video": job.video,
            "values": dict(job.values),
            "files": list(files),
            "seconds": round(time.monotonic() - started, 2),
            "seconds_by_node": {
                title_of(workflow, node): round(seconds, 3)
                for node, seconds in result.seconds_by_node.items()
                if node in workflow
            },
            "seconds_per_step": {
                title_of(workflow, node): round(seconds, 4)
                for node, seconds in result.seconds_per_step.items()
                if node in workflow
            },
            "texts": {
                title_of(workflow, node): shown["text"]
                for node, shown in result.outputs.items()
                if node in workflow and shown.get("text")
            },
            **memory.as_dict(),
            "machine": socket.gethostname(),
        }
        try:
            self.results.commit(job.id, files, report)
        except OSError as error:
            return Outcome("disk full", f"{job.id} could not be written to {self.results.folder}: {error}")
        return Outcome("done", content=report)

    def _full(self, host: HostProcess, job: Job, reason: str) -> Outcome:
        return Outcome("disk full", f"{job.id} needs more room in {host.base} on {socket.gethostname()}: {reason}")

    def _failed(self, host: HostProcess, reason: str, kind: str) -> Outcome:
        return Outcome("failed", reason, kind, {"log": _end_of_log(host)})

    def _models(self, workflow: Workflow) -> dict[str, str]:
        """The model files that the workflow names, by size and a hash of both ends."""
        base = self._host.base if self.settings.packs is not None else Path(self.settings.comfyui)
        names = {
            value
            for entry in workflow.values()
            for value in entry["inputs"].values()
            if isinstance(value, str) and value.lower().endswith(_MODELS)
        }
        found = {}
        for name in sorted(names):
            for folder in (base / "models").glob("*"):
                if (folder / name).is_file():
                    digest = hashlib.sha256()
                    add_ends(digest, folder / name, _ENDS)
                    found[name] = digest.hexdigest()[:20]
        return found


def _hash_of_code() -> str:
    """Of the pack's code that a result depends on."""
    digest = hashlib.sha256()
    for folder in ("nodes", "stem_kernels"):
        for file in sorted((PACK / folder).rglob("*.py")):
            digest.update(file.relative_to(PACK).as_posix().encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:20]


def _end_of_log(host: HostProcess) -> str:
    return "\n".join(host.log_text().splitlines()[-_LOG_LINES:])

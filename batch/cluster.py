"""Ray: connecting to it, and the actor that holds a worker."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .jobs import JobsError

_TOKEN_PLACES = "~/.ray/auth_token or RAY_AUTH_TOKEN"


@dataclass(frozen=True)
class PoolSettings:
    """How many workers, on what.

    Attributes:
        workers: actors.
        cpus, gpus: that Ray reserves for each.
        seconds: that a clip may take, as the worker was told.
    """

    workers: int
    cpus: float
    gpus: float
    seconds: float = 6 * 3600


@dataclass(frozen=True)
class WorkerClass:
    """What the actors run: a class, and the arguments that it is made with.

    module: below the pack, with dots. root: the folder of the pack, the same on every machine. package: what it is
    imported as.
    """

    module: str
    name: str
    arguments: Mapping[str, Any]
    root: str = str(Path(__file__).resolve().parents[1])
    package: str = __name__.partition(".")[0]


def start_ray(address: str = "local", dashboard: bool = False) -> Any:
    """Ray, connected; the module. JobsError where it is not installed, or a cluster cannot be used from here.

    address: of a cluster, or "local" for this machine. dashboard: whether Ray's page of the run is served.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # of a cluster Ray's processes listen on all interfaces, so that none answers without a token
    os.environ["RAY_AUTH_MODE"] = "token"
    if address == "local":
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    else:
        _check(address)
    # Ray reads its environment as it is imported
    try:
        import ray
    except ImportError:
        raise JobsError(
            'Runs of many clips need Ray, which is not installed: pip install "ray>=2.52". (The nodes do not need it.)'
        ) from None
    options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": "error"}
    if address == "local":
        # as everywhere but on Linux: nobody else has to reach it, so it listens on the loopback interface alone
        constants = getattr(getattr(ray, "_private", None), "ray_constants", None)
        if hasattr(constants, "ENABLE_RAY_CLUSTER"):
            constants.ENABLE_RAY_CLUSTER = False
        options |= {"include_dashboard": dashboard, "_temp_dir": os.environ.get("RAY_TMPDIR") or None}
    try:
        ray.init(**options)
    except Exception as error:  # Ray raises its own, Python's, and a bare one
        # the first sentence of the last line says what it is
        last = (str(error.__cause__ or error).strip() or type(error).__name__).splitlines()[-1]
        reason = last.partition(". ")[0].rstrip(".")
        if address == "local":
            needed = ' The dashboard needs pip install "ray[default]".' if dashboard else ""
            raise JobsError(f"Ray does not start on this machine: {reason}.{needed}") from None
        raise JobsError(
            f"Ray at {address} cannot be used from here: {reason}. This machine has to be one of that cluster (ray "
            f"start --address={address}), with its token ({_TOKEN_PLACES})."
        ) from None
    return ray


@contextmanager
def connected(address: str = "local", dashboard: bool = False) -> Iterator[Any]:
    """Ray, for as long as the block lasts; where it is connected already, as for several runs in a row, the same."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        yield ray
        return
    ray = start_ray(address, dashboard)
    try:
        yield ray
    finally:
        ray.shutdown()


def _check(address: str) -> None:
    """Ray itself would try for a quarter of an hour, without a word."""
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "3")
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    if not named and not (Path.home() / ".ray" / "auth_token").is_file():
        raise JobsError(
            f"The cluster at {address} needs a token. Start every node with RAY_AUTH_MODE=token and the token "
            f"of `ray get-auth-token --generate`, and have the same token here ({_TOKEN_PLACES})."
        )
    if address == "auto":
        # Ray knows which cluster this machine is in, as within a Ray Job
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise JobsError(
            f"No Ray answers at {address} ({error}). The address is host:port of the machine on which `ray start "
            "--head` was run; its port is 6379 unless it was given another one."
        ) from None


def actor_class(ray: Any, settings: PoolSettings) -> Any:
    """The actor. Its class is local, so that it travels to machines on which nothing has been imported yet."""

    class Worker:
        def __init__(self, kind: dict) -> None:
            # an exception here would be final; all that can fail is in `ready`
            self.kind, self.worker = kind, None

        def ready(self, workflow: dict) -> dict:
            if self.worker is None:
                import importlib
                import sys
                import types

                pack = types.ModuleType(self.kind["package"])
                pack.__path__ = [self.kind["root"]]
                sys.modules.setdefault(self.kind["package"], pack)
                module = importlib.import_module(f"{self.kind['package']}.{self.kind['module']}")
                self.worker = getattr(module, self.kind["name"])(**self.kind["arguments"])
            return self.worker.ready(workflow)

        def object_info(self) -> dict:
            return self.worker.object_info()

        def run(self, job: dict, workflow: dict, less_memory: bool) -> dict:
            if self.worker is None:
                # Ray has made this actor again while it had no clip, perhaps on another machine
                return {"state": "not started"}
            import dataclasses
            import importlib

            made = importlib.import_module(f"{self.kind['package']}.batch.jobs").Job(**job)
            return dataclasses.asdict(self.worker.run(made, workflow, less_memory))

        def interrupt(self) -> None:
            if self.worker is not None:
                self.worker.interrupt()

        def stop(self) -> None:
            if self.worker is not None:
                self.worker.stop()

    return ray.remote(
        num_cpus=settings.cpus,
        num_gpus=settings.gpus,
        max_restarts=-1,
        max_task_retries=0,
        # a clip, and beside it the wish to interrupt it
        max_concurrency=2,
        # each on a machine of its own as far as there are some, so that one loss is one clip
        scheduling_strategy="SPREAD",
    )(Worker)

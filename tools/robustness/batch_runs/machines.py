"""Machines for runs of many clips: network namespaces of this one, with a Ray of their own and no way out.

Ray takes a machine's own address even where 127.0.0.1 is named, so nothing less keeps its ports to itself.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from ....batch.comfyui.keeper import kill_tree

CABLE = "cable"
PORT = 6379
# Workers, and ComfyUIs that they start, would otherwise wait for all else that a busy machine does; and who is killed
# would be missed only at the next whole second.
RAY = {"RAY_worker_niceness": "0", "RAY_core_worker_internal_heartbeat_ms": "100"}
# A busy machine takes a while to start Ray.
SECONDS = 120


class CannotSeparate(RuntimeError):
    """This process may not make network namespaces."""


def until(condition: Callable[[], object], seconds: float = SECONDS, what: str = "") -> None:
    """Waits for a condition. TimeoutError when it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"This did not happen within {seconds:g} s: {what or condition}")
        time.sleep(0.02)


class Machine:
    """A network namespace with its loopback interface, and a folder for what is its own.

    address: that it has for other machines; "" for one that is alone.
    ray: the process that `start_ray` has started, whose children are Ray's.
    """

    def __init__(self, address: str = "") -> None:
        self.address = address
        self.ray: subprocess.Popen | None = None
        self._started: list[subprocess.Popen] = []
        try:
            # it ends with this process, which holds the other end of its pipe
            self._holder = subprocess.Popen(
                ["unshare", "--net", "--", "cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
            )
        except OSError as error:
            raise CannotSeparate(str(error)) from None
        own = os.readlink("/proc/self/ns/net")
        until(lambda: self._holder.poll() is not None or os.readlink(self._namespace) != own, 10, "a namespace")
        if self._holder.poll() is not None:
            raise CannotSeparate(f"unshare ended with {self._holder.returncode}")
        self.folder = Path(tempfile.mkdtemp(prefix="stem-"))
        self.call("ip", "link", "set", "lo", "up")

    @property
    def _namespace(self) -> str:
        return f"/proc/{self._holder.pid}/ns/net"

    def _command(self, *arguments: object) -> list[str]:
        return ["nsenter", f"--net={self._namespace}", "--", *map(str, arguments)]

    def call(self, *arguments: object) -> str:
        """Runs a short command here; returns what it says."""
        return subprocess.run(self._command(*arguments), check=True, capture_output=True, text=True).stdout

    def start(self, log: Path, environment: dict[str, str], *arguments: object) -> subprocess.Popen:
        """Starts a command here, which becomes the process itself; `close` ends it if nobody else does."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        with log.open("w") as output:
            process = subprocess.Popen(
                self._command(*arguments),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=own | RAY | environment,
            )
        self._started.append(process)
        return process

    def plug_into(self, other: Machine) -> None:
        """Joins two machines by a cable, which is also where each looks for the rest of the world."""
        peer = str(self._holder.pid)
        other.call("ip", "link", "add", CABLE, "type", "veth", "peer", "name", CABLE, "netns", peer)
        for machine in (self, other):
            machine.call("ip", "address", "add", f"{machine.address}/24", "dev", CABLE)
            machine.call("ip", "link", "set", CABLE, "up")
            machine.call("ip", "route", "add", "default", "dev", CABLE)

    def start_ray(self, cpus: int, environment: Mapping[str, str], head: Machine | None = None) -> None:
        """Starts a node, the head of a cluster where none is named, and waits until it is part of the cluster."""
        where = [f"--address={head.address}:{PORT}"] if head else ["--head", f"--port={PORT}"]
        options = [f"--num-cpus={cpus}", f"--node-ip-address={self.address}", f"--temp-dir={self.folder}"]
        if head is None:
            options.append("--include-dashboard=false")
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
        log, own = self.folder / "ray.log", {"STUB_MACHINE": str(self.folder)}
        self.ray = self.start(log, own | dict(environment), *command, *where, *options)
        until(lambda: self.ray.poll() is not None or "Ray runtime started" in log.read_text(), what="ray start")
        if self.ray.poll() is not None:
            raise RuntimeError(f"ray start ended with {self.ray.returncode}: {log.read_text()}")

    def processes(self, part: str = "") -> list[psutil.Process]:
        """Those of its Ray, or those with a part of a command line: "/raylet/raylet ", "ray::Worker"."""
        return descendants(self.ray, part) if self.ray is not None else []

    @property
    def raylet(self) -> psutil.Process | None:
        """Ray's own process on this machine, while it runs."""
        return next(iter(self.processes("/raylet/raylet ")), None)

    def close(self) -> None:
        """Ends all that has been started here."""
        families = [descendants(process) for process in self._started]
        for process in self._started:
            kill_tree(process.pid)
            process.wait()
        psutil.wait_procs([process for family in families for process in family], timeout=10)
        self._holder.stdin.close()
        self._holder.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def descendants(process: subprocess.Popen, part: str = "") -> list[psutil.Process]:
    """All that a process has started and that still runs, or those with a part of a command line."""
    if process.poll() is not None:
        return []
    return [one for one in psutil.Process(process.pid).children(recursive=True) if part in command_line(one)]


def command_line(process: psutil.Process) -> str:
    """Of a process; "" when it is gone."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def new_token() -> dict[str, str]:
    """The environment of a cluster's nodes and drivers."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


@contextmanager
def machines(*addresses: str) -> Iterator[list[Machine]]:
    """Machines of these addresses, each joined to the first one; without addresses, one that is alone.

    CannotSeparate where there can be none.
    """
    made: list[Machine] = []
    try:
        for address in addresses or ("",):
            made.append(Machine(address))
            if len(made) > 1:
                made[-1].plug_into(made[0])
        yield made
    finally:
        for machine in reversed(made):
            machine.close()

"""Starts and stops a real ComfyUI on the loopback interface, in a base folder of its own."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from .. import locations
from .client import HostClient, HostError

STOP_SECONDS = 15
FOLDERS = ("custom_nodes", "models/checkpoints", "input", "output", "temp", "user")


class HostProcess:
    """A host that runs between `start` and `stop`, or in a `with` block.

    base: folder for everything the host reads and writes (models, input, output, custom nodes, log); made if missing.
    host: folder that holds the host's main.py.
    python: the interpreter that runs it.
    packs: custom node packs by the name they shall have in custom_nodes; linked, not copied.
    checkpoints: files to link into the host's models/checkpoints.
    extra_args: further arguments of main.py, such as those of `device_arguments`.
    environment: further environment variables.
    """

    def __init__(
        self,
        base: Path,
        host: Path,
        python: Path,
        packs: Mapping[str, Path],
        extra_args: Sequence[str] = (),
        checkpoints: Sequence[Path] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.base = Path(base).resolve()
        self.packs = dict(packs)
        self.log = self.base / "host.log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = HostClient(self.url)
        # fmt: off
        self.command = [
            str(python), str(Path(host) / "main.py"), "--listen", "127.0.0.1", "--port", str(self.port),
            "--disable-auto-launch", "--base-directory", str(self.base), "--database-url", "sqlite:///:memory:",
            "--disable-api-nodes", *extra_args,
        ]
        # fmt: on
        self.environment = host_environment(environment or {})
        self.process: subprocess.Popen | None = None
        self._peak_bytes = 0
        self._lay_out(checkpoints)

    def _lay_out(self, checkpoints: Sequence[Path]) -> None:
        for folder in FOLDERS:
            (self.base / folder).mkdir(parents=True, exist_ok=True)
        for name, folder in self.packs.items():
            link(Path(folder).resolve(), self.base / "custom_nodes" / name)
        for file in checkpoints:
            link(Path(file).resolve(), self.base / "models" / "checkpoints" / Path(file).name)

    def start(self, timeout: float = 180) -> HostProcess:
        """Starts the host and waits until it serves its nodes.

        HostError with the end of the log: it ended, it was not ready in `timeout` seconds, or a pack did not import.
        """
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.base,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait(time.monotonic() + timeout)
            if failed := failed_imports(self.log_text(), self.packs):
                raise HostError(f"The host could not import {', '.join(failed)}.{self._log_end(40)}")
        except BaseException:
            self.stop()
            raise
        return self

    def _wait(self, deadline: float) -> None:
        while True:
            if self.process.poll() is not None:
                raise HostError(f"The host ended with status {self.process.returncode}.{self._log_end()}")
            try:
                self.client.object_info()
                return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                if time.monotonic() > deadline:
                    raise HostError(f"The host did not get ready in time.{self._log_end()}") from None
                time.sleep(0.2)

    def stop(self) -> None:
        """Ends the host: asks first, and ends it by force when it has not gone after STOP_SECONDS. May be repeated."""
        if self.process is None or self.process.poll() is not None:
            return
        self.peak_memory_mb()
        try:
            # a process in the background of a shell, and so its host, may have been told to ignore SIGINT
            if os.name == "nt" or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
                self.process.terminate()
            else:
                self.process.send_signal(signal.SIGINT)
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()

    def __enter__(self) -> HostProcess:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def log_text(self) -> str:
        """What the host has logged so far."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.is_file() else ""

    def _log_end(self, lines: int = 25) -> str:
        end = self.log_text().splitlines()[-lines:]
        return "\n".join([" The end of its log:", *(f"    {line}" for line in end)])

    def peak_memory_mb(self) -> float:
        """Largest resident memory of the host so far, in MB (10^6 bytes); kept after it has stopped.

        Where the system keeps no such record (macOS), the largest of the values seen by calls of this function.
        """
        if self.process is not None and self.process.poll() is None:
            self._peak_bytes = max(self._peak_bytes, peak_resident_bytes(self.process.pid))
        return self._peak_bytes / 1e6


def new_host(base: Path, packs: Mapping[str, Path] = locations.PACKS) -> HostProcess:
    """A host of the set-up with the generated tiny checkpoint, whose files are in `base`; not started."""
    where = locations.from_environment()
    return HostProcess(base, where.host, where.host_python, packs, device_arguments(), [where.checkpoint])


@contextmanager
def temporary_host(purpose: str, packs: Mapping[str, Path] = locations.PACKS) -> Iterator[HostProcess]:
    """The same, running, in folders that go with it."""
    with (
        tempfile.TemporaryDirectory(prefix=f"stem-{purpose}-", ignore_cleanup_errors=True) as base,
        new_host(Path(base), packs) as host,
    ):
        yield host


def peak_resident_bytes(pid: int) -> int:
    """A running process's largest resident memory in bytes: since its start on Linux and Windows, else as of now."""
    status = Path(f"/proc/{pid}/status")
    if status.is_file() and (record := re.search(r"VmHWM:\s*(\d+) kB", status.read_text())):
        return int(record[1]) * 1024
    try:
        memory = psutil.Process(pid).memory_info()
    except psutil.Error:
        return 0
    return getattr(memory, "peak_wset", memory.rss)


def free_port() -> int:
    """A port of the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def host_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """This process's environment for the host: no downloads, unbuffered log, nothing added to its module path."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    return {**environment, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8", **extra}


def device_arguments() -> list[str]:
    """The arguments without which main.py does not start on a machine that has no accelerator."""
    import torch  # two seconds that only those who ask spend

    accelerators = (torch.cuda, torch.backends.mps, getattr(torch, "xpu", None))
    if any(accelerator is not None and accelerator.is_available() for accelerator in accelerators):
        return []
    return ["--cpu"]


def link(source: Path, target: Path) -> None:
    """Makes `target` stand for `source`: a symbolic link, or what Windows allows without special rights."""
    if target.is_symlink():
        target.unlink()
    if target.exists():
        return
    try:
        target.symlink_to(source, target_is_directory=source.is_dir())
    except OSError:
        if os.name != "nt":
            raise
        if source.is_dir():
            import _winapi

            _winapi.CreateJunction(str(source), str(target))
        else:
            shutil.copyfile(source, target)


def failed_imports(log: str, packs: Mapping[str, Path]) -> list[str]:
    """The names of the packs that the host's log reports as not imported."""
    reported = [line.rsplit(":", 1)[-1] for line in log.splitlines() if "(IMPORT FAILED)" in line]
    names = {re.split(r"[/\\]", path.strip())[-1] for path in reported}
    return [name for name in packs if name in names]

"""Starts and stops a real ComfyUI on the loopback interface, with folders of its own."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import psutil

from .client import HostClient, HostError
from .keeper import kill_tree

STOP_SECONDS = 15
FILES = ("input", "output", "temp", "user")
KEEPER = Path(__file__).with_name("keeper.py")


class HostProcess:
    """A host that runs between `start` and `stop`, or in a `with` block.

    base: folder for everything the host reads and writes (input, output, log; models and custom nodes too, unless they
        are those of its installation); made if missing.
    host: folder that holds the host's main.py.
    python: the interpreter that runs it.
    packs: custom node packs by the name they shall have in custom_nodes; linked, not copied. None for the models and
        packs that are installed in `host`.
    models: files to link into the host's models folder, where that is in `base`; by the name of their folder there.
    extra_args: further arguments of main.py, such as those of `device_arguments`.
    environment: further environment variables.
    temporary: whether `base` is to be deleted when whoever has started the host is killed.
    """

    def __init__(
        self,
        base: Path,
        host: Path,
        python: Path,
        packs: Mapping[str, Path] | None,
        extra_args: Sequence[str] = (),
        models: Mapping[str, Sequence[Path]] | None = None,
        environment: Mapping[str, str] | None = None,
        temporary: bool = False,
    ) -> None:
        self.temporary = temporary
        self.base = Path(base).resolve()
        self.packs = dict(packs or {})
        self.log = self.base / "host.log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = HostClient(self.url)
        folders = ["--base-directory", str(self.base)]
        if packs is None:
            folders = [part for name in FILES for part in (f"--{name}-directory", str(self.base / name))]
        # fmt: off
        self.command = [
            str(python), str(Path(host) / "main.py"), "--listen", "127.0.0.1", "--port", str(self.port),
            "--disable-auto-launch", *folders, "--database-url", "sqlite:///:memory:", "--disable-api-nodes",
            *extra_args,
        ]
        # fmt: on
        self.environment = host_environment(environment or {})
        self.process: subprocess.Popen | None = None
        self._keeper: subprocess.Popen | None = None
        self._heeds_interrupts = False
        self._peak_bytes = 0
        self._lay_out(models or {})

    def _lay_out(self, models: Mapping[str, Sequence[Path]]) -> None:
        for folder in (*FILES, "custom_nodes", "models/checkpoints", *(f"models/{name}" for name in models)):
            (self.base / folder).mkdir(parents=True, exist_ok=True)
        for name, folder in self.packs.items():
            link(Path(folder).resolve(), self.base / "custom_nodes" / name)
        for folder, files in models.items():
            for file in files:
                link(Path(file).resolve(), self.base / "models" / folder / Path(file).name)

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
                # so that Ctrl-C reaches whoever has started it alone, who decides what becomes of it
                start_new_session=True,
            )
        # who is in the background of a shell ignores SIGINT, who is a worker of Ray blocks it; both hand that down
        self._heeds_interrupts = os.name != "nt" and not (
            signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            or signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])
        )
        keeper = [sys.executable, str(KEEPER), str(self.process.pid), *([str(self.base)] if self.temporary else [])]
        self._keeper = subprocess.Popen(keeper, stdin=subprocess.PIPE, start_new_session=True)
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
            self._dismiss_keeper()
            return
        self.peak_memory_mb()
        try:
            self.process.send_signal(signal.SIGINT if self._heeds_interrupts else signal.SIGTERM)
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if self.process.poll() is None:
                kill_tree(self.process.pid)
                self.process.wait()
            self._dismiss_keeper()

    def _dismiss_keeper(self) -> None:
        if self._keeper is not None:
            self._keeper.kill()
            self._keeper.communicate()
            self._keeper = None

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


@cache
def device_arguments(python: str = sys.executable) -> list[str]:
    """The arguments without which main.py does not start on a machine that has no accelerator.

    python: the interpreter whose torch it will run with.
    """
    question = (
        "import torch; print(any(part.is_available() for part in (torch.cuda, torch.backends.mps, "
        "getattr(torch, 'xpu', None)) if part is not None))"
    )
    # in a process of its own: torch takes two seconds and hundreds of MB
    answer = subprocess.run([python, "-c", question], capture_output=True, text=True, check=False)
    return ["--cpu"] if answer.stdout.strip() == "False" else []


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

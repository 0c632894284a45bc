"""Doing the plan's items: what is there already is skipped, and several processes may share the rest."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from tqdm import tqdm

from ...locations import TOOLS
from .plan import Item, Settings
from .store import Store

POLL_SECONDS = 1.0


def pending(work: Sequence[Item], settings: Settings, store: Store) -> list[Item]:
    """The items that the store has no result of."""
    done = store.load()
    return [item for item in work if item.key(settings) not in done]


def do(
    work: Sequence[Item], settings: Settings, store: Store, run: Callable[[Item], dict], quiet: bool = False
) -> None:
    """Runs the items that are missing and stores each result at once."""
    bar = tqdm(pending(work, settings, store), unit="run", disable=quiet)
    for item in bar:
        bar.set_description(item.label)
        started = time.monotonic()
        result = run(item)
        store.add(item.key(settings), result | {"seconds": round(time.monotonic() - started, 2)})


def in_processes(arguments: Sequence[str], workers: int, work: Sequence[Item], settings: Settings, store: Store) -> int:
    """Lets `workers` processes of this command share the items; returns the first exit status that is not 0.

    Small networks gain little from a second thread, and as much as it has from a second process.
    """
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    environment = {"OMP_NUM_THREADS": threads} | os.environ
    command = [sys.executable, str(TOOLS / "launch.py"), "measured.quality", *arguments]
    processes = [subprocess.Popen([*command, "--worker", str(n)], env=environment) for n in range(workers)]
    wanted = {item.key(settings) for item in work}
    try:
        with tqdm(total=len(wanted), unit="run") as bar:
            while any(process.poll() is None for process in processes):
                bar.update(len(wanted & store.load().keys()) - bar.n)
                time.sleep(POLL_SECONDS)
            bar.update(len(wanted & store.load().keys()) - bar.n)
    finally:
        for process in processes:
            process.terminate()
            process.wait()
    return next((process.returncode for process in processes if process.returncode), 0)

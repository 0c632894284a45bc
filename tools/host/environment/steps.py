"""Set-up as steps that run once: each leaves a stamp, which is a hash of what the step depends on."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path


class SetupError(RuntimeError):
    """A step cannot be done; the message says what was found and what to do."""


@dataclass(frozen=True)
class Step:
    """One step of the set-up.

    name: of the stamp's file.
    what: said in the terminal while the step runs.
    inputs: texts that the result depends on; a step runs again when one of them changes.
    present: whether the result is there.
    run: does the work. It may find the leavings of an interrupted run, and must cope with them.
    after: steps whose results this one builds on; it runs again when they do.
    """

    name: str
    what: str
    inputs: tuple[str, ...]
    present: Callable[[], bool]
    run: Callable[[], None]
    after: tuple[Step, ...] = ()

    def digest(self) -> str:
        """The stamp's text: SHA-256 over the inputs of this step and of the steps before it."""
        digest = hashlib.sha256()
        for part in (self.name, *self.inputs, *(step.digest() for step in self.after)):
            digest.update(f"{len(part)}:{part}".encode())
        return digest.hexdigest()


def run_steps(steps: Iterable[Step], stamps: Path, say: Callable[[str], None] = print) -> int:
    """Runs the steps that have to run, in order, and returns how many there were.

    Those are the steps without a stamp, with a stamp of other inputs, or whose result has gone, and what builds on
    them. A stamp is written only after its step has ended well, so an interrupted set-up goes on where it stopped.
    """
    to_do: list[Step] = []
    for step in steps:
        stamp = stamps / step.name
        up_to_date = stamp.is_file() and stamp.read_text() == step.digest() and step.present()
        if not up_to_date or any(earlier in to_do for earlier in step.after):
            to_do.append(step)
    stamps.mkdir(parents=True, exist_ok=True)
    for number, step in enumerate(to_do, start=1):
        say(f"[{number}/{len(to_do)}] {step.what} ...")
        started = time.monotonic()
        stamp = stamps / step.name
        stamp.unlink(missing_ok=True)
        step.run()
        stamp.write_text(step.digest())
        say(f"      {time.monotonic() - started:.0f} s")
    return len(to_do)

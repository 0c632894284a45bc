"""One case after another in a real host: what comes out, or what the user is told."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...demo.pictures import decode
from ...host.client import HostError
from ...host.process import HostProcess
from . import clips
from .clip_factory import read_number

Prompt = dict[str, dict]
RESULT = "result"
SECONDS = 3600


@dataclass(frozen=True)
class Outcome:
    """pictures: uint8 [n, h, w, 3] of the node RESULT, or None where the run was refused; message: why."""

    pictures: NDArray[np.uint8] | None
    message: str = ""


@dataclass(frozen=True)
class Case:
    """An input, and what must come of it.

    Attributes:
        name: for the table.
        through: the nodes that it goes through.
        build: the workflow in API form, whose node RESULT saves pictures.
        good: a workflow that must give the same pixels after a refusal as before.
        shape: frames, height and width that must come out; None where it must be refused.
        says: a regular expression that the refusal must match.
        numbers: of the frames, where the clip's frames have numbers.
        quick: whether the test-suite runs it.
    """

    name: str
    through: str
    build: Callable[[Bench], Prompt]
    good: Callable[[Bench], Prompt]
    shape: tuple[int, int, int] | None = None
    says: str = ""
    numbers: Sequence[int] | None = None
    quick: bool = True

    def holds(self, outcome: Outcome) -> bool:
        """Whether this is the outcome that must be."""
        if outcome.pictures is None:
            return self.shape is None and bool(re.search(self.says, outcome.message))
        if outcome.pictures.shape[:3] != self.shape:
            return False
        read = [read_number(picture / 255) for picture in outcome.pictures]
        return self.numbers is None or read == list(self.numbers)


class Bench:
    """A running host and its folders."""

    def __init__(self, host: HostProcess) -> None:
        self.client = host.client
        self.base = host.base

    def folder(self, name: str) -> Path:
        """A folder of the host, such as input/inversions; made if missing."""
        path = self.base / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def clip(self, name: str) -> str:
        """The name of a clip of `clips` in the input folder, where it is written when it is missing."""
        if not (self.folder("input") / name).exists():
            clips.write(name, self.folder("input"))
        return name

    def run(self, build: Callable[[Bench], Prompt], anew: bool = True) -> Outcome:
        """Runs a workflow; `anew` without what the host has kept of earlier ones."""
        prompt = build(self)
        if anew:
            self.client.post_json("/free", {"free_memory": True})
        try:
            result = self.client.run(prompt, timeout=SECONDS)
        except HostError as error:
            return Outcome(None, shown(str(error).replace(str(self.base), "/host")))
        return Outcome(decode([self.client.view(file) for file in result.outputs[RESULT]["images"]]))


def shown(message: str) -> str:
    """A message as a line of a table, without the names of the host's nodes and errors before the pack's own words."""
    line = " ".join(message.replace("\0", "\\0").split())
    found = re.search(r"(?:Custom validation failed for node: file -|failed: \S+:) (.*)", line)
    line = found[1] if found else line
    return re.sub(r"(\w)\1{40,}", r"\1\1\1…", line)

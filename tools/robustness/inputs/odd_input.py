"""One case after another in a real host: what comes out, or what the user is told."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ....batch.comfyui.client import HostError
from ..host_under_test import SECONDS, HostUnderTest, Prompt
from . import clips
from .clip_factory import read_number

RESULT = "result"


@dataclass(frozen=True)
class Outcome:
    """pictures: uint8 [n, h, w, 3] of the node RESULT, or None where the run was refused; message: why."""

    pictures: NDArray[np.uint8] | None
    message: str = ""


@dataclass(frozen=True)
class OddInput:
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
    build: Callable[[HostUnderTest], Prompt]
    good: Callable[[HostUnderTest], Prompt]
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


def clip_in(host: HostUnderTest, name: str) -> str:
    """The name of a clip of `clips` in the input folder, where it is written when it is missing."""
    if not (host.folder("input") / name).exists():
        clips.write(name, host.folder("input"))
    return name


def outcome_of(host: HostUnderTest, build: Callable[[HostUnderTest], Prompt], fresh: bool = True) -> Outcome:
    """Runs a workflow; `fresh` without what ComfyUI has kept of earlier ones."""
    prompt = build(host)
    if fresh:
        host.client.forget_results()
    try:
        result = host.client.run(prompt, timeout=SECONDS)
    except HostError as error:
        return Outcome(None, shown(str(error).replace(str(host.base), "/host")))
    return Outcome(host.pictures(result, RESULT))


def shown(message: str) -> str:
    """A message as a line of a table, without the names of the host's nodes and errors before the pack's own words."""
    line = " ".join(message.replace("\0", "\\0").split())
    found = re.search(r"(?:Custom validation failed for node: file -|failed: \S+:) (.*)", line)
    line = found[1] if found else line
    return re.sub(r"(\w)\1{40,}", r"\1\1\1…", line)

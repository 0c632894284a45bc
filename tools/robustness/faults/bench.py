"""A host under test: runs workflows, and looks at what is told, what comes out and what is left."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import psutil

from ...demo import CLIP
from ...demo.pictures import decode
from ...demo.workflow import node_titled
from ...host.client import Result
from ...host.events import Event
from ...host.process import HostProcess
from .graphs import Prompt

SECONDS = 300


class Bench:
    """A running host with the clip in its input folder."""

    def __init__(self, host: HostProcess) -> None:
        self.host, self.client = host, host.client
        self.clip = self.client.upload(CLIP)
        self._shown: set[str] = set()

    def run(self, prompt: Prompt, on_event: Callable[[Event], None] | None = None) -> Result:
        """Runs a workflow, however it ends."""
        return self.client.run(prompt, on_event, SECONDS, check=False)

    def pictures(self, prompt: Prompt, result: Result, title: str) -> np.ndarray | None:
        """What a Save Image node has saved, uint8 [n, h, w, 3]; None where nothing."""
        files = result.outputs.get(node_titled(prompt, title), {}).get("images", [])
        self._shown |= {f"{file['type']}/{file['subfolder']}/{file['filename']}" for file in files}
        return decode([self.client.view(file) for file in files]) if files else None

    def good(self, prompt: Prompt, title: str, node: str = "") -> np.ndarray:
        """The pictures of a run that has to succeed, and in which `node` must not come from the host's cache."""
        result = self.run(prompt)
        if result.status != "success":
            raise RuntimeError(f"A run that should be good ended as {result.status}: {result.error}")
        if node and node_titled(prompt, node) not in result.seconds_by_node:
            raise RuntimeError(f"{node} was not run: the host had its result in its cache.")
        return self.pictures(prompt, result, title)

    def state(self, held: bool = False) -> Mapping[str, int]:
        """What the fault nodes tell (see fault_nodes)."""
        return self.client.get_json("/stem_faults" + ("?held=1" if held else ""))

    def files(self) -> set[str]:
        """What lies in the folders for temporary files and for results, without the pictures that were looked at."""
        found = [file for folder in ("temp", "output") for file in (self.host.base / folder).rglob("*")]
        return {file.relative_to(self.host.base).as_posix() for file in found if file.is_file()} - self._shown

    def megabytes(self) -> float:
        """Resident memory of the host."""
        return psutil.Process(self.host.process.pid).memory_info().rss / 1e6

    def free(self) -> None:
        """Unloads the models of the host before the next run."""
        self.client.post_json("/free", {"unload_models": True})


def same(a: np.ndarray | None, b: np.ndarray) -> bool:
    """Whether all pixels are equal."""
    return a is not None and np.array_equal(a, b)

"""A ComfyUI under test: runs workflows, and looks at what is told, what comes out and what is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
import psutil
from numpy.typing import NDArray

from ...batch.comfyui.client import Result
from ...batch.comfyui.events import Event
from ...batch.comfyui.process import HostProcess
from ..demo import CLIP
from ..demo.pictures import decode
from ..demo.workflow import node_titled

# A workflow in API form.
Prompt = dict[str, dict]
SECONDS = 3600


class HostUnderTest:
    """A running ComfyUI, its folders, and the pictures that were looked at."""

    def __init__(self, host: HostProcess) -> None:
        self.client, self.base, self.process = host.client, host.base, host.process
        self._shown: set[str] = set()

    @cached_property
    def demo_clip(self) -> str:
        """The name of the demo's clip in the input folder."""
        return self.client.upload(CLIP)

    def folder(self, name: str) -> Path:
        """A folder of the host, such as input/inversions; made if missing."""
        path = self.base / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def run(self, prompt: Prompt, on_event: Callable[[Event], None] | None = None) -> Result:
        """Runs a workflow, however it ends."""
        return self.client.run(prompt, on_event, SECONDS, check=False)

    def pictures(self, result: Result, node: str) -> NDArray[np.uint8] | None:
        """What a node has saved, [n, h, w, 3]; None where nothing."""
        files = result.outputs.get(node, {}).get("images", [])
        self._shown |= {PurePosixPath(file["type"], file["subfolder"], file["filename"]).as_posix() for file in files}
        return decode([self.client.view(file) for file in files]) if files else None

    def good(self, prompt: Prompt, title: str, computed: str = "") -> NDArray[np.uint8]:
        """What the node of this title saves in a run that has to succeed.

        computed: title of a node whose result must not come from the cache.
        """
        result = self.run(prompt)
        if result.status != "success":
            raise RuntimeError(f"A run that should be good ended as {result.status}: {result.error}")
        if computed and node_titled(prompt, computed) not in result.seconds_by_node:
            raise RuntimeError(f"{computed} was not run: ComfyUI had its result in its cache.")
        return self.pictures(result, node_titled(prompt, title))

    def state(self, held: bool = False) -> Mapping[str, int]:
        """What the fault nodes tell (see fault_nodes)."""
        return self.client.get_json("/stem_faults" + ("?held=1" if held else ""))

    def unload_models(self) -> None:
        """Unloads the models before any workflow that is queued after this; results stay in the cache.

        ComfyUI only notes the wish, and might take the next workflow first.
        """
        self.client.post_json("/free", {"unload_models": True})
        deadline = time.monotonic() + SECONDS
        while self.state()["unheeded"]:
            if time.monotonic() > deadline:
                raise TimeoutError("ComfyUI did not unload its models.")
            time.sleep(0.02)

    def files(self) -> set[str]:
        """What lies in the folders for temporary files and for results, without the pictures that were looked at."""
        found = [file for folder in ("temp", "output") for file in (self.base / folder).rglob("*")]
        return {file.relative_to(self.base).as_posix() for file in found if file.is_file()} - self._shown

    def megabytes(self) -> float:
        """Resident memory."""
        return psutil.Process(self.process.pid).memory_info().rss / 1e6


def same(a: np.ndarray | None, b: np.ndarray) -> bool:
    """Whether all pixels are equal."""
    return a is not None and np.array_equal(a, b)

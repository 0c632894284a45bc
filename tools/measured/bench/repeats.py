"""The same graph again, bit for bit: also where less memory is free than before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from ....nodes.methods.attention.installing import install
from ....nodes.methods.inversion.inversion import Inversion
from ....nodes.methods.inversion.sampling import invert
from ....nodes.methods.stem.attention import StemSelfAttention
from ....nodes.methods.stem.settings import PRESETS
from ....nodes.methods.tokenflow.edit import TokenFlowSettings
from ....nodes.methods.tokenflow.edit import edit as edit_tokenflow
from ...host.loaded_model import Loaded
from .editing import CFG, SOURCE, TARGET, latents
from .results import VideoSize, rows_of
from .timing import Measured, Workload, time_and_memory

STEPS = 4
# Bytes of a GPU that are left free: too few for all frames at a time.
LITTLE = 3 << 30


def graphs(loaded: Loaded, video: VideoSize) -> dict[str, Callable[[], Tensor]]:
    """By name: inversions with two presets, batches as ComfyUI has room for, and an edit with TokenFlow."""
    source, samples = loaded.prompt(SOURCE), latents(video)
    target, negative = loaded.prompt(TARGET), loaded.prompt("")

    def inversion(preset: str) -> Inversion:
        model = install(loaded.model, StemSelfAttention.from_settings(PRESETS[preset]))
        return invert(model, source, samples, STEPS, "next")

    settings = TokenFlowSettings(cfg=CFG)
    return {
        "inversion, paper": lambda: inversion("paper").trajectory,
        "inversion, tokenflow": lambda: inversion("tokenflow").trajectory,
        "TokenFlow Edit": lambda: edit_tokenflow(loaded.model, inversion("paper"), target, negative, settings),
    }


def rows(loaded: Loaded, video: VideoSize, dtype: str) -> Iterator[dict]:
    """For each graph whether a second run, and a third with little memory free, gave the same numbers."""
    for name, run in graphs(loaded, video).items():
        results: list[Tensor] = []
        workload = Workload(name, lambda run=run, results=results: results.append(run()))
        measured, noted = Measured(), {"same_again": None, "same_with_little_memory": None, "largest_difference": 0.0}
        for kind in ("first", "same_again", "same_with_little_memory"):
            with little_memory() if kind == "same_with_little_memory" else nullcontext():
                seconds, peak = time_and_memory(workload.run)
            measured.add([seconds], peak)
            if kind != "first":
                difference = float((results[-1] - results[0]).abs().max())
                noted[kind] = torch.equal(results[-1], results[0])
                noted["largest_difference"] = max(noted["largest_difference"], difference)
                # also of the second run alone: the third may want more memory than there is
                yield from rows_of("repeats", video, [replace(workload, more=noted)], {name: measured}, name, dtype)


@contextmanager
def little_memory() -> Iterator[None]:
    """Holds all of the GPU's free memory but LITTLE; on a CPU nothing."""
    held = None
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info()
        held = torch.empty(max(0, free - LITTLE), dtype=torch.uint8, device="cuda")
    try:
        yield
    finally:
        del held

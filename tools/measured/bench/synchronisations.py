"""How often one step of each method starts work on a GPU and waits for it, as torch.profiler sees it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from ....nodes.methods.attention.installing import install
from ....nodes.methods.inversion.sampling import invert
from ....nodes.methods.stem.attention import StemSelfAttention
from ....nodes.methods.stem.settings import PRESETS
from ...host.loaded_model import Loaded
from . import editing
from .inversion import BASELINE
from .results import VideoSize, rows_of
from .timing import Workload, interleaved

# What they are called in a profile: launches of kernels, waits for the GPU, and operators that cannot go on without it.
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx")
WAITS = ("cudaStreamSynchronize", "cudaEventSynchronize")
TO_HOST = "Memcpy DtoH"
NEEDS_VALUES = ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::_unique2")


def workloads(loaded: Loaded, video: VideoSize) -> list[Workload]:
    """One step of an inversion without and with bases, and one of each editor."""
    source, samples = loaded.prompt(editing.SOURCE), editing.latents(video)
    models = {BASELINE: loaded.model} | {
        f"STEM, {name}": install(loaded.model, StemSelfAttention.from_settings(PRESETS[name]))
        for name in ("paper", "tokenflow", "reference_code")
    }
    inversions = [
        Workload(name, lambda model=model: invert(model, source, samples, 1, "next")) for name, model in models.items()
    ]
    edits = {
        workload.name: workload for workload in (*editing.tokenflow(loaded, video), *editing.fatezero(loaded, video))
    }
    return [*inversions, edits["TokenFlow Edit"], edits["STEM-FateZero"]]


def rows(loaded: Loaded, video: VideoSize, dtype: str) -> Iterator[dict]:
    """A row for each, with time and memory of a run that is not watched."""
    made = workloads(loaded, video)
    # the first run of all loads and compiles what a step does not
    found = interleaved(made, 1, warm_up=True)
    watched = [replace(workload, more=counts(workload)) for workload in made]
    yield from rows_of("synchronisations", video, watched, found, BASELINE, dtype)


def counts(workload: Workload) -> dict:
    """What one run does; `gpu_seconds` is the time that the GPU works, together."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    with profile(activities=activities) as profiler:
        workload.run()
    seen = profiler.key_averages()
    # an operator's time on the GPU is that of its kernels again
    on_gpu = [event for event in seen if event.device_type == DeviceType.CUDA]

    def total(*names: str) -> int:
        return sum(event.count for event in seen if event.key.startswith(names))

    return {
        "launches": total(*LAUNCHES),
        "waits": total(*WAITS),
        "copies_to_host": total(TO_HOST),
        "needs_values": {name.removeprefix("aten::"): count for name in NEEDS_VALUES if (count := total(name))},
        "gpu_seconds": round(sum(event.self_device_time_total for event in on_gpu) / 1e6, 4),
    }

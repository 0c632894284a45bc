"""One inversion after another, as in the paper's Table 1, with the share of EM in the time; and batches of frames."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ....nodes.methods.attention.frame_context import FrameContextAttention
from ....nodes.methods.attention.installing import install
from ....nodes.methods.inversion.sampling import invert
from ....nodes.methods.stem.attention import StemSelfAttention
from ....nodes.methods.stem.fitting import FitKey, Fitting
from ....nodes.methods.stem.settings import PRESETS
from ....stem_kernels.backends.choice import Backend
from ....stem_kernels.em import Bases
from ....stem_kernels.token_parts import Tokens, parts_of
from ...host.loaded_model import Loaded
from .editing import SOURCE, latents
from .results import VideoSize
from .timing import Workload, synchronize

BASELINE = "DDIM, 1 frame"


@dataclass(frozen=True)
class TimedFitting(Fitting):
    """A fitting that adds up its seconds."""

    seconds: list[float] = field(default_factory=list, compare=False)

    def fit(self, *arguments: Any) -> Bases:
        synchronize()
        started = time.perf_counter()
        bases = super().fit(*arguments)
        synchronize()
        self.seconds.append(time.perf_counter() - started)
        return bases


class FreeFitting(Fitting):
    """The bases that EM would start from: what is left when EM takes no time."""

    def fit(self, features: Tokens, key: FitKey, *more: Any) -> Bases:
        centres = parts_of(features)[0][: self.settings.em.num_bases].float()
        return Bases(centres, torch.ones(len(centres), device=centres.device), centres)


def stem(num_bases: int, frames_per_batch: int | None = None, backend: Backend = "auto") -> StemSelfAttention:
    settings = PRESETS["paper"].with_bases(num_bases)
    fitting = TimedFitting(replace(settings, em=replace(settings.em, backend=backend)))
    return StemSelfAttention(fitting, frames_per_batch)


def workloads(loaded: Loaded, video: VideoSize, steps: int) -> list[Workload]:
    """DDIM with three contexts, STEM with three numbers of bases, and STEM without EM."""
    methods = [
        (BASELINE, None, None),
        ("DDIM, 2 frames", FrameContextAttention((0, "mid")), None),
        ("DDIM, all frames", FrameContextAttention(None), None),
        *((f"STEM, K={k}", stem(k), k) for k in (128, 256, 512)),
        ("K=256, were EM free", StemSelfAttention(FreeFitting(stem(256).settings), None), 256),
    ]
    return [_workload(name, loaded, method, video, k, steps=steps) for name, method, k in methods]


def by_backend(loaded: Loaded, video: VideoSize, steps: int) -> list[Workload]:
    """DDIM, and STEM by what computes EM."""
    methods = [(BASELINE, None, None)] + [
        (f"STEM, K={k}, {backend}", stem(k, backend=backend), k) for k in (256, 512) for backend in ("eager", "triton")
    ]
    return [_workload(name, loaded, method, video, k, steps=steps) for name, method, k in methods]


def in_batches(loaded: Loaded, video: VideoSize, batches: Sequence[int | None]) -> list[Workload]:
    """One step with K=256, in batches of frames; None is all of them at once."""
    return [
        _workload(f"{n or 'all'} frames at a time", loaded, stem(256, n), video, 256, steps=1, frames_per_batch=n)
        for n in batches
    ]


def _workload(
    name: str, loaded: Loaded, method: Any, video: VideoSize, num_bases: int | None, **noted: Any
) -> Workload:
    model = loaded.model if method is None else install(loaded.model, method)
    prompt, samples = loaded.prompt(SOURCE), latents(video)
    em_seconds = getattr(getattr(method, "fitting", None), "seconds", None)

    def run() -> None:
        started = time.perf_counter()
        if em_seconds is not None:
            em_seconds.clear()
        invert(model, prompt, samples, noted["steps"], "next")
        if em_seconds is not None:
            synchronize()
            noted["em_share"] = round(sum(em_seconds) / (time.perf_counter() - started), 4)

    return Workload(name, run, num_bases, noted)

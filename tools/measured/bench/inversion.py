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
from ....stem_kernels.em import Bases
from ....stem_kernels.token_parts import Tokens, parts_of
from ...host.loaded_model import Loaded
from .editing import SOURCE, latents
from .measuring import Case, synchronize
from .rows import Size

BASELINE = "DDIM, 1 frame"
WITHOUT_EM = "K=256, were EM free"


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


def stem(num_bases: int, frames_per_batch: int | None = None, **changes: Any) -> StemSelfAttention:
    return StemSelfAttention(TimedFitting(replace(PRESETS["paper"].with_bases(num_bases), **changes)), frames_per_batch)


def table_cases(loaded: Loaded, size: Size, steps: int) -> list[Case]:
    """DDIM with three contexts, and STEM with three numbers of bases and with its options."""
    return [
        _case(BASELINE, loaded, None, size, steps),
        _case("DDIM, 2 frames", loaded, FrameContextAttention((0, "mid")), size, steps),
        _case("DDIM, all frames", loaded, FrameContextAttention(None), size, steps),
        *(_case(f"STEM, K={k}", loaded, stem(k), size, steps, k) for k in (128, 256, 512)),
        _case(WITHOUT_EM, loaded, StemSelfAttention(FreeFitting(stem(256).settings), None), size, steps, 256),
    ]


def batch_cases(loaded: Loaded, size: Size, batches: Sequence[int | None]) -> list[Case]:
    """One step with K=256, in batches of frames; None is all of them at once."""
    return [
        _case(f"{batch or 'all'} frames at a time", loaded, stem(256, batch), size, 1, 256, {"frames_per_batch": batch})
        for batch in batches
    ]


def _case(
    name: str,
    loaded: Loaded,
    method: Any,
    size: Size,
    steps: int,
    num_bases: int | str | None = None,
    more: dict | None = None,
) -> Case:
    model = loaded.model if method is None else install(loaded.model, method)
    prompt, samples = loaded.prompt(SOURCE), latents(size)
    noted = {"steps": steps, **(more or {})}
    em_seconds = getattr(getattr(method, "fitting", None), "seconds", None)

    def run() -> None:
        started = time.perf_counter()
        if em_seconds is not None:
            em_seconds.clear()
        invert(model, prompt, samples, steps, "next")
        if em_seconds is not None:
            synchronize()
            noted["em_share"] = round(sum(em_seconds) / (time.perf_counter() - started), 4)

    return Case(name, run, num_bases, noted)

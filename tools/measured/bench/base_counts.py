"""Fixed numbers of bases, numbers chosen by every layer, and warm starts: time beside the quality of reconstructions.

The trained small model inverts rendered clips of several lengths and reconstructs them with the same attention.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from ....nodes.methods.attention.installing import install
from ....nodes.methods.inversion.inversion import Inversion
from ....nodes.methods.inversion.reconstruction import reconstruct
from ....nodes.methods.inversion.sampling import invert
from ....nodes.methods.stem.attention import StemSelfAttention
from ....nodes.methods.stem.fitting import Fitting
from ....nodes.methods.stem.settings import PRESETS, StemSettings
from ....nodes.metrics.closeness import psnr
from ....stem_kernels.em import Bases
from ...host.loaded_model import Loaded
from ...small_model.rendered_clips import render
from ..quality.clips import Case as Clip
from ..quality.clips import held_out_cases
from .results import VideoSize, rows_of
from .timing import Measured, Workload, interleaved

BASELINE = "K=256"
STEPS = 12
PIXELS = 128


@dataclass(frozen=True)
class CountingFitting(Fitting):
    """A fitting that notes how many bases it has fitted."""

    counts: list[int] = field(default_factory=list, compare=False)

    def fit(self, *arguments: Any) -> Bases:
        bases = super().fit(*arguments)
        self.counts.append(bases.centres.shape[-2])
        return bases


def variants() -> dict[str, StemSettings | None]:
    """Settings by name; None is plain DDIM."""
    paper = PRESETS["paper"]
    return {
        "DDIM, 1 frame": None,
        "K=64": paper.with_bases(64),
        BASELINE: paper.with_bases(256),
        "chosen for 80 % of the energy": replace(paper.with_bases(512), explained_energy=0.8),
        "chosen for 90 % of the energy": replace(paper.with_bases(512), explained_energy=0.9),
        "K=256, warm start, 1 iteration": replace(paper.with_bases(256), warm_start=1),
        "K=256, warm start, 2 iterations": replace(paper.with_bases(256), warm_start=2),
    }


@dataclass
class ClipInversion:
    """Inverts a clip; keeps the inversion of the last run, and the numbers of bases of its fits."""

    model: Any
    source: list
    latents: Tensor
    counts: list[int]
    last: Inversion | None = None

    def __call__(self) -> None:
        self.counts.clear()
        self.last = invert(self.model, self.source, self.latents, STEPS, "next")


def workloads(loaded: Loaded, clip: Clip, frames: int) -> list[Workload]:
    """The inversion of a clip with every variant; each `run` is a ClipInversion."""
    latents = loaded.encode(render(clip.scene, clip.motion, frames).frames)
    source, made = loaded.prompt(clip.scene.caption), []
    for name, settings in variants().items():
        model, counts, num_bases = loaded.model, [], None
        if settings is not None:
            model = install(model, StemSelfAttention(CountingFitting(settings, counts)))
            num_bases = "auto" if settings.explained_energy else settings.em.num_bases
        made.append(Workload(name, ClipInversion(model, source, latents, counts), num_bases))
    return made


def rows(loaded: Loaded, frames: int, clips: int, dtype: str) -> list[dict]:
    """A row for every variant: time over the clips, mean PSNR, and its difference to the baseline's on each clip.

    PSNR is that of the reconstruction with the attention of the inversion, to what the VAE gives back of the clip.
    """
    found = {name: Measured() for name in variants()}
    scores: dict[str, list[float]] = {name: [] for name in variants()}
    mean_counts: dict[str, list[float]] = {name: [] for name in variants()}
    for clip in held_out_cases(clips):
        inversions = workloads(loaded, clip, frames)
        measured = interleaved(inversions, 1)
        round_trip = loaded.decode(inversions[0].run.latents)
        for workload in inversions:
            name, inversion, counts = workload.name, workload.run.last, workload.run.counts
            found[name].add(measured[name].seconds, measured[name].peak)
            # `counts` then holds the fits of the reconstruction too.
            video = loaded.decode(reconstruct(inversion, inversion.model, inversion.source))
            scores[name].append(float(psnr(video, round_trip).mean()))
            if counts:
                mean_counts[name].append(statistics.mean(counts))
    quality = {name: _quality(scores[name], scores[BASELINE], mean_counts[name]) for name in scores}
    named = [replace(workload, more=quality[workload.name]) for workload in inversions]
    return rows_of("sizes", VideoSize(frames, PIXELS, PIXELS), named, found, BASELINE, dtype)


def _quality(scores: list[float], baseline: list[float], mean_counts: list[float]) -> dict:
    gains = sorted(own - other for own, other in zip(scores, baseline, strict=True))
    return {
        "steps": STEPS,
        "psnr": round(statistics.mean(scores), 3),
        "psnr_gain": round(statistics.mean(gains), 3),
        "psnr_gain_low": round(gains[0], 3),
        "psnr_gain_high": round(gains[-1], 3),
        "mean_bases": round(statistics.mean(mean_counts), 1) if mean_counts else None,
    }

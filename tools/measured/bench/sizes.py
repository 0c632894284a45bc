"""Fixed numbers of bases, numbers chosen by every layer, and warm starts: time beside the quality of reconstructions.

The trained small model inverts rendered clips of several lengths and reconstructs them with the same attention.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field, replace
from functools import cached_property
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
from .measuring import Case, Measured, by_turns
from .rows import Size, rows_of

GROUP = "sizes"
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

    def stem(num_bases: int, **changes: Any) -> StemSettings:
        return replace(PRESETS["paper"].with_bases(num_bases), **changes)

    return {
        "DDIM, 1 frame": None,
        "K=64": stem(64),
        BASELINE: stem(256),
        "chosen for 80 % of the energy": stem(512, explained_energy=0.8),
        "chosen for 90 % of the energy": stem(512, explained_energy=0.9),
        "K=256, warm start, 1 iteration": stem(256, warm_start=1),
        "K=256, warm start, 2 iterations": stem(256, warm_start=2),
    }


@dataclass
class Study:
    """Inversions of one clip: what was inverted, and how well it comes back.

    Attributes:
        inversions: the last of every variant.
        counts: the numbers of bases of its fits.
    """

    loaded: Loaded
    clip: Clip
    frames: int
    inversions: dict[str, Inversion] = field(default_factory=dict)
    counts: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.latents = self.loaded.encode(render(self.clip.scene, self.clip.motion, self.frames).frames)
        self.prompt = self.loaded.prompt(self.clip.scene.caption)

    def cases(self) -> list[Case]:
        return [self._case(name, settings) for name, settings in variants().items()]

    def closeness(self, name: str) -> float:
        """PSNR of the reconstruction with the attention of the inversion, to what the VAE gives back of the clip."""
        inversion = self.inversions[name]
        video = self.loaded.decode(reconstruct(inversion, inversion.model, inversion.source))
        return float(psnr(video, self._round_trip).mean())

    @cached_property
    def _round_trip(self) -> Tensor:
        return self.loaded.decode(self.latents)

    def _case(self, name: str, settings: StemSettings | None) -> Case:
        model = self.loaded.model
        counts = self.counts.setdefault(name, [])
        if settings is not None:
            model = install(model, StemSelfAttention(CountingFitting(settings, counts)))

        def run() -> None:
            counts.clear()
            self.inversions[name] = invert(model, self.prompt, self.latents, STEPS, "next")

        return Case(name, run, _number(settings))


def rows(loaded: Loaded, frames: int, clips: int, dtype: str) -> list[dict]:
    """A row for every variant: time over the clips, mean PSNR, and its difference to the baseline's on each clip."""
    found: dict[str, Measured] = {}
    scores: dict[str, list[float]] = {}
    sizes: dict[str, list[float]] = {}
    for clip in held_out_cases(clips):
        study = Study(loaded, clip, frames)
        for name, measured in by_turns(study.cases(), 1).items():
            whole = found.setdefault(name, Measured())
            whole.seconds += measured.seconds
            whole.peak = max(whole.peak, measured.peak)
            scores.setdefault(name, []).append(study.closeness(name))
            if study.counts[name]:
                sizes.setdefault(name, []).append(statistics.mean(study.counts[name]))
    cases = [replace(case, more=_more(case.name, scores, sizes)) for case in study.cases()]
    return rows_of(GROUP, Size(frames, PIXELS, PIXELS), cases, found, BASELINE, dtype)


def _number(settings: StemSettings | None) -> int | str | None:
    if settings is None:
        return None
    return "auto" if settings.explained_energy else settings.em.num_bases


def _more(name: str, scores: dict[str, list[float]], sizes: dict[str, list[float]]) -> dict:
    gains = sorted(own - other for own, other in zip(scores[name], scores[BASELINE], strict=True))
    return {
        "steps": STEPS,
        "psnr": round(statistics.mean(scores[name]), 3),
        "psnr_gain": round(statistics.mean(gains), 3),
        "psnr_gain_low": round(gains[0], 3),
        "psnr_gain_high": round(gains[-1], 3),
        "mean_bases": round(statistics.mean(sizes[name]), 1) if name in sizes else None,
    }

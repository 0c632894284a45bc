"""What each group of the benchmarks measures, and at which sizes."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import torch
from comfy.ldm.modules.attention import optimized_attention

from ....stem_kernels.backends import triton_em
from ....stem_kernels.em import EMSettings
from ... import locations
from ...host import loaded_model, tensor_file, tiny_checkpoint
from . import card, editing, em, inversion, kernels, repeats, synchronisations
from .live_tensors import live_mb
from .results import VideoSize, rows_of
from .timing import Workload, interleaved, round_by_round


@dataclass(frozen=True)
class Bench:
    """The options, and the device; what is not given depends on it."""

    options: argparse.Namespace
    cuda: bool

    @cached_property
    def loaded(self) -> loaded_model.Loaded:
        return loaded_model.load(self.options.checkpoint or random_checkpoint())

    @property
    def device(self) -> str:
        return "cuda" if self.cuda else "cpu"

    @property
    def em_dtype(self) -> torch.dtype:
        return torch.float16 if self.cuda else torch.float32

    @property
    def model_dtype(self) -> str:
        base = self.loaded.model.model
        return _name(base.manual_cast_dtype or base.get_dtype())

    def has_triton(self, group: str) -> bool:
        """Whether Triton's kernels can run here; if not, says why the group is left out."""
        some = torch.zeros(1, 1, 1, device=self.device)
        if why := triton_em.refusal(some, some):
            print(f"{group}: left out ({why})")
        return why is None

    def videos(self, frames: Sequence[int], height: int, width: int) -> list[VideoSize]:
        """A size for each length; what the options say comes first."""
        asked = self.options
        return [VideoSize(n, asked.height or height, asked.width or width) for n in asked.frames or frames]

    def rows(
        self, group: str, video: VideoSize, workloads: list[Workload], baseline: str, rounds: int = 1
    ) -> Iterator[dict]:
        """The rows of workloads that run the network, after each round."""
        attention = {"attention": optimized_attention.__name__.removeprefix("attention_")}
        for found in round_by_round(workloads, rounds, warm_up=self.cuda):
            for row in rows_of(group, video, workloads, found, baseline, self.model_dtype):
                yield row | attention


def random_checkpoint() -> Path:
    """SD1.5 at full size with random weights, made once: time and memory do not depend on what weights say."""
    file = locations.from_environment().setup / "models" / "random_sd15.safetensors"
    if not file.is_file():
        tensor_file.write(tiny_checkpoint.build(full=True), file)
    return file


def of_card(bench: Bench) -> Iterator[dict]:
    workloads = card.workloads(bench.device, 1 if bench.cuda else 1 / 16)
    found = interleaved(workloads, max(3, bench.options.rounds), warm_up=True)
    yield from rows_of("card", VideoSize(0, 0, 0), workloads, found, workloads[0].name, "float32")


def of_kernels(bench: Bench) -> Iterator[dict]:
    if bench.has_triton("kernels"):
        for video in bench.videos((48,), 360, 640):
            yield from kernels.rows(video, bench.device, bench.options.rounds)


def of_backends(bench: Bench) -> Iterator[dict]:
    if bench.has_triton("backends"):
        for video in bench.videos((48,), 360, 640):
            workloads = inversion.by_backend(bench.loaded, video, bench.options.steps or 3)
            yield from bench.rows("backends", video, workloads, inversion.BASELINE, bench.options.rounds)


def of_em(bench: Bench) -> Iterator[dict]:
    for video in bench.videos((48,) if bench.cuda else (4,), 360, 640):
        for k in em.NUM_BASES:
            fits = em.workloads(video, EMSettings(num_bases=k), bench.em_dtype, bench.device)
            yield from _fits("em", bench, video, fits)


def of_blocks(bench: Bench) -> Iterator[dict]:
    for video in bench.videos((48,) if bench.cuda else (4,), 360, 640):
        yield from _fits("blocks", bench, video, em.by_block(video, EMSettings(), bench.em_dtype, bench.device))


def _fits(group: str, bench: Bench, video: VideoSize, workloads: list[Workload]) -> Iterator[dict]:
    found = interleaved(workloads, max(5, bench.options.rounds), warm_up=True)
    yield from rows_of(group, video, workloads, found, em.FLOOR, _name(bench.em_dtype))


def of_inversion(bench: Bench) -> Iterator[dict]:
    for video in bench.videos((48,) if bench.cuda else (4,), 360, 640):
        workloads = inversion.workloads(bench.loaded, video, bench.options.steps or (50 if bench.cuda else 1))
        yield from bench.rows("inversion", video, workloads, inversion.BASELINE, bench.options.rounds)


def of_batches(bench: Bench) -> Iterator[dict]:
    pixels = 512 if bench.cuda else 256
    for video in bench.videos((16, 48, 120, 200) if bench.cuda else (8, 16, 32), pixels, pixels):
        batches = inversion.in_batches(bench.loaded, video, (None, 8, 4))
        for row, batch in zip(bench.rows("batches", video, batches, batches[0].name), batches, strict=True):
            yield row | {"live_mb": live_mb(batch.run)}


def of_fatezero(bench: Bench) -> Iterator[dict]:
    for video in bench.videos((8,), 512, 512):
        yield from bench.rows("fatezero", video, editing.fatezero(bench.loaded, video), "plain sampling")


def of_tokenflow(bench: Bench) -> Iterator[dict]:
    pixels = 512 if bench.cuda else 192
    for video in bench.videos((8, 16, 32), pixels, pixels):
        edits = editing.tokenflow(bench.loaded, video)
        yield from bench.rows("tokenflow", video, edits, editing.PerFrameGuider.purpose)


def of_repeats(bench: Bench) -> Iterator[dict]:
    for video in bench.videos((48,) if bench.cuda else (4,), 512, 512):
        yield from repeats.rows(bench.loaded, video, bench.model_dtype)


def of_synchronisations(bench: Bench) -> Iterator[dict]:
    for video in bench.videos((8,), 512, 512):
        yield from synchronisations.rows(bench.loaded, video, bench.model_dtype)


def of_sizes(bench: Bench) -> Iterator[dict]:
    from . import base_counts  # its metrics import more than the other groups need

    small = loaded_model.load(locations.TRAINED)
    for frames, clips in ((8, 3), (48, 2), (120, 1)):
        yield from base_counts.rows(small, frames, min(clips, bench.options.rounds), bench.model_dtype)


MEASURES: MappingProxyType[str, Callable[[Bench], Iterator[dict]]] = MappingProxyType(
    {
        "card": of_card,
        "kernels": of_kernels,
        "blocks": of_blocks,
        "em": of_em,
        "inversion": of_inversion,
        "backends": of_backends,
        "batches": of_batches,
        "tokenflow": of_tokenflow,
        "fatezero": of_fatezero,
        "repeats": of_repeats,
        "synchronisations": of_synchronisations,
        "sizes": of_sizes,
    }
)


def _name(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")

"""The Triton kernels beside float64 and beside plain PyTorch, at the sizes that the presets give them."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from ....nodes.methods.stem.settings import PRESETS, StemSettings
from ....stem_kernels.backends import eager, triton_em
from ....stem_kernels.em import EMSettings
from .em import CHANNELS, LEVELS, layer_shapes, tokens_and_bases
from .results import VideoSize, machine, rows_of
from .timing import Workload, interleaved

HEADS = 8
DTYPES = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True)
class Case:
    """One fit: heads times tokens, channels of each, bases, and the settings that they are compared by."""

    name: str
    heads: int
    tokens: int
    channels: int
    num_bases: int
    settings: StemSettings


def cases(video: VideoSize) -> list[Case]:
    """The fits of every preset at each level of SD1.5, those alike to the kernels once; and one that fills no tile."""
    shapes, kinds, found = dict(zip(LEVELS, layer_shapes(video), strict=True)), {}, []
    for settings in PRESETS.values():
        em = settings.em
        kinds.setdefault((settings.space, settings.scope, em.temperature, em.normalize_bases), settings)
    for settings in kinds.values():
        heads = 1 if settings.space == "features" else HEADS
        share = 1 if settings.scope == "all_frames" else min(1, settings.scope_frames / video.frames)
        for level, (tokens, channels) in sorted(shapes.items()):
            name = f"{settings.preset}, level {level}"
            found.append(Case(name, heads, int(tokens * share), channels // heads, settings.em.num_bases, settings))
    return [*found, Case("ragged", 1, shapes[0][0] // 14 - 1, CHANNELS[0], 250, PRESETS["paper"])]


def rows(video: VideoSize, device: str, rounds: int) -> Iterator[dict]:
    """For each case and type a row of the eager backend and one of Triton, with their errors; or why there is none."""
    for dtype in DTYPES:
        for case in cases(video):
            try:
                yield from _rows_of_case(case, video, dtype, device, rounds)
            except Exception as error:
                # what fails on a card is what this is for; the other cases are still worth running
                traceback.print_exc()
                noted = {"dtype": _name(dtype), **asdict(video), "num_bases": case.num_bases}
                yield {"group": "kernels", "name": f"triton, {case.name}", **machine(), **noted, "failed": repr(error)}


def _rows_of_case(case: Case, video: VideoSize, dtype: torch.dtype, device: str, rounds: int) -> list[dict]:
    em, k = case.settings.em, max(2, min(case.num_bases, case.tokens // 4))
    tokens, bases = tokens_and_bases(case.heads * case.tokens, case.channels, k, dtype, device)
    tokens = tokens.view(case.heads, case.tokens, case.channels)
    exact_tokens = tokens.double()
    # the bases of a second iteration: the first ones are tokens, which leave others no responsibility
    first = _directions(bases.double().expand(case.heads, *bases.shape), em)
    _, (centres,) = eager.weighted_means(exact_tokens, (exact_tokens,), first, em.temperature, em.divisor)
    directions = _directions(centres, em).float()
    exact = _flat(eager.weighted_means(exact_tokens, (exact_tokens,), directions.double(), em.temperature, em.divisor))
    workloads = []
    for module in (eager, triton_em):

        def run(module=module) -> tuple[Tensor, list[Tensor]]:
            return module.weighted_means(tokens, (tokens,), directions, em.temperature, em.divisor)

        errors = [(ours.double() - true).norm() / true.norm() for ours, true in zip(_flat(run()), exact, strict=True)]
        noted = {"relative_error": float(f"{float(max(errors)):.3g}"), "shape": list(tokens.shape)}
        backend = module.__name__.rpartition(".")[2].removesuffix("_em")
        workloads.append(Workload(f"{backend}, {case.name}", run, len(bases), noted))
    found = interleaved(workloads, rounds)
    return rows_of("kernels", video, workloads, found, workloads[0].name, _name(dtype))


def _directions(centres: Tensor, em: EMSettings) -> Tensor:
    return centres / (centres.norm(dim=-1, keepdim=True) + em.norm_eps) if em.normalize_bases else centres


def _flat(found: tuple[Tensor, list[Tensor]]) -> list[Tensor]:
    return [found[0], *found[1]]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

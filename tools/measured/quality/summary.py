"""From the results of all items to rows: a mean and its interval for every measure of every way to invert and edit."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from .bootstrap import RESAMPLES, Estimate, estimate
from .plan import Item
from .variants import BASELINE, Variant

Done = Sequence[tuple[Item, dict]]
# By clip, and of each clip by seed and kind of edit.
Numbers = Mapping[int, Mapping[tuple[int, str | None], float]]
ALL_EDITS = "all"
# An editor, and the one of the base that it is measured against.
COMPARED_WITH = {"tokenflow_stem": "tokenflow"}
# What a row is about; `metric` and the numbers come on top.
IDENTITY = ("inversion", "context", "num_bases", "preset", "convention", "change")
GROUP = (*IDENTITY, "editor", "denoiser", "cfg", "edit")


def rows(done: Done, base: Variant = BASELINE) -> list[dict]:
    """A row for each group and metric.

    Keys are GROUP, "metric", "mean", "low", "high", "clips" and "values", and, where `base` was measured on the same
    clips, "gain", "gain_low" and "gain_high": the mean of the differences to it, clip by clip.
    """
    values = collected(done)
    baseline = {
        (*_outcome(group, base), metric): numbers
        for (group, metric), numbers in values.items()
        if _is_base(group, base)
    }
    found = []
    for (group, metric), numbers in values.items():
        row = dict(zip(GROUP, group, strict=True)) | {"metric": metric} | asdict(mean(numbers))
        row |= {"clips": len(numbers), "values": sum(map(len, numbers.values()))}
        others = baseline.get((*_outcome(group, base), metric))
        if others is not None and group[0] is not None and not _is_base(group, base):
            gain = gain_of(numbers, others)
            row |= {"gain": gain.mean, "gain_low": gain.low, "gain_high": gain.high} if gain else {}
        found.append(row)
    return found


def collected(done: Done) -> dict[tuple[tuple, str], Numbers]:
    """Numbers of every (group, metric); an edit counts under its kind and under ALL_EDITS."""
    values: dict = defaultdict(lambda: defaultdict(dict))
    for item, measured in _measured(done):
        for edit in [measured["edit"], ALL_EDITS] if measured["edit"] else [None]:
            outcome = (measured["editor"], measured["denoiser"], measured["cfg"], edit)
            for metric, number in measured["metrics"].items():
                if math.isfinite(number):
                    numbers = values[(*_identity(item.variant), *outcome), metric]
                    numbers[item.case.index][item.seed, measured["edit"]] = number
    return values


def curves(done: Done, denoiser: str, cfg: float = 1.0) -> dict[Variant, list[float]]:
    """Mean PSNR in dB of every frame against the VAE round trip, by variant; of "plain" models for both denoisers."""
    found: dict[Variant, list[list[float]]] = defaultdict(list)
    for item, measured in _measured(done):
        fits = measured["denoiser"] == denoiser or (item.variant is not None and item.variant.plain)
        if "psnr_by_frame" in measured and measured["cfg"] == cfg and fits:
            found[item.variant].append(measured["psnr_by_frame"])
    return {
        variant: [sum(column) / len(column) for column in zip(*all_, strict=True)] for variant, all_ in found.items()
    }


def health_rows(done: Done) -> list[dict]:
    """Of every preset, layer and timestep, the means over clips of the measures of `em_health.health`."""
    groups: dict = defaultdict(list)
    for item, result in done:
        for entry in (measured["health"] for measured in result["measured"] if "health" in measured):
            group = (item.variant.preset, item.variant.num_bases, entry["layer"], entry["timestep"])
            groups[group].append({k: v for k, v in entry.items() if k not in ("layer", "timestep")})
    return [
        dict(zip(("preset", "num_bases", "layer", "timestep"), group, strict=True))
        | {name: sum(entry[name] for entry in entries) / len(entries) for name in entries[0]}
        for group, entries in groups.items()
    ]


def _measured(done: Done) -> Iterable[tuple[Item, dict]]:
    return ((item, measured) for item, result in done for measured in result["measured"] if "metrics" in measured)


def _identity(variant: Variant | None) -> tuple:
    """The first part of a group, in the order of GROUP."""
    return tuple(getattr(variant, name) if variant else None for name in IDENTITY)


def _is_base(group: tuple, base: Variant) -> bool:
    return group[: len(IDENTITY)] == _identity(base) and group[len(IDENTITY)] not in COMPARED_WITH


def _outcome(group: tuple, base: Variant) -> tuple:
    """The part of a group that it must share with the base to be compared; a plain one has but one denoiser."""
    editor, denoiser, cfg, edit = group[len(IDENTITY) :]
    return COMPARED_WITH.get(editor, editor), None if base.plain else denoiser, cfg, edit


def mean(numbers: Numbers, resamples: int = RESAMPLES) -> Estimate:
    """The mean over the clips, and its interval."""
    return estimate({clip: list(of_clip.values()) for clip, of_clip in numbers.items()}, resamples)


def gain_of(numbers: Numbers, base: Numbers, resamples: int = RESAMPLES) -> Estimate | None:
    """Of the differences to the base; where no seed changes the base, its one number stands for every seed."""
    differences = {}
    for clip in sorted(numbers.keys() & base.keys()):
        others = {of: _counterpart(base[clip], *of) for of in numbers[clip]}
        found = [number - others[of] for of, number in numbers[clip].items() if others[of] is not None]
        differences |= {clip: found} if found else {}
    return estimate(differences, resamples) if differences else None


def _counterpart(numbers: Mapping[tuple[int, str | None], float], seed: int, edit: str | None) -> float | None:
    """The number with the same seed and kind of edit, or the mean over the seeds."""
    if (seed, edit) in numbers:
        return numbers[seed, edit]
    same_edit = [number for (_, kind), number in numbers.items() if kind == edit]
    return sum(same_edit) / len(same_edit) if same_edit else None

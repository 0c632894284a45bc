"""From the results of the study of the editors' settings to rows, scores, and the settings that stay."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from .bootstrap import RESAMPLES
from .clips import KINDS
from .plan import EditorItem, EditorSetting
from .summary import ALL_EDITS, Numbers, gain_of, mean

BEFORE = "as in 0.1.0"
# What the nodes and their presets have, of the settings that the study tried; for a kind of edit where it has its own.
SHIPPED: Mapping[str | tuple[str, str], str] = {
    "tokenflow": "to 75 %, 1 keyframe",
    "fatezero": "to 75 %, levels 0 to 3",
    ("fatezero", "colour"): "17 % to 50 %, levels 0 to 3",
}
MASK_METRICS = ("psnr_kept", "warp_seam")
METRICS = ("psnr", "psnr_inside", "psnr_outside", "warp_error", "target_word", "kept_words")
# What is asked of better settings (one each): closer to the true edit by so many dB, steadier by this share of the warp
# error, and with no more than this share of the words lost.
WANTED_PSNR, WANTED_WARP, LOST_WORDS = 0.5, 0.2, 0.05

Done = Sequence[tuple[EditorItem, dict]]


def rows(done: Done, resamples: int = RESAMPLES, first: str = BEFORE) -> list[dict]:
    """A row for each editor, inversion, setting, kind of edit and metric.

    Keys are "editor", "inversion", "setting", "default" (what the nodes have), "kind", "metric", "mean", "low", "high"
    and "clips", and of all settings but `first` "gain", "gain_low" and "gain_high", the mean difference to it, clip
    by clip.
    """
    found = []
    collected = _collected(done)
    for (editor, inversion, setting, kind, metric), numbers in collected.items():
        row = {
            "editor": editor,
            "inversion": inversion,
            "setting": setting,
            "default": setting == SHIPPED.get((editor, kind), SHIPPED[editor]),
        }
        row |= {"kind": kind, "metric": metric}
        row |= asdict(mean(numbers, resamples)) | {"clips": len(numbers)}
        base = collected.get((editor, inversion, first, kind, metric))
        gain = gain_of(numbers, base, resamples) if base and setting != first else None
        row |= {"gain": gain.mean, "gain_low": gain.low, "gain_high": gain.high} if gain else {}
        found.append(row)
    return found


def score(made: Sequence[Mapping], editor: str, setting: str, kind: str = ALL_EDITS) -> float:
    """How much better than before: one for each half decibel, fifth of the warp error and twentieth of words not lost.

    made: `rows`; of all inversions that are there, the mean.
    """
    scores = []
    wanted = [row for row in made if (row["editor"], row["setting"], row["kind"]) == (editor, setting, kind)]
    for inversion in {row["inversion"] for row in wanted}:
        of = {row["metric"]: row for row in wanted if row["inversion"] == inversion and "gain" in row}
        if "psnr" not in of:
            continue
        warp = of["warp_error"]
        before = warp["mean"] - warp["gain"]
        words = sum(min(0.0, of[name]["gain"]) for name in ("target_word", "kept_words") if name in of)
        scores.append(of["psnr"]["gain"] / WANTED_PSNR - warp["gain"] / before / WANTED_WARP + words / LOST_WORDS)
    return sum(scores) / len(scores) if scores else -math.inf


def survivors(done: Done, tried: Sequence[EditorSetting], kept: int) -> tuple[EditorSetting, ...]:
    """The `kept` settings of the highest scores, and the best for every kind of edit, in their order."""
    made = rows(done, resamples=1)  # a choice needs no intervals

    def best(kind: str, count: int) -> set[EditorSetting]:
        return set(sorted(tried, key=lambda one: score(made, one.editor, one.name, kind), reverse=True)[:count])

    chosen = best(ALL_EDITS, kept).union(*(best(kind, 1) for kind in KINDS))
    return tuple(one for one in tried if one in chosen)


def _collected(done: Done) -> dict[tuple[str, str, str, str, str], Numbers]:
    values: dict = defaultdict(lambda: defaultdict(dict))
    for item, result in done:
        for measured in result["measured"]:
            for kind in (measured["edit"], ALL_EDITS):
                of = (item.setting.editor, item.variant.label, item.setting.name, kind)
                for metric in (*METRICS, *MASK_METRICS):
                    number = measured["metrics"].get(metric, math.nan)
                    if math.isfinite(number):
                        values[(*of, metric)][item.case.index][item.seed, measured["edit"]] = number
    return values

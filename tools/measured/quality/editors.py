"""The study of the editors' settings: what is tried, and what stays in it from round to round (successive halving)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from . import editors_summary
from .clips import Case
from .editors_summary import BEFORE, SHIPPED
from .plan import EditorItem, EditorSetting, Settings
from .variants import BASELINE, FOR_TOKENFLOW, Variant, stem

# By editor: the inversion that its STEM workflows have (few bases, as many tokens as there are here), and DDIM.
INVERSIONS: Mapping[str, tuple[Variant, Variant]] = {
    "tokenflow": (FOR_TOKENFLOW, BASELINE),
    "fatezero": (stem(64), BASELINE),
}


@dataclass(frozen=True)
class Round:
    """A part of the study.

    Attributes:
        clips, seeds: how many, at most.
        inversions: how many of INVERSIONS.
        kept: how many settings of the round before are in it, None for all that there are; the best of every kind of
            edit stay as well.
    """

    clips: int
    seeds: int
    inversions: int
    kept: int | None = None


ROUNDS = (Round(6, 1, 1), Round(12, 1, 2, 5), Round(24, 2, 2, 2))

INTERVALS = {
    "guidance to 75 %": (0.0, 0.75),
    "guidance to 50 %": (0.0, 0.5),
    "guidance to 33 %": (0.0, 1 / 3),
    "guidance from 17 % to 75 %": (1 / 6, 0.75),
    "guidance from 17 % to 50 %": (1 / 6, 0.5),
}
TO_75, TO_50, TO_33, MIDDLE, MIDDLE_TO_50 = ({"cfg_window": window} for window in INTERVALS.values())
# Tried with both editors: by name, the fields that change.
GUIDANCE = {
    **{name: {"cfg_window": window} for name, window in INTERVALS.items()},
    "cfg 3": {"cfg": 3.0},
    "cfg 5, to 50 %": TO_50 | {"cfg": 5.0},
    "cfg 5, from 17 % to 75 %": MIDDLE | {"cfg": 5.0},
}


def _settings(editor: str, own: Mapping[str, Mapping[str, object]]) -> tuple[EditorSetting, ...]:
    """Guidance, steps, and what is the editor's own."""

    def of(named: Mapping[str, Mapping[str, object]]) -> list[EditorSetting]:
        return [EditorSetting(editor, name, tuple(changes.items())) for name, changes in named.items()]

    return (*of(GUIDANCE), *(EditorSetting(editor, f"{steps} steps", (), steps) for steps in (20, 50)), *of(own))


def tokenflow_settings() -> tuple[EditorSetting, ...]:
    """What is tried of TokenFlow, beside the settings of 0.1.0."""
    one = {"batch_size": 8}
    layout, all_injected = {"attention_injection": 0.75}, {"attention_injection": 1.0, "feature_injection": 1.0}
    named = {
        "1 keyframe of 8 frames": one,
        "a keyframe in 2 frames": {"batch_size": 2},
        "attention injection 0.25": {"attention_injection": 0.25},
        "attention injection 0.75": layout,
        "attention injection 1": {"attention_injection": 1.0},
        "feature injection 0.5": {"feature_injection": 0.5},
        "feature injection 1": {"feature_injection": 1.0},
        "both injections 1": all_injected,
        "start 0.83": {"start": 10 / 12},
        "start 0.67": {"start": 8 / 12},
        "weights surrounding": {"weights": "surrounding"},
        "keyframes in the centre": {"keyframes": "centre"},
        "source rows propagated": {"source_rows": "propagated"},
        "to 75 %, 1 keyframe": TO_75 | one,
        "to 75 %, attention injection 0.75": TO_75 | layout,
        "17 % to 75 %, 1 keyframe": MIDDLE | one,
        "17 % to 75 %, attention injection 0.75": MIDDLE | layout,
        "17 % to 75 %, both injections 1": MIDDLE | all_injected,
        "17 % to 75 %, 1 keyframe, attention injection 0.75": MIDDLE | one | layout,
        "to 50 %, 1 keyframe": TO_50 | one,
        # added after three clips, around what was best there
        "to 75 %, 1 keyframe, attention injection 0.75": TO_75 | one | layout,
        "cfg 5, to 75 %, 1 keyframe": TO_75 | one | {"cfg": 5.0},
    }
    return _settings("tokenflow", named)


def fatezero_settings() -> tuple[EditorSetting, ...]:
    """What is tried of FateZero, beside the presets and settings of 0.1.0."""
    blend, levels = {"blend_latents": True}, {"levels": (0, 1, 2, 3)}
    named = {
        "self-attention 0.3": {"self_window": 0.3},
        "self-attention 0.8": {"self_window": 0.8},
        "self-attention 1": {"self_window": 1.0},
        "words 0.3": {"window": 0.3},
        "words 0.8": {"window": 0.8},
        "words 1": {"window": 1.0},
        "both windows 0.8": {"self_window": 0.8, "window": 0.8},
        "self-attention of the words their own": {"blend_self": True},
        "self-attention all the source's": {"blend_self": False},
        "threshold 0.2": {"threshold": 0.2},
        "threshold 0.45": {"threshold": 0.45},
        "latent blend": blend,
        "latent blend, threshold 0.2": blend | {"threshold": 0.2},
        "levels 0 to 3": levels,
        "levels 2 and 3": {"levels": (2, 3)},
        "negative prompt fused": {"fuse_unconditional": True},
        "to 75 %, latent blend": TO_75 | blend,
        "17 % to 75 %, latent blend": MIDDLE | blend,
        "17 % to 75 %, self-attention 0.8": MIDDLE | {"self_window": 0.8},
        "17 % to 75 %, levels 0 to 3": MIDDLE | levels,
        "17 % to 75 %, negative prompt fused": MIDDLE | {"fuse_unconditional": True},
        "to 50 %, levels 0 to 3": TO_50 | levels,
        # added after three clips, around what was best there
        "to 75 %, levels 0 to 3": TO_75 | levels,
        "to 33 %, levels 0 to 3": TO_33 | levels,
        "17 % to 50 %, levels 0 to 3": MIDDLE_TO_50 | levels,
        "cfg 6, to 50 %, levels 0 to 3": TO_50 | levels | {"cfg": 6.0},
        "to 50 %, levels 0 to 3, words 0.8": TO_50 | levels | {"window": 0.8},
    }
    return _settings("fatezero", named)


SETTINGS = {"tokenflow": tokenflow_settings(), "fatezero": fatezero_settings()}
# By what the report calls it, how a mask of the thing is used.
UNMASKED = "no mask"
MASKED = {UNMASKED: "no", "mask, latents": "latents", "mask, latents and pixels": "pixels"}


def mask_items(cases: Sequence[Case], seeds: Sequence[int]) -> list[EditorItem]:
    """Edits with and without a mask, with the editor's shipped setting, from its STEM inversion."""
    shipped = [one for editor, tried in SETTINGS.items() for one in tried if one.name == SHIPPED[editor]]
    settings = [
        replace(one, name=name, changes=(*one.changes, ("masked", masked)))
        for one in shipped
        for name, masked in MASKED.items()
    ]
    return [
        EditorItem("setting", case, INVERSIONS[setting.editor][0], seeds[0], setting=setting)
        for case in cases
        for setting in settings
    ]


def items(
    cases: Sequence[Case], seeds: Sequence[int], settings: Settings, results: Mapping[str, dict]
) -> list[EditorItem]:
    """The work of all rounds that can be told from the `results`: a round begins when the one before is done."""
    found: dict[EditorItem, None] = {}
    chosen = SETTINGS
    for number, part in enumerate(ROUNDS):
        work = [
            item
            for case in cases[: part.clips]
            for editor, tried in chosen.items()
            for item in _of_clip(case, editor, tried, part, seeds)
        ]
        found |= dict.fromkeys(work)
        done = [(item, results[item.key(settings)]) for item in work if item.key(settings) in results]
        if len(done) < len(work) or part is ROUNDS[-1]:
            break
        kept = ROUNDS[number + 1].kept
        chosen = {editor: editors_summary.survivors(done, tried, kept) for editor, tried in chosen.items()}
    return list(found)


def _of_clip(
    case: Case, editor: str, tried: Sequence[EditorSetting], part: Round, seeds: Sequence[int]
) -> Iterator[EditorItem]:
    for variant in INVERSIONS[editor][: part.inversions]:
        # FateZero itself draws nothing
        of_variant = seeds[: part.seeds] if editor == "tokenflow" or variant.seeded else seeds[:1]
        for seed in of_variant:
            for setting in (EditorSetting(editor, BEFORE), *tried):
                yield EditorItem("setting", case, variant, seed, setting=setting)

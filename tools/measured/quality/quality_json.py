"""What docs/quality.json holds of every study: rows, and what they were measured on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from types import MappingProxyType

from . import editors, editors_summary, summary
from .plan import Item, Settings
from .store import rounded
from .variants import BASELINE, CHANGED_BASES, FURTHER_EDITS, Variant, changed, full_grid, stem


def of_study(name: str, work: Sequence[Item], done: summary.Done, settings: Settings, checkpoint: str) -> dict:
    """The entries of a study, and below "studies" on what it was measured; nothing where no clip is finished.

    checkpoint: its file's name.
    """
    used = _complete(done, NEEDED[name]) if name in NEEDED else done
    if not used:
        return {}
    about = asdict(settings) | {
        "checkpoint_file": checkpoint,
        "seeds": sorted({item.seed for item, _ in used}),
        "clips": len({item.case.index for item, _ in used}),
        "cpu_seconds": round(sum(result["seconds"] for _, result in done)),
        "runs": len(work),
        "missing_runs": len(work) - len(done),
    }
    return {"studies": {name: about}} | ENTRIES[name](used)


def _main(done: summary.Done) -> dict:
    """`rows`, `psnr_by_frame`, and the captions of the `clips`."""
    cases = {item.case.index: item.case for item, _ in done}
    curves = {denoiser: summary.curves(done, denoiser) for denoiser in ("plain", "same")}
    return {
        "clips": [
            {"caption": case.scene.caption, "edits": {wish.kind: wish.scene.caption for wish in case.edits}}
            for case in cases.values()
        ],
        "rows": summary.rows(done),
        "psnr_by_frame": {
            denoiser: {variant.label: [round(value, 3) for value in curve] for variant, curve in found.items()}
            for denoiser, found in curves.items()
        },
    }


def further_edits_key(study: str) -> str:
    """Under which name docs/quality.json holds the rows of a study of further edits."""
    return study.replace("edits", "edit_rows")


def _further_edits(study: str, done: summary.Done) -> dict:
    return {further_edits_key(study): summary.rows(done)}


def _complete(done: summary.Done, variants: Sequence[Variant]) -> summary.Done:
    """The results of clips on which all of some inversions were measured."""
    by_clip: dict[int, set[Variant]] = {}
    for item, _ in done:
        by_clip.setdefault(item.case.index, set()).add(item.variant)
    clips = {clip for clip, measured in by_clip.items() if set(variants) <= measured}
    return [(item, result) for item, result in done if item.case.index in clips]


# Inversions without which a clip is left out.
NEEDED = MappingProxyType(
    {
        "grid": full_grid(),
        "changes": changed(),
        **{study: (BASELINE, *tokenflow) for study, (tokenflow, _) in FURTHER_EDITS.items()},
    }
)
ENTRIES: Mapping[str, Callable[[summary.Done], dict]] = MappingProxyType(
    {
        "main": _main,
        **{study: partial(_further_edits, study) for study in FURTHER_EDITS},
        "stem_edits": lambda done: {"stem_edit_rows": summary.rows(done)},
        "guided": lambda done: {"guided_rows": summary.rows(done)},
        "grid": lambda done: {"grid_rows": summary.rows(done)},
        "changes": lambda done: {"change_rows": summary.rows(done, stem(CHANGED_BASES))},
        "editors": lambda done: {"editor_rows": rounded(editors_summary.rows(done))},
        "masks": lambda done: {"mask_rows": rounded(editors_summary.rows(done, first=editors.UNMASKED))},
        "health": lambda done: {"em_health": summary.health_rows(done)},
    }
)

"""The report: docs/quality.json with every number, docs/quality.md to read, and pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType

from . import pictures, plots, tables
from .numbers import further_edits_key, of_study
from .plan import CFG, Item, Settings
from .store import Store
from .variants import (
    CANDIDATES,
    CHANGED_BASES,
    FATEZERO,
    FOR_TOKENFLOW,
    FURTHER_EDITS,
    MAIN,
    STEM_EDITED,
    Variant,
    changed,
    full_grid,
)

INTRODUCTION = """# Quality

Written by `make quality`; every number is also in [quality.json](quality.json).

Rendered clips of 128×128 pixels. Each shows a thing whose combination of object, style and colour never occurs in
training. Numbers in brackets are 95 % intervals, by bootstrap over clips and, within clips, seeds. A *gain* is the mean
difference to DDIM with 1 frame, clip by clip, so its interval tells whether the difference is real."""
TOKENFLOW = """### TokenFlow

A keyframe for every 4 frames, otherwise the default settings."""
FATEZERO_TEXT = """### FateZero

The node's presets: *shape* for another object, *style* for another style, *attribute* for another colour. With STEM
this is STEM-FateZero; with DDIM, what is not fused has the attention of the inversion."""
STEM_EDITS = """### TokenFlow with bases among the keyframes

`edit_attention` of TokenFlow Edit set to `stem`: keyframes read bases of all keyframes, with the settings of the
inversion, instead of each other. DDIM's row has 256 bases and shows what that attention does alone. All gains are over
the usual edit from DDIM with 1 frame."""

OTHERS_TEXT = "### Edits from the other inversions of the convention *{}*"
BETWEEN_TEXT = """### Which part of the printed equations edits feel

The preset `paper_literal`, each of three things that tell it from the default undone by itself, and the default with
the one that matters."""
FURTHER_EDIT_TEXTS = MappingProxyType(
    {
        "edits_next": OTHERS_TEXT.format("next"),
        "edits_current": OTHERS_TEXT.format("current"),
        "edits_between": BETWEEN_TEXT,
    }
)


def write(
    studies: Mapping[str, Sequence[Item]], settings: Settings, store: Store, checkpoint: str, output: Path
) -> None:
    """Writes the files below `output`, from the results that are there.

    studies: the work of each by name; of the others, and of those without a finished clip, the numbers there stay.
    checkpoint: its file's name.
    """
    results, file, folder = store.load(), output / "quality.json", output / "quality"
    folder.mkdir(parents=True, exist_ok=True)
    made = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"studies": {}}
    for name, work in studies.items():
        done = [(item, results[item.key(settings)]) for item in work if item.key(settings) in results]
        found = of_study(name, work, done, settings, checkpoint)
        if not found:
            continue
        made |= found | {"studies": made["studies"] | found["studies"]}
        if name == "main":
            made["pictures"] = pictures.write([item for item, _ in done], settings, store.folder / "frames", folder)
            _draw_curves(made["psnr_by_frame"], folder)
    file.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    (output / "quality.md").write_text(as_markdown(made), encoding="utf-8")


def _draw_curves(by_frame: Mapping, folder: Path) -> None:
    for denoiser, curves in by_frame.items():
        title = f"Reconstruction, {denoiser} " + ("model" if denoiser == "plain" else "attention")
        lines = {variant.label: curves[variant.label] for variant in MAIN if variant.label in curves}
        plots.line_plot(title, "frame", "PSNR in dB", lines).save(folder / f"psnr_{denoiser}.png", optimize=True)


def as_markdown(made: Mapping) -> str:
    """The report to read; studies without numbers are left out."""
    parts = [INTRODUCTION]
    parts += [write_section(made) for study, write_section in SECTIONS if study in made["studies"]]
    sheets = made.get("pictures", [])
    parts += ["## Pictures"] * bool(sheets)
    parts += [f"{caption}\n\n![{caption}](quality/{name})" for name, caption in sheets]
    return "\n\n".join(parts) + "\n"


def _measured(made: Mapping, study: str) -> str:
    """On what a study was measured."""
    about = made["studies"][study]
    seeds = f"seed{'s' * (len(about['seeds']) > 1)} " + ", ".join(map(str, about["seeds"]))
    missing = f" **{about['missing_runs']} of {about['runs']} runs are missing.**" if about["missing_runs"] else ""
    took = f", {about['cpu_seconds'] / 60:.0f} minutes" if about["cpu_seconds"] else ""
    return (
        f"Measured on {about['clips']} clips of {about['frames']} frames, {about['steps']} steps, {seeds}; "
        f"checkpoint `{about['checkpoint_file']}` (SHA-256 `{about['checkpoint'][:16]}…`), code of the fingerprint "
        f"`{about['code']}`{took}.{missing}"
    )


def _reconstruction(made: Mapping) -> str:
    bound = [tables.find(made["rows"], editor="vae", metric=f"{metric}_vs_source") for metric in ("psnr", "ssim")]
    return f"""## Reconstruction

Against what the VAE alone gives back, which itself is {tables.cell(bound[0], 2)} dB (SSIM {tables.cell(bound[1], 3)})
from the source. Denoised by the model as it is or, in the columns *same attention*, with the attention of the
inversion (all gains are over DDIM with 1 frame, whose attention is the model's own). No guidance:

{tables.reconstruction(made["rows"], 1.0)}

{_measured(made, "main")}

![PSNR by frame, plain model](quality/psnr_plain.png)

![PSNR by frame, same attention](quality/psnr_same.png)

### Other settings

The preset `tokenflow` is what the workflows of TokenFlow have.

{tables.reconstruction(made["rows"], 1.0, (FOR_TOKENFLOW, *CANDIDATES))}"""


def _guided(made: Mapping) -> str:
    return f"""### With guidance

Guidance of {CFG} against the empty prompt:

{tables.reconstruction(made["guided_rows"], CFG)}

{_measured(made, "guided")}"""


def _grid(made: Mapping) -> str:
    return f"""### All sizes, presets and conventions

PSNR in dB against the VAE round trip, no guidance. *next* and *current* say at which timestep the inversion estimated
the noise; *plain* and *same* are the denoisers of above.

{tables.grid(made["grid_rows"], full_grid())}

{_measured(made, "grid")}"""


def _changes(made: Mapping) -> str:
    return f"""### Single changes of the default

The preset `paper` with {CHANGED_BASES} bases, and one thing changed: the numbers of the default, then what each change
adds to them, clip by clip.

{tables.changes(made["change_rows"], changed())}

{_measured(made, "changes")}"""


def _edits(made: Mapping) -> str:
    judged = made["studies"]["main"]["classifier"] != ""
    words = (
        "*Target word* and *kept words* are the shares of frames in which a classifier sees the new word, and both of "
        "the words that should have stayed."
        if judged
        else "**Whether frames show the target word was not measured: no classifier was given.**"
    )
    return f"""## Edits

The true edited clip is known: the same motion rendered with the other word. PSNR and SSIM are against it; *inside* is
where the thing was or should be seen, *outside* the rest. Warp error is the mean squared error x 1000 between a frame
and the one before it, moved along the true edited clip's exact flow, over the pixels that were seen before, or all;
lower is better. Consistency is the SSIM of the same two. {words}

*Truth* is the true edited clip itself, *truth through the VAE* the best that a perfect edit could reach, and *no edit*
the source through the VAE.

{_edits_by(made["rows"], "tokenflow", (*MAIN, FOR_TOKENFLOW, *CANDIDATES), TOKENFLOW)}

{_edits_by(made["rows"], "fatezero", FATEZERO, FATEZERO_TEXT)}

{_measured(made, "main")}"""


def _further_edits(study: str, made: Mapping) -> str:
    rows = made[further_edits_key(study)]
    parts = [FURTHER_EDIT_TEXTS[study]]
    tokenflow, fatezero = FURTHER_EDITS[study]
    for name, variants in (("TokenFlow", tokenflow), ("FateZero", fatezero)):
        if variants:
            parts += [f"{name}, gains over its edits from DDIM with 1 frame, convention *next*:"]
            parts += [tables.edit_gains(rows, name.lower(), variants)]
    return "\n\n".join((*parts, _measured(made, study)))


def _stem_edits(made: Mapping) -> str:
    rows = made["stem_edit_rows"]
    return f"""{STEM_EDITS}

{tables.edit_gains(rows, "tokenflow_stem", STEM_EDITED)}

Beside the usual edits of the same inversions, measured in the same runs:

{tables.edit_gains(rows, "tokenflow", STEM_EDITED)}

{_measured(made, "stem_edits")}"""


def _edits_by(rows: tables.Rows, editor: str, variants: Sequence[Variant], text: str) -> str:
    return f"""{text}

{tables.edits(rows, editor, variants)}

Gains over the edits from DDIM with 1 frame:

{tables.edit_gains(rows, editor, variants)}

By kind of edit:

{tables.edits_by_kind(rows, editor, variants)}"""


def _health(made: Mapping) -> str:
    return f"""## Health of expectation-maximisation

Inversion with K = 256, means over the clips; over the steps the mean and, in brackets, the smallest and
largest. A base is live if it answers for more than a millionth of a token. The perplexity of the masses is the number
of evenly used bases that would be as spread. Layers that see fewer than 256 tokens get as many bases as tokens.

{tables.em_health(made["em_health"])}

{_measured(made, "health")}"""


SECTIONS = (
    ("main", _reconstruction),
    ("guided", _guided),
    ("grid", _grid),
    ("changes", _changes),
    ("main", _edits),
    *((study, partial(_further_edits, study)) for study in FURTHER_EDITS),
    ("stem_edits", _stem_edits),
    ("health", _health),
)

"""The report: docs/quality.json with every number, docs/quality.md to read, and pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from . import pictures, plots, summary, tables
from .plan import CFG, HEALTH_CLIPS, Item, Settings
from .store import Store
from .variants import CANDIDATES, CHANGED_BASES, FATEZERO, MAIN, Variant, changed, full_grid, stem

TOKENFLOW = """### TokenFlow

A keyframe for every 4 frames, otherwise the default settings."""
FATEZERO_TEXT = """### FateZero

The node's presets: *shape* for another object, *style* for another style, *attribute* for another colour. With STEM
this is STEM-FateZero; with DDIM, what is not fused has the attention of the inversion."""


def write(work: Sequence[Item], settings: Settings, store: Store, checkpoint: str, output: Path) -> None:
    """Writes the files below `output`, from the results that are there. checkpoint: its file's name."""
    results = store.load()
    done = [(item, results[item.key(settings)]) for item in work if item.key(settings) in results]
    folder = output / "quality"
    folder.mkdir(parents=True, exist_ok=True)
    made = numbers(done, settings, checkpoint) | {"missing_runs": len(work) - len(done), "runs": len(work)}
    (output / "quality.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    for denoiser in ("plain", "same"):
        lines = {v.label: made["psnr_by_frame"][denoiser][v.label] for v in MAIN}
        title = f"Reconstruction, {denoiser} " + ("model" if denoiser == "plain" else "attention")
        plots.line_plot(title, "frame", "PSNR in dB", lines).save(folder / f"psnr_{denoiser}.png", optimize=True)
    sheets = pictures.write([item for item, _ in done], settings, store.folder / "frames", folder)
    (output / "quality.md").write_text(as_markdown(made, sheets), encoding="utf-8")


def numbers(done: summary.Done, settings: Settings, checkpoint: str) -> dict:
    """All that the report holds.

    `rows`: main inversions and candidates on all clips; `guided_rows`: with guidance, on a few; `grid_rows`: all
    inversions on the clips that went through the whole grid; `change_rows`: the same, beside the default.
    """
    inverted = [(item, result) for item, result in done if item.variant is not None]
    guided_clips = {item.case.index for item, _ in inverted if CFG in item.scales}
    grid_clips = _complete(inverted, set(full_grid()))
    main = [(item, result) for item, result in done if item.variant is None or item.variant in (*MAIN, *CANDIDATES)]
    rows = summary.rows(main)
    on_grid = [(item, result) for item, result in inverted if item.case.index in grid_clips]
    cases = {item.case.index: item.case for item, _ in done}
    return {
        "settings": asdict(settings) | {"checkpoint_file": checkpoint, "seeds": sorted({i.seed for i, _ in done})},
        "clips": [
            {"caption": case.scene.caption, "edits": {wish.kind: wish.scene.caption for wish in case.edits}}
            for case in cases.values()
        ],
        "grid_clips": len(grid_clips),
        "guided_clips": len(guided_clips),
        "cpu_seconds": round(sum(result["seconds"] for _, result in done)),
        "rows": [row for row in rows if not _guided(row)],
        "guided_rows": [row for row in rows if _guided(row)],
        "grid_rows": [row for row in summary.rows(on_grid) if row["editor"] == "none" and not _guided(row)],
        "change_rows": [
            row
            for row in summary.rows(on_grid, stem(CHANGED_BASES))
            if row["editor"] == "none" and not _guided(row) and row["num_bases"] == CHANGED_BASES
        ],
        "psnr_by_frame": {
            denoiser: {
                variant.label: [round(value, 3) for value in curve]
                for variant, curve in summary.curves(main, denoiser).items()
            }
            for denoiser in ("plain", "same")
        },
        "em_health": summary.health_rows(done),
    }


def _guided(row: dict) -> bool:
    return row["editor"] == "none" and row["cfg"] == CFG


def _complete(inverted: summary.Done, variants: set[Variant]) -> set[int]:
    """The clips on which all of some inversions were measured."""
    by_clip: dict[int, set[Variant]] = {}
    for item, _ in inverted:
        by_clip.setdefault(item.case.index, set()).add(item.variant)
    return {clip for clip, measured in by_clip.items() if variants <= measured}


def as_markdown(made: dict, sheets: Sequence[tuple[str, str]]) -> str:
    """The report to read. sheets: file names of pictures in the folder quality, with captions."""
    parts = [_introduction(made), _reconstruction(made), _grid(made), _edits(made), _health(made)]
    parts += ["## Pictures", *(f"{caption}\n\n![{caption}](quality/{name})" for name, caption in sheets)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _introduction(made: dict) -> str:
    settings = made["settings"]
    missing = f"\n\n**{made['missing_runs']} of {made['runs']} runs are missing.**" if made["missing_runs"] else ""
    return f"""# Quality

Written by `make quality`; every number is also in [quality.json](quality.json).

Measured on {len(made["clips"])} rendered clips of {settings["frames"]} frames of 128×128 pixels, {settings["steps"]}
DDIM steps, seeds {", ".join(map(str, settings["seeds"]))}. Each clip shows a thing whose combination of object, style
and colour never occurs in training. Checkpoint: `{settings["checkpoint_file"]}` (SHA-256
`{settings["checkpoint"][:16]}…`), code of the fingerprint `{settings["code"]}`. All runs together took
{made["cpu_seconds"] / 60:.0f} minutes.

Numbers in brackets are 95 % intervals, by bootstrap over clips and, within clips, seeds. A *gain* is the mean
difference to DDIM with 1 frame, clip by clip, so its interval tells whether the difference is real.{missing}"""


def _reconstruction(made: dict) -> str:
    bound = [tables.find(made["rows"], editor="vae", metric=f"{metric}_vs_source") for metric in ("psnr", "ssim")]
    with_guidance = f"""

With guidance of {CFG} against the empty prompt, on {made["guided_clips"]} clips:

{tables.reconstruction(made["guided_rows"], CFG)}"""
    return f"""## Reconstruction

Against what the VAE alone gives back, which itself is {tables.cell(bound[0], 2)} dB (SSIM {tables.cell(bound[1], 3)})
from the source. Denoised by the model as it is or, in the columns *same attention*, with the attention of the
inversion (all gains are over DDIM with 1 frame, whose attention is the model's own). No guidance:

{tables.reconstruction(made["rows"], 1.0)}

![PSNR by frame, plain model](quality/psnr_plain.png)

![PSNR by frame, same attention](quality/psnr_same.png){with_guidance if made["guided_clips"] else ""}

### Candidates for another default

{tables.reconstruction(made["rows"], 1.0, CANDIDATES)}"""


def _grid(made: dict) -> str:
    if not made["grid_clips"]:
        return ""
    return f"""### All sizes, presets and conventions

PSNR in dB against the VAE round trip, no guidance, on {made["grid_clips"]} clips. *next* and *current* say at which
timestep the inversion estimated the noise; *plain* and *same* are the denoisers of above.

{tables.grid(made["grid_rows"], full_grid())}

### Single changes of the default

The preset `paper` with {CHANGED_BASES} bases, and one thing changed, on {made["grid_clips"]} clips: the numbers of the
default, then what each change adds to them, clip by clip.

{tables.changes(made["change_rows"], changed())}"""


def _edits(made: dict) -> str:
    judged = made["settings"]["classifier"] != ""
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

{_edits_by(made, "tokenflow", (*MAIN, *CANDIDATES), TOKENFLOW)}

{_edits_by(made, "fatezero", FATEZERO, FATEZERO_TEXT)}"""


def _edits_by(made: dict, editor: str, variants: Sequence[Variant], text: str) -> str:
    rows = made["rows"]
    return f"""{text}

{tables.edits(rows, editor, variants)}

Gains over the edits from DDIM with 1 frame:

{tables.edit_gains(rows, editor, variants)}

By kind of edit:

{tables.edits_by_kind(rows, editor, variants)}"""


def _health(made: dict) -> str:
    clips = min(HEALTH_CLIPS, len(made["clips"]))
    return f"""## Health of expectation-maximisation

Inversion with K = 256, means over {clips} clips; over the steps the mean and, in brackets, the smallest and
largest. A base is live if it answers for more than a millionth of a token. The perplexity of the masses is the number
of evenly used bases that would be as spread. Layers that see fewer than 256 tokens get as many bases as tokens.

{tables.em_health(made["em_health"])}"""

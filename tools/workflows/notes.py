"""The texts of the notes on the canvas, in Markdown. A line is a paragraph or an item of a list."""

from __future__ import annotations


def _text(*lines: str) -> str:
    return "\n\n".join(lines)


def _steps(*lines: str) -> str:
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1))


RECONSTRUCT_FIRST = _text(
    "## Reconstruct first",
    "See whether a clip can be given back before you edit it: it is turned into noise, and the noise back into a clip, "
    "with the same prompt.",
    _steps(
        "Choose a clip in **Video Load**.",
        "Choose a Stable Diffusion 1.5 checkpoint in **Load Checkpoint**.",
        "Say in **Source prompt** what the clip shows.",
        "Run, and look at group 4.",
    ),
    "Where the reconstruction is good, go on with *stem_tokenflow_edit*.",
)

STEM_EDIT = _text(
    "## Edit a clip by text: STEM inversion, then TokenFlow",
    _steps(
        "Choose a clip in **Video Load**.",
        "Choose a Stable Diffusion 1.5 checkpoint in **Load Checkpoint**.",
        "Write the prompts.",
        "Run. The edited clip is in **Save Video**.",
    ),
    "*reconstruct_first* has only groups 1 to 4. *ddim_tokenflow_edit* is the same without STEM, to compare.",
)

DDIM_EDIT = _text(
    "## For comparison: DDIM inversion, then TokenFlow",
    "As *stem_tokenflow_edit*, with the same settings and seeds, but without **STEM Bases**: every frame is inverted "
    "by itself.",
    _steps(
        "Choose the same clip and the same checkpoint.",
        "Write the same prompts.",
        "Run, and compare what both workflows saved.",
    ),
)

LOADING = _text(
    "**Video Load** takes at most `frame_cap` frames and cuts them to `width` × `height`. SD 1.5 is at its best at "
    "512 × 512. Fewer frames are faster and need less memory.",
)

SOURCE_PROMPT = _text("**Source prompt**: what the clip shows, in plain words.")

EDIT_PROMPTS = _text(
    SOURCE_PROMPT,
    "**Target prompt**: the same, with the change you want.",
    "**Negative prompt**: what to avoid in the edit.",
)

STEM_INVERSION = _text(
    "**STEM Bases** sums up the whole clip in `num_bases` bases at every layer, and lets every frame read from them.",
    "**STEM Inversion** walks the clip to noise in `steps` steps.",
    "Bypass **STEM Bases** (Ctrl+B) for plain DDIM inversion.",
)

DDIM_INVERSION = _text(
    "**DDIM Inversion** walks the clip to noise in `steps` steps.",
    "Its model comes straight from the checkpoint, so nothing ties the frames together.",
)

_BEST = (
    "**Reconstruct** goes back with the source prompt. Compare **Save reconstruction** with **Save VAE round trip**, "
    "which is the best that the checkpoint's VAE can do"
)

STEM_RECONSTRUCTION = _text(
    f"{_BEST}.",
    "They should look alike. If not: more `steps`, more `num_bases`, or a source prompt closer to the clip.",
)

DDIM_RECONSTRUCTION = _text(f"{_BEST}, and with the reconstruction of *stem_tokenflow_edit*.")

EDIT = _text(
    "**TokenFlow Edit** edits one frame of every `batch_size` and carries the result to the others. Its model comes "
    "straight from the checkpoint.",
    "Too weak? Raise `cfg`.",
    "Shapes should change more? Lower `attention_injection` and `feature_injection`.",
    "Flicker? Lower `batch_size`; it takes more memory.",
)

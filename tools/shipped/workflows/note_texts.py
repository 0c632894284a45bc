"""The texts of the notes on the canvas, in Markdown. A line is a paragraph or an item of a list."""

from __future__ import annotations


def _text(*lines: str) -> str:
    return "\n\n".join(lines)


def _steps(*lines: str) -> str:
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1))


_CHOOSE = (
    "Choose a clip in **Video Load**.",
    "Choose a Stable Diffusion 1.5 checkpoint in **Load Checkpoint**.",
)
_COMPARE = _steps(
    "Choose the same clip and the same checkpoint.",
    "Write the same prompts.",
    "Run, and compare what both workflows saved.",
)

RECONSTRUCT_FIRST = _text(
    "## Reconstruct first",
    "See whether a clip can be given back before you edit it: it is turned into noise, and the noise back into a clip, "
    "with the same prompt.",
    _steps(
        *_CHOOSE,
        "Say in **Source prompt** what the clip shows.",
        "Run, and look at group 4.",
    ),
    "Where the reconstruction is good, go on with *stem_tokenflow_edit*.",
)

EDIT_VIDEO = _text(
    "## Edit a video by text",
    _steps(
        "Choose a clip, and a Stable Diffusion 1.5 checkpoint.",
        "Write what the clip shows, and what it should show instead.",
        "Run. A new target prompt does not invert the clip again.",
    ),
    "Connect a mask to change only a part of the picture.",
)

STEM_EDIT = _text(
    "## Edit a clip by text: STEM inversion, then TokenFlow",
    _steps(*_CHOOSE, "Write the prompts.", "Run. The edited clip is in **Save Video**."),
    "*reconstruct_first* has only groups 1 to 4. *ddim_tokenflow_edit* is the same without STEM, to compare.",
)

DDIM_EDIT = _text(
    "## For comparison: DDIM inversion, then TokenFlow",
    "As *stem_tokenflow_edit*, with the same settings and seeds, but without **STEM Bases**: every frame is inverted "
    "by itself.",
    _COMPARE,
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
    "**STEM Bases** sums up the whole clip in `num_bases` bases at every layer, and lets every frame read from them. "
    "Its `preset` is *tokenflow* for TokenFlow's edits, *paper* for FateZero's.",
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

STEM_FATEZERO_STYLE = _text(
    "## Add a style: STEM inversion, then FateZero",
    _steps(
        *_CHOOSE,
        "Write **Source prompt**, and the target in **FateZero Edit**.",
        "Run. The edited clip is in **Save Video**.",
    ),
    "*stem_fatezero_object* changes one thing for another. *ddim_fatezero_edit* is FateZero without STEM, to compare.",
)

STEM_FATEZERO_OBJECT = _text(
    "## Change one thing for another: STEM inversion, then FateZero",
    "Only the pixels of the changed word may take another shape; the rest keeps the source's layout.",
    _steps(
        "Choose a clip and a Stable Diffusion 1.5 checkpoint.",
        "Write **Source prompt**, and the same with another word in **FateZero Edit**.",
        "Run, and look at the mask: it should cover the thing that changes.",
    ),
)

DDIM_FATEZERO = _text(
    "## For comparison: FateZero as it was published",
    "As *stem_fatezero_style*, with the same prompts, but every frame reads itself and the middle frame instead of the "
    "bases of the whole clip.",
    _COMPARE,
)

FATEZERO_PROMPTS = _text(
    "**Source prompt**: what the clip shows. **FateZero Edit** reads it too, to know which words stay; write there the "
    "target prompt, as the same text with words added or changed.",
)

FRAME_INVERSION = _text(
    "**Frame Context** lets every frame read itself and the middle frame, as FateZero does.",
    "**DDIM Inversion** walks the clip to noise in `steps` steps.",
)

FATEZERO_RECONSTRUCTION = _text(f"{_BEST}. They should look alike, or no edit will be good.")

FATEZERO = _text(
    "**FateZero Edit** runs the source again at every step and keeps its attention for the words that stay.",
    "Too weak? Raise `cfg`, give the new word a weight (`watercolor: 10`), or lower `cross_window` and `self_window`.",
    "Too much? Raise both windows, or switch `blend_latents` on.",
    "The wrong place? Look at the mask; name the words in `source_blend_words`, or change `threshold`.",
)

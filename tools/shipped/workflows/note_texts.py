"""The texts of the notes on the canvas, in Markdown. Names are bold: code is hard to read in a coloured note."""

from __future__ import annotations


def _text(*lines: str) -> str:
    return "\n\n".join(lines)


def _steps(*lines: str) -> str:
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1))


_CHOOSE = "Choose a clip, and a Stable Diffusion 1.5 checkpoint."
_COMPARE = "Run both with the same clip, checkpoint and prompts, and compare what they save."

RECONSTRUCT_FIRST = _text(
    "## Reconstruct first",
    "Before you edit a clip, see how well it survives the round trip: it is turned into noise, and the noise is turned "
    "back into a clip.",
    _steps(_CHOOSE, "Say in **Source prompt** what the clip shows.", "Run."),
    "If the reconstruction is good, continue with **4 TokenFlow edit**.",
)

RECONSTRUCTION = _text(
    "The reconstruction should look like the VAE round trip, which is the best that the checkpoint's VAE can do.",
    "If not: use more **steps**, or a source prompt that describes the clip better.",
)

EDIT_VIDEO = _text(
    "## Edit a video by text",
    _steps(_CHOOSE, "Write what the clip shows, and what it should show instead.", "Run."),
    "Changing the target prompt does not repeat the inversion. Several target prompts, with a line of --- between "
    "them, give one grid.",
)

EDIT_PART = _text(
    "## Edit part of a video",
    _steps(_CHOOSE, "Make a mask: white where the video may change.", "Write both prompts.", "Run."),
    "Outside the mask every pixel stays as it is.",
)

MASKS = _text(
    "The rectangle is only an example. Connect any mask to **mask**: one for all frames, or one for each.",
    "**Drawn**: Load Image, then open it in the mask editor.",
    "**Followed through the clip**: a SAM 2 or Segment Anything node.",
    "**Grown**: GrowMask, for a thing that becomes larger.",
)

STEM_EDIT = _text(
    "## Edit a clip: STEM inversion, then TokenFlow",
    _steps(_CHOOSE, "Write the prompts: what the clip shows, what it should show, what to avoid.", "Run."),
    "**1 Reconstruct first** tests the inversion alone.",
)

DDIM_EDIT = _text(
    "## For comparison: DDIM inversion, then TokenFlow",
    "Like **4 TokenFlow edit**, but every frame is inverted on its own, without **STEM Bases**.",
    _COMPARE,
)

EDIT = _text(
    "Too weak? Raise **cfg**.",
    "Should shapes change more? Lower **attention_injection** and **feature_injection**.",
    "A style or a colour? Set **cfg_start_percent** to 0.17: the first steps, which fix the layout, then run without "
    "guidance.",
    "Too far from the source, or flicker? Lower **cfg_end_percent**, raise both injections, or lower **denoise**.",
    "Only part of the picture? Connect a mask to **edit_mask**.",
)

STEM_FATEZERO_STYLE = _text(
    "## Add a style: STEM inversion, then FateZero",
    _steps(_CHOOSE, "Write **Source prompt**, and the same with the style in **FateZero Edit**.", "Run."),
    "**6 FateZero edit, an object** replaces one thing with another.",
)

STEM_FATEZERO_OBJECT = _text(
    "## Replace one thing with another: STEM inversion, then FateZero",
    _steps(_CHOOSE, "Write **Source prompt**, and the same with another word in **FateZero Edit**.", "Run."),
    "Only the thing that changes can take another shape. The mask should cover it.",
)

DDIM_FATEZERO = _text(
    "## For comparison: FateZero as published",
    "Like **5 FateZero edit, a style**, but every frame reads itself and the middle frame instead of the bases of the "
    "whole clip.",
    _COMPARE,
)

FATEZERO = _text(
    "Too weak? Raise **cfg**, give the new word a weight (watercolor: 10), or lower **cross_window** and "
    "**self_window**.",
    "Too much? Raise both windows, or turn on **blend_latents**.",
    "The wrong place? Name the words in **source_blend_words**, or change **threshold**.",
)

"""The advanced fields of FateZero Edit."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..methods.seams.comfyui_versions import advanced
from .shared import OF_PRESET, choice


def line(name: str, tooltip: str, default: str = "", **more: Any) -> io.String.Input:
    """A text of one line."""
    return io.String.Input(name, default=default, tooltip=tooltip, **more)


def word_inputs() -> list[io.Input]:
    """How words are matched, how long they keep the attention of the source, and what they weigh."""
    hidden = advanced()
    return [
        choice(
            "control",
            [OF_PRESET, "auto", "refine", "replace"],
            "How the words of the prompts are matched. replace: word by word, for prompts with the same number of "
            "words. refine: by the words they share; new words are unconstrained. auto: replace where possible, "
            "otherwise refine.",
            display_name="word_matching",
            **hidden,
        ),
        line(
            "cross_window",
            "Share of the steps, from the noisy end, in which words keep the source's attention: one number (0.8) or a "
            "range (0.2-0.7). Empty uses the preset's. Higher keeps more of the source.",
            **hidden,
        ),
        line(
            "self_window",
            "The same for self-attention: where things are and how they move. Empty uses the preset's.",
            **hidden,
        ),
        io.String.Input(
            "word_windows",
            multiline=True,
            default="",
            tooltip="Separate windows for single words of the target prompt, one per line: jeep: 0.2-0.7.",
            **hidden,
        ),
        choice(
            "reweighting",
            ["within_window", "all_steps"],
            "Whether weights act only within their words' windows, as in FateZero, or at all steps.",
            **hidden,
        ),
    ]


def mask_inputs() -> list[io.Input]:
    """What the masks are made of, and where they act."""
    hidden = advanced()
    return [
        choice(
            "blend_self",
            [OF_PRESET, "on", "off"],
            "Let the pixels of the masked source words use the edit's own self-attention, so that their shape can "
            "change; the rest keeps the source's.",
            display_name="free_shape",
            **hidden,
        ),
        line("source_blend_words", "Words of the source prompt to mask; empty uses the words that change.", **hidden),
        line("target_blend_words", "The same for the target prompt.", **hidden),
        io.Float.Input(
            "threshold",
            default=0.0,
            min=0.0,
            max=2.0,
            step=0.01,
            round=0.001,
            tooltip="How strong attention to the words must be to count, as a share of the frame's strongest: lower "
            "gives larger masks. 0 uses the preset's value (0.3).",
            **hidden,
        ),
        line(
            "latent_window",
            "Steps in which blend_latents acts, from the noisy end.",
            "0.2-0.8",
            **hidden,
        ),
        io.Boolean.Input(
            "accumulate_masks",
            default=False,
            tooltip="Make the masks of blend_latents from the attention of all steps so far, not just the current one.",
            **hidden,
        ),
        choice("mask_resizing", ["nearest", "bilinear"], "How masks are resized to a layer's resolution.", **hidden),
    ]


def attention_inputs() -> list[io.Input]:
    """What is taken from the source, and the attention of the rest."""
    hidden = advanced()
    return [
        choice(
            "own_attention",
            ["as the inversion", "stem", "spatiotemporal", "own frame"],
            "Self-attention of what is not taken from the source: that of the inversion, bases of the edited video "
            "itself, a list of frames, or every frame by itself.",
            **hidden,
        ),
        line(
            "frames",
            "For spatiotemporal: offsets from the frame itself (-1, 0, 1, …) or first, mid, last, separated by commas.",
            "0, mid",
            **hidden,
        ),
        line(
            "fusion_levels",
            "Resolutions whose attention is taken from the source. 0 is that of the latent, 3 an eighth of it. "
            "FateZero uses 1, 2, 3; adding 0 keeps more detail. Empty uses the preset's.",
            **hidden,
        ),
        io.Boolean.Input(
            "fuse_unconditional",
            default=False,
            tooltip="Use the source's self-attention for the negative prompt too: stays closer to the source.",
            **hidden,
        ),
    ]

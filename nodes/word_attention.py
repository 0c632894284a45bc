"""Word Attention: where in a clip each word of a prompt is seen."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ..stem_kernels.masks import attention_mask
from ..stem_kernels.prompt_words import folded
from .fields.layer_and_step import noise_input, step_at
from .fields.shared import CATEGORY, InversionSocket, prompt_input
from .fields.wishes import grid_rows
from .fields.words import parse_words
from .methods.fatezero.prompts import read_prompt
from .methods.fatezero.watching import watched_words
from .methods.fatezero.word_control import columns_of
from .methods.inversion.inversion import PIXELS_PER_LATENT, Inversion
from .methods.seams.comfyui_versions import found_by
from .metrics.pictures import beside, enlarged, heat, stacked

PURPOSE = "Word Attention"
# Of a latent pixel in the picture of a word.
PIXELS = 4


class WordAttention(io.ComfyNode):
    """INVERSION, CLIP and prompt -> IMAGE, MASK, STRING."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="STEMWordAttention",
            display_name=PURPOSE,
            category=CATEGORY,
            **found_by("cross attention", "attention maps", "word mask", "text mask", "daam"),
            description="Runs one step of an inversion again and shows where in the clip the model sees each word of a "
            "prompt. This is what FateZero Edit makes its masks of. The mask can be used as a mask of an edit.",
            inputs=[
                InversionSocket.Input("inversion", tooltip="The inverted video, from STEM Inversion Sampler."),
                io.Clip.Input("clip", tooltip="The CLIP of the checkpoint that MODEL comes from."),
                prompt_input("prompt", "What the video shows, or any other prompt whose words you want to look for."),
                io.String.Input(
                    "words",
                    default="",
                    tooltip="Words of the prompt to show, separated by commas. Empty shows all of them.",
                ),
                noise_input(),
                io.Float.Input(
                    "threshold",
                    default=0.3,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    round=0.001,
                    tooltip="The mask is white where the attention to the words is more than this share of its largest "
                    "value in the frame.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    "attention", display_name="attention", tooltip="A picture of each word; white is the most."
                ),
                io.Mask.Output("mask", display_name="mask", tooltip="Where the words, taken together, are seen."),
                io.String.Output("text", display_name="text", tooltip="How much attention each word gets."),
            ],
        )

    @classmethod
    def execute(
        cls, inversion: Inversion, clip: Any, prompt: str, words: str, noise: float, threshold: float
    ) -> io.NodeOutput:
        read = read_prompt(clip, prompt, "the", PURPOSE)
        all_words = [folded(word.text) for word in read.tokenized.words if set(word.positions) - set(word.punctuation)]
        columns = columns_of(read, parse_words(words) or all_words, "prompt", PURPOSE)
        if not columns:
            raise ValueError(f"{PURPOSE}: the prompt has no words. Write what the video shows.")
        timestep = step_at(inversion, noise)
        attention = watched_words(inversion, read.conditioning, columns, timestep, PURPOSE)
        size = tuple(PIXELS_PER_LATENT * side for side in inversion.size)
        mask = attention_mask(attention.sum(dim=0), size, threshold).float()
        text = f"timestep {timestep}" + "".join(
            f"\n{word}: {100 * float(of.mean()):.2f} % of the attention, at most {100 * float(of.max()):.1f} %"
            for word, of in zip(columns, attention, strict=True)
        )
        return io.NodeOutput(_pictures(attention, list(columns), inversion.size), mask, text)


def _pictures(attention: torch.Tensor, words: list[str], size: tuple[int, int]) -> torch.Tensor:
    """Every word's attention [n, h, w] as a picture, its largest value in the clip white, in rows."""
    shown = [
        enlarged(heat(of / of.max().clamp_min(torch.finfo(of.dtype).tiny)), tuple(PIXELS * side for side in size))
        for of in attention
    ]
    rows = [beside([shown[n] for n in row], [words[n] for n in row]) for row in grid_rows(len(words))]
    return rows[0] if len(rows) == 1 else stacked(rows, [""] * len(rows))

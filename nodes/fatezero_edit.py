"""FateZero Edit: keep the source's attention, change its words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from comfy_api.latest import io
from einops import repeat
from torch import Tensor

from ..stem_kernels.ddim import select_timesteps
from ..stem_kernels.frame_context import parse_frame_references
from .fields.fatezero import attention_inputs, line, mask_inputs, word_inputs
from .fields.shared import (
    CATEGORY,
    EDIT_ALIASES,
    OF_PRESET,
    check_target_prompt,
    edit_inputs,
    guidance_input,
    guidance_interval,
    guidance_window,
    mask_input,
    prompt_input,
    steps_input,
    tail_input,
)
from .fields.words import parse_levels, parse_weights, parse_window, parse_word_windows, parse_words
from .methods.attention.frame_context import OWN_FRAME, FrameContextAttention
from .methods.attention.installing import installed_method
from .methods.attention.method import SelfAttentionMethod
from .methods.editing.mask import latent_mask
from .methods.fatezero.edit import FateZeroSettings, edit
from .methods.fatezero.presets import PRESETS, FateZeroPreset
from .methods.fatezero.prompts import check_source_prompt, encode, read_prompt
from .methods.fatezero.word_control import WordWishes, read_words
from .methods.inversion.inversion import PIXELS_PER_LATENT, Inversion, stem_for_edit
from .methods.inversion.matching import check_same_checkpoint
from .methods.seams.comfyui_versions import essential, found_by
from .methods.seams.control_hints import controlled_by
from .methods.seams.refusals import check_calls, check_model
from .methods.seams.telling import show, tell

PURPOSE = "FateZero Edit"


class FateZeroEdit(io.ComfyNode):
    """INVERSION + MODEL + CLIP + two prompts -> edited LATENT and the mask of what was free to change."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="STEMFateZeroEdit",
            display_name="FateZero Edit",
            category=CATEGORY,
            **found_by("prompt to prompt", "prompt-to-prompt", *EDIT_ALIASES),
            **essential(),
            description="Edits an inverted video by text. The source's attention is computed again at every step and "
            "kept for the words that stay, so layout and motion survive; the new words bring the change. "
            "With an inversion made with STEM Bases this is STEM-FateZero.",
            inputs=[
                *edit_inputs(),
                io.Clip.Input("clip", tooltip="The CLIP of the same checkpoint; this node encodes its prompts itself."),
                prompt_input("source_prompt", "The prompt that the inversion was made with, word for word."),
                prompt_input("target_prompt", "The same text, with the words that should change replaced or added."),
                prompt_input("negative_prompt", "What the edited video should not show; may be empty."),
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default="style",
                    tooltip="Settings for four kinds of edit; the fields below override them. style: add a style. "
                    "attribute: change a property. replace object: another object of roughly the same shape. "
                    "shape: an object of a different shape, changed only in its place.",
                ),
                steps_input(),
                guidance_input(),
                line(
                    "word_weights",
                    "Words of the target prompt that should count more: watercolor: 10, painting: 3. A word without a "
                    "number gets 10. Most styles need this.",
                ),
                io.Boolean.Input(
                    "blend_latents",
                    default=False,
                    tooltip="In the middle of the run, reset everything outside the words' masks to the source, so the "
                    "background stays closer to it.",
                ),
                *word_inputs(),
                *mask_inputs(),
                *attention_inputs(),
                tail_input(),
                *guidance_interval(0.0, "0 uses the preset's interval, including its start."),
                io.Conditioning.Input(
                    "controlnet",
                    optional=True,
                    tooltip="A conditioning from Apply ControlNet: its ControlNet guides the edit; its text is "
                    "ignored. One hint image per frame, or one for all.",
                ),
                mask_input(),
            ],
            outputs=[
                io.Latent.Output(tooltip="The edited frames, for VAE Decode."),
                io.Mask.Output(
                    "mask",
                    display_name="mask",
                    tooltip="Where the edit was free to change the frames, from 0 to 1: the average over the steps "
                    "that used a mask, times edit_mask. All white if no mask was used.",
                ),
                io.String.Output(
                    "report",
                    display_name="report",
                    tooltip="How the prompts were read: matching mode, changed words, masked words and weights.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        inversion: Inversion,
        clip: Any,
        source_prompt: str,
        target_prompt: str,
        negative_prompt: str,
        preset: str,
        steps: int,
        tail: str,
        controlnet: list | None = None,
        edit_mask: Tensor | None = None,
        **fields: Any,
    ) -> io.NodeOutput:
        check_target_prompt(target_prompt, PURPOSE)
        check_model(model, PURPOSE)
        check_calls(model, PURPOSE)
        check_calls(inversion.model, f"{PURPOSE}, the MODEL that the INVERSION was made with")
        check_same_checkpoint(model, inversion, PURPOSE)
        chosen = PRESETS[preset]
        settings = _settings(chosen, _own_attention(model, inversion, fields), fields, steps, tail)
        settings = replace(settings, mask=latent_mask(edit_mask, None, inversion, PURPOSE))
        wishes = _wishes(chosen, settings, fields)
        source = read_prompt(clip, source_prompt, "source", PURPOSE)
        target = read_prompt(clip, target_prompt, "target", PURPOSE)
        note = check_source_prompt(source, inversion, PURPOSE)
        count = len(select_timesteps(inversion.timesteps, steps))
        words = read_words(source, target, wishes, count, PURPOSE)
        remark = "" if wishes.weights else _without_weights(preset, source_prompt, target_prompt)
        report = "\n".join(filter(None, (words.report, note, remark)))
        tell(report)
        prompts = [target.conditioning, encode(clip, negative_prompt)]
        if controlnet is not None:
            prompts = controlled_by(prompts, controlnet, inversion.frames, PURPOSE)
        edited = edit(model, inversion, *prompts, words.control, settings)
        show(report)  # the run has put its progress in its place
        changed = repeat(edited.mask, "n h w -> n (h a) (w b)", a=PIXELS_PER_LATENT, b=PIXELS_PER_LATENT)
        return io.NodeOutput({"samples": edited.samples}, changed, report)


def _settings(
    preset: FateZeroPreset, own: SelfAttentionMethod, fields: dict[str, Any], steps: int, tail: str
) -> FateZeroSettings:
    window, levels, guidance = fields["self_window"].strip(), fields["fusion_levels"], guidance_window(fields)
    return FateZeroSettings(
        cfg=fields["cfg"],
        cfg_window=guidance if guidance[1] else preset.cfg_window,
        self_window=parse_window(window, "self_window") if window else preset.self_window,
        blend_self=preset.blend_self if fields["blend_self"] == OF_PRESET else fields["blend_self"] == "on",
        blend_latents=fields["blend_latents"],
        latent_window=parse_window(fields["latent_window"], "latent_window"),
        threshold=fields["threshold"] or preset.threshold,
        accumulate=fields["accumulate_masks"],
        resizing=fields["mask_resizing"],
        levels=parse_levels(levels, "fusion_levels") if levels.strip() else preset.levels,
        fuse_unconditional=fields["fuse_unconditional"],
        own=own,
        steps=steps,
        tail=tail,
    )


def _wishes(preset: FateZeroPreset, settings: FateZeroSettings, fields: dict[str, Any]) -> WordWishes:
    window = fields["cross_window"].strip()
    return WordWishes(
        control=preset.control if fields["control"] == OF_PRESET else fields["control"],
        window=parse_window(window, "cross_window") if window else preset.cross_window,
        word_windows=parse_word_windows(fields["word_windows"], "word_windows"),
        weights=parse_weights(fields["word_weights"], preset.weight, "word_weights"),
        reweighting=fields["reweighting"],
        masks_source=settings.blend_self or settings.blend_latents,
        masks_target=settings.blend_latents,
        source_words=parse_words(fields["source_blend_words"]),
        target_words=parse_words(fields["target_blend_words"]),
    )


def _without_weights(preset: str, source_prompt: str, target_prompt: str) -> str:
    """What to say where no word has a weight, if anything."""
    if target_prompt.split() == source_prompt.split():
        return "note: the target and source prompts are the same and no word has a weight, so nothing will change"
    unweighted = "note: no word has a weight; most styles need one in word_weights, such as watercolor: 10"
    return unweighted if preset == "style" else ""


def _own_attention(model: Any, inversion: Inversion, fields: dict[str, Any]) -> SelfAttentionMethod:
    """The attention of what is not fused."""
    kind = fields["own_attention"]
    if kind == "own frame":
        return OWN_FRAME
    if kind == "spatiotemporal":
        return FrameContextAttention(parse_frame_references(fields["frames"]))
    if kind == "stem":
        return stem_for_edit(model, inversion, PURPOSE)
    return installed_method(inversion.model) or OWN_FRAME

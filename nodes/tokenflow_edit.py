"""TokenFlow Edit: edit keyframes together and propagate the edit along the video's own correspondences."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from .fields.shared import (
    CATEGORY,
    EDIT_ALIASES,
    choice,
    edit_inputs,
    guidance_input,
    guidance_interval,
    guidance_window,
    mask_input,
    seed_input,
    steps_input,
    tail_input,
)
from .methods.editing.mask import latent_mask
from .methods.inversion.inversion import Inversion, stem_for_edit
from .methods.inversion.matching import check_same_checkpoint, check_start
from .methods.seams.comfyui_versions import advanced, essential, found_by
from .methods.seams.refusals import check_calls, check_conditioning, check_latent, check_model
from .methods.tokenflow.edit import edit
from .methods.tokenflow.settings import TokenFlowSettings

PURPOSE = "TokenFlow Edit"


class TokenFlowEdit(io.ComfyNode):
    """INVERSION + MODEL + target prompt -> edited LATENT."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="STEMTokenFlowEdit",
            display_name="TokenFlow Edit",
            category=CATEGORY,
            **found_by("keyframes", "temporal consistency", "rave", "flatten", *EDIT_ALIASES),
            **essential(),
            description="Edits an inverted video by text. A few keyframes are edited together; their features are "
            "carried to all other frames along correspondences found in the source video.",
            inputs=[
                *edit_inputs(),
                io.Conditioning.Input(
                    "positive",
                    tooltip="The target prompt: what the video should show. It may go through Apply ControlNet, with "
                    "one hint image per frame, or one for all.",
                ),
                io.Conditioning.Input("negative", tooltip="What the edited video should not show."),
                steps_input(),
                guidance_input(),
                io.Int.Input(
                    "batch_size",
                    display_name="frames_per_keyframe",
                    default=8,
                    min=1,
                    max=4096,
                    tooltip="Frames that share a keyframe. Fewer means more keyframes: closer correspondences, but "
                    "more memory and less steady motion. All frames of the clip are edited in any case.",
                ),
                _share("attention_injection", 0.5, "queries and keys", "layout"),
                _share("feature_injection", 0.8, "convolution features", "structure"),
                seed_input(
                    1,
                    "Picks the keyframes at each step (and the noise, if start_noise is shared): a different seed "
                    "gives a variation of the edit without inverting again.",
                    draws=True,
                ),
                *_advanced_inputs(),
                tail_input(),
                *guidance_interval(0.75),
                io.Latent.Input(
                    "start_latent",
                    optional=True,
                    tooltip="Start from this latent instead, for example the inversion sampler's noisy latent after "
                    "changes. It must have the inversion's frames and size.",
                ),
                mask_input(),
                io.Int.Input(
                    "keyframe_window",
                    default=32,
                    min=0,
                    max=4096,
                    optional=True,
                    tooltip="The most keyframes that each one attends to, itself and the nearest: it matters for clips "
                    "that have more. 0 means all keyframes, which takes time that grows with the square of their "
                    "number. Bases (keyframe_attention) are those of all keyframes in any case.",
                    **advanced(),
                ),
                io.Int.Input(
                    "match_every",
                    default=0,
                    min=0,
                    max=999,
                    optional=True,
                    tooltip="Steps that share keyframes and correspondences. The source's frames go through the "
                    "network in the first of them alone, so 2 takes about a fifth less time. 0: 2 from 50 steps on, 3 "
                    "from 75, and so on; every step on its own with fewer than 50. At 50 steps 2 was as good as 1, and "
                    "4 moved less steadily.",
                    **advanced(),
                ),
            ],
            outputs=[io.Latent.Output(tooltip="The edited frames, for VAE Decode.")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        inversion: Inversion,
        positive: list,
        negative: list,
        start_latent: dict | None = None,
        edit_attention: str = "extended",
        edit_mask: Tensor | None = None,
        **settings: Any,
    ) -> io.NodeOutput:
        check_model(model, PURPOSE)
        check_calls(model, PURPOSE)
        check_same_checkpoint(model, inversion, PURPOSE)
        check_conditioning(positive, "positive", PURPOSE, inversion.frames)
        check_conditioning(negative, "negative", PURPOSE, inversion.frames)
        samples = None
        if start_latent is not None:
            samples = check_latent(start_latent, PURPOSE)
            check_start(samples, inversion, PURPOSE)
        stem = stem_for_edit(model, inversion, PURPOSE) if edit_attention == "stem" else None
        window = guidance_window(settings)
        free = latent_mask(edit_mask, start_latent, inversion, PURPOSE)
        settings.setdefault("match_every", 1)  # a workflow saved before it came
        wanted = TokenFlowSettings(stem=stem, cfg_window=window, mask=free, **settings)
        edited = edit(model, inversion, positive, negative, wanted, samples)
        return io.NodeOutput({"samples": edited})


def _share(name: str, default: float, what: str, effect: str) -> io.Float.Input:
    return io.Float.Input(
        name,
        default=default,
        min=0.0,
        max=1.0,
        step=0.05,
        round=0.01,
        tooltip=f"Share of the steps, from the noisy end, in which the source's {what} replace those of the edit. "
        f"Higher keeps more of the source's {effect}; lower lets shapes change.",
    )


def _advanced_inputs() -> list[Any]:
    def option(name: str, options: list[str], tooltip: str, **more: Any) -> io.Combo.Input:
        return choice(name, options, tooltip, **more, **advanced())

    return [
        io.Float.Input(
            "start",
            display_name="denoise",
            default=1.0,
            min=0.01,
            max=1.0,
            step=0.05,
            round=0.01,
            tooltip="Share of the steps to run. Below 1 the noisiest steps are skipped: the edit starts from a less "
            "noisy latent and stays closer to the source.",
            **advanced(),
        ),
        option(
            "start_noise",
            ["trajectory", "renoised", "shared"],
            "The latent to start from. trajectory: the inverted latent of that step. renoised: the final noise of the "
            "inversion, added to the clean video. shared: one random noise for all frames.",
        ),
        option(
            "keyframes",
            ["random", "centre"],
            "Which frame of each group is its keyframe. random: a new one at every step. centre: the middle one.",
        ),
        option(
            "weights",
            ["reference", "surrounding"],
            "How a frame mixes two keyframes. reference: those of its own group and the group before, as in "
            "TokenFlow's code. surrounding: the nearest on each side, weighted by distance.",
            display_name="keyframe_mix",
        ),
        option(
            "source_rows",
            ["true", "propagated"],
            "Which features are matched. true: those of the source itself. propagated: those of a source that is "
            "propagated like the edit, as in TokenFlow's code.",
            display_name="match_on",
        ),
        option(
            "edit_attention",
            ["extended", "stem"],
            "What keyframes attend to. extended: each other. stem: bases of all keyframes, with the settings of "
            "STEM Bases on the MODEL, or else of the inversion.",
            display_name="keyframe_attention",
        ),
    ]

"""Edit Video by Text: a whole edit as one node, which ComfyUI expands into the pack's own nodes."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from comfy_execution.graph_utils import GraphBuilder

from ..stem_kernels.ddim import MAX_STEPS
from .fields.shared import (
    CATEGORY,
    EDIT_ALIASES,
    check_target_prompt,
    choice,
    guidance_input,
    prompt_input,
    seed_input,
)
from .methods.seams.comfyui_versions import advanced, essential, found_by

PURPOSE = "Edit Video by Text"
# By kind of edit, the shares of the steps between which guidance acts (docs/defaults.md).
GUIDANCE = {"object": (0.0, 0.75), "style": (0.167, 0.75), "colour": (0.167, 0.5)}


class EditVideo(io.ComfyNode):
    """VIDEO + checkpoint + two prompts -> VIDEO, VIDEO."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="STEMEditVideo",
            display_name=PURPOSE,
            category=CATEGORY,
            **found_by("video to video", *EDIT_ALIASES),
            **essential(),
            description="Edits a short video by text: STEM inversion, then TokenFlow, as one node. A new target prompt "
            "does not invert the video again. The nodes that this one is made of have all the other settings.",
            inputs=[
                _link(io.Model, "model", "A Stable Diffusion model: 1.x, 2.x or XL, with LoRA if you like."),
                _link(io.Clip, "clip", "The CLIP of the same checkpoint."),
                _link(io.Vae, "vae", "The VAE of the same checkpoint."),
                _link(io.Video, "video", "The video to edit, from Load Video or Video Load."),
                prompt_input("source_prompt", "What the video shows."),
                prompt_input("target_prompt", "The same text, with what should change."),
                choice(
                    "edit",
                    list(GUIDANCE),
                    "What the target prompt changes. object: a thing becomes another one. style: how everything looks. "
                    "colour: the colour or material of a thing.",
                ),
                io.Float.Input(
                    "strength",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    round=0.01,
                    tooltip="How far shapes and layout may depart from the source: higher changes more.",
                ),
                io.Int.Input(
                    "steps",
                    default=50,
                    min=1,
                    max=MAX_STEPS,
                    tooltip="Steps of the inversion, and of the edit. More stay closer to the source and take longer.",
                ),
                io.Int.Input(
                    "frames",
                    default=24,
                    min=1,
                    max=1_000_000,
                    tooltip="Edit at most this many frames, from the first on. Time and memory grow with them.",
                ),
                seed_input(
                    1,
                    "Which frames are keyframes at each step: another seed gives a variation of the edit, without a "
                    "new inversion.",
                    draws=True,
                ),
                *_advanced_inputs(),
                _link(
                    io.Mask,
                    "mask",
                    "Edit only where this is white: one mask for all frames or one for each, of any size. Everything "
                    "else stays as it is, to the pixel.",
                    optional=True,
                ),
            ],
            outputs=[
                io.Video.Output("edited", display_name="edited", tooltip="The edited video, with its sound."),
                io.Video.Output(
                    "side_by_side", display_name="side by side", tooltip="The source and the edit, with the sound."
                ),
            ],
            enable_expand=True,
        )

    @classmethod
    def execute(cls, source_prompt: str, target_prompt: str, **fields: Any) -> io.NodeOutput:
        check_target_prompt(target_prompt, PURPOSE)
        if target_prompt.split() == source_prompt.split():
            raise ValueError(
                f"{PURPOSE}: the target prompt is the source prompt, so nothing would change. Write what the edited "
                "video should show."
            )
        graph = GraphBuilder()
        edited, beside = _add_edit(graph.node, source_prompt, target_prompt, **fields)
        return io.NodeOutput(edited, beside, expand=graph.finalize())


def _add_edit(
    add: Any,
    source_prompt: str,
    target_prompt: str,
    *,
    model: list,
    clip: list,
    vae: list,
    video: list,
    edit: str,
    strength: float,
    steps: int,
    frames: int,
    seed: int,
    cfg: float,
    negative_prompt: str,
    width: int,
    height: int,
    mask: list | None = None,
) -> tuple[list, list]:
    """Adds the nodes of an edit with `add(class, name, **inputs)`; returns links to the edit and to both beside."""
    load = add("STEMVideoLoad", "load", file="", video=video, frame_cap=frames, width=width, height=height)
    images, fps, audio = load.out(0), load.out(1), load.out(3)
    prompts = {"source": source_prompt, "target": target_prompt, "negative": negative_prompt}
    source, target, negative = (
        add("CLIPTextEncode", name, clip=clip, text=text).out(0) for name, text in prompts.items()
    )
    bases = add("STEMBases", "bases", model=model, preset="tokenflow", num_bases=256).out(0)
    latent = add("VAEEncode", "encode", pixels=images, vae=vae).out(0)
    sampler = add("STEMInversionSampler", "inversion", model=bases, positive=source, latent=latent, steps=steps)
    start, end = GUIDANCE[edit]
    edited = add(
        "STEMTokenFlowEdit",
        "edit",
        model=model,
        inversion=sampler.out(0),
        positive=target,
        negative=negative,
        cfg=cfg,
        attention_injection=round(1.0 - strength, 3),
        feature_injection=round(min(1.0, 1.3 - strength), 3),
        seed=seed,
        cfg_start_percent=start,
        cfg_end_percent=end,
        **({} if mask is None else {"edit_mask": mask}),
    ).out(0)
    result = add("VAEDecode", "decode", samples=edited, vae=vae).out(0)
    if mask is not None:
        place = {"x": 0, "y": 0, "resize_source": False}
        result = add("ImageCompositeMasked", "background", destination=images, source=result, mask=mask, **place).out(0)
    beside = add("STEMCompareVideos", "compare", first=images, second=result, labels="source, edit").out(0)
    videos = {"edited": result, "side by side": beside}
    return tuple(add("CreateVideo", name, images=shown, fps=fps, audio=audio).out(0) for name, shown in videos.items())


def _link(kind: Any, name: str, tooltip: str, **more: Any) -> io.Input:
    """An input of which the node gets the link, not the value: so what is made of it stays in ComfyUI's cache."""
    return kind.Input(name, tooltip=tooltip, extra_dict={"rawLink": True}, **more)


def _advanced_inputs() -> list[io.Input]:
    def side(name: str) -> io.Int.Input:
        tooltip = f"The {name} at which the video is edited; SD 1.x is made for 512, SDXL for 1024."
        return io.Int.Input(name, default=512, min=64, max=8192, step=8, tooltip=tooltip, **advanced())

    return [
        guidance_input(**advanced()),
        io.String.Input(
            "negative_prompt",
            default="blurry, distorted, low quality",
            tooltip="What the edited video should not show.",
            **advanced(),
        ),
        side("width"),
        side("height"),
    ]

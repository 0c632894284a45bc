"""Edit Video by Text: a whole edit as one node, which ComfyUI expands into the pack's own nodes."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from comfy_execution.graph_utils import GraphBuilder

from ..stem_kernels.ddim import MAX_STEPS
from .fields.shared import (
    CATEGORY,
    COMPARED,
    EDIT_ALIASES,
    choice,
    guidance_input,
    prompt_input,
    seed_input,
)
from .fields.wishes import captions, grid_rows, read_targets
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
            description="Edits a short video by text: STEM inversion, then TokenFlow, as one node. Changing the target "
            "prompt does not repeat the inversion. For all other settings, use the separate nodes (see the "
            "template 4 TokenFlow edit).",
            inputs=[
                _link(io.Model, "model", "A Stable Diffusion model: 1.x, 2.x or XL, with a LoRA if you like."),
                _link(io.Clip, "clip", "The CLIP of the same checkpoint."),
                _link(io.Vae, "vae", "The VAE of the same checkpoint."),
                _link(io.Video, "video", "The video to edit, from Load Video or Video Load (STEM)."),
                prompt_input("source_prompt", "What the video shows."),
                prompt_input(
                    "target_prompt",
                    "The same text, with the words that should change replaced or added. Several of them, with a line "
                    "of --- between them, are edited over one inversion.",
                ),
                choice(
                    "edit",
                    list(GUIDANCE),
                    "What the target prompt changes. object: one thing becomes another. style: how everything looks. "
                    "colour: the colour or material of one thing.",
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
                    tooltip="Steps of the inversion and of the edit. More steps stay closer to the source and take "
                    "longer.",
                ),
                io.Int.Input(
                    "frames",
                    default=24,
                    min=1,
                    max=1_000_000,
                    tooltip="Edit at most this many frames, starting with the first. More frames take more time and "
                    "memory.",
                ),
                seed_input(
                    1,
                    "Picks the keyframes at each step: a different seed gives a variation of the edit without "
                    "inverting again.",
                    draws=True,
                ),
                *_advanced_inputs(),
                _link(
                    io.Mask,
                    "mask",
                    "Edit only where this is white: one mask for all frames or one for each, of any size. Everything "
                    "else stays as it is, pixel for pixel.",
                    optional=True,
                ),
            ],
            outputs=[
                io.Video.Output(
                    "edited",
                    display_name="edited",
                    tooltip="The edited video, with its sound. Of several target prompts it is the first; leave only "
                    "another one in the field to get that, without computing it again.",
                ),
                io.Video.Output(
                    "side_by_side",
                    display_name="side by side",
                    tooltip="The source and the edit, with the sound; with several target prompts, a grid of all.",
                ),
            ],
            enable_expand=True,
        )

    @classmethod
    def execute(cls, source_prompt: str, target_prompt: str, **fields: Any) -> io.NodeOutput:
        targets = read_targets(source_prompt, target_prompt, PURPOSE)
        graph = GraphBuilder()
        edited, beside = _add_edits(graph.node, source_prompt, targets, **fields)
        return io.NodeOutput(edited, beside, expand=graph.finalize())


def _add_edits(
    add: Any,
    source_prompt: str,
    targets: list[str],
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
    """Adds the nodes of the edits with `add(class, name, **inputs)`; returns links to the first and to all together."""
    load = add("STEMVideoLoad", "load", file="", video=video, frame_cap=frames, width=width, height=height)
    images, fps, audio = load.out(0), load.out(1), load.out(3)

    def encoded(name: str, text: str) -> list:
        return add("CLIPTextEncode", name, clip=clip, text=text).out(0)

    bases = add("STEMBases", "bases", model=model, preset="tokenflow", num_bases=256).out(0)
    latent = add("VAEEncode", "encode", pixels=images, vae=vae).out(0)
    source, negative = encoded("source", source_prompt), encoded("negative", negative_prompt)
    sampler = add("STEMInversionSampler", "inversion", model=bases, positive=source, latent=latent, steps=steps)
    start, end = GUIDANCE[edit]

    def edited(target: str, number: int) -> list:
        samples = add(
            "STEMTokenFlowEdit",
            _numbered("edit", number),
            model=model,
            inversion=sampler.out(0),
            positive=encoded(_numbered("target", number), target),
            negative=negative,
            cfg=cfg,
            attention_injection=round(1.0 - strength, 3),
            feature_injection=round(min(1.0, 1.3 - strength), 3),
            seed=seed,
            cfg_start_percent=start,
            cfg_end_percent=end,
            match_every=0,
            **({} if mask is None else {"edit_mask": mask}),
        ).out(0)
        result = add("VAEDecode", _numbered("decode", number), samples=samples, vae=vae).out(0)
        if mask is None:
            return result
        place = {"x": 0, "y": 0, "resize_source": False, "destination": images, "source": result, "mask": mask}
        return add("ImageCompositeMasked", _numbered("background", number), **place).out(0)

    results = [edited(target, number) for number, target in enumerate(targets, start=1)]
    labels = ["edit"] if len(targets) == 1 else captions(source_prompt, targets)
    together = _add_grid(add, [images, *results], ["source", *labels])
    videos = {"edited": results[0], "side by side": together}
    return tuple(add("CreateVideo", name, images=shown, fps=fps, audio=audio).out(0) for name, shown in videos.items())


def _add_grid(add: Any, videos: list[list], labels: list[str]) -> list:
    """A link to all videos in rows, each with its label."""

    def compared(name: str, shown: list[list], **fields: str) -> list:
        return add("STEMCompareVideos", name, **dict(zip(COMPARED, shown, strict=False)), **fields).out(0)

    rows = [
        compared(
            _numbered("compare", number),
            [videos[place] for place in row],
            labels=", ".join(labels[place] for place in row),
        )
        for number, row in enumerate(grid_rows(len(videos)), start=1)
    ]
    return rows[0] if len(rows) == 1 else compared("grid", rows, labels="", layout="stacked")


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name} {number}"


def _link(kind: Any, name: str, tooltip: str, **more: Any) -> io.Input:
    """An input of which the node gets the link, not the value: so what is made of it stays in ComfyUI's cache."""
    return kind.Input(name, tooltip=tooltip, extra_dict={"rawLink": True}, **more)


def _advanced_inputs() -> list[io.Input]:
    def side(name: str) -> io.Int.Input:
        tooltip = f"The {name} at which the video is edited: 512 suits SD 1.x, 1024 suits SDXL."
        return io.Int.Input(name, default=512, min=64, max=8192, step=8, tooltip=tooltip, **advanced())

    return [
        guidance_input(**advanced()),
        io.String.Input(
            "negative_prompt",
            default="blurry, distorted, low quality",
            dynamic_prompts=True,
            tooltip="What the edited video should not show.",
            **advanced(),
        ),
        side("width"),
        side("height"),
    ]

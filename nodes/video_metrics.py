"""Video Metrics: an edited video beside its source, in numbers."""

from __future__ import annotations

from typing import Any

import comfy.utils
from comfy_api.latest import io
from torch import Tensor

from .fields.shared import CATEGORY, FlowSocket
from .methods.seams.comfyui_versions import found_by
from .metrics.clip_scores import frame_embeddings, text_embedding
from .metrics.frames import rgb
from .metrics.measurements import Report, add_closeness, add_embeddings, add_steadiness
from .metrics.optical_flow import OpticalFlow, dis, estimate
from .metrics.plot import curves

PURPOSE = "Video Metrics"


class VideoMetrics(io.ComfyNode):
    """IMAGE, IMAGE -> table, plot, JSON."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="STEMVideoMetrics",
            display_name=PURPOSE,
            category=CATEGORY,
            **found_by("PSNR", "SSIM", "warp error", "CLIP score"),
            description="Measures an edited or reconstructed video against its source: how close it is, how steadily "
            "it moves along the motion of the source, and, with CLIP models, how well it fits the prompt.",
            inputs=[
                io.Image.Input("source", tooltip="The frames of the source video."),
                io.Image.Input(
                    "edited", tooltip="The same number of frames at the same size: an edit or a reconstruction."
                ),
                FlowSocket.Input(
                    "flow",
                    optional=True,
                    tooltip="The motion of the source, from Optical Flow. If not connected, OpenCV's DIS estimates it.",
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="A CLIP vision model: adds the similarity of consecutive frames and, with clip connected, "
                    "of frames and prompts.",
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="The CLIP text model that belongs to the vision model, from Load CLIP (clip_l). The one "
                    "inside an SD1.x checkpoint has no projection and is refused.",
                ),
                io.String.Input(
                    "target_prompt",
                    default="",
                    optional=True,
                    multiline=True,
                    tooltip="What the edit should show: adds the CLIP score.",
                ),
                io.String.Input(
                    "source_prompt",
                    default="",
                    optional=True,
                    multiline=True,
                    tooltip="What the source shows: adds the share of frames that fit the target prompt better.",
                ),
            ],
            outputs=[
                io.String.Output("table", display_name="table", tooltip="The measures as text, for Preview as Text."),
                io.Image.Output("plot", display_name="plot", tooltip="Curves of the measures over the frames."),
                io.String.Output("json", display_name="JSON", tooltip="All numbers, for scripts."),
            ],
        )

    @classmethod
    def execute(
        cls,
        source: Tensor,
        edited: Tensor,
        flow: OpticalFlow | None = None,
        clip_vision: Any = None,
        clip: Any = None,
        target_prompt: str = "",
        source_prompt: str = "",
    ) -> io.NodeOutput:
        source, edited = rgb(source, PURPOSE, "the source"), rgb(edited, PURPOSE, "the edit")
        check_videos(source, edited, flow)
        frames, pairs = len(source), len(source) - 1
        looks = 2 * frames + (2 if flow else 3) * pairs + (frames if clip_vision is not None else 0)
        advance = comfy.utils.ProgressBar(looks).update
        report = Report()
        add_closeness(report, source, edited, advance)
        if pairs:
            flow = flow or estimate(source, dis, "DIS (OpenCV)", advance)
            add_steadiness(report, source, edited, flow, advance)
        if clip_vision is not None:
            embeddings = frame_embeddings(clip_vision, edited, advance)
            _add_clip(report, embeddings, clip_vision, clip, target_prompt, source_prompt)
        return io.NodeOutput(report.table(), curves(list(report.measures.values())), report.json())


def check_videos(source: Tensor, edited: Tensor, flow: OpticalFlow | None) -> None:
    """Raise unless the videos can be compared frame by frame, and a given flow is that of such a video."""

    def size(video: Tensor) -> str:
        return f"{video.shape[0]} frames of {video.shape[2]}x{video.shape[1]}"

    if source.shape != edited.shape:
        raise ValueError(
            f"{PURPOSE}: the source has {size(source)} pixels, the edit has {size(edited)}, but they are compared "
            "pixel by pixel. Connect the frames that went into VAE Encode, and bring both to one size with Upscale "
            "Image."
        )
    if flow is not None and flow.shape != tuple(source.shape[:3]):
        frames, height, width = flow.shape
        raise ValueError(
            f"{PURPOSE}: the flow covers {frames} frames of {width}x{height} pixels, but the source has "
            f"{size(source)}. Connect Optical Flow to the same frames."
        )


def _add_clip(
    report: Report, frames: Tensor, clip_vision: Any, clip: Any, target_prompt: str, source_prompt: str
) -> None:
    prompts = {"target": target_prompt.strip(), "source": source_prompt.strip()}
    names = {"CLIP vision": f"{type(clip_vision.model).__name__}, {frames.shape[-1]} numbers per frame"}
    found = {}
    if clip is not None:
        found = {role: text_embedding(clip, text, frames.shape[-1]) for role, text in prompts.items() if text}
    elif any(prompts.values()):
        names["note"] = "prompts were not compared: no CLIP text model is connected"
    add_embeddings(report, frames, names, **found)

"""Frame Context: the baselines of the paper's Table 1, self-attention over other frames."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..stem_kernels.frame_context import parse_frame_references
from .fields.shared import CATEGORY
from .methods.attention.frame_context import FrameContextAttention
from .methods.attention.installing import install
from .methods.seams.comfyui_versions import advanced, found_by
from .methods.seams.refusals import check_model

CONTEXTS = {
    "own and middle frame (2 frames, Eq. 6)": "0, mid",
    "middle frame": "mid",
    "previous and first frame": "-1, first",
    "own frame": "0",
    "all frames": None,
    "custom": None,
}


class FrameContext(io.ComfyNode):
    """MODEL -> MODEL whose frames attend to a choice of frames."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="STEMFrameContext",
            display_name="Frame Context",
            category=CATEGORY,
            **found_by("spatio-temporal attention"),
            description="Lets every frame's self-attention read chosen frames, or all of them: the baselines that the "
            "paper compares STEM with. Use it instead of STEM Bases.",
            inputs=[
                io.Model.Input("model", tooltip="A Stable Diffusion model: 1.x, 2.x or XL."),
                io.Combo.Input(
                    "frames",
                    options=list(CONTEXTS),
                    default="own and middle frame (2 frames, Eq. 6)",
                    tooltip="Which frames a frame reads. all frames is full attention over the whole video, and slow; "
                    "the others are what earlier methods use.",
                ),
                io.String.Input(
                    "custom_frames",
                    default="0, mid",
                    optional=True,
                    tooltip="For custom: offsets from the frame itself (-1, 0, 1, …) or first, mid, last, separated by "
                    "commas.",
                ),
                io.Int.Input(
                    "finest_level",
                    default=0,
                    min=0,
                    max=3,
                    optional=True,
                    tooltip="Layers finer than this level read only their own frame: 0 includes all layers, 1 excludes "
                    "those at latent resolution (as FateZero does), 3 includes only the coarsest.",
                    **advanced(),
                ),
            ],
            outputs=[io.Model.Output(tooltip="The model with this self-attention.")],
        )

    @classmethod
    def execute(cls, model: Any, frames: str, custom_frames: str = "0, mid", finest_level: int = 0) -> io.NodeOutput:
        check_model(model, "Frame Context")
        listed = custom_frames if frames == "custom" else CONTEXTS[frames]
        references = None if listed is None else parse_frame_references(listed)
        return io.NodeOutput(install(model, FrameContextAttention(references, finest_level)))

"""Feature PCA: what a layer makes of the video, and whether it does so steadily (the paper's Fig. 6)."""

from __future__ import annotations

import comfy.utils
import torch
from comfy_api.latest import io
from einops import rearrange
from torch import Tensor
from torch.nn.functional import cosine_similarity, interpolate

from .fields.layer_and_step import chosen_layer_and_step, layer_and_step_inputs
from .fields.shared import CATEGORY, FlowSocket, InversionSocket
from .methods.inversion.inspection import observed_output
from .methods.inversion.inversion import Inversion
from .methods.seams.comfyui_versions import found_by
from .metrics.optical_flow import OpticalFlow
from .metrics.pictures import colours, enlarged, heat
from .metrics.warping import moved

PURPOSE = "Feature PCA"
PIXELS = 8


class FeaturePCA(io.ComfyNode):
    """INVERSION, FLOW -> IMAGE, IMAGE, STRING."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="STEMFeaturePCA",
            display_name=PURPOSE,
            category=CATEGORY,
            **found_by("principal components"),
            description="Re-runs one step of an inversion and shows the output of a self-attention layer as colours "
            "(its first three principal components), and how similar it is between each frame and the "
            "previous one, moved along the video's motion. Compare an inversion made with STEM Bases with "
            "a plain one.",
            inputs=[
                InversionSocket.Input("inversion", tooltip="From STEM Inversion Sampler, with or without STEM Bases."),
                *layer_and_step_inputs(layer=-1),
                FlowSocket.Input(
                    "flow",
                    optional=True,
                    tooltip="The motion of the source, from Optical Flow. Without it, frames are compared without "
                    "motion compensation.",
                ),
            ],
            outputs=[
                io.Image.Output("components", display_name="components", tooltip="One image for each frame."),
                io.Image.Output(
                    "likeness",
                    display_name="similarity",
                    tooltip="For each frame but the first, its cosine similarity to the previous frame: white is 1, "
                    "black is 0 or less.",
                ),
                io.String.Output(
                    "text", display_name="text", tooltip="The mean similarity, and that of every pair of frames."
                ),
            ],
        )

    @classmethod
    def execute(cls, inversion: Inversion, layer: int, noise: float, flow: OpticalFlow | None = None) -> io.NodeOutput:
        where, timestep, title = chosen_layer_and_step(inversion, layer, noise, PURPOSE)
        if flow is not None and flow.shape[0] != inversion.frames:
            raise ValueError(
                f"{PURPOSE}: the flow covers {flow.shape[0]} frames, but the INVERSION has {inversion.frames}. Connect "
                "Optical Flow to the frames that were inverted."
            )
        whole = tuple(PIXELS * side for side in inversion.size)
        features = observed_output(inversion, where, timestep, PURPOSE)
        rows = features.flatten(0, 2)
        coloured = colours(rows, comfy.utils.ProgressBar(2 * len(rows)).update).unflatten(0, features.shape[:3])
        picture = enlarged(coloured, whole)
        if features.shape[0] < 2:
            return io.NodeOutput(picture, torch.zeros(1, *whole, 3), f"{title}\none frame has no neighbour")
        likeness, seen = neighbour_likeness(features, flow)
        pairs = [float(one[where_seen].mean()) for one, where_seen in zip(likeness, seen, strict=True)]
        text = f"{title}\nmean similarity of consecutive frames: {float(likeness[seen].mean()):.4f}" + "".join(
            f"\nframes {n} and {n + 1}: {value:.4f}" for n, value in enumerate(pairs)
        )
        return io.NodeOutput(picture, enlarged(heat(likeness.clamp(0, 1)), whole), text)


def neighbour_likeness(features: Tensor, flow: OpticalFlow | None) -> tuple[Tensor, Tensor]:
    """Cosine of features [n, h, w, c] with those of the frame before, moved along a flow, and where that is known.

    Returns float32 [n - 1, h, w] in [-1, 1], and bool [n - 1, h, w].
    """
    if flow is None:
        likeness = cosine_similarity(features[1:], features[:-1], dim=-1)
        return likeness, torch.ones_like(likeness, dtype=torch.bool)
    size = features.shape[1:3]
    scale = torch.tensor([size[1] / flow.backward.shape[2], size[0] / flow.backward.shape[1]])
    backward = interpolate(rearrange(flow.backward, "n h w xy -> n xy h w"), size, mode="area")
    backward = rearrange(backward, "n xy h w -> n h w xy") * scale
    seen = interpolate(flow.seen.float()[:, None], size, mode="area")[:, 0] > 0.5
    return cosine_similarity(features[1:], moved(features, backward), dim=-1), seen

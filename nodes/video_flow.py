"""Optical Flow: the motion of a video, for metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
from comfy_api.latest import io

from .fields.shared import CATEGORY, FlowSocket, choice
from .methods.seams.comfyui_versions import found_by
from .metrics.frames import rgb
from .metrics.optical_flow import DIS, dis, estimate, raft, raft_bytes, weight_files


def weights_folder() -> Path:
    """Where RAFT's weights are looked for."""
    return Path(folder_paths.models_dir) / "optical_flow"


class VideoFlow(io.ComfyNode):
    """IMAGE -> FLOW."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="STEMVideoFlow",
            display_name="Optical Flow",
            category=CATEGORY,
            **found_by("RAFT", "DIS", "motion"),
            description="Estimates how every pixel moves from frame to frame, and which pixels are visible in both. "
            "Video Metrics uses the source's flow to measure how steady an edit is.",
            inputs=[
                io.Image.Input("video", tooltip="The frames; for Video Metrics, those of the source."),
                choice(
                    "method",
                    [DIS, *weight_files(weights_folder())],
                    "DIS: dense inverse search by OpenCV, fast, on the CPU. A file: RAFT with weights of "
                    "torchvision's raft_small or raft_large, saved as safetensors in models/optical_flow.",
                ),
            ],
            outputs=[FlowSocket.Output("flow", display_name="FLOW", tooltip="For Video Metrics.")],
        )

    @classmethod
    def execute(cls, video: Any, method: str = DIS) -> io.NodeOutput:
        frames = rgb(video, "Optical Flow", "the video")
        advance = comfy.utils.ProgressBar(len(frames) - 1).update
        if method == DIS:
            return io.NodeOutput(estimate(frames, dis, "DIS (OpenCV)", advance))
        if method not in weight_files(weights_folder()):
            raise ValueError(f"Optical Flow: there is no file {method} in models/optical_flow. Choose another method.")
        weights = comfy.utils.load_torch_file(str(weights_folder() / method), safe_load=True)
        device = comfy.model_management.get_torch_device()
        between = raft(weights, device)
        comfy.model_management.free_memory(raft_bytes(weights, *frames.shape[1:3]), device)
        return io.NodeOutput(estimate(frames, between, f"RAFT (torchvision, {method})", advance))

"""Compare Videos: side by side, and a slice through time that shows flicker at a glance."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from .fields.shared import CATEGORY
from .methods.seams.comfyui_versions import advanced, found_by
from .metrics.pictures import beside, time_slice

PURPOSE = "Compare Videos"
NAMES = ("first", "second", "third", "fourth")


class CompareVideos(io.ComfyNode):
    """IMAGE x2 to x4 -> IMAGE, IMAGE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="STEMCompareVideos",
            display_name=PURPOSE,
            category=CATEGORY,
            **found_by("side by side", "flicker"),
            description="Puts two to four videos beside each other, and draws one column of their pixels over time: "
            "smooth lines are steady motion, a comb is flicker.",
            inputs=[
                *(
                    io.Image.Input(name, optional=place > 1, tooltip=f"The {name} video, from the left.")
                    for place, name in enumerate(NAMES)
                ),
                io.String.Input(
                    "labels",
                    default="source, edit",
                    optional=True,
                    tooltip="What is written above the videos, separated by commas. Nothing leaves the labels out.",
                ),
                io.Float.Input(
                    "column",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip="Which column of pixels the slice follows: 0 the left border, 1 the right one.",
                    **advanced(),
                ),
            ],
            outputs=[
                io.Image.Output("side_by_side", display_name="side by side", tooltip="One frame for each frame."),
                io.Image.Output("slices", display_name="slices", tooltip="The column over time, time to the right."),
            ],
        )

    @classmethod
    def execute(
        cls,
        first: Tensor,
        second: Tensor,
        third: Tensor | None = None,
        fourth: Tensor | None = None,
        labels: str = "",
        column: float = 0.5,
    ) -> io.NodeOutput:
        videos = [video for video in (first, second, third, fourth) if video is not None]
        given = [label.strip() for label in labels.split(",")] if labels.strip() else []
        if len(given) > len(videos):
            raise ValueError(
                f"{PURPOSE}: there are {len(given)} labels for {len(videos)} videos. Write one for each, separated by "
                "commas; a label cannot hold one."
            )
        texts = given + [""] * (len(videos) - len(given))
        width = max(first.shape[2], first.shape[0])
        slices = [time_slice(video, column, width) for video in videos]
        return io.NodeOutput(beside(videos, texts), beside(slices, texts))

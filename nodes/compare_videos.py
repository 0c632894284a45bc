"""Compare Videos: side by side or as a wipe, and a slice through time that shows flicker at a glance."""

from __future__ import annotations

import comfy.utils
from comfy_api.latest import io
from torch import Tensor

from .fields.shared import CATEGORY, COMPARED, choice
from .methods.seams.comfyui_versions import advanced, found_by
from .metrics.frames import rgb
from .metrics.pictures import beside, stacked, time_slice, wiped

PURPOSE = "Compare Videos"
LAYOUTS = ("side by side", "stacked", "wipe")


class CompareVideos(io.ComfyNode):
    """IMAGE x2 to x4 -> IMAGE, IMAGE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="STEMCompareVideos",
            display_name=PURPOSE,
            category=CATEGORY,
            **found_by("side by side", "flicker", "wipe", "grid"),
            description="Puts two to four videos beside each other, or two into one picture with a line that wipes "
            "across it. Also draws one column of their pixels over time: smooth lines are steady motion, a comb is "
            "flicker.",
            inputs=[
                *(
                    io.Image.Input(name, optional=place > 1, tooltip=f"The {name} video, from the left.")
                    for place, name in enumerate(COMPARED)
                ),
                io.String.Input(
                    "labels",
                    default="source, edit",
                    optional=True,
                    tooltip="What is written above the videos, separated by commas. Leave empty for no labels.",
                ),
                choice(
                    "layout",
                    list(LAYOUTS),
                    "side by side: in a row. stacked: one below the other. wipe: two videos in one picture, the first "
                    "left of a line that goes to the right border and back. Create Video makes a video of it, with "
                    "sound.",
                    optional=True,
                ),
                io.Float.Input(
                    "column",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip="Which column of pixels the slice follows: 0 is the left edge, 1 the right edge.",
                    **advanced(),
                ),
            ],
            outputs=[
                io.Image.Output(
                    "side_by_side",
                    display_name="comparison",
                    tooltip="The videos side by side; shorter ones hold their last frame.",
                ),
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
        layout: str = LAYOUTS[0],
    ) -> io.NodeOutput:
        connected = zip(COMPARED, (first, second, third, fourth), strict=True)
        videos = [rgb(video, PURPOSE, f"the {name} video") for name, video in connected if video is not None]
        given = [label.strip() for label in labels.split(",")] if labels.strip() else []
        if len(given) > len(videos):
            raise ValueError(
                f"{PURPOSE}: there are {len(given)} labels for {len(videos)} videos. Write one for each, separated by "
                "commas; a label cannot contain a comma."
            )
        if layout == "wipe" and len(videos) > 2:
            raise ValueError(
                f"{PURPOSE}: a wipe is between two videos, and {len(videos)} are connected. Disconnect the others, or "
                "set layout to side by side."
            )
        texts = given + [""] * (len(videos) - len(given))
        advance = comfy.utils.ProgressBar(sum(map(len, videos))).update
        width = max(videos[0].shape[:3:2])
        slices = [time_slice(video, column, width) for video in videos]
        if layout == "wipe":
            compared = wiped(*videos, texts, advance)
        else:
            compared = (stacked if layout == "stacked" else beside)(videos, texts, advance)
        return io.NodeOutput(compared, beside(slices, texts))

"""Video Load: a clip's frames, sound and rate, and exactly those as a video."""

from __future__ import annotations

import os
from fractions import Fraction
from typing import Any

import comfy.model_management
import comfy.utils
from comfy_api.latest import Input, InputImpl, Types, io

from .fields.shared import choice
from .folders import file_state, input_video_path, input_videos
from .methods.seams.comfyui_versions import advanced, essential, found_by, is_unedited_file
from .video import VideoError
from .video.frame_selection import Selection, exact_rate
from .video.loading import Look, load_clip
from .video.resizing import Framing
from .video.sources import ClipSource, PicturesInMemory, VideoFile

_NOT_LINKED = object()
_LINKED_NAME = "The connected video"


class VideoLoad(io.ComfyNode):
    """Decodes only the frames it returns, one by one, and says beforehand how many they are and what they take."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="STEMVideoLoad",
            display_name="Video Load (STEM)",
            category="STEM Inversion/video",
            **found_by("load video", "video frames"),
            **essential(),
            description=(
                "Loads part of a video as frames of one size, with the matching sound. Keeps only the frames it "
                "returns in memory; before decoding, the log says how many there are and how much memory they take. "
                "Interlaced clips are deinterlaced, and HDR becomes SDR."
            ),
            inputs=_inputs(),
            outputs=[
                io.Image.Output(display_name="images", tooltip="The frames."),
                io.Float.Output(display_name="fps", tooltip="Frames per second of the returned frames."),
                io.Int.Output(display_name="frame_count", tooltip="How many frames are returned."),
                io.Audio.Output(
                    display_name="audio",
                    tooltip="The sound from the first returned frame to the end of the last. Empty if the clip has "
                    "none.",
                ),
                io.Video.Output(
                    display_name="video", tooltip="Exactly the returned frames and sound, to preview or save."
                ),
                io.Mask.Output(
                    display_name="mask",
                    tooltip="White where the clip is transparent, as Load Image has it. One black mask if it never is.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, file: str | None, video: Any = _NOT_LINKED, file_name: Any = _NOT_LINKED) -> bool | str:
        """The file must be one of the input folder's; it does not matter when a video or a name is connected."""
        if video is not _NOT_LINKED or file_name is not _NOT_LINKED:
            return True
        try:
            input_video_path(file)
        except VideoError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, file: str | None, **kwargs: Any) -> str:
        """A text that changes when the file on disk does. What is connected has its own node to say so."""
        return "connected" if kwargs.keys() & {"video", "file_name"} else file_state(input_video_path(file))

    @classmethod
    def execute(
        cls,
        file: str | None,
        start_unit: str = "frame",
        start: float = 0.0,
        frame_cap: int = 24,
        every_nth: int = 1,
        target_fps: float = 0.0,
        width: int = 512,
        height: int = 512,
        fit: str = "crop",
        video: Input.Video | None = None,
        crop_x: float = 0.5,
        crop_y: float = 0.5,
        background: str = "black",
        file_name: Any = _NOT_LINKED,
    ) -> io.NodeOutput:
        if start_unit == "frame" and start != int(start):
            raise VideoError(
                f"start is {start:g}, but start_unit is 'frame', which counts whole frames. Enter a whole number, or "
                "set start_unit to 'seconds'."
            )
        clip = load_clip(
            _clip(file if file_name is _NOT_LINKED else file_name, video),
            Selection(Fraction(repr(float(start))), start_unit, frame_cap, every_nth, exact_rate(target_fps)),
            width,
            height,
            Look(Framing(fit, crop_x, crop_y), float(background == "white")),
            interrupt=comfy.model_management.throw_exception_if_processing_interrupted,
            progress=comfy.utils.ProgressBar(1).update_absolute,
        )
        components = Types.VideoComponents(images=clip.images, audio=clip.audio, frame_rate=clip.rate)
        result = InputImpl.VideoFromComponents(components)
        return io.NodeOutput(clip.images, float(clip.rate), len(clip.images), clip.audio, result, clip.mask)


def _inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "file",
            options=input_videos(),
            upload=io.UploadType.video,
            tooltip="A video in the input folder, or one to upload. Not used when a video or a file_name is connected.",
        ),
        io.Float.Input(
            "start",
            default=0.0,
            min=0.0,
            max=1e6,
            step=0.001,
            round=0.001,
            tooltip="Where to begin. A time in seconds means the frame that is on screen then.",
        ),
        io.Int.Input(
            "frame_cap",
            default=24,
            min=0,
            max=1_000_000,
            tooltip="Return at most this many frames, counted after every_nth. 0 returns all the rest.",
        ),
        io.Int.Input(
            "width",
            default=512,
            min=0,
            max=8192,
            step=8,
            tooltip="Width of the frames, rounded down to a multiple of 8. 0 follows the height; if both are 0 the "
            "clip's size is kept.",
        ),
        io.Int.Input(
            "height",
            default=512,
            min=0,
            max=8192,
            step=8,
            tooltip="Height of the frames, rounded down to a multiple of 8. 0 follows the width; if both are 0 the "
            "clip's size is kept.",
        ),
        choice(
            "start_unit",
            ["frame", "seconds"],
            "Whether start is a frame number (counted from 0) or a time in seconds.",
            **advanced(),
        ),
        io.Int.Input(
            "every_nth",
            default=1,
            min=1,
            max=1000,
            tooltip="Keep every n-th frame (of those at target_fps, if set). The returned fps is divided by n.",
            **advanced(),
        ),
        io.Float.Input(
            "target_fps",
            default=0.0,
            min=0.0,
            max=240.0,
            step=0.001,
            round=0.001,
            tooltip=(
                "First convert the clip to this frame rate by repeating or dropping frames; length and speed stay the "
                "same. 0 keeps the clip's own frames. 23.976, 29.97 and 59.94 mean the exact broadcast rates."
            ),
            **advanced(),
        ),
        choice(
            "fit",
            ["crop", "pad", "stretch"],
            "If the clip has another aspect ratio: crop fills the size and cuts off the edges, pad shows everything "
            "with black bars, stretch distorts.",
            **advanced(),
        ),
        io.Video.Input("video", optional=True, tooltip="A video from another node, used instead of the file."),
        _crop_share("crop_x", "left edge", "right edge"),
        _crop_share("crop_y", "top", "bottom"),
        choice(
            "background",
            ["black", "white"],
            "What is seen through transparent parts of the clip.",
            optional=True,
            **advanced(),
        ),
        io.String.Input(
            "file_name",
            optional=True,
            force_input=True,
            tooltip="The name of a video in the input folder, from another node, used instead of the file.",
        ),
    ]


def _crop_share(name: str, least: str, most: str) -> io.Float.Input:
    tooltip = f"Which part crop keeps: 0 that at the {least}, 0.5 the middle, 1 that at the {most}."
    return io.Float.Input(
        name, default=0.5, min=0.0, max=1.0, step=0.05, round=0.001, optional=True, tooltip=tooltip, **advanced()
    )


def _clip(file: str | None, video: Input.Video | None) -> ClipSource:
    """A VIDEO is streamed from its file where that shows the same; else the pictures it gives are taken."""
    if video is None:
        path = input_video_path(file)
        return VideoFile(path, os.path.basename(path))
    if is_unedited_file(video):
        content = video.get_stream_source()
        return VideoFile(content, os.path.basename(content) if isinstance(content, str) else _LINKED_NAME)
    components = video.get_components()
    rate, alpha = Fraction(components.frame_rate), getattr(components, "alpha", None)
    return PicturesInMemory(components.images, rate, components.audio, _LINKED_NAME, alpha)

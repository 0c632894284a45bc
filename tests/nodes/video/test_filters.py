"""Interlaced clips are shown as whole pictures of one moment each."""

from __future__ import annotations

import logging
from fractions import Fraction

import av
import numpy as np
import pytest
from comfyui_stem.nodes.video.filters import deinterlaced, graph_for
from comfyui_stem.nodes.video.frame_selection import Selection, ShownFrame
from comfyui_stem.nodes.video.loading import load_clip
from comfyui_stem.nodes.video.sources import VideoFile

FRAMES = 8
SIZE = (128, 96)


def bars(moment):
    """Luma of soft vertical bars that move four pixels from field to field."""
    x = np.arange(SIZE[0])
    return np.repeat((125 + 90 * np.sin((x - 4 * moment) * 2 * np.pi / 32))[None], SIZE[1], 0).round().astype(np.uint8)


def write_fields(path, codec, bottom_first=False):
    """Every frame holds a field of each of two moments."""
    options = (
        {"flags": "+ildct+ilme", "qmin": "1", "q": "1"} if codec == "mpeg2video" else {"flags": "+ildct", "crf": "1"}
    )
    marked = None
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for number in range(FRAMES):
            luma = bars(2 * number)
            second = 0 if bottom_first else 1
            luma[second::2] = bars(2 * number + 1)[second::2]
            grey = np.full((SIZE[1] // 2, SIZE[0]), 128, np.uint8)
            frame = av.VideoFrame.from_ndarray(np.concatenate([luma, grey]), "yuv420p")
            order = "bff" if bottom_first else "tff"
            marked = marked or graph_for(frame, ("setfield", order))
            marked.push(frame)
            frame = marked.pull()
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def luma_of(images):
    return (images.numpy().mean(-1) * 219 + 16)[:, 8:-8, 8:-8]


@pytest.mark.parametrize(
    ("name", "codec", "bottom_first"),
    [("a.mpg", "mpeg2video", False), ("a.mp4", "libx264", False), ("a.mp4", "libx264", True)],
)
def test_every_frame_shows_the_moment_of_its_first_field(tmp_path, caplog, name, codec, bottom_first):
    with caplog.at_level(logging.WARNING):
        clip = load_clip(VideoFile(str(write_fields(tmp_path / name, codec, bottom_first)), name), Selection())
    assert "it is interlaced" in caplog.text
    assert len(clip.images) == FRAMES and clip.rate == 25
    shown = luma_of(clip.images)
    of_one_moment = np.stack([bars(2 * number) for number in range(FRAMES)])[:, 8:-8, 8:-8]
    # the first and last frame lack a neighbour, so they are completed from their own field
    assert np.abs(shown - of_one_moment)[1:-1].mean() < 3
    assert np.abs(np.diff(shown, axis=1)).mean() < 3  # combed pictures have over 30


def test_a_late_start_gives_the_same_pictures(tmp_path):
    path = str(write_fields(tmp_path / "a.mp4", "libx264"))
    whole = load_clip(VideoFile(path, "a"), Selection()).images
    assert (load_clip(VideoFile(path, "a"), Selection(start=5)).images == whole[5:]).all()


def test_a_clip_of_whole_pictures_is_not_filtered(tmp_path):
    path = tmp_path / "whole.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "gray"
        for number in range(FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(bars(number), "gray")))
        container.mux(stream.encode())
    images = load_clip(VideoFile(str(path), "whole"), Selection()).images
    assert not VideoFile(str(path), "whole").info.interlaced
    assert np.abs(images.numpy()[..., 0] * 255 - np.stack([bars(number) for number in range(FRAMES)])).max() <= 1


def test_recordings_of_other_sizes_that_are_joined_are_all_shown():
    def frames(width, height):
        for _ in range(3):
            grey = av.VideoFrame.from_ndarray(np.full((height, width), 100, np.uint8), "gray").reformat(
                format="yuv420p"
            )
            graph = graph_for(grey, ("setfield", "tff"))
            graph.push(grey)
            yield graph.pull()

    pictures = [*frames(64, 48), *frames(128, 96), *frames(64, 48)]
    shown = [ShownFrame(n, Fraction(n), Fraction(n + 1), picture) for n, picture in enumerate(pictures)]
    found = list(deinterlaced(shown))
    assert [frame.index for frame in found] == list(range(9))
    assert [frame.picture.width for frame in found] == [64] * 3 + [128] * 3 + [64] * 3

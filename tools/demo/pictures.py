"""The demo's videos and its comparison picture."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .workflow import EDIT, RECONSTRUCTION, SOURCE, DemoError

COMPARISONS = ("reconstruction.mp4", "side_by_side.mp4", "side_by_side.png")
ROWS = 4
SMALLEST_COLUMN = 256
LABEL_HEIGHT = 28
QUALITY = "12"  # x264's constant rate factor: no loss that the eye sees


def decode(files: Sequence[bytes]) -> np.ndarray:
    """PNG files of equal size as uint8 [N, H, W, 3]."""
    return np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files])


def edited_file(label: str) -> str:
    """The file of an edit: edited.mp4, or "edited_car.mp4" for the label "object: car"."""
    name = re.sub(r"[^a-z0-9]+", "_", label.rpartition(": ")[2].lower())
    return "edited.mp4" if label == EDIT else f"edited_{name}.mp4"


def names(edits: Sequence[str]) -> tuple[str, ...]:
    """The files that `write_all` writes for edits of these labels."""
    return (*map(edited_file, edits), *COMPARISONS)


def write_all(folder: Path, frames: Mapping[str, np.ndarray], edits: Sequence[str], rate: Fraction) -> None:
    """Writes the files of `names`. frames: uint8 [N, H, W, 3] by name, all of one shape. edits: labels among them."""
    shapes = {name: video.shape for name, video in frames.items()}
    if len(set(shapes.values())) != 1:
        raise DemoError(f"The workflow saved videos of different shapes, which cannot be compared: {shapes}.")
    columns = {name: enlarge(frames[name]) for name in (SOURCE, RECONSTRUCTION, *edits)}
    side_by_side = with_labels(np.concatenate(list(columns.values()), axis=2), list(columns))
    rows = np.unique(np.linspace(0, len(side_by_side) - 1, ROWS).round().astype(int))
    sheet = np.concatenate([side_by_side[rows[0]], *side_by_side[rows[1:], LABEL_HEIGHT:]])
    for label in edits:
        write_mp4(folder / edited_file(label), frames[label], rate)
    write_mp4(folder / "reconstruction.mp4", frames[RECONSTRUCTION], rate)
    write_mp4(folder / "side_by_side.mp4", side_by_side, rate)
    Image.fromarray(sheet).save(folder / "side_by_side.png")


def enlarge(video: np.ndarray) -> np.ndarray:
    """Repeats the pixels of a small video [N, H, W, 3] until a label fits above it."""
    factor = -(-SMALLEST_COLUMN // video.shape[2])
    return video.repeat(factor, axis=1).repeat(factor, axis=2)


def with_labels(video: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """A video [N, H, W, 3] below a strip that names its columns of equal width: [N, LABEL_HEIGHT + H, W, 3]."""
    width = video.shape[2]
    strip = Image.new("RGB", (width, LABEL_HEIGHT), "white")
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(16)
    for column, label in enumerate(labels):
        centre = (2 * column + 1) * width / (2 * len(labels))
        draw.text((centre, LABEL_HEIGHT / 2), label, fill="black", font=font, anchor="mm")
    strips = np.broadcast_to(np.asarray(strip), (len(video), LABEL_HEIGHT, width, 3))
    return np.concatenate([strips, video], axis=1)


def write_mp4(file: Path, video: np.ndarray, rate: Fraction) -> None:
    """Encodes uint8 [N, H, W, 3] as H.264 in 4:2:0, which every player shows; odd sizes lose a row or a column."""
    video = video[:, : video.shape[1] // 2 * 2, : video.shape[2] // 2 * 2]
    with av.open(str(file), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": QUALITY})
        stream.height, stream.width = video.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in video:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())

"""Videos beside each other, with labels, and slices of them through time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

LABEL_HEIGHT = 18
_GAP = 4


def beside(videos: Sequence[Tensor], labels: Sequence[str]) -> Tensor:
    """Videos [n, h, w, 3] in a row, [n, h', w', 3]: scaled to the height of the first, a label above each that has one.

    The longest decides how many frames there are; the others hold their last one.
    """
    frames, height = max(video.shape[0] for video in videos), videos[0].shape[1]
    columns = []
    for video, label in zip(videos, labels, strict=True):
        scaled = _to_height(video[..., :3].float().cpu(), height)
        held = torch.cat([scaled, scaled[-1:].expand(frames - scaled.shape[0], -1, -1, -1)])
        columns.append(labelled(held, label) if any(labels) else held)
    gap = torch.ones(frames, columns[0].shape[1], _GAP, 3)
    parts = [part for column in columns for part in (gap, column)][1:]
    return torch.cat(parts, dim=2)


def labelled(video: Tensor, label: str) -> Tensor:
    """A video [n, h, w, 3] with a line of text above it, cut off where it is too long: [n, h + LABEL_HEIGHT, w, 3]."""
    strip = Image.new("RGB", (video.shape[2], LABEL_HEIGHT), "white")
    ImageDraw.Draw(strip).text((2, 2), label, fill="black", font=ImageFont.load_default())
    pixels = torch.from_numpy(np.asarray(strip).copy()).float() / 255
    return torch.cat([pixels.expand(video.shape[0], -1, -1, -1), video], dim=1)


def time_slice(video: Tensor, position: float, width: int) -> Tensor:
    """One column of pixels over time: [n, h, w, 3] -> [1, h, width, 3], the first frame at the left.

    position: of the column, 0 the left border and 1 the right one. Steady motion draws smooth lines; flicker is a comb.
    """
    column = video[:, :, round(position * (video.shape[2] - 1)), :3].float().cpu()  # [n, h, 3]
    index = torch.arange(width) * column.shape[0] // width
    return column[index].movedim(0, 1)[None]


def enlarged(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps [n, h, w, c] as large as a picture, without blurring what belongs to one token."""
    return torch.nn.functional.interpolate(maps.movedim(-1, 1), size, mode="nearest").movedim(1, -1)


def heat(values: Tensor) -> Tensor:
    """Values in [0, 1] as colours from black over red and yellow to white: [...] -> [..., 3]."""
    return torch.stack([(3 * values - start).clamp(0, 1) for start in (0, 1, 2)], dim=-1)


def _to_height(video: Tensor, height: int) -> Tensor:
    if video.shape[1] == height:
        return video
    size = (height, max(1, round(video.shape[2] * height / video.shape[1])))
    planes = torch.nn.functional.interpolate(
        video.movedim(-1, 1), size, mode="bilinear", antialias=True, align_corners=False
    )
    return planes.movedim(1, -1)

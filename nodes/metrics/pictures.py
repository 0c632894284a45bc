"""Pictures of videos (beside each other, as a wipe, slices through time) and of features (as colours)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange, repeat
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import interpolate, pad

from .frames import Advance, unwatched

LABEL_HEIGHT = 18
_GAP = 4
# Frames that are resized at a time.
_BATCH = 16
# Rows of features that are worked through at a time.
_ROWS = 1 << 16
# Share of the values beyond which a colour is cut off at either end, so that single outliers do not grey all others.
_CUT = 0.01


def beside(videos: Sequence[Tensor], labels: Sequence[str], advance: Advance = unwatched) -> Tensor:
    """Videos [n, h, w, 3] in a row, [n, h', w', 3]: scaled to the height of the first, a label above each that has one.

    The longest decides how many frames there are; the others hold their last one. Advances by the frames of them all.
    """
    height = videos[0].shape[1]
    widths = [max(1, round(video.shape[2] * height / video.shape[1])) for video in videos]
    columns = [_resized(video, (height, width), advance) for video, width in zip(videos, widths, strict=True)]
    return _joined(columns, labels, dim=2)


def stacked(videos: Sequence[Tensor], labels: Sequence[str], advance: Advance = unwatched) -> Tensor:
    """The same from top to bottom, each at its own size; narrower ones get a white margin at their right."""
    width = max(video.shape[2] for video in videos)
    rows = []
    for video in videos:
        rows.append(pad(video, (0, 0, 0, width - video.shape[2]), value=1.0))
        advance(len(video))
    return _joined(rows, labels, dim=1)


def wiped(left: Tensor, right: Tensor, labels: Sequence[str], advance: Advance = unwatched) -> Tensor:
    """One picture [n, h, w, 3], the first video left of a white line and the second right of it, at the first's size.

    The line starts at the left border, is at the right one half-way through the video, and comes back.
    """
    left, right = _same_length([_resized(video, left.shape[1:3], advance) for video in (left, right)])
    frames, _, width, _ = left.shape
    way = torch.linspace(-1.0, 1.0, frames) if frames > 1 else torch.full((1,), 0.5)
    line = rearrange((1 - way.abs()) * width, "n -> n 1 1 1")
    position = rearrange(torch.arange(width) + 0.5, "w -> 1 1 w 1")
    result = torch.where(position < line, left, right).where((position - line).abs() > _GAP / 4, 1.0)
    return labelled(result, " | ".join(labels)) if any(labels) else result


def _joined(videos: Sequence[Tensor], labels: Sequence[str], dim: int) -> Tensor:
    """Videos of equal height (dim 2) or width (dim 1) in a row, with a white gap and their labels."""
    held = _same_length(videos)
    named = [labelled(video, label) if any(labels) else video for video, label in zip(held, labels, strict=True)]
    size = list(named[0].shape)
    size[dim] = _GAP
    return torch.cat([part for video in named for part in (torch.ones(size), video)][1:], dim=dim)


def _same_length(videos: Sequence[Tensor]) -> list[Tensor]:
    """The longest decides how many frames there are; the others hold their last one."""
    frames = max(video.shape[0] for video in videos)
    return [torch.cat([video, repeat(video[-1], "h w c -> n h w c", n=frames - video.shape[0])]) for video in videos]


def _resized(video: Tensor, size: Sequence[int], advance: Advance) -> Tensor:
    if tuple(video.shape[1:3]) == tuple(size):
        advance(len(video))
        return video
    resized = []
    for frames in video.split(_BATCH):
        planes = rearrange(frames, "n h w c -> n c h w")
        planes = interpolate(planes, tuple(size), mode="bilinear", antialias=True, align_corners=False)
        resized.append(rearrange(planes, "n c h w -> n h w c"))
        advance(len(frames))
    return torch.cat(resized)


def labelled(video: Tensor, label: str) -> Tensor:
    """A video [n, h, w, 3] with a line of text above it, cut off where it is too long: [n, h + LABEL_HEIGHT, w, 3]."""
    strip = Image.new("RGB", (video.shape[2], LABEL_HEIGHT), "white")
    ImageDraw.Draw(strip).text((2, 2), label, fill="black", font=ImageFont.load_default())
    pixels = torch.from_numpy(np.asarray(strip).copy()).float() / 255
    return torch.cat([repeat(pixels, "h w c -> n h w c", n=video.shape[0]), video], dim=1)


def time_slice(video: Tensor, position: float, width: int) -> Tensor:
    """One column of pixels over time: [n, h, w, 3] -> [1, h, width, 3], the first frame at the left.

    position: of the column, 0 the left border and 1 the right one. Steady motion draws smooth lines; flicker is a comb.
    """
    column = video[:, :, round(position * (video.shape[2] - 1))]  # [n, h, 3]
    index = torch.arange(width) * column.shape[0] // width
    return rearrange(column[index], "time h c -> 1 h time c")


def enlarged(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps [n, h, w, c] as large as a picture, without blurring what belongs to one token."""
    planes = interpolate(rearrange(maps, "n h w c -> n c h w"), size, mode="nearest")
    return rearrange(planes, "n c h w -> n h w c")


def heat(values: Tensor) -> Tensor:
    """Values in [0, 1] as colours from black over red and yellow to white: [...] -> [..., 3]."""
    return torch.stack([(3 * values - start).clamp(0, 1) for start in (0, 1, 2)], dim=-1)


def principal_components(features: Tensor, count: int = 3, advance: Advance = unwatched) -> Tensor:
    """Features [m, c] along their directions of greatest variance, float64 [m, count]; zeros where c is smaller.

    Signs are fixed so that the largest entry of a direction is positive: equal features give equal colours. Advances by
    2 m rows.
    """
    mean = features.mean(dim=0, keepdim=True, dtype=torch.float64)
    scatter = mean.new_zeros(features.shape[1], features.shape[1])
    for rows in features.split(_ROWS):
        centred = rows.double() - mean
        scatter += centred.T @ centred
        advance(len(rows))
    _, directions = torch.linalg.eigh(scatter)  # ascending
    directions = directions.flip(-1)[:, :count]
    largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
    directions, found = directions * largest.sign(), []
    for rows in features.split(_ROWS):
        found.append((rows.double() - mean) @ directions)
        advance(len(rows))
    return pad(torch.cat(found), (0, count - directions.shape[1]))


def colours(features: Tensor, advance: Advance = unwatched) -> Tensor:
    """Features [m, c] as RGB, float32 [m, 3] in [0, 1]: similar ones have similar colours. Advances by 2 m rows."""
    components = principal_components(features, advance=advance)
    low, high = (torch.quantile(components, share, dim=0) for share in (_CUT, 1 - _CUT))
    spread = (high - low).clamp_min(torch.finfo(components.dtype).tiny)
    return ((components - low) / spread).clamp(0, 1).where(high > low, torch.tensor(0.5, dtype=torch.float64)).float()

"""Pictures of videos (beside each other, with labels; slices through time) and of features (as colours)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange, repeat
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import interpolate, pad

LABEL_HEIGHT = 18
_GAP = 4
# Share of the values beyond which a colour is cut off at either end, so that single outliers do not grey all others.
_CUT = 0.01


def beside(videos: Sequence[Tensor], labels: Sequence[str]) -> Tensor:
    """Videos [n, h, w, 3] in a row, [n, h', w', 3]: scaled to the height of the first, a label above each that has one.

    The longest decides how many frames there are; the others hold their last one.
    """
    frames, height = max(video.shape[0] for video in videos), videos[0].shape[1]
    columns = []
    for video, label in zip(videos, labels, strict=True):
        scaled = video[..., :3].float().cpu()
        if scaled.shape[1] != height:
            size = (height, max(1, round(scaled.shape[2] * height / scaled.shape[1])))
            planes = rearrange(scaled, "n h w c -> n c h w")
            planes = interpolate(planes, size, mode="bilinear", antialias=True, align_corners=False)
            scaled = rearrange(planes, "n c h w -> n h w c")
        held = torch.cat([scaled, repeat(scaled[-1], "h w c -> n h w c", n=frames - scaled.shape[0])])
        columns.append(labelled(held, label) if any(labels) else held)
    gap = torch.ones(frames, columns[0].shape[1], _GAP, 3)
    parts = [part for column in columns for part in (gap, column)][1:]
    return torch.cat(parts, dim=2)


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
    column = video[:, :, round(position * (video.shape[2] - 1)), :3].float().cpu()  # [n, h, 3]
    index = torch.arange(width) * column.shape[0] // width
    return rearrange(column[index], "time h c -> 1 h time c")


def enlarged(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps [n, h, w, c] as large as a picture, without blurring what belongs to one token."""
    planes = interpolate(rearrange(maps, "n h w c -> n c h w"), size, mode="nearest")
    return rearrange(planes, "n c h w -> n h w c")


def heat(values: Tensor) -> Tensor:
    """Values in [0, 1] as colours from black over red and yellow to white: [...] -> [..., 3]."""
    return torch.stack([(3 * values - start).clamp(0, 1) for start in (0, 1, 2)], dim=-1)


def principal_components(features: Tensor, count: int = 3) -> Tensor:
    """Features [m, c] along their directions of greatest variance, float64 [m, count]; zeros where c is smaller.

    Signs are fixed so that the largest entry of a direction is positive: equal features give equal colours.
    """
    centred = features.double() - features.double().mean(dim=0, keepdim=True)
    _, directions = torch.linalg.eigh(centred.T @ centred)  # ascending
    directions = directions.flip(-1)[:, :count]
    largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
    found = centred @ (directions * largest.sign())
    return pad(found, (0, count - found.shape[1]))


def colours(features: Tensor) -> Tensor:
    """Features [m, c] as RGB, float32 [m, 3] in [0, 1]: similar ones have similar colours."""
    components = principal_components(features)
    low, high = (torch.quantile(components, share, dim=0) for share in (_CUT, 1 - _CUT))
    spread = (high - low).clamp_min(torch.finfo(components.dtype).tiny)
    return ((components - low) / spread).clamp(0, 1).where(high > low, torch.tensor(0.5, dtype=torch.float64)).float()

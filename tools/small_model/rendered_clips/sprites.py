"""Pictures of the objects: drawn by others, under free licences (see assets/ATTRIBUTION.md), coloured here."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from ...locations import ROOT
from .vocabulary import COLOURS, OBJECTS, STYLES

SHEET = ROOT / "assets" / "sprites" / "sprites.webp"
TILE = 96
# Rec. 709 weights of red, green and blue in brightness.
LUMA = (0.2126, 0.7152, 0.0722)
SHADOW, HIGHLIGHT = 0.25, 0.65
PAPER = 0.97
INK = 0.75


@cache
def sheet() -> Tensor:
    """All pictures, [objects, styles, 4, TILE, TILE] in [0, 1]; colour not multiplied by opacity."""
    pixels = torch.from_numpy(np.array(Image.open(SHEET).convert("RGBA"))).float() / 255
    return rearrange(pixels, "(object h) (style w) c -> object style c h w", h=TILE, w=TILE).contiguous()


@cache
def sprite(object: str, style: str, colour: str) -> Tensor:
    """A coloured picture, [4, TILE, TILE]: red, green and blue, multiplied by opacity, and opacity."""
    drawn = sheet()[OBJECTS.index(object), STYLES.index(style)]
    tone = torch.tensor(COLOURS[colour]).view(3, 1, 1)
    coloured = sketched(drawn, tone) if style == "sketch" else tinted(drawn, tone)
    return torch.cat([coloured * drawn[3:], drawn[3:]])


def brightness(drawn: Tensor) -> Tensor:
    """[4, h, w] to [1, h, w]: Rec. 709 brightness of the colour."""
    return (drawn[:3] * torch.tensor(LUMA).view(3, 1, 1)).sum(dim=0, keepdim=True)


def tinted(drawn: Tensor, tone: Tensor) -> Tensor:
    """The picture in shades of one colour, [3, h, w]: its median brightness becomes the colour itself."""
    light = brightness(drawn)
    seen = light[drawn[3:] > 0.5]
    low, middle, high = (float(seen.quantile(q)) for q in (0.02, 0.5, 0.98))
    below = ((light - low) / max(middle - low, 1e-3)).clamp(0, 1)
    above = ((light - middle) / max(high - middle, 1e-3)).clamp(0, 1)
    # a picture of little contrast keeps little contrast
    depth, height = (min(1.0, contrast / 0.25) for contrast in (middle - low, high - middle))
    shaded = tone * (1 - depth * (1 - SHADOW) * (1 - below))
    return shaded + (1 - shaded) * height * HIGHLIGHT * above


def sketched(drawn: Tensor, tone: Tensor) -> Tensor:
    """Lines in one colour on white paper, [3, h, w]: along edges of brightness and around the outline."""
    seen = torch.cat([brightness(drawn) * drawn[3:] + (1 - drawn[3:]), drawn[3:]])[:, None]
    smooth = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(seen, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    dx = smooth[..., :, 2:] - smooth[..., :, :-2]
    dy = smooth[..., 2:, :] - smooth[..., :-2, :]
    slope = (torch.nn.functional.pad(dx, (1, 1)) ** 2 + torch.nn.functional.pad(dy, (0, 0, 1, 1)) ** 2).sqrt()
    line = (4 * torch.nn.functional.max_pool2d(slope, 3, stride=1, padding=1).amax(dim=0)).clamp(0, 1)
    return PAPER * (1 - line) + INK * tone * line

"""Sizes a video model can take, and pictures brought to them.

Pillow's Lanczos filter is used: it widens with the reduction on each axis by itself, so that shrinking does not
alias even when the picture is stretched, and it takes a fractional box, so that cropping and scaling are one step.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import floor
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Fit = Literal["crop", "pad", "stretch"]
MULTIPLE = 8
"""Sides are rounded down to a multiple of this, the reduction of the VAE."""


@dataclass(frozen=True)
class Placement:
    """The part `box` (left, top, right, bottom) of a picture, scaled to `inner` and put at `offset` (x, y)."""

    box: tuple[Fraction, Fraction, Fraction, Fraction]
    inner: tuple[int, int]
    offset: tuple[int, int]


def target_size(width: int, height: int, natural_width: Fraction, natural_height: int) -> tuple[int, int]:
    """(width, height) of the result: as asked, by the clip's shape where 0; rounded down to multiples of 8."""
    if not width and not height:
        width, height = natural_width, natural_height
    elif not height:
        height = _round_down(width) * natural_height / natural_width
    elif not width:
        width = _round_down(height) * natural_width / natural_height
    return _round_down(width), _round_down(height)


@dataclass(frozen=True)
class Framing:
    """What becomes of a picture of another shape than the result's.

    stretch: all of it, over all of the result; pad: all of it, in the middle; crop: a part that has the result's shape,
    with `across` and `down` telling where it lies: 0 left or top, 1 right or bottom.
    """

    fit: Fit = "crop"
    across: float = 0.5
    down: float = 0.5


def place(width: int, height: int, pixel_aspect: Fraction, size: tuple[int, int], framing: Framing) -> Placement:
    """Where a picture of width·height pixels, each `pixel_aspect` times as wide as high, goes in one of `size`."""
    whole = (Fraction(0), Fraction(0), Fraction(width), Fraction(height))
    shown_width = width * pixel_aspect
    if framing.fit == "crop":
        return Placement(_crop_box(width, height, pixel_aspect, size, framing), size, (0, 0))
    if framing.fit == "pad":
        scale = min(size[0] / shown_width, Fraction(size[1], height))
        inner = (max(1, round(shown_width * scale)), max(1, round(height * scale)))
        return Placement(whole, inner, ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2))
    return Placement(whole, size, (0, 0))


def fit_picture(picture: NDArray, pixel_aspect: Fraction, size: tuple[int, int], framing: Framing) -> NDArray:
    """Bring a picture [h, w, c] to [size[1], size[0], c]: uint8 in 0..255 or float32 in 0..1, 0 where padded.

    It has 3 channels, or 1.
    """
    placement = place(picture.shape[1], picture.shape[0], pixel_aspect, size, framing)
    scaled = _resample(picture, placement)
    if placement.inner == size:
        return scaled
    (x, y), (width, height) = placement.offset, placement.inner
    padded = np.zeros((size[1], size[0], picture.shape[2]), picture.dtype)
    padded[y : y + height, x : x + width] = scaled
    return padded


def _round_down(side: float | Fraction) -> int:
    return max(MULTIPLE, floor(side) // MULTIPLE * MULTIPLE)


def _crop_box(
    width: int, height: int, pixel_aspect: Fraction, size: tuple[int, int], framing: Framing
) -> tuple[Fraction, ...]:
    # A picture that only loses the rest to a multiple of 8 keeps its pixels: nothing is scaled.
    if pixel_aspect == 1 and 0 <= width - size[0] < MULTIPLE and 0 <= height - size[1] < MULTIPLE:
        box_width, box_height = Fraction(size[0]), Fraction(size[1])
    elif width * pixel_aspect * size[1] > size[0] * height:
        box_width, box_height = height * Fraction(*size) / pixel_aspect, Fraction(height)
    else:
        box_width, box_height = Fraction(width), width * pixel_aspect / Fraction(*size)
    left, top = (width - box_width) * Fraction(framing.across), (height - box_height) * Fraction(framing.down)
    # Half a pixel's offset would blur a box that falls on whole pixels.
    left = Fraction(floor(left)) if box_width.denominator == 1 else left
    top = Fraction(floor(top)) if box_height.denominator == 1 else top
    return left, top, left + box_width, top + box_height


def _resample(picture: NDArray, placement: Placement) -> NDArray:
    left, top, right, bottom = placement.box
    if (right - left, bottom - top) == placement.inner and left.denominator == top.denominator == 1:
        return picture[int(top) : int(bottom), int(left) : int(right)]
    # Rounding to float must not put the box a hair beyond the picture.
    box = (float(left), float(top), min(float(right), picture.shape[1]), min(float(bottom), picture.shape[0]))
    if picture.dtype == np.uint8:
        image = Image.fromarray(np.ascontiguousarray(picture if picture.shape[2] > 1 else picture[..., 0]))
        scaled = np.asarray(image.resize(placement.inner, Image.Resampling.LANCZOS, box=box))
        return scaled.reshape(*scaled.shape[:2], -1)
    planes = (Image.fromarray(np.ascontiguousarray(picture[..., c])) for c in range(picture.shape[2]))
    scaled = [np.asarray(plane.resize(placement.inner, Image.Resampling.LANCZOS, box=box)) for plane in planes]
    return np.stack(scaled, axis=-1).clip(0, 1)

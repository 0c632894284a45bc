"""`python tools/launch.py shipped.branding`: draws the icon and the banner of the registry.

A strip of film whose pictures are mosaics of the same few colours: a video of a handful of bases.
"""

from __future__ import annotations

import argparse
import math
import random
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from .. import locations

BACKGROUND, FILM, HOLE = "#12141c", "#2a2f3f", "#12141c"
BASES = ("#ef476f", "#f78c6b", "#ffd166", "#06d6a0", "#118ab2", "#7b61ff")
ICON, BANNER = (400, 400), (1260, 540)
# Drawn larger and scaled down, for smooth edges.
SCALE = 3
GRID = 7


def icon() -> Image.Image:
    """One picture of the film."""
    image = Image.new("RGB", tuple(SCALE * side for side in ICON), BACKGROUND)
    _film(image, (SCALE * 30, SCALE * 40, SCALE * 370, SCALE * 360), frames=1)
    return image.resize(ICON, Image.Resampling.LANCZOS)


def banner() -> Image.Image:
    """The film, and the name."""
    image = Image.new("RGB", tuple(SCALE * side for side in BANNER), BACKGROUND)
    _film(image, (SCALE * 40, SCALE * 60, SCALE * 1220, SCALE * 350), frames=4)
    draw = ImageDraw.Draw(image)
    for text, size, y, colour in (
        ("STEM Inversion", 72, 385, "white"),
        ("edit a video by text: its whole length in a few bases", 28, 472, "#aab0c0"),
    ):
        draw.text((SCALE * 60, SCALE * y), text, fill=colour, font=ImageFont.load_default(SCALE * size))
    return image.resize(BANNER, Image.Resampling.LANCZOS)


def _film(image: Image.Image, box: tuple[int, int, int, int], frames: int) -> None:
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = box
    border = (bottom - top) // 7
    draw.rounded_rectangle(box, radius=border // 2, fill=FILM)
    hole = border // 2
    for x in range(left + hole, right - hole, 2 * hole):
        for y in (top + hole // 2, bottom - hole - hole // 2):
            draw.rounded_rectangle((x, y, x + hole, y + hole), radius=hole // 4, fill=HOLE)
    inner = (right - left - border // 2) / frames
    for frame in range(frames):
        x = left + border // 2 + frame * inner
        picture = (x, top + border, x + inner - border // 2, bottom - border)
        _mosaic(draw, picture, frame / max(1, frames - 1) if frames > 1 else 0.5)


def _mosaic(draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float], position: float) -> None:
    """A disc that moves over a ground, in squares of the bases' colours."""
    left, top, right, bottom = box
    cell = (bottom - top) / GRID
    columns = max(1, round((right - left) / cell))
    width = (right - left) / columns
    centre = (columns * (0.3 + 0.4 * position), GRID * (0.62 - 0.24 * position))
    rng = random.Random(7)
    for row in range(GRID):
        for column in range(columns):
            distance = math.dist((column + 0.5, row + 0.5), centre)
            base = min(2, int(distance)) if distance < GRID / 2.6 else 3 + (row + column + rng.randrange(2)) % 3
            corner = (left + column * width, top + row * cell)
            draw.rectangle((*corner, corner[0] + width - SCALE, corner[1] + cell - SCALE), fill=BASES[base])


def main(arguments: list[str]) -> int:
    """Writes both; returns the exit status."""
    parser = argparse.ArgumentParser(prog="branding", description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=locations.ROOT / "assets")
    folder = parser.parse_args(arguments).output
    icon().save(folder / "icon.png", optimize=True)
    banner().save(folder / "banner.png", optimize=True)
    return 0

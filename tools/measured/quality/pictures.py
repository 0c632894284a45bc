"""The report's pictures: clips beside their true edits and what each inversion made of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .frames_on_disk import load_frames
from .plan import Item, Settings
from .variants import MAIN

COLUMNS = 4
LABEL = 150
GAP = 4
QUALITY = 90
EDITORS = {"tokenflow": "TokenFlow", "fatezero": "FateZero"}


def sheet(rows: Iterable[tuple[str, np.ndarray]]) -> Image.Image:
    """Rows of frames, uint8 [COLUMNS, H, W, 3], each with its name before it."""
    rows = list(rows)
    count, height, width, _ = rows[0][1].shape
    image = Image.new("RGB", (LABEL + count * (width + GAP), len(rows) * (height + GAP)), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(14)
    for row, (name, frames) in enumerate(rows):
        y = row * (height + GAP)
        draw.text((8, y + height / 2), name, "black", font, "lm")
        for column, frame in enumerate(frames):
            image.paste(Image.fromarray(frame), (LABEL + column * (width + GAP), y))
    return image


def write(work: Iterable[Item], settings: Settings, kept: Path, folder: Path) -> list[tuple[str, str]]:
    """Writes a sheet of every shown clip and edit, and of reconstructions; returns (file name, caption) pairs.

    A sheet whose frames were kept on another machine stays as it was written there.
    """
    shown, written = [item for item in work if item.shown], []
    for reference in (item for item in shown if item.kind == "reference"):
        for name, caption, videos in _sheets_of(reference, shown):
            files = [(label, kept / f"{item.key(settings)}_{video}.png") for label, item, video in videos]
            picture = folder / f"{name}.jpg"
            if all(file.is_file() for _, file in files):
                sheet((label, _strip(file, settings.frames)) for label, file in files).save(picture, quality=QUALITY)
            if picture.is_file():
                written.append((picture.name, caption))
    return written


def _sheets_of(reference: Item, shown: Iterable[Item]) -> Iterator[tuple[str, str, list[tuple[str, Item, str]]]]:
    """Name and caption of every sheet of a clip, and what it shows: labels, and the items and names of videos."""
    case = reference.case
    variants = {item.variant: item for item in shown if item.case == case and item.variant}
    runs = [(variant.label, variants[variant]) for variant in MAIN if variant in variants]
    source = ("source", reference, "source")
    videos = [(label, item, "reconstruction_plain_1") for label, item in runs]
    yield (
        f"clip{case.index}_reconstruction",
        f"“{case.scene.caption}”, reconstructed by the plain model",
        [source, *videos],
    )
    for wish in case.edits:
        videos = [
            (f"{title}\n{label}", item, f"{editor}_{wish.kind}")
            for editor, title in EDITORS.items()
            for label, item in runs
            if editor in item.editors
        ]
        caption = f"{wish.kind}: “{case.scene.caption}” → “{wish.scene.caption}”"
        truth = ("true edit", reference, f"truth_{wish.kind}")
        yield f"clip{case.index}_{wish.kind}", caption, [source, truth, *videos]


def _strip(file: Path, frames: int) -> np.ndarray:
    """COLUMNS frames of a video, evenly spaced."""
    found = load_frames(file, frames)
    return found[np.unique(np.linspace(0, len(found) - 1, COLUMNS).round().astype(int))]

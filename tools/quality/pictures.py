"""The report's pictures: clips beside their true edits and what each inversion made of them."""

from __future__ import annotations

from collections.abc import Iterable
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
    """Writes a sheet of every shown clip and edit, and of reconstructions; returns (file name, caption) pairs."""
    shown = [item for item in work if item.shown]
    written = []
    for reference in (item for item in shown if item.kind == "reference"):
        case = reference.case
        variants = {item.variant: item for item in shown if item.case == case and item.variant}
        runs = [(variant.label, variants[variant]) for variant in MAIN if variant in variants]

        def strip(item: Item, name: str) -> np.ndarray:
            frames = load_frames(kept / f"{item.key(settings)}_{name}.png", settings.frames)
            return frames[np.unique(np.linspace(0, len(frames) - 1, COLUMNS).round().astype(int))]

        source = ("source", strip(reference, "source"))
        made = [(f"clip{case.index}_reconstruction", f"“{case.scene.caption}”, reconstructed by the plain model", [])]
        made[0][2].extend((name, strip(item, "reconstruction_plain_1")) for name, item in runs)
        for wish in case.edits:
            videos = [("true edit", strip(reference, f"truth_{wish.kind}"))]
            for editor, title in EDITORS.items():
                videos += [
                    (f"{title}\n{name}", strip(item, f"{editor}_{wish.kind}"))
                    for name, item in runs
                    if editor in item.editors
                ]
            caption = f"{wish.kind}: “{case.scene.caption}” → “{wish.scene.caption}”"
            made.append((f"clip{case.index}_{wish.kind}", caption, videos))
        for name, caption, videos in made:
            sheet([source, *videos]).save(folder / f"{name}.jpg", quality=QUALITY)
            written.append((f"{name}.jpg", caption))
    return written

"""Builds assets/sprites/sprites.webp from emoji sets of the npm registry. Only needed to change the vocabulary.

    npm install @iconify-json/noto@1.2.9 @iconify-json/twemoji@1.2.5 @iconify-json/fluent-emoji-flat@1.2.6 \
        @lobehub/fluent-emoji-3d@1.1.0
    pip install resvg-py==0.5.0
    python tools/launch.py small_model.rendered_clips.sprite_sheet node_modules
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

from PIL import Image

from .sprites import SHEET, TILE
from .vocabulary import OBJECTS, STYLES

# The emoji that shows an object, where its name is another.
NAMES = {"apple": "red-apple", "car": "automobile", "cat": "cat-face", "tree": "deciduous-tree"}
NAMES["fish"] = "tropical-fish"
# The set that a style takes its pictures from; "sketch" draws lines along the edges of Twemoji's.
VECTOR_SETS = {"cartoon": "noto", "flat": "fluent-emoji-flat", "sketch": "twemoji"}
RASTER_SET = "@lobehub/fluent-emoji-3d/assets"


def vector(packages: Path, collection: str, name: str) -> Image.Image:
    """A picture of an Iconify collection, RGBA of TILE x TILE."""
    import resvg_py

    icons = json.loads((packages / "@iconify-json" / collection / "icons.json").read_text(encoding="utf-8"))
    icon = icons["icons"].get(name) or icons["icons"][icons["aliases"][name]["parent"]]
    width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
    )
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=4 * TILE, height=4 * TILE))
    return Image.open(io.BytesIO(png)).convert("RGBA").resize((TILE, TILE), Image.Resampling.LANCZOS)


def raster(packages: Path, name: str) -> Image.Image:
    """A picture of Fluent 3D, whose files are named by code points."""
    characters = json.loads((packages / "@iconify-json" / "noto" / "chars.json").read_text(encoding="utf-8"))
    files = [packages / RASTER_SET / f"{code}.webp" for code, known in characters.items() if known == name]
    file = next(file for file in files if file.is_file())
    return Image.open(file).convert("RGBA").resize((TILE, TILE), Image.Resampling.LANCZOS)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="sprite_sheet", description=__doc__.splitlines()[0])
    parser.add_argument("packages", type=Path, help="the folder node_modules")
    packages = parser.parse_args(arguments).packages
    sheet = Image.new("RGBA", (TILE * len(STYLES), TILE * len(OBJECTS)))
    for row, thing in enumerate(OBJECTS):
        name = NAMES.get(thing, thing)
        for column, style in enumerate(STYLES):
            picture = raster(packages, name) if style == "3d" else vector(packages, VECTOR_SETS[style], name)
            sheet.paste(picture, (column * TILE, row * TILE))
    SHEET.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(SHEET, lossless=True, quality=100, method=6)
    print(f"{SHEET}: {SHEET.stat().st_size / 1e3:.0f} kB")
    return 0

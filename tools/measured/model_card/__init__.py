"""`make card`: samples of every caption of the small model's vocabulary, and what the classifier sees in them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ... import locations
from ...host import loaded_model

STEPS, CFG = 20, 4.0
NUMBERS = "model_card.json"
PICTURE = "model_card.jpg"


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make card", description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, default=locations.TRAINED)
    parser.add_argument("--classifier", type=Path, default=locations.CLASSIFIER)
    parser.add_argument("--samples", type=int, default=512, help="512 is one for each combination of words")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--cfg", type=float, default=CFG)
    parser.add_argument("--output", type=Path, default=locations.ROOT / "docs")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Samples, judges and writes docs/model_card.json and docs/model_card.jpg; returns the exit status."""
    options = parse(arguments)
    for file in (options.checkpoint, options.classifier):
        if not file.is_file():
            print(f"card stopped: there is no file {file}. Train the small model first: make train.")
            return 1
    loaded_model.prepare()
    from ...small_model.training.classifier import load_classifier
    from . import samples

    scenes = samples.scenes(options.samples)
    frames = samples.draw(loaded_model.load(options.checkpoint), scenes, options.steps, options.cfg)
    found = samples.judged(scenes, load_classifier(options.classifier)(frames))
    found |= {"samples": len(scenes), "steps": options.steps, "cfg": options.cfg}
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / NUMBERS).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    samples.sheet(frames).save(options.output / PICTURE, quality=90)
    print(samples.table(found))
    return 0

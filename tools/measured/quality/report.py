"""The report: docs/quality.json with every number, docs/quality.md to read, and pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..markdown import rendered
from . import pictures, plots, tables, variants
from .editors import INVERSIONS, ROUNDS
from .plan import CFG, Item, Settings
from .quality_json import further_edits_key, of_study
from .store import Store
from .variants import CANDIDATES, FOR_TOKENFLOW, MAIN

TEMPLATE = Path(__file__).with_name("report.md.jinja")


def write(
    studies: Mapping[str, Sequence[Item]], settings: Settings, store: Store, checkpoint: str, output: Path
) -> None:
    """Writes the files below `output`, from the results that are there.

    studies: the work of each by name; of the others, and of those without a finished clip, the numbers there stay.
    checkpoint: its file's name.
    """
    results, file, folder = store.load(), output / "quality.json", output / "quality"
    folder.mkdir(parents=True, exist_ok=True)
    made = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"studies": {}}
    for name, work in studies.items():
        done = [(item, results[item.key(settings)]) for item in work if item.key(settings) in results]
        found = of_study(name, work, done, settings, checkpoint)
        if not found:
            continue
        made |= found | {"studies": made["studies"] | found["studies"]}
        if name == "main":
            made["pictures"] = pictures.write([item for item, _ in done], settings, store.folder / "frames", folder)
            _draw_curves(made["psnr_by_frame"], folder)
    file.write_text(as_json(made), encoding="utf-8")
    (output / "quality.md").write_text(as_markdown(made), encoding="utf-8")


def as_json(made: Mapping) -> str:
    """The numbers as JSON, a row a line."""

    def entry(value: object) -> str:
        if not isinstance(value, list):
            return json.dumps(value)
        return "[\n" + ",\n".join(f"  {json.dumps(row)}" for row in value) + "\n ]"

    return "{\n" + ",\n".join(f" {json.dumps(name)}: {entry(value)}" for name, value in made.items()) + "\n}\n"


def _draw_curves(by_frame: Mapping, folder: Path) -> None:
    for denoiser, curves in by_frame.items():
        title = f"Reconstruction, {denoiser} " + ("model" if denoiser == "plain" else "attention")
        lines = {variant.label: curves[variant.label] for variant in MAIN if variant.label in curves}
        plots.line_plot(title, "frame", "PSNR in dB", lines).save(folder / f"psnr_{denoiser}.png", optimize=True)


def as_markdown(made: Mapping) -> str:
    """The report to read; studies without numbers are left out."""

    def vae(metric: str, digits: int) -> str:
        return tables.cell(tables.find(made["rows"], editor="vae", metric=f"{metric}_vs_source"), digits)

    return rendered(
        TEMPLATE,
        made={"pictures": [], **made},
        tables=tables,
        variants=variants,
        vae=vae,
        cfg=CFG,
        beside_main=(FOR_TOKENFLOW, *CANDIDATES),
        main_edits=(*MAIN, FOR_TOKENFLOW, *CANDIDATES),
        further_edits_key=further_edits_key,
        rounds=ROUNDS,
        inversions=INVERSIONS,
    )

"""The page: report.md with its plots and pictures, from what the runs have left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ....batch.comfyui.events import title_of
from ... import locations
from ...small_model.training.classifier import load_classifier
from ..markdown import one_line, rendered
from ..quality.plots import line_plot
from . import tables
from .methods import METHODS, new_words
from .numbers import Evaluation, Run, curve, read
from .videos import side_by_side, target_word_share
from .workflows import EDIT, shown

TEMPLATE = Path(__file__).with_name("report.md.jinja")
# Clips of which pictures are made.
SHOWN = 3


def write(out: Path) -> Path | None:
    """Writes report.md into the folder of the runs; None where none is done."""
    made = read(out)
    if not made.runs:
        return None
    facts = about(made)
    words = words_of(facts["checkpoint"])
    page = out / "report.md"
    page.write_text(
        rendered(
            TEMPLATE,
            filters={"one_line": one_line},
            made=made,
            about=facts,
            words=words,
            inversions=tables.inversions(made, facts["steps"]),
            edits=tables.edits(made, words),
            gains=tables.edit_gains(made, words),
            reconstructions=tables.reconstructions(made),
            bases=tables.bases(made, words),
            plots=_plots(made, out),
            pictures=_pictures(made, out),
        ),
        encoding="utf-8",
    )
    return page


def about(made: Evaluation) -> dict[str, object]:
    """What all runs share, as their workflows have it."""
    graph = next(iter(made.graphs.values()))
    fields = {title_of(graph, number): entry["inputs"] for number, entry in graph.items()}
    load, inversion = fields["Video Load"], next(fields[title] for title in fields if title.endswith("Inversion"))
    edited = [run for run in made.runs if run.group in METHODS]
    return {
        "clips": len({run.job.video for run in made.runs}),
        "edits": len({run.edit for run in edited}),
        "flow": next((run.measured[shown(EDIT)]["models"].get("flow") for run in edited), None),
        "has_clip": any(run.measure(EDIT, "clip_score") is not None for run in edited),
        "size": f"{load['width']}x{load['height']}",
        "frames": load["frame_cap"],
        "steps": inversion["steps"],
        "checkpoint": fields["Load Checkpoint"]["ckpt_name"],
        "machines": len({run.report["machine"] for run in made.runs}),
    }


def words_of(checkpoint: str) -> Callable[[Run], float | None] | None:
    """The share of frames that show the target word; None where the model is not the one whose words are known."""
    if checkpoint != locations.TRAINED.name:
        return None
    classify = load_classifier(locations.CLASSIFIER)
    known: dict[Path, float | None] = {}

    def share(run: Run) -> float | None:
        video = run.folder / "edited.mp4"
        if video not in known:
            known[video] = target_word_share(classify, video, new_words(*run.edit[1:]))
        return known[video]

    return share


def _plots(made: Evaluation, out: Path) -> list[tuple[str, str]]:
    written = []
    for measure, up in (("psnr", "PSNR in dB"), ("ssim", "SSIM")):
        lines = {}
        for name, runs, what in tables.reconstructed(made):
            if values := curve(runs, what, measure):
                lines[f"{name}, {what}"] = values
        if lines:
            line_plot("Reconstruction", "frame", up, lines).save(out / f"{measure}.png", optimize=True)
            written.append((f"{measure}.png", f"{up} of each frame"))
    return written


def _pictures(made: Evaluation, out: Path) -> list[tuple[str, str]]:
    """A sheet for the first clips and edits: the source, and what each method made of it."""
    written = []
    runs = [run for method in METHODS for run in made.edits(method)]
    for number, edit in enumerate(list(dict.fromkeys(run.edit for run in runs))[:SHOWN]):
        of_edit = {run.group: run for run in runs if run.edit == edit}
        rows = [("source", next(iter(of_edit.values())).folder / "source.mp4")]
        rows += [(METHODS[name][0], of_edit[name].folder / "edited.mp4") for name in METHODS if name in of_edit]
        side_by_side(rows).save(out / f"edit{number}.jpg", quality=88)
        written.append((f"edit{number}.jpg", f"“{edit[1]}” → “{edit[2]}”"))
    return written

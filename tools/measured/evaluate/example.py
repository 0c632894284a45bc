"""The clips of `make evaluate` without any: rendered ones for the small model, whose edits a classifier can judge."""

from __future__ import annotations

import csv
from pathlib import Path

from ...demo.example import ENLARGED, RATE
from ...demo.pictures import write_mp4
from ...small_model.rendered_clips import render
from ...small_model.rendered_clips.rendering import as_bytes
from ..quality.clips import held_out_cases


def write(folder: Path, clips: int, frames: int) -> Path:
    """Writes clips and a table of their edits into a folder, where they are not there yet; returns the table."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for case in held_out_cases(clips):
        (edit,) = case.edits
        video = folder / f"clip{case.index:02d}.mp4"
        if not video.is_file():
            pictures = as_bytes(render(case.scene, case.motion, frames).frames).numpy()
            write_mp4(video, pictures.repeat(ENLARGED, axis=1).repeat(ENLARGED, axis=2), RATE)
        rows.append((video.stem, video.name, case.scene.caption, edit.scene.caption, edit.kind))
    table = folder / "prompts.csv"
    with table.open("w", encoding="utf-8", newline="") as content:
        csv.writer(content).writerows([("id", "video", "source", "target", "edit"), *rows])
    return table

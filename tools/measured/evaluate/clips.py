"""The clips of a folder and the edits that a table asks of them; each clip a video, or a folder of pictures (DAVIS)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from ....batch.jobs import VIDEOS, JobsError, read_jobs
from ...demo.pictures import write_mp4

# Of edits, as in Edit Video by Text; the first where the table does not say.
KINDS = ("object", "style", "colour")
PICTURES = {".jpg", ".jpeg", ".png", ".webp"}
# At which pictures are shown, a second; DAVIS was filmed at this rate.
RATE = Fraction(24)
_SHOWN = 5


@dataclass(frozen=True)
class Edit:
    """What is asked of a clip.

    id: of the row. video: the clip's file. source, target: the prompts. kind: one of KINDS. row: for messages.
    """

    id: str
    video: str
    source: str
    target: str
    kind: str
    row: str


def read_edits(folder: Path, table: Path, made: Path) -> list[Edit]:
    """The edits of a table (video, source, target, and if wanted edit and id), those of a clip one after the other.

    Args:
        folder: of the clips, by whose names the table calls them.
        made: where pictures are joined to videos.

    Raises:
        JobsError: with the rows: a clip is not there, has no row, or a cell is not what it has to be.
    """
    if not folder.is_dir():
        raise JobsError(f"There is no folder of clips at {folder}.")
    known, used = clips_in(folder), set()

    def find(name: str) -> Path:
        found = folder / name
        used.add(found)
        return joined(found, made / f"{name.strip('/').replace('/', '_')}.mp4") if found.is_dir() else found

    jobs, warnings = read_jobs(table, find=find, more=("edit",))
    if idle := sorted(clip.relative_to(folder).as_posix() for clip in known - used):
        names = ", ".join(idle[:_SHOWN]) + (f" and {len(idle) - _SHOWN} more" if len(idle) > _SHOWN else "")
        raise JobsError(
            f"{folder} holds clips that {table.name} has no row for: {names}. Give each a row, or put the clips that "
            "you want into a folder of their own (links will do)."
        )
    edits = []
    for job in jobs:
        values = {"edit": KINDS[0], **job.values}
        if missing := [name for name in ("source", "target") if name not in values]:
            raise JobsError(f"{job.row} has no {missing[0]}. Say what the clip shows (source) and is to show (target).")
        if values["edit"] not in KINDS:
            raise JobsError(f"{job.row}: the edit is {values['edit']!r}, which is none of {', '.join(KINDS)}.")
        if odd := sorted(values.keys() - {"source", "target", "edit"}):
            raise JobsError(f"{table.name} has a column {odd[0]!r}. All methods have to get the same: see ARGS=--help.")
        edits.append(Edit(job.id, job.video, values["source"], values["target"], values["edit"], job.row))
    for warning in warnings:
        print(warning)
    order = {video: number for number, video in enumerate(dict.fromkeys(edit.video for edit in edits))}
    return sorted(edits, key=lambda edit: order[edit.video])


def clips_in(folder: Path) -> set[Path]:
    """The videos of a folder and of those below, and the folders below that hold pictures."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    videos = {file for file in files if file.suffix.lower() in VIDEOS}
    return videos | {file.parent for file in files if file.suffix.lower() in PICTURES and file.parent != folder}


def joined(folder: Path, video: Path) -> Path:
    """A video of a folder's pictures, in the order of their names; made once."""
    if video.is_file():
        return video
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in PICTURES)
    if not files:
        raise JobsError(f"{folder} holds no pictures ({', '.join(sorted(PICTURES))}), so it is no clip.")
    pictures = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    if len({picture.shape for picture in pictures}) > 1:
        raise JobsError(f"The pictures in {folder} are of different sizes, so they are no clip.")
    video.parent.mkdir(parents=True, exist_ok=True)
    unfinished = video.with_name(f".unfinished.{video.name}")
    write_mp4(unfinished, np.stack(pictures), RATE)
    return unfinished.replace(video)

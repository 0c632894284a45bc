"""Pieces of a film as jobs, and as clips of their own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..jobs import Job, JobsError
from ..workflow import Workflow, title_of
from .division import Piece
from .encoding import Encoding, encode
from .source import Film, pictures


def jobs_of(film: Film, pieces: Iterable[Piece], workflow: Workflow, folder: Path) -> list[Job]:
    """A job for each piece: frames of the film itself, or a file in `folder` where there are anchors.

    Raises:
        JobsError: the workflow does not load its clip with Video Load, or a piece lacks a prompt.
    """
    loaders = [node for node, entry in workflow.items() if entry["class_type"] == "STEMVideoLoad"]
    if len(loaders) != 1:
        raise JobsError(
            f"The workflow has {len(loaders)} Video Load (STEM) nodes. A film's shots need one, which loads their "
            "frames."
        )
    loader = title_of(workflow, loaders[0])
    counts = [
        f"{title_of(workflow, node)}.frames"
        for node, entry in workflow.items()
        if entry["class_type"] == "STEMEditVideo"
    ]
    jobs = []
    for piece in pieces:
        if missing := [name for name in ("source", "target") if not piece.values.get(name)]:
            raise JobsError(
                f"Shot {piece.shot + 1} (frame {piece.start}) has no {missing[0]} prompt. Give one for all shots "
                f"(--{missing[0]}), or one in the table of cuts."
            )
        frames = {"start": 0 if piece.anchors else piece.start, "start_unit": "frame", "frame_cap": piece.frames}
        frames |= {"every_nth": 1, "target_fps": 0}
        values = {f"{loader}.{name}": value for name, value in frames.items()} | dict.fromkeys(counts, piece.frames)
        video = folder / f"{piece.name}.mkv" if piece.anchors else film.file
        jobs.append(Job(piece.name, str(video.resolve()), {**piece.values, **values}, f"shot {piece.shot + 1}"))
    return jobs


def cut_out(film: Film, piece: Piece, file: Path) -> None:
    """Writes a piece with its anchors as a clip of its own, without loss."""
    if file.is_file():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f"unfinished-{file.name}")
    ranges = [*((anchor, anchor + 1) for anchor in piece.anchors), (piece.start, piece.end)]
    frames = (picture for start, end in ranges for picture in pictures(film.file, start, end))
    encode(frames, unfinished, film.rate, Encoding("ffv1", "bgr0", pixel_aspect=film.pixel_aspect))
    unfinished.replace(file)

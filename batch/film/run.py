"""From a film to the edited film."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from ...nodes.video.resizing import Framing
from ..jobs import Job, JobsError, add_ends
from ..results import Results
from ..run import DONE, RunSettings, dry_run, run_jobs
from ..workflow import Workflow
from .division import Division, Piece, Shot, divided
from .encoding import count_frames, encode
from .joining import Part, faded, join
from .pieces import cut_out, jobs_of
from .seams import seam_errors
from .shots import find_shots, read_cuts, write_cuts
from .source import Film, read_film

# Read of both ends of a film, to tell it from others.
_ENDS = 1 << 20
# Networks halve their pictures so often that sides divide best by this; small ones only have to divide by 8.
_SIDE, _SMALL_SIDE, _SMALL = 64, 8, 256


@dataclass(frozen=True)
class FilmSettings:
    """What is to become of a film.

    Attributes:
        cuts: a CSV or EDL of its shots; None to find them.
        values: columns of every shot's job, where the cuts do not say otherwise.
        size: (width, height) of the edit; None for the film's shape and about as many pixels as the workflow has.
        division: of shots that are too long.
    """

    cuts: Path | None
    values: Mapping[str, Any]
    size: tuple[int, int] | None = None
    division: Division = Division()


def edit_film(
    file: Path,
    results: Results,
    workflow: Workflow,
    film_settings: FilmSettings,
    settings: RunSettings,
    say: Callable[[str], None],
    dry: bool = False,
) -> int:
    """Cuts a film into shots, edits them, and joins them to `film.mp4` among the results; returns the exit status.

    The same call goes on where an earlier one was stopped. A table of the shots, `cuts.csv`, is left among the results
    and read by the next call, unless another one is named.

    Raises:
        JobsError: nothing was run, or the edited shots cannot be joined; with the reason.
    """
    if not file.is_file():
        raise JobsError(f"There is no film at {file}.")
    results.folder.mkdir(parents=True, exist_ok=True)
    _check_same_film(file, results)
    film, shots = _shots(file, results, film_settings, say)
    pieces = divided(shots, film_settings.division)
    workflow = _sized(workflow, film, film_settings.size)
    jobs = jobs_of(film, pieces, workflow, results.folder / "pieces")
    parts = f", {len(pieces) - len(shots)} of them divided further" if len(pieces) > len(shots) else ""
    say(f"{file.name}: {film.frames} frames, {len(shots)} shots, {len(pieces)} clips to edit{parts}.")
    if dry:
        say(f"{dry_run(workflow, jobs, settings)} clips would run; the cuts are in {results.folder / 'cuts.csv'}.")
        return DONE
    for piece in pieces:
        if piece.anchors and not results.is_done(piece.name):
            cut_out(film, piece, results.folder / "pieces" / f"{piece.name}.mkv")
    status = run_jobs(results, workflow, jobs, settings, say)
    if not all(results.is_done(piece.name) for piece in pieces):
        say("The film is not joined, because not all of its shots are done.")
        return status
    _join(film, pieces, jobs, results, workflow, say)
    shutil.rmtree(results.folder / "pieces", ignore_errors=True)
    return status


def _check_same_film(file: Path, results: Results) -> None:
    digest = hashlib.sha256()
    add_ends(digest, file, _ENDS)
    mark, own = results.folder / "film.json", digest.hexdigest()[:20]
    try:
        other = json.loads(mark.read_text(encoding="utf-8"))["hash"]
    except (OSError, ValueError, KeyError, TypeError):
        mark.write_text(json.dumps({"film": str(file.resolve()), "hash": own}), encoding="utf-8")
        return
    if other != own:
        raise JobsError(f"{results.folder} holds another film than {file.name}. Name another folder for this one.")


def _shots(file: Path, results: Results, settings: FilmSettings, say: Callable[[str], None]) -> tuple[Film, list[Shot]]:
    known = results.folder / "cuts.csv"
    cuts = settings.cuts or (known if known.is_file() else None)
    if cuts is None:
        film, shots = find_shots(file)
        write_cuts(known, film, shots)
        say(f"Found {len(shots)} shots, which are in {known}. Change that table, and the next run takes it.")
    else:
        film = read_film(file)
        shots = read_cuts(cuts, film)
    return film, [replace(shot, values={**settings.values, **shot.values}) for shot in shots]


def _sized(workflow: Workflow, film: Film, size: tuple[int, int] | None) -> Workflow:
    """The workflow with the film's shape in the nodes that bring frames to a size."""
    made = {node: {**entry, "inputs": dict(entry["inputs"])} for node, entry in workflow.items()}
    for entry in made.values():
        if entry["class_type"] in ("STEMVideoLoad", "STEMEditVideo"):
            own = entry["inputs"]
            width, height = size or _shape(film, own.get("width") or 512, own.get("height") or 512)
            own |= {"width": width, "height": height}
    return made


def _shape(film: Film, width: int, height: int) -> tuple[int, int]:
    """(width, height) in the film's shape, with about as many pixels as the given size."""
    ratio, area = film.width * film.pixel_aspect / film.height, width * height
    sides = math.sqrt(area * ratio), math.sqrt(area / ratio)
    multiple = _SMALL_SIDE if min(sides) < _SMALL else _SIDE
    return tuple(max(multiple, round(side / multiple) * multiple) for side in sides)


def _join(
    film: Film, pieces: list[Piece], jobs: list[Job], results: Results, workflow: Workflow, say: Callable[[str], None]
) -> None:
    files = {piece.name: _edited(results, piece) for piece in pieces}
    framing = _framing(workflow)
    made, parts, seams = results.folder / "pieces", [], {}
    made.mkdir(exist_ok=True)
    for shot, group in groupby(pieces, key=lambda piece: piece.shot):
        of_shot = list(group)
        file = files[of_shot[0].name]
        if len(of_shot) > 1:
            paths, file = [files[piece.name] for piece in of_shot], made / f"shot{shot + 1:04d}.mp4"
            encode(faded(of_shot, paths), file, film.rate)
            seams[shot + 1] = found = seam_errors(film, of_shot, paths, framing)
            say(
                f"Shot {shot + 1} is made of {len(of_shot)} parts. Warp error x 1000 where they meet: "
                f"{found.get('seam', math.nan):.2f}; elsewhere: {found.get('inside', math.nan):.2f}."
            )
        parts.append(Part(file, of_shot[0].start, of_shot[-1].end))
    whole = join(film, parts, results.folder / "film")
    mark = results.folder / "film.json"
    shots = [{"start": part.start, "end": part.end} for part in parts]
    content = {**json.loads(mark.read_text(encoding="utf-8")), "shots": shots, "warp_error_at_seams": seams}
    mark.write_text(json.dumps(content, indent=1), encoding="utf-8")
    say(f"The film: {whole}")


def _edited(results: Results, piece: Piece) -> Path:
    """The edited video of a piece, which must have all its frames."""
    names = [Path(name) for name in (results.report(piece.name) or {}).get("files", [])]
    chosen = [name for name in names if name.stem == "edited"] or names
    if len(chosen) != 1:
        raise JobsError(
            f"The workflow saves {', '.join(map(str, names)) or 'nothing'}, so it is not plain which is the edited "
            "shot. Title the node that saves it 'Save edited video'."
        )
    file = results.place(piece.name) / chosen[0]
    if (count := count_frames(file)) != piece.frames:
        raise JobsError(
            f"Shot {piece.shot + 1} came out with {count} frames for {piece.frames}, so it does not fit the film. The "
            "workflow must keep every frame."
        )
    return file


def _framing(workflow: Workflow) -> Framing:
    loader = next(entry["inputs"] for entry in workflow.values() if entry["class_type"] == "STEMVideoLoad")
    return Framing(loader.get("fit", "crop"), loader.get("crop_x", 0.5), loader.get("crop_y", 0.5))

"""Reading jobs: a table (CSV, JSONL, Parquet) or a folder of videos becomes a list of clips with their settings."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VIDEOS = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".gif", ".wmv", ".flv", ".ogv"}
# Names of folders and files on every system, which lead nowhere else.
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_OWN = ("id", "video", "source", "target")
# Read of both ends of a video, to tell it from others of its name.
_ENDS = 1 << 16


class JobsError(ValueError):
    """The table, a file or the workflow is not as it has to be; the message is for a person."""


@dataclass(frozen=True)
class Job:
    """A clip to edit.

    Attributes:
        id: name of its folder among the results.
        video: the file.
        values: what its columns say, by column: "source", "target" or "Node title.field". As text from a CSV.
        row: where it was read, for messages.
    """

    id: str
    video: str
    values: Mapping[str, Any] = field(default_factory=dict)
    row: str = ""

    @property
    def content(self) -> tuple:
        """What two jobs share when they are the same one."""
        return self.video, tuple(sorted((name, str(value)) for name, value in self.values.items()))


def read_jobs(
    path: Path,
    common: Mapping[str, Any] | None = None,
    find: Callable[[str], Path] | None = None,
    more: tuple[str, ...] = (),
) -> tuple[list[Job], list[str]]:
    """The jobs of a table or folder, in their order, and warnings.

    Args:
        common: columns of all clips, where a row does not say otherwise.
        find: where the video is that a cell names; by default its path is from the table's folder.
        more: further columns that the table may have.

    Raises:
        JobsError: with the rows: a column is unknown, a video missing, an id unusable or used for two contents.
    """
    rows = list(_rows(path))
    if not rows:
        raise JobsError(f"{path} holds no jobs. A table needs a row for each clip; a folder needs videos.")
    _check_columns(path, rows, (*_OWN, *more))
    folder = path if path.is_dir() else path.parent
    find = find or (lambda name: folder / Path(name).expanduser())
    jobs: dict[str, Job] = {}
    folded: dict[str, Job] = {}
    warnings = []
    for number, values in rows:
        job = _job(find, number, {**(common or {}), **values})
        known = folded.get(job.id.casefold())
        if known is None:
            jobs[job.id] = folded[job.id.casefold()] = job
        elif known.id == job.id and known.content == job.content:
            warnings.append(f"{job.row} repeats {known.row} ({job.id}); it runs once.")
        elif known.id == job.id:
            raise JobsError(f"{known.row} and {job.row} have the id {job.id!r}, but differ. Give each its own id.")
        else:
            raise JobsError(
                f"{known.row} and {job.row} have the ids {known.id!r} and {job.id!r}, which some file systems take for "
                "one. Give each an id that differs in more than its case."
            )
    return list(jobs.values()), warnings


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row as (where it stands, what is in its cells); empty cells are left out, columns that begin with # too."""
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.suffix.lower() in VIDEOS and file.is_file())
        rows: Iterable = ((file.relative_to(path), {"video": str(file.relative_to(path))}) for file in found)
    elif not path.is_file():
        raise JobsError(f"There is no table or folder at {path}.")
    else:
        readers = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
        if path.suffix.lower() not in readers:
            raise JobsError(f"{path.name} is none of {', '.join(readers)}, nor a folder of videos.")
        rows = readers[path.suffix.lower()](path)
    for where, values in rows:
        kept = {
            name.strip(): value
            for name, value in values.items()
            if value not in (None, "") and not name.startswith("#")
        }
        if kept:
            yield f"{path.name}, {where}", kept


def _csv(path: Path) -> Iterator[tuple[str, dict]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as content:
            reader = csv.DictReader(content, strict=True)
            if doubled := {name for name in reader.fieldnames or () if (reader.fieldnames or ()).count(name) > 1}:
                raise JobsError(f"{path.name} has two columns named {', '.join(sorted(doubled))}. Name each once.")
            for values in reader:
                if None in values:
                    raise JobsError(
                        f"{path.name}, line {reader.line_num} has more cells than there are columns. Put texts that "
                        'hold commas between quotation marks: "a dog, running".'
                    )
                yield f"line {reader.line_num}", values
    except (csv.Error, UnicodeDecodeError) as error:
        raise JobsError(f"{path.name} cannot be read as CSV in UTF-8: {error}.") from None


def _jsonl(path: Path) -> Iterator[tuple[str, dict]]:
    with path.open(encoding="utf-8-sig") as content:
        for number, line in enumerate(content, start=1):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except ValueError as error:
                raise JobsError(f"{path.name}, line {number} is not JSON: {error}.") from None
            if not isinstance(values, dict):
                raise JobsError(f'{path.name}, line {number} is not an object such as {{"video": "a.mp4"}}.')
            yield f"line {number}", values


def _parquet(path: Path) -> Iterator[tuple[str, dict]]:
    try:
        import pyarrow.parquet
    except ImportError:
        raise JobsError(
            f"{path.name} needs pyarrow, which is not installed: pip install pyarrow. CSV and JSONL need nothing."
        ) from None
    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise JobsError(f"{path.name} cannot be read as Parquet: {error}.") from None
    yield from ((f"row {number}", values) for number, values in enumerate(rows, start=1))


def _check_columns(path: Path, rows: list[tuple[str, dict]], known: tuple[str, ...]) -> None:
    columns = {name for _, values in rows for name in values}
    if odd := sorted(name for name in columns if name not in known and "." not in name):
        raise JobsError(
            f"{path.name} has a column {odd[0]!r}, which is none of {', '.join(known)} and names no field of a node as "
            "in 'STEM Bases.num_bases'. To have a column ignored, let its name begin with #."
        )


def _job(find: Callable[[str], Path], where: str, values: Mapping[str, Any]) -> Job:
    if "video" not in values:
        raise JobsError(f"{where} names no video. The column 'video' holds the path of a clip.")
    video = find(str(values["video"]))
    if not video.is_file():
        raise JobsError(f"{where}: there is no video at {video}.")
    settings = {name: value for name, value in values.items() if name not in ("id", "video")}
    name = str(values.get("id") or _name(video, settings))
    if not _ID.fullmatch(name) or name.endswith("."):
        raise JobsError(
            f"{where} has the id {name[:120]!r}. An id names a folder: up to 100 letters, digits, dots, underscores "
            "and hyphens, of which the first is a letter, a digit or an underscore."
        )
    return Job(name, str(video.resolve()), settings, where)


def _name(video: Path, settings: Mapping[str, Any]) -> str:
    """The file's stem, and a hash of what the video and its settings hold."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    add_ends(digest, video, _ENDS)
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", video.stem)[:80] or "clip"
    return f"{stem.lstrip('-') or 'clip'}-{digest.hexdigest()[:8]}"


def add_ends(digest: Any, file: Path, ends: int) -> None:
    """Adds to a hash what tells a file from others without reading it all: its size, and so many bytes of both ends."""
    size = file.stat().st_size
    digest.update(str(size).encode())
    with file.open("rb") as content:
        digest.update(content.read(ends))
        content.seek(max(size - ends, 0))
        digest.update(content.read(ends))

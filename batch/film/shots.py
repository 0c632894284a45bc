"""Where a film's shots begin: found by PySceneDetect, or read from a table or an edit decision list (EDL)."""

from __future__ import annotations

import csv
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..jobs import JobsError
from .division import Shot
from .source import Film, read_film

# Shorter ones are flashes or mistakes more often than shots.
SHORTEST_SHOT = 8
# Pixels that the detector looks at; more finds no more.
_LOOK_WIDTH = 256
# A flash ends within so many frames, with a picture closer to the one before it than this share of the jump.
_FLASH_FRAMES, _FLASH_SHARE = 6, 0.4


def find_shots(file: Path) -> tuple[Film, list[Shot]]:
    """Reads a film and finds its cuts.

    Raises:
        JobsError: PySceneDetect is not installed, or the film cannot be read.
    """
    try:
        from scenedetect import AdaptiveDetector, FrameTimecode, ThresholdDetector
    except ImportError:
        raise JobsError(
            "Finding the cuts of a film needs PySceneDetect: pip install scenedetect-headless. Or name them: --cuts."
        ) from None
    # the second one finds fades through black
    detectors = AdaptiveDetector(min_scene_len=SHORTEST_SHOT), ThresholdDetector(min_scene_len=SHORTEST_SHOT)
    cuts: tuple[list[int], list[int]] = [], []
    thumbnails: list[NDArray[np.uint8]] = []

    def look(number: int, picture: NDArray[np.uint8]) -> None:
        height, width = picture.shape[:2]
        size = (min(width, _LOOK_WIDTH), max(1, round(height * min(1, _LOOK_WIDTH / width))))
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        thumbnails.append(cv2.resize(small, (32, 18), interpolation=cv2.INTER_AREA))
        # they count frames, so the rate does not matter
        pixels = np.ascontiguousarray(small[..., ::-1])
        for detector, found in zip(detectors, cuts, strict=True):
            found += [cut.frame_num for cut in detector.process_frame(FrameTimecode(number, 25.0), pixels)]

    film = read_film(file, look)
    for detector, found in zip(detectors, cuts, strict=True):
        found += [cut.frame_num for cut in detector.post_process(FrameTimecode(film.frames, 25.0))]
    sudden = [cut for cut in cuts[0] if 0 < cut < film.frames and not _is_flash(thumbnails, cut)]
    faded = [cut for cut in cuts[1] if all(abs(cut - other) >= SHORTEST_SHOT for other in (0, film.frames, *sudden))]
    return film, shots_between(film.frames, [*sudden, *faded])


def shots_between(frames: int, cuts: Iterable[int]) -> list[Shot]:
    """The shots of a film of so many frames with cuts before the given ones."""
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < frames}), frames]
    return [Shot(start, end) for start, end in zip(edges, edges[1:], strict=False)]


def read_cuts(path: Path, film: Film) -> list[Shot]:
    """The shots of a CSV, whose rows say where each begins, or of an EDL.

    A row of the CSV has `frame`, a number from 0, or `time`, in seconds or as H:MM:SS.mmm; other columns are those of
    a job: `source`, `target`, `Node title.field`. Columns whose names begin with # are ignored. The first shot begins
    with the film, whatever its row says.

    Raises:
        JobsError: with the row that cannot be used.
    """
    if not path.is_file():
        raise JobsError(f"There is no table of cuts at {path}.")
    if path.suffix.lower() == ".edl":
        return shots_between(film.frames, [_frame_at(film, time) for time in _edl_times(path, film)])
    starts: dict[int, dict[str, Any]] = {}
    with path.open(encoding="utf-8-sig", newline="") as content:
        reader = csv.DictReader(content)
        for row in reader:
            where = f"{path.name}, line {reader.line_num}"
            cells = {name.strip(): cell for name, cell in row.items() if name and cell and not name.startswith("#")}
            start = _start(where, cells, film)
            if starts and start <= max(starts):
                raise JobsError(f"{where} begins at frame {start}, not after the shot before it ({max(starts)}).")
            if start >= film.frames:
                raise JobsError(f"{where} begins at frame {start}; the film has {film.frames}, numbered from 0.")
            starts[start if starts else 0] = {
                name: cell for name, cell in cells.items() if name not in ("frame", "time")
            }
    if not starts:
        raise JobsError(f"{path.name} holds no cuts. It needs a row for each shot: the frame or time of its start.")
    shots = shots_between(film.frames, starts)
    return [Shot(shot.start, shot.end, starts[shot.start]) for shot in shots]


def write_cuts(path: Path, film: Film, shots: Iterable[Shot]) -> None:
    """A table that `read_cuts` reads, with the times to look at, and room for prompts."""
    with path.open("w", encoding="utf-8", newline="") as content:
        writer = csv.writer(content)
        writer.writerow(["frame", "#time", "#frames", "source", "target"])
        for shot in shots:
            writer.writerow([shot.start, f"{float(film.begins[shot.start]):.3f}", shot.end - shot.start, "", ""])


def _is_flash(thumbnails: list[NDArray[np.uint8]], cut: int) -> bool:
    """Whether soon after a cut the picture is what it was before it: lightning, a camera's flash."""

    def difference(one: int, other: int) -> float:
        return float(np.abs(thumbnails[one].astype(np.float32) - thumbnails[other]).mean())

    later = range(cut + 1, min(cut + 1 + _FLASH_FRAMES, len(thumbnails)))
    return min((difference(cut - 1, frame) for frame in later), default=np.inf) < _FLASH_SHARE * difference(
        cut - 1, cut
    )


def _start(where: str, cells: Mapping[str, str], film: Film) -> int:
    if frame := cells.get("frame"):
        if not frame.isdigit():
            raise JobsError(f"{where}: {frame!r} is not the number of a frame, counted from 0.")
        return int(frame)
    if time := cells.get("time"):
        try:
            parts = [Fraction(part) for part in time.split(":")]
            seconds = sum(part * 60**place for place, part in enumerate(reversed(parts)))
        except ValueError:
            raise JobsError(f"{where}: {time!r} is not a time, such as 75.2 or 0:01:15.200.") from None
        return _frame_at(film, seconds)
    raise JobsError(f"{where} has neither a frame nor a time.")


def _frame_at(film: Film, seconds: Fraction) -> int:
    """The first frame that is shown at a time or, within a half of a frame, just before it."""
    return bisect_left(film.begins, seconds - 1 / (2 * film.rate))


def _edl_times(path: Path, film: Film) -> list[Fraction]:
    """Seconds from the first event at which the events of an EDL's video track begin."""
    try:
        import opentimelineio
    except ImportError:
        raise JobsError(
            f"{path.name} needs OpenTimelineIO: pip install opentimelineio otio-cmx3600-adapter. A CSV needs nothing."
        ) from None
    try:
        timeline = opentimelineio.adapters.read_from_file(str(path), "cmx_3600", rate=round(film.rate))
    except Exception as error:  # every adapter raises its own
        raise JobsError(f"{path.name} cannot be read as an EDL: {error}") from None
    tracks = timeline.video_tracks()
    if not tracks:
        raise JobsError(f"{path.name} has no video track.")
    starts = [clip.range_in_parent().start_time for clip in tracks[0].find_clips()]
    # timecode counts frames at the whole rate, also where the film runs at 30000/1001
    return [Fraction(round(start.to_frames())) / film.rate for start in starts]

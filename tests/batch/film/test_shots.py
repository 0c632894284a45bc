"""A film's shots are found, or read from a table or an EDL."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from comfyui_stem.batch.film.division import Shot
from comfyui_stem.batch.film.shots import find_shots, read_cuts, shots_between, write_cuts
from comfyui_stem.batch.film.source import Film, read_film
from comfyui_stem.batch.jobs import JobsError

from .films import HEIGHT, RATE, WIDTH, scene, write

FILM = Film(
    Path("film.mp4"),
    tuple(number / RATE for number in range(200)),
    RATE,
    Fraction(0),
    Fraction(1, 600),
    WIDTH,
    HEIGHT,
    Fraction(1),
)


def test_cuts_are_found_where_they_are_and_a_flash_is_none(tmp_path):
    frames = [*scene(1, 30), *scene(2, 25), *scene(3, 12), *scene(4, 40)]
    for flash in (75, 76):
        frames[flash] = np.full_like(frames[flash], 255)
    film, shots = find_shots(write(tmp_path / "film.mp4", frames))
    assert [(shot.start, shot.end) for shot in shots] == [(0, 30), (30, 55), (55, 67), (67, 107)]
    assert film.frames == 107 and film.begins[24] == 1


def test_a_fade_through_black_is_a_cut_in_its_middle(tmp_path):
    before, after = scene(1, 40), scene(2, 40)
    for step in range(8):
        before[32 + step] = (before[32 + step] * (1 - (step + 1) / 8)).astype(np.uint8)
        after[step] = (after[step] * (step / 8)).astype(np.uint8)
    _, (first, second) = find_shots(write(tmp_path / "film.mp4", [*before, *after]))
    assert 37 <= first.end <= 43 and (first.start, second.end) == (0, 80)


def test_a_film_of_one_shot_is_one_shot(tmp_path):
    _, shots = find_shots(write(tmp_path / "film.mp4", scene(1, 40), sound=None))
    assert shots == [Shot(0, 40)]


def test_the_table_that_is_written_is_read_back(tmp_path):
    shots = shots_between(200, [80, 20, 80, 0, 200])
    write_cuts(tmp_path / "cuts.csv", FILM, shots)
    assert read_cuts(tmp_path / "cuts.csv", FILM) == shots == [Shot(0, 20), Shot(20, 80), Shot(80, 200)]


def test_a_table_of_cuts_gives_each_shot_its_frames_and_prompts(tmp_path):
    (tmp_path / "cuts.csv").write_text(
        "frame,time,target,STEM Bases.num_bases,#note\n0,,a fox,,x\n,2.5,,64,\n,0:00:05.000,a cat,,\n"
    )
    shots = read_cuts(tmp_path / "cuts.csv", FILM)
    assert shots == [
        Shot(0, 60, {"target": "a fox"}),
        Shot(60, 120, {"STEM Bases.num_bases": "64"}),
        Shot(120, 200, {"target": "a cat"}),
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("frame\n", "holds no cuts"),
        ("frame\n0\n40\n40\n", "line 4 begins at frame 40, not after the shot before it"),
        ("frame\n0\n200\n", "line 3 begins at frame 200; the film has 200"),
        ("frame\n0\n1.5\n", "line 3: '1.5' is not the number of a frame"),
        ("time\n0\nsoon\n", "line 3: 'soon' is not a time"),
        ("target\na fox\n", "line 2 has neither a frame nor a time"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_its_line(tmp_path, text, why):
    (tmp_path / "cuts.csv").write_text(text)
    with pytest.raises(JobsError, match=why):
        read_cuts(tmp_path / "cuts.csv", FILM)


def test_an_edl_counts_from_its_first_event(tmp_path):
    pytest.importorskip("opentimelineio")
    (tmp_path / "cuts.edl").write_text(
        "TITLE: FILM\nFCM: NON-DROP FRAME\n\n"
        "001  AX  V  C  00:00:00:00 00:00:02:00 01:00:00:00 01:00:02:00\n"
        "002  AX  V  C  00:00:02:00 00:00:05:12 01:00:02:00 01:00:05:12\n"
        "003  AX  V  C  00:00:05:12 00:00:08:08 01:00:05:12 01:00:08:08\n"
    )
    assert read_cuts(tmp_path / "cuts.edl", FILM) == [Shot(0, 48), Shot(48, 132), Shot(132, 200)]


def test_frames_are_counted_and_timed_as_video_load_does_also_at_a_variable_rate(tmp_path):
    times = [0, 25, 75, 80, 200, 230]
    film = read_film(write(tmp_path / "film.mp4", scene(1, 6), times=times))
    assert film.begins == tuple(Fraction(time, 600) for time in times)


def test_what_is_no_film_is_refused_by_name(tmp_path):
    (tmp_path / "film.mp4").write_bytes(b"no film")
    with pytest.raises(JobsError, match=r"film\.mp4 is not a readable video"):
        read_film(tmp_path / "film.mp4")

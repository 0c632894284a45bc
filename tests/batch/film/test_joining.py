"""Edited shots become a film: their frames at the film's own times, and its sound untouched."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from comfyui_stem.batch.film.division import Division, Shot, divided
from comfyui_stem.batch.film.encoding import Encoding, count_frames, encode
from comfyui_stem.batch.film.joining import Part, faded, join
from comfyui_stem.batch.film.pieces import cut_out
from comfyui_stem.batch.film.source import pictures, read_film
from comfyui_stem.batch.jobs import JobsError

from .films import RATE, scene, shown, sound_packets, write

LENGTHS = (20, 1, 31, 8)


def edited(tmp_path, lengths=LENGTHS, options=None):
    """Shots of other scenes, as ComfyUI would have saved them."""
    parts, start = [], 0
    for number, length in enumerate(lengths):
        file = tmp_path / f"shot{number}.mp4"
        encode(scene(10 + number, length), file, RATE, Encoding(options=(options or {}).get(number, {})))
        parts.append(Part(file, start, start + length))
        start += length
    return parts


@pytest.fixture
def film(tmp_path):
    return read_film(write(tmp_path / "source.mp4", scene(1, sum(LENGTHS))))


def test_the_film_has_the_shots_frames_at_its_own_times_and_its_sound(tmp_path, film):
    parts = edited(tmp_path)
    whole = join(film, parts, tmp_path / "film")
    assert whole == tmp_path / "film.mp4" and sorted(tmp_path.glob("film*")) == [whole]
    found = shown(whole)
    expected = [picture for part in parts for _, picture in shown(part.file)]
    assert len(found) == film.frames == count_frames(whole)
    assert all(np.array_equal(one, other) for (_, one), other in zip(found, expected, strict=True))
    assert [time for time, _ in found] == [film.origin + begin for begin in film.begins]
    assert sound_packets(whole) == sound_packets(film.file)


def test_a_variable_rate_is_kept(tmp_path):
    steps = np.random.default_rng(0).integers(10, 60, sum(LENGTHS))
    times = [int(time) for time in np.cumsum(steps)]
    film = read_film(write(tmp_path / "source.mp4", scene(1, sum(LENGTHS)), times=times))
    found = shown(join(film, edited(tmp_path), tmp_path / "film"))
    assert [time for time, _ in found] == [film.origin + begin for begin in film.begins]
    assert [round(600 * begin) for begin in film.begins] == [time - times[0] for time in times]


def test_sound_that_mp4_does_not_hold_makes_it_matroska_and_no_sound_stays_none(tmp_path):
    film = read_film(write(tmp_path / "source.mkv", scene(1, sum(LENGTHS)), sound="wavpack"))
    whole = join(film, edited(tmp_path), tmp_path / "film")
    assert whole.suffix == ".mkv"
    assert [content for _, content in sound_packets(whole)] == [content for _, content in sound_packets(film.file)]
    silent = read_film(write(tmp_path / "silent.mp4", scene(1, sum(LENGTHS)), sound=None))
    assert len(shown(join(silent, edited(tmp_path), tmp_path / "silent film"))) == silent.frames


def test_shots_that_one_decoder_cannot_read_in_a_row_are_encoded_anew(tmp_path, film):
    parts = edited(tmp_path, options={2: {"crf": "20", "refs": "1"}})
    found = shown(join(film, parts, tmp_path / "film"))
    expected = [picture for part in parts for _, picture in shown(part.file)]
    error = [np.abs(one.astype(float) - other).mean() for (_, one), other in zip(found, expected, strict=True)]
    assert 0 < max(error) < 4


def test_shots_that_do_not_make_a_film_are_refused(tmp_path, film):
    parts = edited(tmp_path)
    with pytest.raises(JobsError, match="do not cover the film"):
        join(film, parts[:-1], tmp_path / "film")
    encode([picture[:32] for picture in scene(3, 8)], parts[-1].file, RATE)
    with pytest.raises(JobsError, match="differ in size .96x64 from frame 0, 96x32 from frame 52"):
        join(film, parts, tmp_path / "film")
    assert not list(tmp_path.glob("film*"))


def test_parts_of_a_shot_fade_into_each_other_without_their_anchors(tmp_path):
    pieces = divided([Shot(0, 50)], Division(24, 6, 2))
    grey, files = 100, []
    for number, piece in enumerate(pieces):
        level = grey * (number % 2)
        frames = [np.full((64, 96, 3), 255, np.uint8)] * 2 + [np.full((64, 96, 3), level, np.uint8)] * (
            piece.frames - 2
        )
        files.append(tmp_path / f"{number}.mp4")
        encode(frames, files[-1], RATE, Encoding(options={"crf": "1"}))
    levels = [picture.mean() for picture in faded(pieces, files)]
    assert len(levels) == 50 and max(levels) < 130
    first, second = pieces[:2]
    rising = levels[second.start - 1 : first.end + 1]
    assert levels[0] < 3 and abs(levels[first.end] - grey) < 3
    steps = np.diff(rising)
    assert np.allclose(steps, grey / len(steps), atol=3)


def test_a_piece_with_anchors_is_cut_out_without_loss(tmp_path):
    film = read_film(write(tmp_path / "source.mp4", scene(1, 60)))
    piece = divided([Shot(0, 60)], Division(40, 6, 3))[1]
    cut_out(film, piece, tmp_path / "pieces" / "piece.mkv")
    cut = list(pictures(tmp_path / "pieces" / "piece.mkv", 0, piece.frames))
    whole = list(pictures(film.file, 0, 60))
    wanted = [whole[number] for number in (*piece.anchors, *range(piece.start, piece.end))]
    assert len(cut) == piece.frames and all(map(np.array_equal, cut, wanted))
    assert read_film(tmp_path / "pieces" / "piece.mkv").rate == Fraction(24)

"""The command itself: a film of two shots, of which one is edited in parts, through a real ComfyUI."""

from __future__ import annotations

import json

import numpy as np
import pytest
from comfyui_stem.batch.film.source import read_film
from comfyui_stem.tests.batch.alone import finish, start
from comfyui_stem.tools import locations

from .films import scene, shown, sound_packets, write

pytestmark = pytest.mark.host
LENGTHS = 5, 12


def test_a_film_comes_out_with_its_shots_edited_its_times_and_its_sound(tmp_path):
    where, out = locations.from_environment(), tmp_path / "out"
    frames = [picture for number, length in enumerate(LENGTHS) for picture in scene(number, length)]
    film = write(tmp_path / "film.mp4", frames)
    (tmp_path / "cuts.csv").write_text("frame,target\n0,a fox\n5,a cat\n")
    tiny = ["--checkpoint", where.checkpoint, "--pack", locations.TOOLS / "host" / "tiny_sd15"]
    options = [
        "--cuts",
        tmp_path / "cuts.csv",
        "--source",
        "a dog",
        "--set",
        "Edit Video by Text.steps=2",
        "--workers",
        1,
    ]
    division = ["--size", "64x64", "--longest", 9, "--overlap", 2, "--anchors", 1]
    hosts = ["--comfyui", where.host, "--python", where.host_python, *tiny]
    command = ["film", film, out, *hosts, *options, *division]
    process = start(*command, program=[locations.ROOT / "batch"])
    said = finish(process, 240)
    assert process.returncode == 0, said
    assert "17 frames, 2 shots, 3 clips to edit" in said
    edited = shown(out / "film.mp4")
    assert [time for time, _ in edited] == list(read_film(film).begins)
    assert sound_packets(out / "film.mp4") == sound_packets(film)
    (first,) = out.glob("clips/*/shot0001-*/edited.mp4")
    assert all(np.array_equal(one, other) for (_, one), (_, other) in zip(edited, shown(first), strict=False))
    made = json.loads((out / "film.json").read_text())
    assert made["shots"] == [{"start": 0, "end": 5}, {"start": 5, "end": 17}]
    assert set(made["warp_error_at_seams"]["2"]) == {"seam", "inside"}
    reports = [json.loads(file.read_text()) for file in out.glob("clips/*/*/report.json")]
    assert sorted(report["values"]["target"] for report in reports) == ["a cat", "a cat", "a fox"]
    assert not (out / "pieces").exists()
    # the same command again finds all shots done, and joins them again without a ComfyUI
    again = start(*command, program=[locations.ROOT / "batch"])
    assert "3 of 3 clips are done already" in finish(again) and again.returncode == 0
    other = write(tmp_path / "other.mp4", frames[:9])
    refused = start("film", other, out, *hosts, *options, program=[locations.ROOT / "batch"])
    assert "holds another film than other.mp4" in finish(refused) and refused.returncode == 1

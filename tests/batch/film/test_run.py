"""The command itself: a film of two shots, of which one is edited in parts, through a real ComfyUI."""

from __future__ import annotations

import json

import numpy as np
import pytest
from comfyui_stem.batch.film.source import read_film
from comfyui_stem.tools import locations
from comfyui_stem.tools.robustness.batch_runs.driver import BATCH, Driver
from comfyui_stem.tools.robustness.batch_runs.machines import CannotSeparate, machines

from .films import scene, shown, sound_packets, write

pytestmark = pytest.mark.host
LENGTHS = 5, 12


def test_a_film_comes_out_with_its_shots_edited_its_times_and_its_sound(tmp_path):
    where, out = locations.from_environment(), tmp_path / "out"
    frames = [picture for number, length in enumerate(LENGTHS) for picture in scene(number, length)]
    film, other = write(tmp_path / "film.mp4", frames), write(tmp_path / "other.mp4", frames[:9])
    (tmp_path / "cuts.csv").write_text("frame,target\n0,a fox\n5,a cat\n")
    tiny = ["--checkpoint", where.checkpoint, "--pack", locations.TOOLS / "host" / "tiny_sd15"]
    hosts = ["--comfyui", where.host, "--python", where.host_python, *tiny, "--workers", 1]
    prompts = ["--cuts", tmp_path / "cuts.csv", "--source", "a dog", "--set", "Edit Video by Text.steps=2"]
    division = ["--size", "64x64", "--longest", 9, "--overlap", 2, "--anchors", 1]
    try:
        with machines("192.0.2.1", "192.0.2.2") as (machine, _):
            # the second time all shots are done, and are only joined again
            said, status = zip(
                *(ended(machine, film, out, *hosts, *prompts, *division) for film in (film, film, other)), strict=True
            )
    except CannotSeparate as error:
        pytest.skip(f"this machine does not allow network namespaces: {error}")
    assert status == (0, 0, 1), said
    assert "17 frames, 2 shots, 3 clips to edit" in said[0] and "3 of 3 clips are done already" in said[1]
    assert "holds another film than other.mp4" in said[2]
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


def ended(machine, *arguments):
    """What the command says, and its exit status."""
    run = Driver(machine, BATCH, "film", *arguments)
    return run.said(240), run.process.returncode

"""`make evaluate` from end to end on the tiny checkpoint, with real Ray and ComfyUI processes, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from comfyui_stem.tools import locations
from comfyui_stem.tools.demo.pictures import write_mp4
from comfyui_stem.tools.measured import evaluate
from comfyui_stem.tools.measured.evaluate.example import RATE

# Nothing goes out, and nothing comes in: Ray takes the machine's own address even where 127.0.0.1 is named.
ALONE = ["unshare", "--net", "--", "bash", "-c", 'ip link set lo up && exec "$@"', "alone"]


@pytest.fixture
def clips(tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    for number in range(2):
        frames = np.full((4, 64, 64, 3), 60 + 40 * number, np.uint8)
        for step, frame in enumerate(frames):
            frame[8 + 4 * step : 30 + 4 * step, 20:44] = (200, 30, 30)
        write_mp4(folder / f"clip{number}.mp4", frames, RATE)
    rows = [f"clip{number},clip{number}.mp4,a red square,a blue square,colour" for number in range(2)]
    (tmp_path / "prompts.csv").write_text("\n".join(["id,video,source,target,edit", *rows]))
    return folder


def arguments(clips, out, methods, *more):
    where = locations.from_environment()
    fixed = {"clips": clips, "prompts": clips.parent / "prompts.csv", "checkpoint": where.checkpoint, "out": out}
    fixed |= {"methods": methods, "bases": "8 4", "size": "64x64", "frames": 4, "steps": 2, "workers": 1}
    return [*(f"--{name}={value}" for name, value in fixed.items()), *more]


def start(options):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    command = [*ALONE, sys.executable, str(locations.TOOLS / "launch.py"), "measured.evaluate", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def can_be_alone():
    try:
        return subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.host
@pytest.mark.skipif(not can_be_alone(), reason="this machine does not allow network namespaces")
def test_an_evaluation_ends_with_its_page_and_the_same_command_runs_nothing_twice(clips, tmp_path, capsys):
    out = tmp_path / "out"
    options = arguments(clips, out, "stem-tokenflow")
    process = start(options)
    try:
        said = process.communicate(timeout=240)[0]
    finally:
        process.kill()
    assert process.returncode == 0, said
    reports = list(out.glob("stem-tokenflow/clips/*/*/report.json"))
    assert {file.parent.name for file in reports} == {f"clip{n}.k{k}" for n in range(2) for k in (8, 4)}
    report = json.loads(reports[0].read_text())
    assert report["seconds_per_step"]["STEM Inversion"] > 0 and report["peak_memory_mb"] > 100
    text = (out / "report.md").read_text()
    assert "on 2 clips (64x64, up to 4 frames), 2 edits, 2 steps" in text and "What is missing" not in text
    assert "| STEM-TokenFlow |" in text and "Fig. 3" in text
    (out / "report.md").unlink()
    assert evaluate.main(options) == 0
    assert "4 of 4 clips are done already" in capsys.readouterr().out
    assert (out / "report.md").read_text() == text
    events = (out / "stem-tokenflow" / "events.jsonl").read_text()
    assert events.count('"event": "started"') == 1
    other = [*options, "--steps=3"]
    assert evaluate.main(other) == 1
    assert "was made with another workflow. Name another folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"methods": "ddim-pix2pix"}, "There is no method 'ddim-pix2pix'; there are inversion, ddim-fatezero"),
        ({"prompts": ""}, "CLIPS .* and PROMPTS .* go together"),
        ({"clips": "", "prompts": ""}, "A checkpoint of your own needs clips of your own"),
        ({"checkpoint": "no.safetensors"}, "There is no file .*no.safetensors"),
        ({"clip-vision": "CHECKPOINT"}, "needs both models"),
        ({"size": "512"}, "SIZE is '512'; write width and height: 512x512"),
        ({"bases": "many"}, "BASES is 'many'; it takes whole numbers"),
    ],
)
def test_what_cannot_be_run_is_refused_by_name_before_anything_starts(clips, tmp_path, capsys, changed, why):
    checkpoint = str(tmp_path / "sd15.safetensors")
    (tmp_path / "sd15.safetensors").touch()
    given = dict(option[2:].split("=", 1) for option in arguments(clips, tmp_path / "out", "inversion"))
    given |= {"checkpoint": checkpoint}
    given |= {name: checkpoint if value == "CHECKPOINT" else value for name, value in changed.items()}
    assert evaluate.main([f"--{name}={value}" for name, value in given.items()]) == 1
    said = capsys.readouterr().err
    assert re.search(why, said), said
    assert not (tmp_path / "out").exists()


def test_the_example_has_its_clips_and_their_prompts_and_writes_them_once(tmp_path):
    table = evaluate.example.write(tmp_path, 3, 2)
    edits = evaluate.read_edits(table.parent, table, tmp_path / "made")
    assert [edit.id for edit in edits] == ["clip00", "clip01", "clip02"]
    assert {edit.kind for edit in edits} == {"object", "style", "colour"}
    before = [file.stat().st_mtime_ns for file in sorted(tmp_path.glob("*.mp4"))]
    evaluate.example.write(tmp_path, 3, 2)
    assert [file.stat().st_mtime_ns for file in sorted(tmp_path.glob("*.mp4"))] == before

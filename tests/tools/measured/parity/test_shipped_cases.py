"""`make parity` on the cases in tests/data, and on copies of them with a wrong number."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from comfyui_stem.tools.measured import parity
from comfyui_stem.tools.measured.parity import ddim
from comfyui_stem.tools.measured.parity.comparison import Comparison
from safetensors.torch import load_file, save_file

DATA = Path(__file__).parents[3] / "data"


@pytest.fixture
def copy(tmp_path):
    return Path(shutil.copytree(DATA, tmp_path / "recorded"))


@pytest.fixture
def run(monkeypatch, capsys):
    """Exit status and lines of a run; the tests have made ComfyUI importable already."""
    monkeypatch.setattr(parity, "use_host", lambda host: None)

    def main(*arguments):
        status = parity.main(arguments)
        return status, capsys.readouterr().out.splitlines()

    return main


def failed(lines):
    """The names of the cases that failed."""
    return [line.split("  ")[0] for line in lines[:-1] if line.endswith(" FAIL")]


def edit_json(path, change):
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")


def edit_array(path, name, change):
    arrays = load_file(path)
    change(arrays[name])
    save_file(arrays, path)


def test_every_shipped_case_is_ok_and_every_group_that_is_shipped_runs(run):
    status, (*lines, summary) = run()
    assert all(line.endswith(" ok") for line in lines)
    assert summary == f"{len(lines)} of {len(lines)} cases ok"
    assert status == 0
    kinds = Counter(line.split()[0].split(".")[0].rstrip("0123456789") for line in lines)
    assert set(kinds) >= {"schedule", "em", "pair", "alpha", "propagation"}
    assert (kinds["schedule"], kinds["em"], kinds["propagation"]) == (4, 4 * 3, 1)


def test_a_wrong_number_fails_its_case_and_the_command(copy, run):
    edit_json(copy / "propagation.json", lambda recorded: recorded["weights"].__setitem__(9, 0.66))
    status, lines = run("--golden", str(copy), "--only", "propagation")
    assert status == 1
    assert failed(lines) == ["propagation weights of 16 frames, batches of 8"]
    assert lines[-1] == "0 of 1 cases ok, 1 FAIL"


def change_one(array):
    array.view(-1)[array.abs().argmax()] *= 1.05


@pytest.mark.parametrize("part", ["k_bases", "v_bases", "mass"])
@pytest.mark.parametrize(
    "case", ["em.h8_m320_d4_k16", "em.h8_m96_d16_k16_r3", "em.h2_m20_d16_k32", "em.h2_m64_d8_k16_const"]
)
def test_a_wrong_result_of_em_fails_its_case_alone(copy, run, case, part):
    edit_array(copy / "em.safetensors", f"{case}.{part}", change_one)
    status, lines = run("--golden", str(copy), "--only", "em")
    assert status == 1
    assert failed(lines) == [f"{case} {part}"]


def test_em_run_for_fewer_iterations_than_were_recorded_fails(copy, run):
    edit_json(copy / "em.json", lambda runs: runs["em.h8_m320_d4_k16"].update(n_iters=4))
    status, lines = run("--golden", str(copy), "--only", "em")
    assert status == 1
    assert failed(lines) == [f"em.h8_m320_d4_k16 {part}" for part in ("k_bases", "v_bases", "mass")]


def test_a_wrong_timestep_fails_its_schedule_alone(copy, run):
    edit_json(copy / "ddim.json", lambda runs: runs["n8_16x16.T50"]["timesteps"].__setitem__(49, 999))
    status, lines = run("--golden", str(copy), "--only", "schedule")
    assert status == 1
    assert failed(lines) == ["schedule n8_16x16.T50"]


@pytest.mark.parametrize("frame", [0, 8, 15])
def test_a_weight_that_is_off_by_more_than_its_rounding_fails(copy, run, frame):
    def change(recorded):
        recorded["weights"][frame] -= 0.001

    edit_json(copy / "propagation.json", change)
    assert run("--golden", str(copy), "--only", "propagation")[0] == 1


def test_a_group_without_data_does_not_run_and_a_run_without_cases_is_no_success(copy, run):
    assert run("--golden", str(copy), "--only", "ddim") == (1, ["0 of 0 cases ok"])
    for file in copy.iterdir():
        file.unlink()
    assert run("--golden", str(copy)) == (1, ["0 of 0 cases ok"])


def test_inversions_run_where_their_latents_are(copy, run, monkeypatch):
    monkeypatch.setattr(ddim, "comparisons", lambda folder: [Comparison("ddim", 0.0, 0.0)])
    (copy / "ddim.safetensors").touch()
    assert run("--golden", str(copy), "--only", "ddim")[0] == 0


def test_a_folder_that_is_not_there_is_refused(run, tmp_path, capsys):
    assert parity.main(["--golden", str(tmp_path / "nowhere")]) == 2
    assert "nowhere is not a folder" in capsys.readouterr().err


def test_a_case_whose_error_is_not_a_number_fails():
    assert not Comparison("nan", float("nan"), 1.0).ok
    assert Comparison("at the limit", 1e-4, 1e-4).ok

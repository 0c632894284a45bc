"""Real ComfyUIs on one machine: the command itself, with the generated tiny checkpoint."""

from __future__ import annotations

import json

import psutil
import pytest
from comfyui_stem.tools.demo import CLIP
from comfyui_stem.tools.robustness.batch_runs.driver import Driver, done, whole
from comfyui_stem.tools.robustness.batch_runs.machines import CannotSeparate, machines, until
from comfyui_stem.tools.robustness.faults.many_clips import ids, main_of_comfyui, real_run, same_frames

pytestmark = pytest.mark.host
STRANGER = "import sys; from ray._raylet import GcsClient; GcsClient(address=sys.argv[1])"


def test_clips_come_out_whole_though_a_worker_is_killed_and_nobody_else_can_connect(tmp_path):
    out = tmp_path / "out"
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    rows = [f"good{number},{CLIP},a rabbit,a red rabbit,{cfg}" for number, cfg in enumerate((3, 3, 4))]
    rows += [f"bad,{tmp_path}/broken.mp4,a rabbit,a red rabbit,"]
    try:
        with machines("192.0.2.1", "192.0.2.2") as (machine, _):
            run = real_run(machine, tmp_path, rows)
            until(lambda: ids(out, "sent"))
            assert listening(machine) == {"127.0.0.1"}
            seen = run.processes()
            (comfyui,), (actor,) = run.processes(main_of_comfyui()), run.processes("ray::Worker")
            actor.kill()
            assert comfyui in psutil.wait_procs([comfyui], timeout=10)[0]
            stranger = Driver(machine, ("-c", STRANGER), address_of_ray(run))
            assert "Authentication token is missing or incorrect" in stranger.said()
            said = run.said(240)
            assert not [one for one in seen if one.is_running()]
    except CannotSeparate as error:
        pytest.skip(f"this machine does not allow network namespaces: {error}")
    assert run.process.returncode == 3, said
    assert set(done(out)) == {"good0", "good1", "good2"} and whole(out)
    assert len(ids(out, "lost")) == 1
    (failure,) = (out / "failed").glob("*.json")
    assert "Video Load" in json.loads(failure.read_text())["reason"]
    assert same_frames(out, "good0", "good1") and not same_frames(out, "good0", "good2")
    reports = [json.loads(file.read_text()) for file in out.glob("clips/*/*/report.json")]
    # of one video only the first clip inverts it, and the first after the worker was killed
    assert 1 <= sum("STEM Inversion" in report["seconds_by_node"] for report in reports) <= 2


def address_of_ray(run):
    """Of its store, as its node was told."""
    (raylet,) = run.processes("/raylet/raylet ")
    return next(part for part in raylet.cmdline() if part.startswith("--gcs-address=")).partition("=")[2]


def listening(machine):
    """The addresses at which anything on a machine waits for others."""
    found = [line.split()[3] for line in machine.call("ss", "-ltnH").splitlines()]
    # Ray's store, its node, the two processes of the worker's connection, the driver, ComfyUI
    assert len(found) > 5
    return {address.rpartition(":")[0].strip("[]").removeprefix("::ffff:") for address in found}

"""Real ComfyUIs on one machine: the command itself, with the generated tiny checkpoint."""

from __future__ import annotations

import json

import av
import numpy as np
import psutil
import pytest
from comfyui_stem.tools import locations
from comfyui_stem.tools.demo import CLIP
from comfyui_stem.tools.robustness.batch_runs.driver import BATCH, Driver, done, events, whole
from comfyui_stem.tools.robustness.batch_runs.machines import CannotSeparate, machines, until
from comfyui_stem.tools.robustness.faults.graphs import small

pytestmark = pytest.mark.host


def test_clips_come_out_whole_though_a_worker_is_killed_and_nobody_outside_can_connect(tmp_path):
    where = locations.from_environment()
    out = tmp_path / "out"
    (tmp_path / "workflow.json").write_text(json.dumps(small("stem_tokenflow_edit", "")))
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    rows = [f"good{number},{CLIP},a rabbit,a red rabbit,{3 + number % 2}" for number in range(4)]
    rows += [f"bad,{tmp_path}/broken.mp4,a rabbit,a red rabbit,"]
    (tmp_path / "jobs.csv").write_text("\n".join(["id,video,source,target,TokenFlow Edit.cfg", *rows]))
    main = str(where.host / "main.py")
    tiny = ["--checkpoint", where.checkpoint, "--pack", locations.TOOLS / "host" / "tiny_sd15"]
    options = ["--comfyui", where.host, "--python", where.host_python, *tiny, "--workers", 1]
    try:
        with machines("192.0.2.1", "192.0.2.2") as (machine, _):
            run = Driver(machine, BATCH, "run", tmp_path / "jobs.csv", tmp_path / "workflow.json", out, *options)
            until(lambda: events(out, "sent"))
            assert listening(machine) == {"127.0.0.1"}
            seen = run.processes()
            (comfyui,), (actor,) = run.processes(main), run.processes("ray::Worker")
            actor.kill()
            assert comfyui in psutil.wait_procs([comfyui], timeout=10)[0]
            said = run.said(240)
            assert not [one for one in seen if one.is_running()]
    except CannotSeparate as error:
        pytest.skip(f"this machine does not allow network namespaces: {error}")
    assert run.process.returncode == 3, said
    assert set(done(out)) == {f"good{number}" for number in range(4)} and whole(out)
    assert [event["id"] for event in events(out, "lost")] == ["good0"]
    (failure,) = (out / "failed").glob("*.json")
    assert "Video Load" in json.loads(failure.read_text())["reason"]
    edits = [decoded(next(out.glob(f"clips/*/good{number}/edited.mp4"))) for number in range(4)]
    assert np.array_equal(edits[0], edits[2]) and np.array_equal(edits[1], edits[3])
    assert not np.array_equal(edits[0], edits[1])
    reports = [json.loads(file.read_text()) for file in out.glob("clips/*/*/report.json")]
    # of one video only the first clip inverts it, and the first after the worker was killed
    assert 1 <= sum("STEM Inversion" in report["seconds_by_node"] for report in reports) <= 2


def listening(machine):
    """The addresses at which anything on a machine waits for others."""
    found = [line.split()[3] for line in machine.call("ss", "-ltnH").splitlines()]
    # Ray's store, its node, the two processes of the worker's connection, the driver, ComfyUI
    assert len(found) > 5
    return {address.rpartition(":")[0].strip("[]").removeprefix("::ffff:") for address in found}


def decoded(file):
    with av.open(str(file)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])

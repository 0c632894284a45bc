"""The loop with real Ray processes, in a network that holds this machine's loopback interface alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import psutil
import pytest
from comfyui_stem.tools import locations

STUB = Path(__file__).with_name("stub_worker.py")
# Nothing goes out, and nothing comes in: Ray takes the machine's own address even where 127.0.0.1 is named.
ALONE = ["unshare", "--net", "--", "bash", "-c", 'ip link set lo up && exec "$@"', "alone"]


def can_be_alone():
    try:
        return subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


pytestmark = pytest.mark.skipif(not can_be_alone(), reason="this machine does not allow network namespaces")


def start(*arguments, program=(STUB,)):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return subprocess.Popen(
        [*ALONE, sys.executable, *map(str, program), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def finish(process, seconds=120):
    try:
        return process.communicate(timeout=seconds)[0]
    finally:
        process.kill()


def events(out, kind=None):
    file = Path(out) / "events.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    return [line for line in lines if kind in (None, line["event"])]


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def done(out):
    return {report.parent.name for report in Path(out).glob("clips/*/*/report.json")}


def ray_processes():
    named = psutil.process_iter(["name"])
    return {process.pid for process in named if process.info["name"] in ("raylet", "gcs_server")}


def test_each_clip_ends_as_it_has_to_whatever_its_worker_meets(tmp_path):
    """One run of Ray for all of it: starting Ray takes most of the time."""
    before = ray_processes()
    process = start(tmp_path, "a,once,broken,b,hungry,deadly,c")
    said = finish(process)
    assert process.returncode == 3, said
    assert done(tmp_path) == {"a", "b", "c", "once", "hungry"}
    assert "deadly runs again" in said and "broken failed: Video Load failed: it is broken" in said
    failed = {event["id"]: event for event in events(tmp_path, "failed")}
    assert set(failed) == {"broken", "deadly"} and failed["deadly"]["kind"] == "kills its worker"
    losses = [event["id"] for event in events(tmp_path, "lost")]
    assert sorted(losses) == ["deadly"] * 5 + ["once"]
    (report,) = tmp_path.glob("clips/*/hungry/report.json")
    assert json.loads(report.read_text())["less_memory"]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["done"], summary["failed"], summary["open"]) == (5, 2, 0)
    assert not ray_processes() - before and not (tmp_path / "lock.json").exists()
    # the same command again: what is done or has failed is left, and Ray is not even started
    again = start(tmp_path, "a,once,broken,b,hungry,deadly,c")
    assert "5 of 7 clips are done already" in finish(again) and again.returncode == 3


def test_after_the_driver_is_killed_the_same_command_does_the_rest(tmp_path):
    before, names = ray_processes(), ",".join(f"c{number}" for number in range(8))
    first = start(tmp_path, names, 0.5)
    until(lambda: len(done(tmp_path)) >= 2)
    other = start(tmp_path, names)
    assert "is in use by" in finish(other) and other.returncode == 1
    first.kill()
    first.communicate()
    until(lambda: not ray_processes() - before)
    kept = {name: (next(tmp_path.glob(f"clips/*/{name}/report.json"))).stat().st_mtime_ns for name in done(tmp_path)}
    assert len(kept) < 8
    second = start(tmp_path, names, 0.05)
    said = finish(second)
    assert second.returncode == 0, said
    assert len(done(tmp_path)) == 8
    for name, when in kept.items():
        assert next(tmp_path.glob(f"clips/*/{name}/report.json")).stat().st_mtime_ns == when


@pytest.mark.parametrize(("times", "seconds"), [(1, 1.5), (2, 300)])
def test_interrupted_once_it_lets_clips_end_and_twice_it_breaks_them_off(tmp_path, times, seconds):
    process = start(tmp_path, ",".join(f"c{number}" for number in range(9)), seconds)
    until(lambda: len(events(tmp_path, "sent")) >= 2)
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children()]
    driver = next(one for one in family if str(STUB) in one.cmdline() and "unshare" not in one.cmdline())
    for _ in range(times):
        driver.send_signal(signal.SIGINT)
        time.sleep(0.7)
    said = finish(process)
    assert process.returncode == 130, said
    assert "The same command goes on" in said
    ended = done(tmp_path)
    assert len(ended) == (len(events(tmp_path, "sent")) if times == 1 else 0)
    assert not (tmp_path / "lock.json").exists()


def test_without_a_token_a_cluster_is_not_even_asked(tmp_path):
    script = f"""
import importlib, runpy, sys
runpy.run_path({str(STUB)!r})
cluster = importlib.import_module("comfyui_stem.batch.cluster")
try:
    cluster.start_ray("127.0.0.1:6379")
except ValueError as error:
    print(error)
"""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {"HOME": str(tmp_path)}
    command = [sys.executable, "-c", script]
    answer = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert "127.0.0.1:6379 needs a token" in answer.stdout and "RAY_AUTH_MODE=token" in answer.stdout


@pytest.mark.host
def test_real_clips_come_out_whole_where_a_comfyui_is_killed_and_a_clip_is_broken(tmp_path, clip):
    """The command itself, with the generated tiny checkpoint."""
    where = locations.from_environment()
    workflow = json.loads((locations.ROOT / "workflows" / "api" / "stem_tokenflow_edit.json").read_text())
    small = {
        "Video Load": {"width": 64, "height": 64, "frame_cap": 4},
        "Load Checkpoint": {"ckpt_name": where.checkpoint.name},
        "STEM Bases": {"num_bases": 8},
        "STEM Inversion": {"steps": 2},
    }
    for node in workflow.values():
        node["inputs"] |= small.get(node["_meta"]["title"], {})
    (tmp_path / "workflow.json").write_text(json.dumps(workflow))
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    rows = ["id,video,source,target,TokenFlow Edit.cfg"]
    rows += [f"good{number},{clip},a square,a red square,{3 + number % 2}" for number in range(4)]
    (tmp_path / "jobs.csv").write_text("\n".join([*rows, f"bad,{tmp_path}/broken.mp4,a square,a red square,"]))
    out = tmp_path / "out"
    files = ["run", tmp_path / "jobs.csv", tmp_path / "workflow.json", out]
    tiny = ["--checkpoint", where.checkpoint, "--pack", locations.TOOLS / "host" / "tiny_sd15"]
    options = ["--comfyui", where.host, "--python", where.host_python, *tiny, "--workers", 1]
    process = start(*files, *options, program=[locations.ROOT / "batch"])
    until(lambda: len(events(out, "sent")) >= 2, 120)
    comfyui_of(process.pid).kill()
    said = finish(process, 240)
    assert process.returncode == 3, said
    assert done(out) == {f"good{number}" for number in range(4)}
    (failure,) = (out / "failed").glob("*.json")
    assert "Video Load" in json.loads(failure.read_text())["reason"]
    assert len(events(out, "lost")) == 1
    edits = [decoded(next(out.glob(f"clips/*/good{number}/edited.mp4"))) for number in range(4)]
    assert np.array_equal(edits[0], edits[2]) and np.array_equal(edits[1], edits[3])
    assert not np.array_equal(edits[0], edits[1])
    reports = [json.loads(file.read_text()) for file in out.glob("clips/*/*/report.json")]
    # of one video only the first, and the first after ComfyUI was killed, invert it
    assert sum("STEM Inversion" in report["seconds_by_node"] for report in reports) <= 2


def comfyui_of(driver):
    """The ComfyUI that a run's worker has started."""
    folder = str(locations.from_environment().host / "main.py")
    family = psutil.Process(driver).children(recursive=True)
    return next(one for one in family if folder in one.cmdline())


@pytest.fixture
def clip(tmp_path):
    file = tmp_path / "clip.mp4"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width = stream.height = 64
        for number in range(4):
            frame = np.full((64, 64, 3), 60, np.uint8)
            frame[8 + 4 * number : 30 + 4 * number, 20:44] = 200
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())
    return file


def decoded(file):
    with av.open(str(file)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])

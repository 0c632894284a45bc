"""The folder of a run: whole clips or none, one driver, and tables of what became of all."""

from __future__ import annotations

import csv
import json
import os
import shutil
import time

import pytest
from comfyui_stem.batch import results as results_module
from comfyui_stem.batch.jobs import Job, JobsError
from comfyui_stem.batch.results import Results


@pytest.fixture
def results(tmp_path):
    (tmp_path / "out").mkdir()
    return Results(tmp_path / "out")


def video(folder, content=b"frames"):
    (folder / "made.mp4").write_bytes(content)
    return {"edited.mp4": folder / "made.mp4"}


def test_a_clip_is_done_when_it_is_whole(results, tmp_path):
    assert not results.is_done("one") and results.report("one") is None
    results.fail("one", {"reason": "before"})
    assert results.commit("one", video(tmp_path), {"files": ["edited.mp4"]})
    assert results.is_done("one") and results.failure("one") is None
    assert (results.place("one") / "edited.mp4").read_bytes() == b"frames"
    assert not list((results.folder / "tmp").iterdir())


def test_of_two_that_finish_a_clip_the_first_stays(results, tmp_path):
    assert results.commit("one", video(tmp_path, b"first"), {"by": 1})
    assert not results.commit("one", video(tmp_path, b"second"), {"by": 2})
    assert results.report("one") == {"by": 1}
    assert (results.place("one") / "edited.mp4").read_bytes() == b"first"
    assert not list((results.folder / "tmp").iterdir())


def test_a_full_disk_leaves_nothing_of_a_clip(results, tmp_path, monkeypatch):
    def full(file, target):
        shutil.copyfile(file, target)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(results_module.shutil, "move", full)
    with pytest.raises(OSError, match="No space left"):
        results.commit("one", video(tmp_path), {})
    assert not results.is_done("one") and not list((results.folder / "tmp").iterdir())


def test_a_second_driver_is_refused_by_the_firsts_name(results):
    with results.lock():
        with pytest.raises(JobsError, match=rf"in use by .*, process {os.getpid()}, seen 0 s ago. Wait for it"):
            with results.lock():
                pass
        assert f"process {os.getpid()}" in results.owner()
    assert results.owner() is None
    with results.lock():
        pass


@pytest.mark.parametrize("gone", ["its process has ended", "no heartbeat"])
def test_the_lock_of_a_driver_that_is_gone_is_taken_over(results, gone):
    own = {"owner": "x", "host": "another machine", "pid": 1}
    if gone == "its process has ended":
        own |= {"host": os.uname().nodename, "pid": 2**22 + 1}
    file = results.folder / "lock.json"
    file.write_text(json.dumps(own))
    if gone == "no heartbeat":
        old = time.time() - results_module.STALE_SECONDS - 1
        os.utime(file, (old, old))
    with results.lock():
        assert json.loads(file.read_text())["pid"] == os.getpid()


def test_a_driver_whose_lock_was_taken_over_stops(results, monkeypatch):
    monkeypatch.setattr(results_module, "HEARTBEAT_SECONDS", 0)
    with results.lock() as heart:
        heart.beat()
        (results.folder / "lock.json").write_text(json.dumps({"key": "another"}))
        with pytest.raises(JobsError, match="Another run has taken over"):
            heart.beat()
    assert (results.folder / "lock.json").exists()


def test_the_tables_say_what_became_of_every_clip(results, tmp_path):
    jobs = [Job(name, f"/{name}.mp4", {"target": "a fox"}) for name in ("one", "two", "three")]
    results.keep_jobs(jobs)
    results.commit("one", video(tmp_path), {"files": ["edited.mp4"], "seconds": 3.5})
    results.fail("two", {"kind": "error", "reason": "Video Load failed: it is broken"})
    assert results.summarise(results.jobs()) == {
        "clips": 3,
        "done": 1,
        "failed": 1,
        "open": 1,
        "failures": {"error": 1},
    }
    with (results.folder / "summary.csv").open() as content:
        rows = list(csv.DictReader(content))
    assert [row["state"] for row in rows] == ["done", "failed", "open"]
    assert rows[0]["files"].endswith("one/edited.mp4") and rows[1]["reason"].endswith("it is broken")
    assert results.forget_failures() == 1 and results.failure("two") is None


def test_a_folder_without_a_run_is_told(tmp_path):
    with pytest.raises(JobsError, match="holds no run that can be read"):
        Results(tmp_path).jobs()

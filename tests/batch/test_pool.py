"""The loop with real Ray processes on two machines, which are network namespaces without a way out."""

from __future__ import annotations

import json
import os
import signal

import pytest
from comfyui_stem.tools.robustness.batch_runs.driver import (
    STUB,
    Driver,
    clips_on,
    done,
    events,
    since_start,
    whole,
    workers_with_clips,
)
from comfyui_stem.tools.robustness.batch_runs.machines import new_token, until
from comfyui_stem.tools.robustness.faults.full_disk import CannotMount, small_disk


def test_each_clip_ends_as_it_has_to_whatever_its_worker_meets(cluster, tmp_path):
    clips = "a,once,broken,b,hungry,deadly,c"
    run = cluster.run(tmp_path, clips)
    said = run.said()
    assert run.process.returncode == 3, said
    assert set(done(tmp_path)) == {"a", "b", "c", "once", "hungry"} and whole(tmp_path)
    assert "deadly runs again" in said and "broken failed: Video Load failed: it is broken" in said
    failed = {event["id"]: event for event in events(tmp_path, "failed")}
    assert set(failed) == {"broken", "deadly"} and failed["deadly"]["kind"] == "kills its worker"
    losses = [event["id"] for event in events(tmp_path, "lost")]
    assert sorted(losses) == ["deadly"] * 5 + ["once"]
    (report,) = tmp_path.glob("clips/*/hungry/report.json")
    assert json.loads(report.read_text())["less_memory"]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["done"], summary["failed"], summary["open"]) == (5, 2, 0)
    assert not (tmp_path / "lock.json").exists()
    # the same command again: what is done or has failed is left, and Ray is not even asked
    again = cluster.run(tmp_path, clips)
    assert "5 of 7 clips are done already" in again.said() and again.process.returncode == 3
    assert len(events(tmp_path, "started")) == 1


def test_the_same_command_goes_on_after_the_driver_was_killed_and_interrupted(cluster, tmp_path):
    clips = ",".join(["endless", *(f"c{number}" for number in range(40))])
    killed = cluster.run(tmp_path, clips, seconds=0.3)
    until(lambda: len(done(tmp_path)) >= 2)
    other = cluster.run(tmp_path, clips)
    assert f"process {killed.process.pid}, seen" in other.said() and other.process.returncode == 1
    killed.process.kill()
    killed.process.wait()
    until(lambda: not cluster.first.processes("ray::Worker"))
    kept = [done(tmp_path)]

    interrupted = cluster.run(tmp_path, clips, seconds=1)
    until(lambda: workers_with_clips(tmp_path) == {0, 1} and len(events(tmp_path, "started")) == 2)
    interrupted.process.send_signal(signal.SIGTERM)
    until(lambda: "Once more breaks them off" in interrupted.so_far())
    until(lambda: len(done(tmp_path)) > len(kept[0]))
    interrupted.process.send_signal(signal.SIGINT)
    assert "The same command goes on" in interrupted.said() and interrupted.process.returncode == 130
    kept.append(done(tmp_path))
    sent = {event["id"] for event in since_start(tmp_path) if event["event"] == "sent"}
    assert len(sent) == 2 and set(kept[1]) == {*kept[0], *sent} - {"endless"}

    last = cluster.run(tmp_path, clips)
    assert last.said() and last.process.returncode == 0
    assert len(kept[0]) < len(kept[1]) < len(done(tmp_path)) == 41 and whole(tmp_path)
    # what was done once was not touched again
    assert all(reports.items() <= done(tmp_path).items() for reports in kept)
    assert not (tmp_path / "lock.json").exists()


def test_a_worker_that_was_killed_while_it_had_no_clip_starts_before_it_gets_one(cluster, tmp_path):
    run = cluster.run(tmp_path, "hung,a")
    until(lambda: events(tmp_path, "done"))
    idle, busy = sorted(cluster.first.processes("ray::Worker"), key=lambda one: "run" in one.cmdline()[0])
    idle.kill()
    until(lambda: len(cluster.first.processes("ray::Worker")) == 2 and not idle.is_running())
    busy.kill()
    said = run.said()
    assert run.process.returncode == 0 and set(done(tmp_path)) == {"hung", "a"}, said
    assert [event["id"] for event in events(tmp_path, "lost")] == ["hung"]
    assert len([event for event in events(tmp_path, "worker") if event["state"] == "ready"]) > 2


def test_a_worker_that_can_start_no_comfyui_any_more_is_left_out_and_its_clip_runs_on_another(cluster, tmp_path):
    run = cluster.run(tmp_path, "breaking,a,b", seconds=0.5)
    said = run.said()
    assert run.process.returncode == 0 and set(done(tmp_path)) == {"breaking", "a", "b"}, said
    assert not events(tmp_path, "lost") and "retired: ComfyUI does not start any more" in said
    alone = tmp_path / "alone"
    run = cluster.run(alone, "a,breaking,b", workers=1)
    said = run.said()
    assert run.process.returncode == 4 and set(done(alone)) == {"a"}, said
    assert "Stopped: No worker can be used" in said and json.loads((alone / "summary.json").read_text())["open"] == 2


def test_machines_may_go_away_and_those_with_another_model_are_left_out(cluster, tmp_path):
    cluster.join()
    out, model = tmp_path / "out", cluster.second.folder / "model"
    out.mkdir()
    (out / "run.json").write_text(json.dumps({"made_with": {"models": "the same"}}))
    model.write_text("another")
    run = cluster.run(out, "a,b,c,d", seconds=0.5, workers=3)
    said = run.said()
    assert run.process.returncode == 0 and len(done(out)) == 4, said
    (left_out,) = (event for event in events(out, "worker") if event["state"] == "retired")
    assert f"models the same, not another as on {cluster.second.folder.name}" in left_out["reason"]
    assert workers_with_clips(out) == {0, 1, 2} - {left_out["number"]}

    model.write_text("the same")
    run = cluster.run(out, "a,b,c,d,e,f,g,h,i", seconds=2, workers=3)
    until(lambda: clips_on(cluster.second, out))
    (under_way,) = clips_on(cluster.second, out)
    cluster.second.raylet.kill()
    said = run.said()
    assert run.process.returncode == 0 and f"{under_way} runs again" in said, said
    assert [event["id"] for event in events(out, "lost")] == [under_way] and not events(out, "failed")
    assert sorted(event["id"] for event in events(out, "done")) == sorted(done(out)) == list("abcdefghi")
    assert whole(out)

    (cluster.first.folder / "model").write_text("a newer one")
    refused = cluster.run(out, "j", workers=1)
    assert "not a newer one as on" in refused.said() and refused.process.returncode == 1
    assert len(done(out)) == 9


def test_a_full_disk_ends_a_run_and_with_room_the_same_command_finishes_it(cluster, tmp_path):
    """Clips of 40 and 260 MB on a disk of 482 MB, of which 200 MB are to stay free."""
    try:
        with small_disk(tmp_path, 460):
            out, ballast = tmp_path / "out", tmp_path / "ballast"
            with ballast.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, 200_000_000)
            run = cluster.run(out, "large0,huge,large1", workers=1)
            said = run.said()
            assert run.process.returncode == 4, said
            assert "Stopped: huge could not be written" in said and "No space left on device" in said
            assert set(done(out)) == {"large0"} and whole(out)
            with ballast.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, 250_000_000)
            run = cluster.run(out, "large0,huge,large1", workers=1)
            assert "is full" in run.said() and run.process.returncode == 4
            assert len(events(out, "started")) == 1
            ballast.unlink()
            run = cluster.run(out, "large0,large1,huge", workers=1)
            assert run.said() and run.process.returncode == 0
            assert set(done(out)) == {"large0", "large1", "huge"} and whole(out)
    except CannotMount as error:
        pytest.skip(str(error))


def test_who_has_not_the_token_of_a_cluster_is_refused_and_told_so(cluster, tmp_path):
    def started(*program, **environment):
        return Driver(cluster.first, program, environment={**environment, "RAY_NUM_REDIS_GET_RETRIES": "2"})

    nothing, run = {"HOME": str(tmp_path)}, (*STUB, tmp_path, "a", "--address")
    node = started("-m", "ray.scripts.scripts", "start", "--block", f"--address={cluster.address}", **nothing)
    none = started(*run, cluster.address, **nothing)
    assert f"{cluster.address} needs a token" in none.said() and none.process.returncode == 1
    nobody = started(*run, "192.0.2.1:6378", **cluster.token)
    assert "No Ray answers at 192.0.2.1:6378" in nobody.said() and nobody.process.returncode == 1
    wrong = started(*run, cluster.address, **new_token())
    said = wrong.said()
    assert wrong.process.returncode == 1 and "Authentication token is missing or incorrect" in said
    assert said.rstrip().endswith("with its token (~/.ray/auth_token or RAY_AUTH_TOKEN).")
    assert not events(tmp_path, "started") and not (tmp_path / "lock.json").exists()
    assert "Authentication token is missing or incorrect" in node.said() and node.process.returncode == 1

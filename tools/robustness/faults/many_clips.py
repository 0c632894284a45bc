"""Runs of many clips while a machine, a worker or a ComfyUI stops without a word, or a disk fills up.

Most of this takes minutes, as nobody says that they have stopped. What is noticed at once is in tests/batch.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import av
import numpy as np
import psutil

from ... import locations
from ...demo import CLIP
from ..batch_runs.cluster import Cluster, two_machines
from ..batch_runs.driver import BATCH, Driver, clips_on, done, events, whole
from ..batch_runs.machines import CABLE, CannotSeparate, Machine, machines, until
from .full_disk import CannotMount, full, small_disk
from .graphs import small

SECONDS = 600


def many_clips() -> Iterator[dict]:
    """A row for each fault; one that says why where there can be no machines or disks."""
    parts = (
        machine_sleeps,
        network_fails,
        memory_runs_out,
        worker_hangs,
        comfyui_sleeps,
        comfyui_killed,
        results_full,
        comfyui_full,
    )
    with tempfile.TemporaryDirectory(prefix="stem-faults-", ignore_cleanup_errors=True) as folder:
        for part in parts:
            place = Path(folder) / part.__name__
            place.mkdir()
            row = {"sampler": "", "fault": part.__name__.replace("_", " "), "place": part.__doc__}
            try:
                yield row | part(place)
            except (CannotSeparate, CannotMount) as error:
                yield row | {"outcome": "skipped", "told": [str(error)], "equal": []}


def machine_sleeps(folder: Path) -> dict:
    """SIGSTOP of all processes of a machine, which wake when its clip was done elsewhere"""

    @contextmanager
    def asleep(cluster: Cluster) -> Iterator[None]:
        processes = [psutil.Process(cluster.second.ray.pid), *cluster.second.processes()]
        for process in processes:
            process.suspend()
        yield
        for process in processes:
            process.resume()

    row = without_machine(folder, asleep)
    # it went on where it was, and left alone what was there
    row["equal"].append((folder / "commits.txt").read_text().count("came second") == 1)
    return row


def network_fails(folder: Path) -> dict:
    """the network interface of a machine set down until its clip was done elsewhere"""

    @contextmanager
    def unplugged(cluster: Cluster) -> Iterator[None]:
        cluster.second.call("ip", "link", "set", CABLE, "down")
        yield
        cluster.second.call("ip", "link", "set", CABLE, "up")

    return without_machine(folder, unplugged)


def without_machine(out: Path, gone: Callable[[Cluster], AbstractContextManager[None]]) -> dict:
    """A run on two machines, of which the second is gone for a while."""
    clips = [f"c{number}" for number in range(16)]
    with two_machines() as cluster:
        cluster.join()
        run = cluster.run(out, ",".join(clips), seconds=10, workers=3)
        until(lambda: clips_on(cluster.second, out))
        (clip,) = clips_on(cluster.second, out)
        with gone(cluster):
            noticed = seconds_until(lambda: clip in ids(out, "lost"))
            until(lambda: clip in ids(out, "done"), SECONDS)
            kept = done(out)
        until(lambda: not cluster.second.processes("ray::Worker"), what="the end of a worker that was given up")
        row = result(run, out, clips, f"{clip} runs again", noticed)
    row["equal"].append(kept.items() <= done(out).items())
    return row


def memory_runs_out(folder: Path) -> dict:
    """a clip takes 3 GB where Ray ends workers once 1 GB more is in use, the first time"""
    memory = psutil.virtual_memory()
    limit = {"RAY_memory_usage_threshold": f"{(memory.total - memory.available + 1e9) / memory.total:.3f}"}
    with two_machines(limit) as cluster:
        run = cluster.run(folder, "greedy,a,b")
        until(lambda: ids(folder, "sent"))
        noticed = seconds_until(lambda: ids(folder, "lost"))
        return result(run, folder, ["greedy", "a", "b"], "greedy runs again", noticed)


def worker_hangs(folder: Path) -> dict:
    """a worker does not return from a clip, of which the time limit is 2 s"""
    with two_machines() as cluster:
        run = cluster.run(folder, "hung,a,b", limit=2)
        until(lambda: ids(folder, "sent"))
        noticed = seconds_until(lambda: ids(folder, "lost"))
        return result(run, folder, ["hung", "a", "b"], "hung runs again", noticed)


def results_full(folder: Path) -> dict:
    """the disk of the results, to the last byte, with clips under way; then room"""
    clips = [f"c{number}" for number in range(6)]
    with small_disk(folder, 240), two_machines() as cluster:
        out = folder / "out"
        run = cluster.run(out, ",".join(clips), seconds=3)
        until(lambda: len(done(out)) == 2)
        with full(folder):
            noticed = seconds_until(lambda: run.process.poll() is not None)
        row = result(run, out, done(out), "Stopped: ", noticed, status=4)
        again = cluster.run(out, ",".join(clips))
        row["equal"] += result(again, out, clips, "are done", 0)["equal"]
    return row


def comfyui_sleeps(folder: Path) -> dict:
    """SIGSTOP of a real ComfyUI, with 12 s as the limit without progress"""
    return without_comfyui(folder, psutil.Process.suspend)


def comfyui_killed(folder: Path) -> dict:
    """SIGKILL of a real ComfyUI"""
    return without_comfyui(folder, psutil.Process.kill)


def without_comfyui(folder: Path, stop: Callable[[psutil.Process], None]) -> dict:
    """A real run on one machine, whose ComfyUI is stopped in the first of two clips that are alike."""
    out = folder / "out"
    with machines("192.0.2.1", "192.0.2.2") as (machine, _):
        run = real_run(machine, folder, rows("a", "b"), "--minutes-without-progress", "0.2")
        until(lambda: ids(out, "sent"), SECONDS)
        (comfyui,) = run.processes(main_of_comfyui())
        stop(comfyui)
        noticed = seconds_until(lambda: ids(out, "lost"))
        row = result(run, out, ["a", "b"], "a runs again", noticed)
        row["equal"] += [same_frames(out, "a", "b"), not comfyui.is_running()]
    return row


def comfyui_full(folder: Path) -> dict:
    """the disk of a real ComfyUI's own files, with a clip under way; then room"""
    out, disk = folder / "out", folder / "disk"
    disk.mkdir()
    with small_disk(disk), machines("192.0.2.1", "192.0.2.2") as (machine, _):
        places = {"TMPDIR": str(disk), "RAY_TMPDIR": str(machine.folder)}
        run = real_run(machine, folder, rows("a", "b"), environment=places)
        until(lambda: ids(out, "sent"), SECONDS)
        with full(disk):
            noticed = seconds_until(lambda: run.process.poll() is not None)
        row = result(run, out, [], "Stopped: ", noticed, status=4)
        again = real_run(machine, folder, rows("a", "b"), environment=places)
        row["equal"] += [*result(again, out, ["a", "b"], "are done", 0)["equal"], same_frames(out, "a", "b")]
    return row


def real_run(
    machine: Machine, folder: Path, rows: Sequence[str], *options: object, environment: Mapping[str, str] | None = None
) -> Driver:
    """Starts the command itself with one worker and the tiny checkpoint, into folder/out."""
    where = locations.from_environment()
    (folder / "workflow.json").write_text(json.dumps(small("stem_tokenflow_edit", "")))
    (folder / "jobs.csv").write_text("\n".join(["id,video,source,target,TokenFlow Edit.cfg", *rows]))
    files = [folder / "jobs.csv", folder / "workflow.json", folder / "out"]
    comfyui = ["--comfyui", where.host, "--python", where.host_python, "--workers", 1]
    tiny = ["--checkpoint", where.checkpoint, "--pack", locations.PACKS["tiny_sd15"]]
    return Driver(machine, BATCH, "run", *files, *comfyui, *tiny, *options, environment=environment)


def rows(*names: str) -> list[str]:
    """Rows of jobs that differ in their names alone."""
    return [f"{name},{CLIP},a rabbit,a red rabbit," for name in names]


def main_of_comfyui() -> str:
    """Part of the command line of a ComfyUI that a worker has started."""
    return str(locations.from_environment().host / "main.py")


def same_frames(out: Path, one: str, other: str) -> bool:
    """Whether two clips came out bit by bit the same."""
    return np.array_equal(frames(out, one), frames(out, other))


def frames(out: Path, clip: str) -> np.ndarray:
    """Of a clip's edit, [n, h, w, 3]."""
    (file,) = out.glob(f"clips/*/{clip}/edited.mp4")
    with av.open(str(file)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def ids(out: Path, event: str) -> list[str]:
    """The clips to which something has happened."""
    return [found["id"] for found in events(out, event)]


def seconds_until(condition: Callable[[], object]) -> float:
    """How long something takes."""
    before = time.monotonic()
    until(condition, SECONDS)
    return round(time.monotonic() - before, 1)


def result(run: Driver, out: Path, clips: Iterable[str], told: str, noticed: float, status: int = 0) -> dict:
    """The row of a run that comes to its end: what it told, and whether its clips are there, whole, done once each."""
    lines = [line for line in run.said(SECONDS).splitlines() if told in line]
    return {
        "outcome": "failed",
        "told": [lines[0] if lines else None],
        "equal": [
            run.process.returncode == status,
            sorted(done(out)) == sorted(ids(out, "done")) == sorted(clips),
            whole(out),
        ],
        "again": len(events(out, "lost")),
        "noticed": noticed,
    }

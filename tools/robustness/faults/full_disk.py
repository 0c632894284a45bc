"""A disk without room, while an inversion, its trajectory or a video is being written. The disks are small tmpfs."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import av
import numpy as np

from ... import locations
from ...demo.workflow import node_titled
from ...host.process import new_host
from .bench import Bench, same
from .graphs import NONE, SAMPLERS, Prompt, copying, loading, only, prompt_of, saving, small
from .killed import FOLDER, LARGE, SMALL, enlarged

SAMPLER = SAMPLERS[0]
MEGABYTES = 24
SPARE_BYTES = 4 << 10
# An inversion with sides of so many latent pixels is larger than the disk.
LARGE_SIDE = 410


class CannotMount(RuntimeError):
    """This process may not mount a file system."""


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of MEGABYTES in a folder."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise CannotMount(f"a small disk cannot be mounted here: {getattr(error, 'stderr', '') or error}") from None
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """The disk of a folder filled up to SPARE_BYTES."""
    ballast = folder / "ballast"
    disk = os.statvfs(folder)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, disk.f_bavail * disk.f_frsize - SPARE_BYTES)
    try:
        yield
    finally:
        ballast.unlink()


def full_disks() -> Iterator[dict]:
    """A row for each thing that is written; one that says why where no disk can be mounted."""
    with tempfile.TemporaryDirectory(prefix="stem-faults-", ignore_cleanup_errors=True) as folder, ExitStack() as open_:
        host = new_host(Path(folder), locations.TEST_PACKS)
        try:
            for disk in ("output", "temp"):
                open_.enter_context(small_disk(host.base / disk))
        except CannotMount as error:
            yield {
                "sampler": "",
                "fault": "disk full",
                "place": "",
                "outcome": "skipped",
                "told": [str(error)],
                "equal": [],
            }
            return
        bench = Bench(open_.enter_context(host))
        for part in (saved, saved_in_part, trajectory, video):
            yield part(bench)


def saved(bench: Bench) -> dict:
    """An inversion that does not fit."""
    graph = prompt_of(SAMPLER, NONE, bench.clip)
    undisturbed = bench.good(graph, SAMPLER.save)
    row = while_full(bench, saving(graph, "small"), "output", "Save Inversion", "an inversion's file")
    bench.client.run(saving(graph, "small"))
    found = bench.good(loading(graph, f"{SMALL} [output]"), SAMPLER.save)
    return row | {"equal": [same(found, undisturbed)]}


def saved_in_part(bench: Bench) -> dict:
    """An inversion larger than the whole disk, so that it is full in the middle of the write."""
    base, graph = bench.host.base, prompt_of(SAMPLER, NONE, bench.clip)
    whole = enlarged(base / FOLDER / SMALL, base / "input" / "inversions" / LARGE, LARGE_SIDE)
    place = f"an inversion's file of {whole / 1e6:.0f} MB on a disk of {MEGABYTES} MB"
    row = while_full(bench, copying(LARGE, "large"), None, "Save Inversion", place)
    expected = bench.good(graph, SAMPLER.save)
    return row | {"equal": [same(bench.good(loading(graph, f"{SMALL} [output]"), SAMPLER.save), expected)]}


def trajectory(bench: Bench) -> dict:
    """A trajectory that is kept in a mapped file."""
    mapped = replace(SAMPLER, changes={"STEM Inversion": {"keep_trajectory_in": "file"}})
    graph = prompt_of(SAMPLER, NONE, bench.clip)
    undisturbed = bench.good(graph, SAMPLER.save)
    in_file = prompt_of(mapped, NONE, bench.clip)
    row = while_full(bench, in_file, "temp", SAMPLER.name, "a trajectory in a mapped file")
    return row | {"equal": [same(bench.good(in_file, SAMPLER.save, SAMPLER.node), undisturbed)]}


def video(bench: Bench) -> dict:
    """The edited video; what writes it is the host's."""

    def named(prefix: str) -> Prompt:
        # under another name the host does not take the video from its cache
        changes = {"Save Video": {"filename_prefix": prefix}}
        return only(small("stem_tokenflow_edit", bench.clip, changes), ["Save Video"])

    def frames(graph: Prompt) -> np.ndarray:
        (file,) = bench.client.run(graph).outputs[node_titled(graph, "Save Video")]["images"]
        path = bench.host.base / "output" / file["subfolder"] / file["filename"]
        with av.open(str(path)) as container:
            found = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        path.unlink()
        return found

    undisturbed = frames(named("undisturbed"))
    row = while_full(bench, named("full"), "output", "the host's Save Video", "a video")
    return row | {"equal": [same(frames(named("after")), undisturbed)]}


def while_full(bench: Bench, prompt: Prompt, disk: str | None, what: str, place: str) -> dict:
    """What happens when a workflow runs while a disk is full; None where it becomes so by itself."""
    before = bench.files()
    with nullcontext() if disk is None else full(bench.host.base / disk):
        result = bench.run(prompt)
    left = sorted(bench.files() - before)
    for file in left:
        (bench.host.base / file).unlink()
    row = {"sampler": what, "fault": "disk full", "place": place, "told": [result.error], "files_left": left}
    return row | {"outcome": "failed" if result.status == "error" else "went on"}

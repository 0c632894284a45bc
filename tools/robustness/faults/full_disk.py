"""A disk without room, while an inversion, its trajectory or a video is being written. The disks are small tmpfs."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import av
import numpy as np

from ... import locations
from ...demo.workflow import node_titled
from ...host.temporary import new_host
from ..host_under_test import HostUnderTest, same
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
def small_disk(folder: Path, megabytes: int = MEGABYTES) -> Iterator[None]:
    """A file system of so many megabytes in a folder."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
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
    with ballast.open("wb") as file:
        for _ in range(100):
            disk = os.statvfs(folder)
            # others may write meanwhile
            with suppress(OSError):
                os.posix_fallocate(file.fileno(), 0, disk.f_bavail * disk.f_frsize - SPARE_BYTES)
                break
    try:
        yield
    finally:
        ballast.unlink()


def full_disks() -> Iterator[dict]:
    """A row for each thing that is written; one that says why where no disk can be mounted."""
    with tempfile.TemporaryDirectory(prefix="stem-faults-", ignore_cleanup_errors=True) as folder, ExitStack() as open_:
        started = new_host(Path(folder), locations.TEST_PACKS)
        try:
            for disk in ("output", "temp"):
                open_.enter_context(small_disk(started.base / disk))
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
        host = HostUnderTest(open_.enter_context(started))
        for part in (saved, saved_in_part, trajectory, video):
            yield part(host)


def saved(host: HostUnderTest) -> dict:
    """An inversion that does not fit."""
    graph = prompt_of(SAMPLER, NONE, host.demo_clip)
    undisturbed = host.good(graph, SAMPLER.save)
    row = while_full(host, saving(graph, "small"), "output", "Save Inversion", "an inversion's file")
    host.client.run(saving(graph, "small"))
    found = host.good(loading(graph, f"{SMALL} [output]"), SAMPLER.save)
    return row | {"equal": [same(found, undisturbed)]}


def saved_in_part(host: HostUnderTest) -> dict:
    """An inversion larger than the whole disk, so that it is full in the middle of the write."""
    base, graph = host.base, prompt_of(SAMPLER, NONE, host.demo_clip)
    whole = enlarged(base / FOLDER / SMALL, base / "input" / "inversions" / LARGE, LARGE_SIDE)
    place = f"an inversion's file of {whole / 1e6:.0f} MB on a disk of {MEGABYTES} MB"
    row = while_full(host, copying(LARGE, "large"), None, "Save Inversion", place)
    expected = host.good(graph, SAMPLER.save)
    return row | {"equal": [same(host.good(loading(graph, f"{SMALL} [output]"), SAMPLER.save), expected)]}


def trajectory(host: HostUnderTest) -> dict:
    """A trajectory that is kept in a mapped file."""
    mapped = replace(SAMPLER, changes={"STEM Inversion": {"keep_trajectory_in": "file"}})
    graph = prompt_of(SAMPLER, NONE, host.demo_clip)
    undisturbed = host.good(graph, SAMPLER.save)
    in_file = prompt_of(mapped, NONE, host.demo_clip)
    row = while_full(host, in_file, "temp", SAMPLER.name, "a trajectory in a mapped file")
    return row | {"equal": [same(host.good(in_file, SAMPLER.save, SAMPLER.node), undisturbed)]}


def video(host: HostUnderTest) -> dict:
    """The edited video; what writes it is the host's."""

    def named(prefix: str) -> Prompt:
        # under another name the host does not take the video from its cache
        changes = {"Save edited video": {"filename_prefix": prefix}}
        return only(small("stem_tokenflow_edit", host.demo_clip, changes), ["Save edited video"])

    def frames(graph: Prompt) -> np.ndarray:
        (file,) = host.client.run(graph).outputs[node_titled(graph, "Save edited video")]["images"]
        path = host.base / "output" / file["subfolder"] / file["filename"]
        with av.open(str(path)) as container:
            found = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        path.unlink()
        return found

    undisturbed = frames(named("undisturbed"))
    row = while_full(host, named("full"), "output", "the host's Save Video", "a video")
    return row | {"equal": [same(frames(named("after")), undisturbed)]}


def while_full(host: HostUnderTest, prompt: Prompt, disk: str | None, what: str, place: str) -> dict:
    """What happens when a workflow runs while a disk is full; None where it becomes so by itself."""
    before = host.files()
    with nullcontext() if disk is None else full(host.base / disk):
        result = host.run(prompt)
    left = sorted(host.files() - before)
    for file in left:
        (host.base / file).unlink()
    row = {"sampler": what, "fault": "disk full", "place": place, "told": [result.error], "files_left": left}
    return row | {"outcome": "failed" if result.status == "error" else "went on"}

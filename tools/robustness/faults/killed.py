"""The host killed while an inversion is being saved: afterwards no half file is offered or read."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ....batch.comfyui.client import HostError
from ... import locations
from ...host.temporary import new_host
from ..host_under_test import HostUnderTest, same
from .graphs import NONE, SAMPLERS, copying, loading, prompt_of, saving

SAMPLER = SAMPLERS[0]
FOLDER = "output/inversions"
SMALL, LARGE, KEPT = "small_00001_.safetensors", "large.safetensors", "kept"
# Large enough for its writing to take some tenths of a second.
SIDE = 1000
# Killed when this share of the file has been written.
SHARES = (0.0, 0.4, 0.8)


def enlarged(small: Path, large: Path, side: int = SIDE) -> int:
    """Writes an inversion like a small one, with sides of so many latent pixels; returns its size in bytes."""
    with safe_open(str(small), framework="pt") as content:
        tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
        metadata = content.metadata()
    shape = (*tensors["trajectory"].shape[:3], side, side)
    tensors["trajectory"] = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    large.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, large, metadata=metadata)
    return large.stat().st_size


def kill_while_writing(host: HostUnderTest, whole: int, share: float) -> int:
    """Kills the host with SIGKILL once a share of the unfinished file is written; returns the bytes that are there."""
    folder = host.base / FOLDER
    before = set(unfinished(folder))
    host.client.queue(copying(LARGE, KEPT))
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        new = set(unfinished(folder)) - before
        if new and sum(map(written, new)) >= share * whole or any(folder.glob(f"{KEPT}*")):
            break
    host.process.kill()
    host.process.wait()
    return sum(written(file) for file in set(unfinished(folder)) - before)


def unfinished(folder: Path) -> list[Path]:
    """Files that a save has begun, whatever safetensors calls them."""
    return [file for file in folder.rglob("*") if file.is_file() and file.suffix != ".safetensors"]


def written(file: Path) -> int:
    """Bytes of a file that have been written, without holes."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return 0
    return min(found.st_size, found.st_blocks * 512)


def killed() -> Iterator[dict]:
    """A row for each kill; a host that has looked at what the last one left is the next to be killed."""
    with tempfile.TemporaryDirectory(prefix="stem-faults-", ignore_cleanup_errors=True) as folder:
        base = Path(folder)
        with new_host(base, locations.TEST_PACKS) as started:
            host = HostUnderTest(started)
            graph = prompt_of(SAMPLER, NONE, host.demo_clip)
            undisturbed = host.good(graph, SAMPLER.save)
            host.client.run(saving(graph, "small"))
            whole = enlarged(base / FOLDER / SMALL, base / "input" / "inversions" / LARGE)
            found = kill_while_writing(host, whole, SHARES[0])
        for share in (*SHARES[1:], None):
            with new_host(base, locations.TEST_PACKS) as started:
                host = HostUnderTest(started)
                yield after_the_kill(host, whole, found, undisturbed)
                if share is not None:
                    found = kill_while_writing(host, whole, share)


def after_the_kill(host: HostUnderTest, whole: int, found: int, undisturbed: np.ndarray) -> dict:
    """What a new host on the same folders offers, reads and makes."""
    folder = host.base / FOLDER
    left = [file.relative_to(folder).as_posix() for file in unfinished(folder)]
    told = [refusal(host, f"{name} [output]") for name in left]
    offered = set(offered_files(host)) - {f"{SMALL} [output]", LARGE}
    good = loading(prompt_of(SAMPLER, NONE, host.demo_clip), f"{SMALL} [output]")
    return {
        "sampler": "Save Inversion",
        "fault": "host killed",
        "place": f"{found / 1e6:.0f} of {whole / 1e6:.0f} MB written",
        "outcome": "failed" if 0 < found < whole else "not reached",
        "told": told,
        "equal": [same(host.good(good, SAMPLER.save), undisturbed)],
        "half_files_offered": sorted(offered),
        "files_left": left,
    }


def offered_files(host: HostUnderTest) -> list[str]:
    """The choices of Load Inversion."""
    kind, *more = host.client.object_info()["STEMLoadInversion"]["input"]["required"]["file"]
    return more[0]["options"] if kind == "COMBO" else kind


def refusal(host: HostUnderTest, name: str) -> str | None:
    """What the host says when a file is asked for by name."""
    try:
        host.client.run(copying(name, KEPT))
    except HostError as error:
        return str(error)
    return None

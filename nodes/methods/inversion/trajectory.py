"""Where the latents of an inversion are kept: in memory, or in a file that is mapped into it."""

from __future__ import annotations

import math
import os
import shutil
import uuid
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

Storage = Literal["memory", "file"]
Precision = Literal["float32", "float16"]


def new_trajectory(shape: Sequence[int], storage: Storage, folder: Path, precision: Precision = "float32") -> Tensor:
    """An empty tensor on the CPU.

    Args:
        storage: "file" maps a temporary file in `folder`, of which the system holds in memory what is in use. It goes
            with the tensor, or at the latest when ComfyUI clears its temporary folder.

    Raises:
        ValueError: the disk has no room for it, or the folder cannot be written to.
    """
    dtype = getattr(torch, precision)
    if storage == "memory":
        return torch.empty(*shape, dtype=dtype)
    file = folder / f"stem_trajectory_{uuid.uuid4().hex}.bin"
    count = math.prod(shape)
    size = count * dtype.itemsize
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _reserve(file, size)
    except OSError as error:
        _deleted(file)
        free = shutil.disk_usage(next(parent for parent in file.parents if parent.is_dir())).free
        raise ValueError(
            f"The trajectory needs a file of {size / 1e9:.2f} GB in {folder}, where {free / 1e9:.2f} GB is "
            f"free ({error}). Free some space, start ComfyUI with another --temp-directory, use fewer frames or steps, "
            "or keep the trajectory in memory."
        ) from None
    trajectory = torch.from_file(str(file), shared=True, size=count, dtype=dtype)
    if not _deleted(file):
        weakref.finalize(trajectory.untyped_storage(), _deleted, file)
    return trajectory.reshape(*shape)


def bytes_in_memory(trajectory: Tensor) -> int:
    """What a trajectory costs of the memory that ComfyUI's cache counts."""
    storage = trajectory.untyped_storage()
    return 0 if storage.filename else storage.nbytes()


def _reserve(file: Path, size: int) -> None:
    """Makes a file with all its blocks, because running out of them later would end the process."""
    with file.open("xb") as content:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(content.fileno(), 0, size)
            return
        zeros = bytes(1 << 20)
        for start in range(0, size, len(zeros)):
            content.write(zeros[: size - start])


def _deleted(file: Path) -> bool:
    """Deletes a file; on POSIX its mapping stays until it is released, Windows refuses until then."""
    try:
        file.unlink()
    except OSError:
        return False
    return True

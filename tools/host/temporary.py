"""Hosts of the set-up, with the generated tiny checkpoint, for as long as they are needed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ...batch.comfyui.process import HostProcess, device_arguments
from .. import locations


def new_host(base: Path, packs: Mapping[str, Path] = locations.PACKS) -> HostProcess:
    """One whose files are in `base`; not started."""
    where = locations.from_environment()
    return HostProcess(
        base, where.host, where.host_python, packs, device_arguments(), {"checkpoints": [where.checkpoint]}
    )


@contextmanager
def temporary_host(purpose: str, packs: Mapping[str, Path] = locations.PACKS) -> Iterator[HostProcess]:
    """A running one, in folders that go with it."""
    with (
        tempfile.TemporaryDirectory(prefix=f"stem-{purpose}-", ignore_cleanup_errors=True) as base,
        new_host(Path(base), packs) as host,
    ):
        yield host

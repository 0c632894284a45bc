"""A Ray cluster of two machines, and runs on it whose workers have no ComfyUI."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .driver import STUB, Driver
from .machines import PORT, Machine, machines, new_token


@dataclass
class Cluster:
    """Drivers run on the first machine, which is the head and has two CPUs; the second one has one."""

    first: Machine
    second: Machine
    token: Mapping[str, str] = field(default_factory=new_token)

    @property
    def address(self) -> str:
        return f"{self.first.address}:{PORT}"

    def join(self) -> None:
        """Starts Ray on the second machine where it does not run."""
        if self.second.raylet is None:
            self.second.start_ray(1, self.token, self.first)

    def run(self, out: Path, clips: str, **options: object) -> Driver:
        """Starts a run."""
        named = [part for name, value in options.items() for part in (f"--{name}", value)]
        return Driver(self.first, STUB, out, clips, "--address", self.address, *named, environment=self.token)


@contextmanager
def two_machines(environment: Mapping[str, str] | None = None) -> Iterator[Cluster]:
    """With Ray on the first, whose settings are in its environment; CannotSeparate where there can be none."""
    with machines("192.0.2.1", "192.0.2.2") as (first, second):
        cluster = Cluster(first, second)
        first.start_ray(2, {**cluster.token, **(environment or {})})
        yield cluster

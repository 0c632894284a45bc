"""Time and memory of pieces of work that are run interleaved, so that a slow moment of the machine slows them all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from tqdm import tqdm

from .peak_memory import peak_bytes


@dataclass(frozen=True)
class Workload:
    """A piece of work.

    Attributes:
        name: how the table calls it.
        run: does it once.
        num_bases: K, where there are bases; "auto" where their number is chosen.
        more: anything else that its row should hold.
    """

    name: str
    run: Callable[[], object]
    num_bases: int | str | None = None
    more: dict = field(default_factory=dict)


@dataclass
class Measured:
    """seconds: of every round; peak: bytes held at most beyond those held before, in any round."""

    seconds: list[float] = field(default_factory=list)
    peak: int = 0

    def add(self, seconds: Sequence[float], peak: int) -> None:
        self.seconds += seconds
        self.peak = max(self.peak, peak)

    def ratios(self, baseline: Measured) -> list[float]:
        """Time by the baseline's of the same round, ascending."""
        return sorted(own / other for own, other in zip(self.seconds, baseline.seconds, strict=True))


def interleaved(workloads: Sequence[Workload], rounds: int, warm_up: bool = False) -> dict[str, Measured]:
    """Every workload once in each round; with `warm_up`, after a round that does not count."""
    *_, found = round_by_round(workloads, rounds, warm_up)
    return found


def round_by_round(workloads: Sequence[Workload], rounds: int, warm_up: bool = False) -> Iterator[dict[str, Measured]]:
    """As `interleaved`; yields what it has after each round that counts."""
    found = {workload.name: Measured() for workload in workloads}
    with tqdm(total=(rounds + warm_up) * len(workloads), unit="run") as bar:
        for number in range(-warm_up, rounds):
            for workload in workloads:
                bar.set_description(workload.name)
                seconds, peak = time_and_memory(workload.run)
                bar.update()
                if number >= 0:
                    found[workload.name].add([seconds], peak)
            if number >= 0:
                yield found


def time_and_memory(run: Callable[[], object]) -> tuple[float, int]:
    """Seconds and bytes of one run."""
    seconds = 0.0

    def timed() -> None:
        nonlocal seconds
        synchronize()
        started = time.perf_counter()
        run()
        synchronize()
        seconds = time.perf_counter() - started

    peak = peak_bytes(timed)
    return seconds, peak


def synchronize() -> None:
    """Waits for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()

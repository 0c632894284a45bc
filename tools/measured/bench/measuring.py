"""Running pieces of work by turns, so that a slow moment of the machine slows all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from tqdm import tqdm

from .peak_memory import PeakMemory


@dataclass(frozen=True)
class Case:
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

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def ratios(self, baseline: Measured) -> list[float]:
        """Time by the baseline's of the same round, ascending."""
        return sorted(own / other for own, other in zip(self.seconds, baseline.seconds, strict=True))


def by_turns(cases: Sequence[Case], rounds: int, warm_up: bool = False) -> dict[str, Measured]:
    """Every case once in each round; with `warm_up`, after a round that does not count."""
    found = {case.name: Measured() for case in cases}
    bar = tqdm(total=(rounds + warm_up) * len(cases), unit="run")
    for number in range(-warm_up, rounds):
        for case in cases:
            bar.set_description(case.name)
            seconds, peak = once(case.run)
            bar.update()
            if number >= 0:
                found[case.name].seconds.append(seconds)
                found[case.name].peak = max(found[case.name].peak, peak)
    bar.close()
    return found


def once(run: Callable[[], object]) -> tuple[float, int]:
    """Seconds and bytes of one run."""
    with PeakMemory() as memory:
        synchronize()
        started = time.perf_counter()
        run()
        synchronize()
        seconds = time.perf_counter() - started
    return seconds, memory.extra


def synchronize() -> None:
    """Waits for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()

"""What there is to do: an item for each clip, inversion and seed, and what its result depends on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from .clips import Case
from .store import digest
from .variants import CANDIDATES, FATEZERO, HEALTH, MAIN, Variant, changed, full_grid

CFG = 7.5
HEALTH_CLIPS = 2
PICTURE_CLIPS = 3


@dataclass(frozen=True)
class Settings:
    """What all items share.

    Attributes:
        frames, steps: of every clip, and of inversion and denoising.
        checkpoint, classifier: SHA-256 of the files; "" for no classifier.
        code: fingerprint of the code that the results depend on.
    """

    frames: int
    steps: int
    checkpoint: str
    classifier: str
    code: str


@dataclass(frozen=True)
class Item:
    """One piece of work.

    Attributes:
        kind: "reference" measures what needs no inversion; "variant" inverts, reconstructs and edits; "health" watches
            the fits of an inversion.
        scales: guidance scales of the reconstructions.
        editors: with which the case's edits are made; of a reference, which edits have their bounds measured.
        shown: whether its frames are kept for the pictures.
    """

    kind: Literal["reference", "variant", "health"]
    case: Case
    variant: Variant | None = None
    seed: int = 0
    scales: tuple[float, ...] = ()
    editors: tuple[str, ...] = ()
    shown: bool = False

    @property
    def edited(self) -> bool:
        return bool(self.editors)

    def key(self, settings: Settings) -> str:
        return digest([asdict(self), asdict(settings)])

    @property
    def label(self) -> str:
        return f"clip {self.case.index}, {self.variant.label if self.variant else self.kind}, seed {self.seed}"


def items(cases: Sequence[Case], seeds: Sequence[int], grid_clips: int, guided_clips: int = 3) -> list[Item]:
    """All work, the most important first: the main inversions and the candidates on every clip, then the grid.

    The first `guided_clips` are also reconstructed with guidance after the main inversions; the first `grid_clips` go
    through the whole grid of inversions, without guidance.
    """
    found = []
    for case in cases:
        shown = case.index < PICTURE_CLIPS
        found.append(Item("reference", case, editors=("tokenflow",), shown=shown))
        scales = (1.0, CFG) if case.index < guided_clips else (1.0,)
        for variant in MAIN:
            # the edit draws its keyframes from the seed, whatever the inversion
            editors = ("tokenflow", "fatezero") if variant in FATEZERO else ("tokenflow",)
            found += [
                Item("variant", case, variant, seed, scales, editors, shown and seed == seeds[0]) for seed in seeds
            ]
    found += [Item("variant", c, v, seed, (1.0,), ("tokenflow",)) for c in cases for v in CANDIDATES for seed in seeds]
    found += [Item("health", case, variant, seeds[0]) for case in cases[:HEALTH_CLIPS] for variant in HEALTH]
    for case in cases[:grid_clips]:
        found += [
            Item("variant", case, variant, seed, (1.0,))
            for variant in (*changed(), *full_grid())
            if variant not in (*MAIN, *CANDIDATES)
            for seed in (seeds if variant.seeded else seeds[:1])
        ]
    return found


def share(work: Iterable[Item], worker: int, workers: int) -> list[Item]:
    """The items of one of several workers."""
    return [item for n, item in enumerate(work) if n % workers == worker]

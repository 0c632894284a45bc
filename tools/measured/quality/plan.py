"""What there is to do: an item for each clip, inversion and seed, and what its result depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from types import MappingProxyType
from typing import Literal

from .clips import Case
from .store import digest
from .variants import (
    BASELINE,
    CANDIDATES,
    FATEZERO,
    FOR_TOKENFLOW,
    FURTHER_EDITS,
    HEALTH,
    MAIN,
    STEM_EDITED,
    Variant,
    changed,
    full_grid,
)

CFG = 7.5
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
            the fits of an inversion; "setting" is an EditorItem.
        scales: guidance scales of the reconstructions.
        editors: with which the case's edits are made; of a reference, which edits have their bounds measured.
        shown: whether its frames are kept for the pictures.
    """

    kind: Literal["reference", "variant", "health", "setting"]
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


@dataclass(frozen=True)
class EditorSetting:
    """One way to edit.

    Attributes:
        editor: "tokenflow" or "fatezero".
        name: what the report calls it.
        changes: fields of TokenFlowSettings, or of FateZeroSettings and WordWishes, that differ from those of 0.1.0;
            beside them "masked", what a mask of the thing keeps outside it: the "latents", the "pixels" too, or
            nothing ("no"), where it only says what is measured.
        steps: of the inversion and the edit; 0 for those of the other items.
    """

    editor: str
    name: str
    changes: tuple[tuple[str, object], ...] = ()
    steps: int = 0


@dataclass(frozen=True)
class EditorItem(Item):
    """An inversion, edited with a setting of an editor."""

    setting: EditorSetting | None = None

    @property
    def label(self) -> str:
        return f"{super().label}, {self.setting.editor} {self.setting.name}"


def main_items(case: Case, seeds: Sequence[int]) -> Iterator[Item]:
    """What needs no inversion; then inversions, reconstructed and edited; the candidates with one seed."""
    shown = case.index < PICTURE_CLIPS
    yield Item("reference", case, editors=("tokenflow",), shown=shown)
    for variant in (*MAIN, FOR_TOKENFLOW, *CANDIDATES):
        for seed in seeds[:1] if variant in CANDIDATES else seeds:
            # of an inversion that no seed changes, another seed draws only other keyframes
            again = seed != seeds[0] and not variant.seeded
            editors = ("tokenflow", "fatezero") if variant in FATEZERO and not again else ("tokenflow",)
            kept = shown and seed == seeds[0] and variant in MAIN
            yield Item("variant", case, variant, seed, () if again else (1.0,), editors, kept)


def stem_edit_items(case: Case, seeds: Sequence[int]) -> Iterator[Item]:
    """Edits by TokenFlow whose keyframes read bases as well, beside those whose keyframes read each other."""
    for variant in STEM_EDITED:
        for seed in seeds:
            yield Item("variant", case, variant, seed, editors=("tokenflow", "tokenflow_stem"))


def further_edit_items(
    variants: Sequence[Variant], fatezero: Sequence[Variant], case: Case, seeds: Sequence[int]
) -> Iterator[Item]:
    """Edits from the baseline and from inversions that `main` does not edit, some of them by FateZero too."""
    for variant in (BASELINE, *variants):
        editors = ("tokenflow", "fatezero") if variant in (BASELINE, *fatezero) else ("tokenflow",)
        for seed in seeds:
            yield Item("variant", case, variant, seed, editors=editors)


def guided_items(case: Case, seeds: Sequence[int]) -> Iterator[Item]:
    """The main inversions, reconstructed with guidance."""
    yield from _inversions(case, MAIN, seeds, CFG)


def grid_items(case: Case, seeds: Sequence[int]) -> Iterator[Item]:
    """All inversions, reconstructed."""
    yield from _inversions(case, full_grid(), seeds)


def change_items(case: Case, seeds: Sequence[int]) -> Iterator[Item]:
    """Single changes of the default, reconstructed."""
    yield from _inversions(case, changed(), seeds)


def health_items(case: Case, seeds: Sequence[int]) -> Iterator[Item]:
    """Inversions whose fits are watched."""
    for variant in HEALTH:
        yield Item("health", case, variant, seeds[0])


def _inversions(case: Case, variants: Iterable[Variant], seeds: Sequence[int], cfg: float = 1.0) -> Iterator[Item]:
    for variant in variants:
        for seed in seeds if variant.seeded else seeds[:1]:
            yield Item("variant", case, variant, seed, (cfg,))


@dataclass(frozen=True)
class Study:
    """A part of the work that is measured and reported on its own.

    Attributes:
        items: of one clip.
        clips: on how many of them, at most; None for all.
    """

    items: Callable[[Case, Sequence[int]], Iterable[Item]]
    clips: int | None = None


STUDIES = MappingProxyType(
    {
        "main": Study(main_items),
        **{study: Study(partial(further_edit_items, *edited)) for study, edited in FURTHER_EDITS.items()},
        "stem_edits": Study(stem_edit_items),
        "guided": Study(guided_items),
        "grid": Study(grid_items),
        "changes": Study(change_items),
        "health": Study(health_items, 2),
    }
)


def items(study: str, cases: Sequence[Case], seeds: Sequence[int]) -> list[Item]:
    """The work of a study, clip by clip."""
    found = STUDIES[study]
    return [item for case in cases[: found.clips] for item in found.items(case, seeds)]


def share(work: Iterable[Item], worker: int, workers: int) -> list[Item]:
    """The items of one of several workers."""
    return [item for n, item in enumerate(work) if n % workers == worker]

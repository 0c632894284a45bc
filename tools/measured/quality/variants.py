"""The inversions that are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

SIZES = (16, 32, 64, 128, 256)
PRESETS = ("paper", "paper_literal", "reference_code")
CONVENTIONS = ("next", "current")


@dataclass(frozen=True)
class Variant:
    """One way to invert a clip.

    Attributes:
        inversion: "ddim" or "stem".
        context: of DDIM, which frames a frame reads, as Frame Context writes it; "all" for all of them.
        num_bases, preset: of STEM Bases.
        convention: at which timestep the noise was estimated; see `nodes.host.inversion.Inversion`.
        change: what differs from the preset, a name among CHANGES; "" for nothing.
    """

    inversion: Literal["ddim", "stem"]
    context: str | None = None
    num_bases: int | None = None
    preset: str | None = None
    convention: Literal["next", "current"] = "next"
    change: str = ""

    @property
    def plain(self) -> bool:
        """Whether the model is left as it is."""
        return self.context == "0"

    @property
    def seeded(self) -> bool:
        """Whether the inversion itself depends on a seed."""
        return self.inversion == "stem"

    @property
    def label(self) -> str:
        if self.inversion == "stem":
            preset = "" if self.preset == "paper" else f" {self.preset}"
            name = f"STEM K={self.num_bases}{preset}"
        else:
            name = {"0": "DDIM, 1 frame", "0, mid": "DDIM, 2 frames", "all": "DDIM, all frames"}[self.context]
        name = f"{name}, {self.change}" if self.change else name
        return name if self.convention == "next" else f"{name} ({self.convention})"


def stem(num_bases: int, preset: str = "paper") -> Variant:
    return Variant("stem", num_bases=num_bases, preset=preset)


DEFAULT = stem(256)
LITERAL = stem(256, "paper_literal")
DDIM = tuple(Variant("ddim", context=context) for context in ("0", "0, mid", "all"))
BASELINE = DDIM[0]
# Measured with edits.
MAIN = (*DDIM, stem(64), stem(128), DEFAULT)
# Also edited with FateZero; two frames are the context that it was published with.
FATEZERO = (DDIM[0], DDIM[1], stem(64), DEFAULT)
# Beside the main ones: those that reconstruct best with the attention of the inversion, which FateZero's edits have.
MORE_FATEZERO = tuple(stem(size, "reference_code") for size in (64, 256))
# What the workflows of TokenFlow have; measured as the main ones are, but without FateZero.
FOR_TOKENFLOW = stem(256, "tokenflow")
# Candidates for other defaults: measured with TokenFlow's edits.
CANDIDATES = tuple(replace(stem(size), change="mass weighting") for size in (64, 256))
# Edited by TokenFlow with both kinds of attention among keyframes; DDIM shows what the attention does alone.
STEM_EDITED = (BASELINE, stem(64), DEFAULT)
HEALTH = (DEFAULT, LITERAL)


# Single changes of the default, for a number of bases that is a bottleneck here: fields of StemSettings and EMSettings.
CHANGED_BASES = 64
CHANGES: dict[str, dict[str, object]] = {
    "mass weighting": {"mass_weighted": True},
    "1 iteration": {"iterations": 1},
    "5 iterations": {"iterations": 5},
    "10 iterations": {"iterations": 10},
    "temperature 0.01": {"temperature": 0.01},
    "temperature 0.2": {"temperature": 0.2},
    "temperature 1": {"temperature": 1.0},
    "bases not normalised": {"normalize_bases": False},
    "initialised by moments": {"initialisation": "gaussian"},
    "per head, on keys": {"space": "keys_per_head"},
    "2 frames at a time": {"scope": "frame_chunks", "scope_frames": 2},
    "warm start, 1 iteration": {"warm_start": 1},
}

# The same of `paper_literal`: what tells it from the default, one at a time.
LITERAL_CHANGES: dict[str, dict[str, object]] = {
    "bases normalised": {"normalize_bases": True},
    "empty bases left out": {"empty_bases": "masked", "mass_eps": 1e-6},
    "initialised by tokens": {"initialisation": "tokens"},
}
# Edited from, to see which of them an edit feels.
BETWEEN = (
    LITERAL,
    *(replace(LITERAL, change=change) for change in LITERAL_CHANGES),
    replace(DEFAULT, change="initialised by moments"),
)
BETWEEN_FATEZERO = (LITERAL, BETWEEN[-1])


def changes_of(variant: Variant) -> dict[str, object]:
    """Fields of StemSettings and EMSettings in which a variant differs from its preset."""
    return (CHANGES | LITERAL_CHANGES)[variant.change] if variant.change else {}


def changed() -> tuple[Variant, ...]:
    """The default with each of CHANGES, and as it is."""
    default = stem(CHANGED_BASES)
    return (default, *(replace(default, change=change) for change in CHANGES))


def full_grid() -> tuple[Variant, ...]:
    """Everything: the baselines and all sizes and presets of STEM, in both conventions."""
    bases = tuple(stem(size, preset) for preset in PRESETS for size in SIZES)
    return tuple(replace(v, convention=convention) for convention in CONVENTIONS for v in (*DDIM, *bases))


def others(convention: str) -> tuple[Variant, ...]:
    """All inversions of a convention that are not among the main ones."""
    return tuple(variant for variant in full_grid() if variant.convention == convention and variant not in MAIN)


# Studies of edits from inversions beside the main ones: by which TokenFlow edits, and by which FateZero does as well.
FURTHER_EDITS: Mapping[str, tuple[Sequence[Variant], Sequence[Variant]]] = MappingProxyType(
    {
        "edits_next": (others("next"), MORE_FATEZERO),
        "edits_current": (others("current"), ()),
        "edits_between": (BETWEEN, BETWEEN_FATEZERO),
    }
)

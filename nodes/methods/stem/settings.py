"""What STEM Bases offers, and its presets."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from ....stem_kernels.em import EMSettings
from ....stem_kernels.initialisation import Initialisation

EMSpace = Literal["features", "keys_per_head"]
ScopeKind = Literal["all_frames", "anchor_frames", "frame_chunks"]
# What the node offers, and what a file may ask for.
MOST_BASES = 4096
MOST_ITERATIONS = 100
MOST_FRAMES_PER_BATCH = 4096


@dataclass(frozen=True)
class StemSettings:
    """What STEM Bases offers (`em` holds K, tau, R and the treatment of empty bases).

    Attributes:
        preset: the preset these came from, or "custom".
        space: "features" fits one set of bases to the normalised tokens, for all heads; "keys_per_head" one set per
            head to the projected keys.
        initialisation: see `initial_bases`.
        scope: "all_frames" fits to the whole clip; "anchor_frames" to `scope_frames` evenly spaced frames, whose bases
            serve every frame; "frame_chunks" separately to every `scope_frames` consecutive frames.
        scope_frames: frames per chunk, or number of anchors.
        mass_weighted: add the logarithm of the masses to the logits, as full attention over all pixels would have it.
        clamp_to_tokens: use no more bases than there are tokens.
        explained_energy: 0, or the share of the energy of the tokens that the bases have to explain; then every layer
            takes the smallest number of bases that does (see `adaptive_size.smallest_size`), `em.num_bases` at most.
        warm_start: 0, or how many iterations a step takes that starts from the bases of the step before it.
        seed: of the initialisation.
    """

    preset: str = "paper"
    em: EMSettings = field(default_factory=EMSettings)
    space: EMSpace = "features"
    initialisation: Initialisation = "tokens"
    scope: ScopeKind = "all_frames"
    scope_frames: int = 8
    mass_weighted: bool = False
    clamp_to_tokens: bool = True
    explained_energy: float = 0.0
    warm_start: int = 0
    seed: int = 0

    def with_bases(self, num_bases: int) -> StemSettings:
        """The same with another number of bases."""
        return replace(self, em=replace(self.em, num_bases=num_bases))


PRESETS: dict[str, StemSettings] = {
    "paper": StemSettings(),
    "paper_literal": StemSettings(
        preset="paper_literal",
        # The printed equations have no guard against empty bases; this one only keeps 0 / 0 from becoming NaN.
        em=EMSettings(normalize_bases=False, mass_eps=1e-30, empty_bases="kept"),
        initialisation="gaussian",
    ),
    "reference_code": StemSettings(
        preset="reference_code",
        em=EMSettings(temperature=0.01, iterations=5, norm_eps=1e-4, mass_eps=1e-4, empty_bases="kept"),
        space="keys_per_head",
        initialisation="gaussian",
        scope="frame_chunks",
        clamp_to_tokens=False,
    ),
    # TokenFlow's edits keep backgrounds best from these: docs/defaults.md
    "tokenflow": StemSettings(
        preset="tokenflow",
        em=EMSettings(normalize_bases=False),
        initialisation="gaussian",
    ),
}

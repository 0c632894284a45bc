"""What TokenFlow Edit offers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ....stem_kernels.correspondence import KeyframeChoice, PropagationWeights
from ....stem_kernels.prompt_alignment import Window
from ..inversion.sampling import Tail
from ..stem.attention import StemSelfAttention

SourceRows = Literal["true", "propagated"]
StartNoise = Literal["trajectory", "renoised", "shared"]


# With fewer steps that draw keyframes, edits keep the background less well and move less steadily (docs/defaults.md).
_MATCHED_STEPS = 25


@dataclass(frozen=True)
class TokenFlowSettings:
    """What TokenFlow Edit offers.

    Attributes:
        cfg: classifier-free guidance scale.
        cfg_window: the steps in which it acts, as shares of the schedule from its noisy end.
        batch_size: frames edited at a time; every batch has one keyframe.
        attention_injection, feature_injection: shares of the schedule, from its noisy end, in which the source's
            queries and keys, and its convolution feature, replace those of the edit.
        weights, keyframes: see `propagation_plan` and `choose_keyframes`.
        source_rows: see `TokenFlowAttention`.
        stem: method of the keyframes' attention in place of extended attention, or None.
        steps: 0 for those of the inversion.
        start: share of the schedule that is run; below 1 it begins at a less noisy step (as SDEdit does).
        start_noise: "trajectory" begins at the inverted latent of that step; "renoised" puts the noise of the end of
            the inversion on the clean video; "shared" one fresh noise on all frames.
        tail: see `denoising_sigmas`.
        seed: of the keyframes and of the shared noise.
        mask: see `EditGuider`.
        keyframe_window: see `TokenFlowAttention`.
        match_every: steps that share keyframes and correspondences: the first of them runs the source's frames. 0 for
            as many as leave 25 such steps or more.
    """

    cfg: float = 7.5
    cfg_window: Window = 1.0
    batch_size: int = 8
    attention_injection: float = 0.5
    feature_injection: float = 0.8
    weights: PropagationWeights = "reference"
    keyframes: KeyframeChoice = "random"
    source_rows: SourceRows = "true"
    stem: StemSelfAttention | None = None
    steps: int = 0
    start: float = 1.0
    start_noise: StartNoise = "trajectory"
    tail: Tail = "alpha0"
    seed: int = 0
    mask: Tensor | None = None
    keyframe_window: int = 32
    match_every: int = 0

    def steps_sharing(self, steps: int) -> int:
        """How many steps of so many share correspondences."""
        return self.match_every or max(1, steps // _MATCHED_STEPS)

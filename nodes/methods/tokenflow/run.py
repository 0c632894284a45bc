"""A step of a TokenFlow edit as a sequence of passes through the model, and what they leave for each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ....stem_kernels.correspondence import Correspondence, PropagationPlan, correspond
from ..batching.lockstep import Meet, alone
from ..seams.layer_map import AttentionLayer
from .keyframe_store import KeyframeStore
from .passes import KeyRow

# Kinds of rows; outputs of attention are kept by cond.
TOKENS, QUERIES, KEYS, VALUES, FEATURE = "tokens", "queries", "keys", "values", "feature"
SOURCE = "source"


@dataclass(frozen=True)
class Matched:
    """matches: by layer, compact; feature: the source's convolution feature [frames, c, h, w], if it is injected."""

    matches: dict[int, Correspondence]
    feature: Tensor | None


@dataclass
class TokenFlowRun:
    """What passes leave for each other within a step.

    Attributes:
        kept: of the keyframes, by layer: the source's normalised tokens [p, c], at injected layers its queries and keys
            until their edit has read them, and the attention outputs before the output projection by cond (its number,
            or "source"); and the source's convolution feature [c, h, w].
        timestep: of the step; keys the draws of STEM attention.
        matches: correspondences of the batch under way, by layer.
        feature: the source's convolution feature of that batch, [frames, c, h, w].
        matched: what the source of each batch has left for the steps that read it again.
    """

    kept: KeyframeStore
    timestep: int = 0
    matches: dict[int, Correspondence] = field(default_factory=dict)
    feature: Tensor | None = None
    matched: dict[int, Matched] = field(default_factory=dict)

    def hold(self, batch: int) -> None:
        """Keeps what the source of a batch has left beyond its step."""
        matches = {layer: found.compact() for layer, found in self.matches.items()}
        self.matched[batch] = Matched(matches, None if self.feature is None else self.kept.placed(self.feature))

    def recall(self, batch: int) -> None:
        """Puts back what the source of a batch has left in an earlier step."""
        found = self.matched[batch]
        self.matches = {layer: one.indices() for layer, one in found.matches.items()}
        self.feature = None if found.feature is None else found.feature.to(self.kept.device, non_blocking=True)

    def forget(self) -> None:
        """Drop everything that a step has left, but for what later steps read."""
        self.kept.clear()
        self.matches = {}
        self.feature = None


@dataclass(eq=False)
class Pass:
    """One call of the model within a step; the layers find it among the transformer options.

    Attributes:
        run: what passes leave for each other.
        source: whether these are rows of the source video or of the edit.
        frames, here: numbers of its frames, int64 in host memory and on the device.
        keyframes: numbers of the keyframes that it holds, or from which its frames take their features.
        plan: how they take them, by places in `keyframes`; None in a pass over keyframes.
        key: in a source pass, the keyframe that the edit pass has beside these frames; its number is such a place.
        inject_attention: at some layers source queries and keys replace those of the edit.
        inject_features: the source's convolution feature replaces that of the edit.
        meet: how a pass over some of the edit's keyframes meets those over the others.
        tokens: those of the edit's keyframes, on their way to STEM attention in the same layer.
    """

    run: TokenFlowRun
    source: bool
    frames: Tensor
    here: Tensor
    keyframes: Sequence[int]
    plan: PropagationPlan | None = None
    key: KeyRow | None = None
    inject_attention: bool = False
    inject_features: bool = False
    meet: Meet = alone
    tokens: Tensor | None = None

    def injects(self, layer: AttentionLayer) -> bool:
        """Whether source queries and keys replace those of the edit at a layer."""
        return self.inject_attention and layer.injected

    def of_keyframes(self, kind: str | int, layer: int = 0) -> Tensor:
        """What its keyframes have left, [keyframes, ...]."""
        return self.run.kept.rows(kind, layer, self.keyframes)

    def match(self, layer: int, tokens: Tensor | None) -> None:
        """Finds the tokens of the source's frames [frames, p, c] in the keyframes; None where there is only `key`."""
        of_keyframes = self.of_keyframes(TOKENS, layer)
        rows = of_keyframes[:0] if tokens is None else tokens
        rows = rows if self.key is None else self.key.put(rows, of_keyframes)
        self.run.matches[layer] = correspond(rows, of_keyframes, self.plan)

    def match_key(self) -> None:
        """Does the same in all layers for a batch that is its keyframe alone, and takes its feature."""
        for layer in self.run.kept.layers(TOKENS):
            self.match(layer, None)
        if self.inject_features:
            self.run.feature = self.of_keyframes(FEATURE)[self.key.number, None]

    def keep_feature(self, feature: Tensor) -> None:
        """Keeps the source's convolution feature, [frames, c, h, w]."""
        if self.plan is None:
            self.run.kept.keep(FEATURE, 0, feature)
        else:
            self.run.feature = feature if self.key is None else self.key.put(feature, self.of_keyframes(FEATURE))

    def source_feature(self) -> Tensor:
        """That feature for an edit pass, [frames, c, h, w]."""
        return self.of_keyframes(FEATURE) if self.plan is None else self.run.feature

"""STEM self-attention: every frame reads its keys and values from the bases of the whole video (paper Eq. 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ....stem_kernels.attention import joined
from ..attention.attention_map import AttentionMap
from ..attention.method import SelfAttentionMethod
from ..attention.rows import groups_of
from ..batching.frame_batches import batch_of
from ..seams.layer_map import AttentionLayer
from .feature_bases import FeatureBases
from .fitting import FitKey, Fitting
from .key_bases import KeyBases
from .run import StemRun
from .scopes import Scope, SharedKeys, scopes
from .settings import StemSettings


@dataclass(frozen=True)
class StemSelfAttention(SelfAttentionMethod):
    """The method that STEM Bases installs. It can be replayed, and split into batches of frames."""

    fitting: Fitting
    frames_per_batch: int | None = 0
    decided: bool = False
    name: str = "STEM Bases"

    @classmethod
    def from_settings(cls, settings: StemSettings, frames_per_batch: int | None = 0) -> StemSelfAttention:
        return cls(Fitting(settings), frames_per_batch)

    @property
    def settings(self) -> StemSettings:
        return self.fitting.settings

    @property
    def bases(self) -> FeatureBases | KeyBases:
        """Where the bases lie: among the layer's tokens, or among its keys."""
        return FeatureBases(self.fitting) if self.settings.space == "features" else KeyBases(self.fitting)

    @property
    def replay_obstacle(self) -> str:
        if self.settings.warm_start == 0:
            return ""
        return (
            "warm_start, so the bases of a step depend on all steps before it, and it cannot be run again alone. Set "
            "warm_start of STEM Bases to 0 and invert again."
        )

    def start_run(self, model: Any) -> StemRun:
        return StemRun(model.get_model_object("model_sampling").timestep)

    def frames_that_meet(self, frames: int) -> int:
        return self.settings.scope_frames if self.settings.scope == "frame_chunks" else frames

    def of_batch(self, run: StemRun) -> StemRun:
        return replace(run, pending=[])

    def context(self, tokens: Tensor, layer: AttentionLayer, extra_options: dict) -> tuple[Tensor, Tensor]:
        return tokens, self.bases.context(tokens, layer, extra_options)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, extra_options: dict) -> Tensor:
        return self.recorded(q, k, v, layer, extra_options)[0]

    def recorded(
        self, q: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, extra_options: dict
    ) -> tuple[Tensor, list[AttentionMap]]:
        return _attended(q, self.bases.in_pass(k, v, layer, extra_options), extra_options)

    def attend_pixels(
        self, tokens: Tensor, q: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, timestep: int, extra_options: dict
    ) -> Tensor:
        batch, groups = batch_of(extra_options), groups_of(q, extra_options)

        def fit_all(tokens: Tensor, k: Tensor, v: Tensor) -> list[tuple[Scope, SharedKeys]]:
            found, frames = [], slice(0, k.shape[0] // groups)
            for scope in scopes(self.settings, groups, frames.stop):
                rows, key = scope.rows(frames), FitKey(timestep, layer.index, scope.chunk)
                pixels = tokens[rows], k[rows], v[rows]
                found.append((scope, self.bases.of_pixels(*pixels, key, extra_options["n_heads"])))
            return found

        here, found = batch.here(q.shape[0], groups), batch.together((tokens, k, v), groups, fit_all)
        shared = [(rows, keys) for scope, keys in found if (rows := scope.rows(here))]
        return _attended(q, shared, extra_options)[0]


def _attended(
    q: Tensor, shared: Sequence[tuple[slice, SharedKeys]], extra_options: dict
) -> tuple[Tensor, list[AttentionMap]]:
    """Attention of all rows [rows, p, c], each to the keys of its scope; scopes come in the order of their rows."""
    maps = [found.map_of(q[rows], rows) for rows, found in shared]
    parts = [part.attend(found.values, extra_options) for part, (_, found) in zip(maps, shared, strict=True)]
    return joined(parts), maps

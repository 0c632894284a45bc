"""Bases of the layer's normalised tokens, one set for all heads: the paper's."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from einops import rearrange
from torch import Tensor

from ....stem_kernels.attention import joined
from ....stem_kernels.em import Bases
from ....stem_kernels.token_parts import Tokens, parts_of
from ..attention.method import RUN
from ..attention.rows import groups_of
from ..batching.frame_batches import batch_of
from ..seams.layer_map import AttentionLayer
from .fitting import FitKey, Fitting
from .run import StemRun
from .scopes import Pooling, Scope, SharedKeys, scopes
from .seen_bases import seen_bases


@dataclass(frozen=True)
class FeatureBases:
    """Keys and values from bases in feature space."""

    fitting: Fitting

    def context(self, tokens: Tensor, layer: AttentionLayer, extra_options: dict) -> Tensor:
        """The bases themselves, [rows or 1, K, c]: ComfyUI projects K rows to keys and values, not N * P."""
        run: StemRun = extra_options[RUN]
        batch, groups = batch_of(extra_options), groups_of(tokens, extra_options)

        def fit_all(parts: list[tuple[slice, Tensor]]) -> list[tuple[Scope, SharedKeys]]:
            found = []
            for scope in scopes(self.fitting.settings, groups, parts[-1][0].stop):
                if frames := [tokens[rows] for here, tokens in parts if (rows := scope.rows(here))]:
                    features = self._seen(*frames)
                    bases = run.fit(self.fitting, scope, layer, extra_options, features)
                    found.append((scope, self._shared(features, bases, tokens.dtype, scope.frames)))
            return found

        found = batch.parts_together(tokens, groups=groups, compute=fit_all)
        here = batch.here(tokens.shape[0], groups)
        run.pending = [(rows, shared) for scope, shared in found if (rows := scope.rows(here))]
        return joined([shared.keys for _, shared in run.pending], dim=1)

    def in_pass(
        self, k: Tensor, v: Tensor, layer: AttentionLayer, extra_options: dict
    ) -> list[tuple[slice, SharedKeys]]:
        """The rows of a call and what they share, from the bases' own keys and values [1, K, c]."""
        run: StemRun = extra_options[RUN]
        pending, run.pending = run.pending, []
        counts = [shared.keys.shape[1] for _, shared in pending]
        projected = zip(pending, k.split(counts, dim=1), v.split(counts, dim=1), strict=True)
        return [(rows, replace(shared, keys=keys, values=values)) for (rows, shared), keys, values in projected]

    def of_pixels(self, tokens: Tokens, k: Tokens, v: Tokens, key: FitKey, heads: int) -> SharedKeys:
        """EM on tokens [n, p, c], or parts of them along n; keys and values of the same pixels are pooled by its
        responsibilities."""
        features, keys, values = (self._seen(*parts_of(rows)) for rows in (tokens, k, v))
        bases = self.fitting.fit(features, key, (keys, values))
        return self._shared(features, bases, keys[0].dtype, slice(None))

    def _shared(self, features: Tokens, bases: Bases, dtype: torch.dtype, frames: slice) -> SharedKeys:
        """The pooled keys and values, or the bases that are still to be projected."""
        em, (kept, bias) = self.fitting.settings.em, seen_bases(bases, self.fitting.settings, dtype)
        pooling = Pooling(
            frames, features, bases, em, lambda pixels: self._seen(pixels)[0], lambda pooled: pooled[kept][None]
        )
        found = [part.to(dtype)[kept][None] for part in bases.pooled or (bases.centres,)]
        return SharedKeys(found[0], found[-1], bias, pooling)

    def _seen(self, *frames: Tensor) -> tuple[Tensor, ...]:
        """The pixels that EM sees of frames in parts, [n, p, c] -> [m, c] each."""
        return tuple(rearrange(part, "n p c -> (n p) c") for part in self.fitting.frames_seen(*frames))

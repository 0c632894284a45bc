"""Bases of the projected keys, one set per head: the authors' code."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from ....stem_kernels.em import Bases
from ....stem_kernels.token_parts import Tokens, parts_of
from ..attention.method import RUN
from ..attention.rows import groups_of
from ..batching.frame_batches import batch_of
from ..seams.layer_map import AttentionLayer
from .fitting import FitKey, Fitting
from .run import StemRun
from .scopes import Pooling, Scope, SharedKeys, scopes
from .seen_bases import logit_bias


@dataclass(frozen=True)
class KeyBases:
    """Keys and values from bases in the space of the keys."""

    fitting: Fitting

    def context(self, tokens: Tensor, layer: AttentionLayer, extra_options: dict) -> Tensor:
        """The tokens [rows, p, c]: the keys of all pixels are what the bases are fitted to."""
        return tokens

    def in_pass(
        self, k: Tensor, v: Tensor, layer: AttentionLayer, extra_options: dict
    ) -> list[tuple[slice, SharedKeys]]:
        """The rows of a call and what they share, from the pixels' keys and values [rows, p, c]."""
        run: StemRun = extra_options[RUN]
        batch, groups, heads = batch_of(extra_options), groups_of(k, extra_options), extra_options["n_heads"]

        def fit_all(parts: list[tuple[slice, Tensor, Tensor]]) -> list[tuple[Scope, SharedKeys]]:
            found = []
            for scope in scopes(self.fitting.settings, groups, parts[-1][0].stop):
                if frames := [(k[rows], v[rows]) for here, k, v in parts if (rows := scope.rows(here))]:
                    keys, values = (self._per_head(*of_frames, heads=heads) for of_frames in zip(*frames, strict=True))
                    bases = run.fit(self.fitting, scope, layer, extra_options, keys, (values,))
                    found.append((scope, self._shared(keys, bases, heads, k.dtype, scope.frames)))
            return found

        here = batch.here(k.shape[0], groups)
        found = batch.parts_together(k, v, groups=groups, compute=fit_all)
        return [(rows, shared) for scope, shared in found if (rows := scope.rows(here))]

    def of_pixels(self, tokens: Tokens, k: Tokens, v: Tokens, key: FitKey, heads: int) -> SharedKeys:
        """EM per head on keys [n, p, c], or parts of them along n, whose values are pooled by the same
        responsibilities; no token is read."""
        keys, values = (self._per_head(*parts_of(rows), heads=heads) for rows in (k, v))
        return self._shared(keys, self.fitting.fit(keys, key, (values,)), heads, keys[0].dtype, slice(None))

    def _shared(self, features: Tokens, bases: Bases, heads: int, dtype: torch.dtype, frames: slice) -> SharedKeys:
        """From a fit to keys [h, m, d] with the pooled values. Heads have their own empty bases, which cannot be left
        out of some."""
        bias, em = logit_bias(bases, self.fitting.settings, dtype), self.fitting.settings.em
        pooling = Pooling(frames, features, bases, em, lambda pixels: self._per_head(pixels, heads=heads)[0], _merged)
        keys, values = (_merged(found.to(dtype)) for found in (bases.centres, *bases.pooled))
        return SharedKeys(keys, values, None if bias is None else bias[None, :, None], pooling)

    def _per_head(self, *frames: Tensor, heads: int) -> tuple[Tensor, ...]:
        """The pixels that EM sees of frames in parts, by head: [n, p, c] -> [h, m, d] each."""
        seen = self.fitting.frames_seen(*frames)
        return tuple(rearrange(part, "n p (h d) -> h (n p) d", h=heads) for part in seen)


def _merged(bases: Tensor) -> Tensor:
    return rearrange(bases, "h k d -> 1 k (h d)")

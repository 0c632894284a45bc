"""STEM self-attention: every frame reads its keys and values from the bases of the whole video (paper Eq. 7)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from ...stem_kernels.attention import join_frames, merge_heads, split_heads
from ...stem_kernels.em import Bases, EMSettings, fit_bases, pool
from ...stem_kernels.initialisation import DrawKey, Draws, Initialisation, SeededDraws, initial_bases
from .attention_map import AttentionMap
from .layer_map import AttentionLayer
from .self_attention import RUN, groups_of

EMSpace = Literal["features", "keys_per_head"]
Scope = Literal["all_frames", "anchor_frames", "frame_chunks"]


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
        seed: of the initialisation.
    """

    preset: str = "paper"
    em: EMSettings = field(default_factory=EMSettings)
    space: EMSpace = "features"
    initialisation: Initialisation = "tokens"
    scope: Scope = "all_frames"
    scope_frames: int = 8
    mass_weighted: bool = False
    clamp_to_tokens: bool = True
    seed: int = 0


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
}


@dataclass(frozen=True)
class SharedKeys:
    """Keys and values of the bases, and how they come from those of the pixels.

    Attributes:
        keys, values: [1, k, c] each.
        logit_bias: what to add to the logits, [1, 1 or h, 1, k], or None.
        pool: Pi of the fit, values of the pixels [n, p, c] -> values of the bases [1, k, c].
    """

    keys: Tensor
    values: Tensor
    logit_bias: Tensor | None
    pool: Callable[[Tensor], Tensor]

    def map_of(self, q: Tensor, rows: slice = slice(None)) -> AttentionMap:
        """The attention of queries [n, p, c] to these keys."""
        return AttentionMap(rows, q, self.keys, self.logit_bias, self.pool)


@dataclass(frozen=True)
class PendingBases:
    """Bases of one scope on their way from `context` to `attend`: how many, their logit bias, and their Pi."""

    count: int
    logit_bias: Tensor | None
    pool: Callable[[Tensor], Tensor]


@dataclass
class StemRun:
    """What STEM self-attention remembers during a run.

    Attributes:
        timestep: the host's map from noise level to timestep.
        pending: bases on their way from `context` to `attend` of one layer, by device.
    """

    timestep: Callable[[Tensor], Tensor]
    pending: dict[str, list[PendingBases]] = field(default_factory=dict)

    def timestep_of(self, extra_options: dict) -> int:
        """The timestep of this call, which the draws are keyed by."""
        return int(self.timestep(extra_options["sigmas"][:1]))


@dataclass(frozen=True)
class StemSelfAttention:
    """The method that STEM Bases installs. Can be replayed (see `replay.ReplayableMethod`)."""

    settings: StemSettings
    draws: Draws
    name: str = "STEM Bases"

    @classmethod
    def from_settings(cls, settings: StemSettings) -> StemSelfAttention:
        return cls(settings, SeededDraws(settings.seed))

    def start_run(self, model: Any) -> StemRun:
        return StemRun(model.get_model_object("model_sampling").timestep)

    def context(self, tokens: Tensor, layer: AttentionLayer, extra_options: dict) -> tuple[Tensor, Tensor]:
        """In feature space the bases themselves are what the host projects to keys and values: K rows, not N * P."""
        if self.settings.space != "features":
            return tokens, tokens
        pieces, pending = [], []
        run: StemRun = extra_options[RUN]
        timestep = run.timestep_of(extra_options)
        for chunk, rows in self._scopes(tokens, extra_options):
            features = self._fitted(tokens[rows]).flatten(0, 1)  # [m, c]
            bases = self._fit(features, DrawKey(timestep, layer.index, chunk))
            live = _live_index(bases, self.settings.em)
            pieces.append(bases.centres.to(tokens.dtype)[live][None])
            bias = self._logit_bias(bases.mass[live], tokens.dtype)
            pending.append(PendingBases(pieces[-1].shape[1], bias, self._pool_of_features(features, bases, live)))
        run.pending[str(tokens.device)] = pending
        return tokens, torch.cat(pieces, dim=1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, extra_options: dict) -> Tensor:
        return self.recorded(q, k, v, layer, extra_options)[0]

    def recorded(
        self, q: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, extra_options: dict
    ) -> tuple[Tensor, list[AttentionMap]]:
        run: StemRun = extra_options[RUN]
        if self.settings.space == "features":
            pending = run.pending.pop(str(q.device))
            counts = [bases.count for bases in pending]
            shared = [
                SharedKeys(keys, values, bases.logit_bias, bases.pool)
                for keys, values, bases in zip(k.split(counts, dim=1), v.split(counts, dim=1), pending, strict=True)
            ]
            return self._attended(q, shared, extra_options)
        # The tokens are not read in this space.
        return self._attended(
            q, self._shared(k, k, v, layer, run.timestep_of(extra_options), extra_options), extra_options
        )

    def attend_pixels(
        self, tokens: Tensor, q: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, timestep: int, extra_options: dict
    ) -> Tensor:
        return self._attended(q, self._shared(tokens, k, v, layer, timestep, extra_options), extra_options)[0]

    def shared_keys(self, tokens: Tensor, k: Tensor, v: Tensor, key: DrawKey, heads: int) -> SharedKeys:
        """Bases of the pixels of some frames, given their tokens and projected keys and values [n, p, c]."""
        if self.settings.space == "features":
            return self._bases_of_features(tokens, k, v, key)
        return self.bases_of_keys(k, v, key, heads)

    def bases_of_keys(self, k: Tensor, v: Tensor, key: DrawKey, heads: int) -> SharedKeys:
        """EM per head on projected keys [n, p, c]; the values are pooled by the same responsibilities."""
        features = self._per_head(k, heads)
        bases = self._fit(features, key)
        bias, live = None, bases.live(self.settings.em)
        # Heads have their own empty bases, so these are masked rather than left out.
        if self.settings.mass_weighted or not bool(live.all()):
            weight = _log(bases.mass) if self.settings.mass_weighted else torch.zeros_like(bases.mass)
            bias = weight.masked_fill(~live, torch.finfo(k.dtype).min).to(k.dtype)[None, :, None]  # [1, h, 1, k]

        def pool_per_head(values: Tensor) -> Tensor:
            (pooled,) = pool(features, (self._per_head(values, heads),), bases, self.settings.em)
            return merge_heads(pooled[None].to(values.dtype))

        return SharedKeys(merge_heads(bases.centres[None].to(k.dtype)), pool_per_head(v), bias, pool_per_head)

    def _bases_of_features(self, tokens: Tensor, k: Tensor, v: Tensor, key: DrawKey) -> SharedKeys:
        """EM on tokens [n, p, c]; keys and values of the same pixels are pooled by its responsibilities."""
        features = self._fitted(tokens).flatten(0, 1)
        bases = self._fit(features, key)
        live = _live_index(bases, self.settings.em)
        keys, values = self._pooled(features, bases, live, k, v)
        bias = self._logit_bias(bases.mass[live], k.dtype)
        return SharedKeys(keys, values, bias, self._pool_of_features(features, bases, live))

    def _pool_of_features(self, features: Tensor, bases: Bases, live: Tensor | slice) -> Callable[[Tensor], Tensor]:
        return lambda values: self._pooled(features, bases, live, values)[0]

    def _pooled(self, features: Tensor, bases: Bases, live: Tensor | slice, *values: Tensor) -> list[Tensor]:
        """Each of `values` [n, p, c] at the bases that the attention sees, [1, k, c]."""
        fitted = [self._fitted(tensor).flatten(0, 1) for tensor in values]
        pooled = pool(features, fitted, bases, self.settings.em)
        return [at_bases[live][None].to(tensor.dtype) for at_bases, tensor in zip(pooled, values, strict=True)]

    def _shared(
        self, tokens: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, timestep: int, extra_options: dict
    ) -> list[SharedKeys]:
        """Bases of every scope, from the pixels' tokens, keys and values [rows, p, c]."""
        heads = extra_options["n_heads"]
        return [
            self.shared_keys(tokens[rows], k[rows], v[rows], DrawKey(timestep, layer.index, chunk), heads)
            for chunk, rows in self._scopes(k, extra_options)
        ]

    def _attended(self, q: Tensor, shared: list[SharedKeys], extra_options: dict) -> tuple[Tensor, list[AttentionMap]]:
        rows = [rows for _, rows in self._scopes(q, extra_options)]
        maps = [keys.map_of(q[part], part) for part, keys in zip(rows, shared, strict=True)]
        outputs = [part.attend(keys.values, extra_options) for part, keys in zip(maps, shared, strict=True)]
        return torch.cat(outputs), maps

    def _per_head(self, frames: Tensor, heads: int) -> Tensor:
        """The pixels that EM sees, by head: [n, p, c] -> [h, m, d]."""
        return split_heads(join_frames(self._fitted(frames), 1), heads)[0]

    def _fit(self, features: Tensor, key: DrawKey) -> Bases:
        settings = self.settings
        initial = initial_bases(
            features, settings.em.num_bases, settings.initialisation, self.draws, key, settings.clamp_to_tokens
        )
        return fit_bases(features, initial, settings.em)

    def _fitted(self, frames: Tensor) -> Tensor:
        """The frames [n, …] that EM sees."""
        if self.settings.scope != "anchor_frames" or frames.shape[0] <= self.settings.scope_frames:
            return frames
        anchors = torch.linspace(0, frames.shape[0] - 1, self.settings.scope_frames).round().long()
        return frames[anchors.to(frames.device)]

    def _scopes(self, tokens: Tensor, extra_options: dict) -> list[tuple[int, slice]]:
        """Rows that share bases, with the number of their chunk; the frames of different conds never mix."""
        groups = groups_of(tokens, extra_options)
        frames = tokens.shape[0] // groups
        size = self.settings.scope_frames if self.settings.scope == "frame_chunks" else frames
        return [
            (start // size, slice(group * frames + start, group * frames + min(start + size, frames)))
            for group in range(groups)
            for start in range(0, frames, size)
        ]

    def _logit_bias(self, mass: Tensor, dtype: torch.dtype) -> Tensor | None:
        return _log(mass).to(dtype)[None, None, None] if self.settings.mass_weighted else None


def _live_index(bases: Bases, em: EMSettings) -> Tensor | slice:
    live = bases.live(em)
    return slice(None) if bool(live.all()) else live


def _log(mass: Tensor) -> Tensor:
    return mass.clamp_min(torch.finfo(torch.float32).tiny).log()

"""STEM self-attention: every frame reads its keys and values from the bases of the whole video (paper Eq. 7)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ....stem_kernels.attention import join_frames, merge_heads, split_heads
from ....stem_kernels.em import Bases, EMSettings, pool
from ....stem_kernels.initialisation import DrawKey, Draws, SeededDraws
from ....stem_kernels.token_parts import Tokens, parts_of
from ..attention.attention_map import AttentionMap
from ..attention.method import RUN, SelfAttentionMethod
from ..attention.rows import groups_of
from ..batching.frame_batches import FrameBatch
from ..seams.layer_map import AttentionLayer
from .fitting import BaseFitting, WarmStart
from .scopes import Scope, scopes
from .settings import StemSettings


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
class FittedScope:
    """Bases of one scope in feature space: centres [1, k, c] that keys and values are projected from, bias, Pi."""

    scope: Scope
    centres: Tensor
    logit_bias: Tensor | None
    pool: Callable[[Tensor], Tensor]


@dataclass
class StemRun:
    """What STEM self-attention remembers during a run.

    Attributes:
        timestep: the host's map from noise level to timestep.
        batch: the batch of frames under way, or None where all frames are computed at once.
        pending: bases on their way from `context` to `attend` of one layer, by device.
        previous: of a warm start, the bases of the step before, by layer, cond and chunk.
    """

    timestep: Callable[[Tensor], Tensor]
    batch: FrameBatch | None = None
    pending: dict[str, list[FittedScope]] = field(default_factory=dict)
    previous: dict[tuple[int, int, int], Tensor] = field(default_factory=dict)

    def timestep_of(self, extra_options: dict) -> int:
        """The timestep of this call, which the draws are keyed by."""
        return int(self.timestep(extra_options["sigmas"][:1]))

    def of_all_frames(self, tensors: Sequence[Tensor], groups: int, compute: Callable[..., Any]) -> Any:
        """`compute` of tensors [rows, ...] with the rows of all frames, whether they are here or in other batches."""
        return compute(*tensors) if self.batch is None else self.batch.together(tensors, groups, compute)

    def parts_of_all_frames(
        self, tensor: Tensor, groups: int, compute: Callable[[list[tuple[slice, Tensor]]], Any]
    ) -> Any:
        """`compute` of the frames and the rows of every batch, without joining them."""
        part = (self.frames_here(tensor.shape[0], groups), tensor)
        return compute([part]) if self.batch is None else self.batch.meet(part, compute)

    def frames_here(self, rows: int, groups: int) -> slice:
        """The frames of the clip that a call with this many rows holds."""
        return slice(0, rows // groups) if self.batch is None else self.batch.frames


@dataclass(frozen=True)
class StemSelfAttention(SelfAttentionMethod):
    """The method that STEM Bases installs. It can be replayed, and split into batches of frames."""

    settings: StemSettings
    draws: Draws
    frames_per_batch: int | None = 0
    name: str = "STEM Bases"

    @classmethod
    def from_settings(cls, settings: StemSettings, frames_per_batch: int | None = 0) -> StemSelfAttention:
        return cls(settings, SeededDraws(settings.seed), frames_per_batch)

    @property
    def fitting(self) -> BaseFitting:
        """What fits the bases."""
        return BaseFitting(self.settings, self.draws)

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

    def of_batch(self, run: StemRun, batch: FrameBatch) -> StemRun:
        return replace(run, batch=batch, pending={})

    def context(self, tokens: Tensor, layer: AttentionLayer, extra_options: dict) -> tuple[Tensor, Tensor]:
        """In feature space the bases themselves are what the host projects to keys and values: K rows, not N * P."""
        if self.settings.space != "features":
            return tokens, tokens
        run: StemRun = extra_options[RUN]
        groups = groups_of(tokens, extra_options)

        def fit_all(parts: list[tuple[slice, Tensor]]) -> list[FittedScope]:
            every = scopes(self.settings, groups, parts[-1][0].stop)
            return [self._fit_scope(self._features(parts, scope), scope, layer, run, extra_options) for scope in every]

        here = run.frames_here(tokens.shape[0], groups)
        found = run.parts_of_all_frames(tokens, groups, fit_all)
        fitted = [one for one in found if one.scope.rows(here)]
        run.pending[str(tokens.device)] = fitted
        return tokens, torch.cat([one.centres for one in fitted], dim=1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, extra_options: dict) -> Tensor:
        return self.recorded(q, k, v, layer, extra_options)[0]

    def recorded(
        self, q: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, extra_options: dict
    ) -> tuple[Tensor, list[AttentionMap]]:
        run: StemRun = extra_options[RUN]
        groups = groups_of(q, extra_options)
        here = run.frames_here(q.shape[0], groups)
        if self.settings.space == "features":
            fitted = run.pending.pop(str(q.device))
            counts = [one.centres.shape[1] for one in fitted]
            shared = [
                (one.scope.rows(here), SharedKeys(keys, values, one.logit_bias, one.pool))
                for keys, values, one in zip(k.split(counts, dim=1), v.split(counts, dim=1), fitted, strict=True)
            ]
            return _attended(q, shared, extra_options)

        # The tokens are not read in this space.
        def fit_all(k: Tensor, v: Tensor) -> list[tuple[Scope, SharedKeys]]:
            return self._shared(k, k, v, layer, run.timestep_of(extra_options), extra_options, run)

        shared = [(scope.rows(here), keys) for scope, keys in run.of_all_frames((k, v), groups, fit_all)]
        return _attended(q, [(rows, keys) for rows, keys in shared if rows], extra_options)

    def attend_pixels(
        self, tokens: Tensor, q: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, timestep: int, extra_options: dict
    ) -> Tensor:
        shared = self._shared(tokens, k, v, layer, timestep, extra_options)
        everything = slice(0, q.shape[0] // groups_of(q, extra_options))
        return _attended(q, [(scope.rows(everything), keys) for scope, keys in shared], extra_options)[0]

    def shared_keys(
        self, tokens: Tensor, k: Tensor, v: Tensor, key: DrawKey, heads: int, start: WarmStart | None = None
    ) -> SharedKeys:
        """Bases of the pixels of some frames, given their tokens and projected keys and values [n, p, c]."""
        if self.settings.space == "features":
            return self._bases_of_features(tokens, k, v, key, start)
        return self.bases_of_keys(k, v, key, heads, start)

    def bases_of_keys(
        self, k: Tensor, v: Tensor, key: DrawKey, heads: int, start: WarmStart | None = None
    ) -> SharedKeys:
        """EM per head on projected keys [n, p, c]; the values are pooled by the same responsibilities."""
        features = self._per_head(k, heads)
        bases = self.fitting.fit(features, key, (self._per_head(v, heads),), start)
        bias, live = None, bases.live(self.settings.em)
        # Heads have their own empty bases, so these are masked rather than left out.
        if self.settings.mass_weighted or not bool(live.all()):
            weight = _log(bases.mass) if self.settings.mass_weighted else torch.zeros_like(bases.mass)
            bias = weight.masked_fill(~live, torch.finfo(k.dtype).min).to(k.dtype)[None, :, None]  # [1, h, 1, k]

        def pool_per_head(values: Tensor) -> Tensor:
            (pooled,) = pool(features, (self._per_head(values, heads),), bases, self.settings.em)
            return merge_heads(pooled[None].to(values.dtype))

        keys, values = (merge_heads(found[None].to(k.dtype)) for found in (bases.centres, *bases.pooled))
        return SharedKeys(keys, values, bias, pool_per_head)

    def _bases_of_features(
        self, tokens: Tensor, k: Tensor, v: Tensor, key: DrawKey, start: WarmStart | None
    ) -> SharedKeys:
        """EM on tokens [n, p, c]; keys and values of the same pixels are pooled by its responsibilities."""
        features, keys, values = (self.fitting.frames(tensor).flatten(0, 1) for tensor in (tokens, k, v))
        bases = self.fitting.fit(features, key, (keys, values), start)
        live = _live_index(bases, self.settings.em)
        pooled = [at_bases[live][None].to(k.dtype) for at_bases in bases.pooled]
        bias = self._logit_bias(bases.mass[live], k.dtype)
        return SharedKeys(*pooled, bias, self._pool_of_features(features, bases, live))

    def _pool_of_features(self, features: Tokens, bases: Bases, live: Tensor | slice) -> Callable[[Tensor], Tensor]:
        def pool_features(values: Tensor) -> Tensor:
            (pooled,) = pool(features, (self.fitting.frames(values).flatten(0, 1),), bases, self.settings.em)
            return pooled[live][None].to(values.dtype)

        return pool_features

    def _features(self, parts: list[tuple[slice, Tensor]], scope: Scope) -> Tokens:
        """What EM sees of a scope, [m, c] or parts of it, from the frames and the tokens [rows, p, c] of batches."""
        frames = [tokens[rows] for batch, tokens in parts if (rows := scope.rows(batch))]
        if self.settings.scope == "anchor_frames":
            return self.fitting.frames(torch.cat(frames)).flatten(0, 1)
        return tuple(part.flatten(0, 1) for part in frames)

    def _fit_scope(
        self, features: Tokens, scope: Scope, layer: AttentionLayer, run: StemRun, extra_options: dict
    ) -> FittedScope:
        """Bases of one scope, from its features [m, c]."""
        key = DrawKey(run.timestep_of(extra_options), layer.index, scope.chunk)
        bases = self.fitting.fit(features, key, start=self._warm_start(run, layer, scope, extra_options))
        live, dtype = _live_index(bases, self.settings.em), parts_of(features)[0].dtype
        bias = self._logit_bias(bases.mass[live], dtype)
        centres = bases.centres.to(dtype)[live][None]
        return FittedScope(scope, centres, bias, self._pool_of_features(features, bases, live))

    def _shared(
        self,
        tokens: Tensor,
        k: Tensor,
        v: Tensor,
        layer: AttentionLayer,
        timestep: int,
        extra_options: dict,
        run: StemRun | None = None,
    ) -> list[tuple[Scope, SharedKeys]]:
        """Bases of every scope, from the pixels' tokens, keys and values [rows, p, c] of all frames."""
        heads, found = extra_options["n_heads"], []
        for scope, rows in self._scopes(k, extra_options):
            start = None if run is None else self._warm_start(run, layer, scope, extra_options)
            key = DrawKey(timestep, layer.index, scope.chunk)
            found.append((scope, self.shared_keys(tokens[rows], k[rows], v[rows], key, heads, start)))
        return found

    def _scopes(self, tokens: Tensor, extra_options: dict) -> list[tuple[Scope, slice]]:
        groups = groups_of(tokens, extra_options)
        frames = slice(0, tokens.shape[0] // groups)
        return [(scope, scope.rows(frames)) for scope in scopes(self.settings, groups, frames.stop)]

    def _per_head(self, frames: Tensor, heads: int) -> Tensor:
        """The pixels that EM sees, by head: [n, p, c] -> [h, m, d]."""
        return split_heads(join_frames(self.fitting.frames(frames), 1), heads)[0]

    def _warm_start(self, run: StemRun, layer: AttentionLayer, scope: Scope, extra_options: dict) -> WarmStart | None:
        if self.settings.warm_start == 0:
            return None
        return WarmStart(run.previous, (layer.index, extra_options["cond_or_uncond"][scope.group], scope.chunk))

    def _logit_bias(self, mass: Tensor, dtype: torch.dtype) -> Tensor | None:
        return _log(mass).to(dtype)[None, None, None] if self.settings.mass_weighted else None


def _attended(
    q: Tensor, shared: Sequence[tuple[slice, SharedKeys]], extra_options: dict
) -> tuple[Tensor, list[AttentionMap]]:
    """Attention of all rows, each to the keys of its scope; scopes come in the order of their rows."""
    maps = [keys.map_of(q[rows], rows) for rows, keys in shared]
    return torch.cat(
        [part.attend(keys.values, extra_options) for part, (_, keys) in zip(maps, shared, strict=True)]
    ), maps


def _live_index(bases: Bases, em: EMSettings) -> Tensor | slice:
    live = bases.live(em)
    return slice(None) if bool(live.all()) else live


def _log(mass: Tensor) -> Tensor:
    return mass.clamp_min(torch.finfo(torch.float32).tiny).log()

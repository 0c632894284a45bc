"""STEM self-attention: every frame reads its keys and values from the bases of the whole video (paper Eq. 7)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from ...stem_kernels.attention import join_frames, merge_heads, split_frames, split_heads
from ...stem_kernels.em import Bases, EMSettings, fit_bases, pool
from ...stem_kernels.initialisation import DrawKey, Draws, Initialisation, SeededDraws, initial_bases
from .layer_map import AttentionLayer
from .self_attention import RUN, groups_of, host_attention

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
    """Keys and values of the bases, [1, k, c] each, and what to add to the logits, [1, 1 or h, 1, k] or None."""

    keys: Tensor
    values: Tensor
    logit_bias: Tensor | None


@dataclass
class StemRun:
    """What STEM self-attention remembers during a run.

    Attributes:
        timestep: the host's map from noise level to timestep.
        pending: bases on their way from `context` to `attend` of one layer, by device: counts and logit biases.
    """

    timestep: Callable[[Tensor], Tensor]
    pending: dict[str, tuple[list[int], list[Tensor | None]]] = field(default_factory=dict)

    def timestep_of(self, extra_options: dict) -> int:
        """The timestep of this call, which the draws are keyed by."""
        return int(self.timestep(extra_options["sigmas"][:1]))


@dataclass(frozen=True)
class StemSelfAttention:
    """The method that STEM Bases installs."""

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
        pieces, biases = [], []
        run: StemRun = extra_options[RUN]
        timestep = run.timestep_of(extra_options)
        for chunk, rows in self._scopes(tokens, extra_options):
            features = self._fitted(tokens[rows]).flatten(0, 1)  # [m, c]
            bases = self._fit(features, DrawKey(timestep, layer.index, chunk))
            live = _live_index(bases, self.settings.em)
            pieces.append(bases.centres.to(tokens.dtype)[live][None])
            biases.append(self._logit_bias(bases.mass[live], tokens.dtype))
        run.pending[str(tokens.device)] = ([piece.shape[1] for piece in pieces], biases)
        return tokens, torch.cat(pieces, dim=1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, extra_options: dict) -> Tensor:
        run: StemRun = extra_options[RUN]
        scopes = self._scopes(q, extra_options)
        if self.settings.space == "features":
            counts, biases = run.pending.pop(str(q.device))
            shared = [
                SharedKeys(keys, values, bias)
                for keys, values, bias in zip(k.split(counts, dim=1), v.split(counts, dim=1), biases, strict=True)
            ]
        else:
            timestep = run.timestep_of(extra_options)
            shared = [
                self.bases_of_keys(k[rows], v[rows], DrawKey(timestep, layer.index, chunk), extra_options["n_heads"])
                for chunk, rows in scopes
            ]
        outputs = [attend_shared(q[rows], keys, extra_options) for (_, rows), keys in zip(scopes, shared, strict=True)]
        return torch.cat(outputs)

    def bases_of_keys(self, k: Tensor, v: Tensor, key: DrawKey, heads: int) -> SharedKeys:
        """EM per head on projected keys [n, p, c]; the values are pooled by the same responsibilities."""
        fitted_keys, fitted_values = (
            split_heads(join_frames(self._fitted(tensor), 1), heads)[0] for tensor in (k, v)
        )  # [h, m, d]
        bases = self._fit(fitted_keys, key)
        (values,) = pool(fitted_keys, (fitted_values,), bases, self.settings.em)
        return self._shared_per_head(bases, bases.centres, values, k.dtype)

    def bases_of_features(self, tokens: Tensor, k: Tensor, v: Tensor, key: DrawKey) -> SharedKeys:
        """EM on tokens [n, p, c]; keys and values of the same pixels are pooled by its responsibilities."""
        features, keys, values = (self._fitted(tensor).flatten(0, 1) for tensor in (tokens, k, v))
        bases = self._fit(features, key)
        live = _live_index(bases, self.settings.em)
        pooled_keys, pooled_values = pool(features, (keys, values), bases, self.settings.em)
        return SharedKeys(
            pooled_keys[live][None].to(k.dtype),
            pooled_values[live][None].to(v.dtype),
            self._logit_bias(bases.mass[live], k.dtype),
        )

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

    def _shared_per_head(self, bases: Bases, keys: Tensor, values: Tensor, dtype: torch.dtype) -> SharedKeys:
        bias, live = None, bases.live(self.settings.em)
        # Heads have their own empty bases, so these are masked rather than left out.
        if self.settings.mass_weighted or not bool(live.all()):
            weight = _log(bases.mass) if self.settings.mass_weighted else torch.zeros_like(bases.mass)
            bias = weight.masked_fill(~live, torch.finfo(dtype).min).to(dtype)[None, :, None]  # [1, h, 1, k]
        return SharedKeys(merge_heads(keys[None].to(dtype)), merge_heads(values[None].to(dtype)), bias)


def attend_shared(q: Tensor, shared: SharedKeys, extra_options: dict) -> Tensor:
    """Queries of all frames as one sequence on the keys that they share: [n, p, c] -> [n, p, c] (Eq. 7)."""
    out = host_attention(join_frames(q, 1), shared.keys, shared.values, extra_options, shared.logit_bias)
    return split_frames(out, q.shape[0])


def _live_index(bases: Bases, em: EMSettings) -> Tensor | slice:
    live = bases.live(em)
    return slice(None) if bool(live.all()) else live


def _log(mass: Tensor) -> Tensor:
    return mass.clamp_min(torch.finfo(torch.float32).tiny).log()

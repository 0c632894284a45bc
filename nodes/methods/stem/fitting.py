"""Fitting bases to features by the settings of STEM Bases: how many, from where, how often, to which frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ....stem_kernels.adaptive_size import smallest_size
from ....stem_kernels.em import Bases, fit_bases
from ....stem_kernels.initialisation import DrawKey, Draws, initial_bases
from ....stem_kernels.token_parts import Tokens
from .settings import StemSettings


@dataclass(frozen=True)
class WarmStart:
    """Where the bases of the step before are kept: in `previous`, by layer, cond and chunk."""

    previous: dict[tuple[int, int, int], Tensor]
    key: tuple[int, int, int]

    def bases(self) -> Tensor | None:
        return self.previous.get(self.key)

    def keep(self, bases: Tensor) -> None:
        self.previous[self.key] = bases


@dataclass(frozen=True)
class BaseFitting:
    """EM as STEM Bases is set; `draws` has the random numbers."""

    settings: StemSettings
    draws: Draws

    def fit(
        self, features: Tokens, key: DrawKey, values: Sequence[Tensor] = (), start: WarmStart | None = None
    ) -> Bases:
        """Bases of features [..., m, c], or of parts along m; `values` are pooled with them (see `em.fit_bases`)."""
        initial, em = start.bases() if start else None, self.settings.em
        if initial is None:
            initial = self._initial(features, self._size(features, key), key)
        else:
            em = replace(em, iterations=self.settings.warm_start)
        bases = fit_bases(features, initial, em, values)
        if start:
            start.keep(bases.centres)
        return bases

    def frames(self, frames: Tensor) -> Tensor:
        """The frames [n, …] that EM sees."""
        if self.settings.scope != "anchor_frames" or frames.shape[0] <= self.settings.scope_frames:
            return frames
        anchors = torch.linspace(0, frames.shape[0] - 1, self.settings.scope_frames).round().long()
        return frames[anchors.to(frames.device)]

    def _size(self, features: Tokens, key: DrawKey) -> int:
        """How many bases to fit."""
        target, em = self.settings.explained_energy, self.settings.em
        if target == 0:
            return em.num_bases
        return smallest_size(features, target, em, lambda some, size: self._initial(some, size, key))

    def _initial(self, features: Tokens, size: int, key: DrawKey) -> Tensor:
        settings = self.settings
        return initial_bases(features, size, settings.initialisation, self.draws, key, settings.clamp_to_tokens)

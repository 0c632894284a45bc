"""Fitting bases to features by the settings of STEM Bases: how many, from where, how often, to which frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ....stem_kernels.adaptive_size import smallest_size
from ....stem_kernels.em import Bases, fit_bases
from ....stem_kernels.initialisation import initial_bases
from ....stem_kernels.random_streams import BASES, keyed_generator
from ....stem_kernels.token_parts import Tokens
from .settings import StemSettings


class FitKey(NamedTuple):
    """Which fit this is. Equal keys give equal draws, in whatever order layers, steps and passes are run."""

    timestep: int
    layer: int
    chunk: int = 0


@dataclass(frozen=True)
class Fitting:
    """EM as STEM Bases is set."""

    settings: StemSettings

    def fit(
        self, features: Tokens, key: FitKey, values: Sequence[Tokens] = (), previous: Tensor | None = None
    ) -> Bases:
        """Bases of features [..., m, c], or of parts along m; `values` are pooled with them (see `em.fit_bases`).

        previous: bases of the step before, [..., k, c], for a warm start.
        """
        em = self.settings.em
        if previous is not None:
            return fit_bases(features, previous, replace(em, iterations=self.settings.warm_start), values)
        size, target = em.num_bases, self.settings.explained_energy
        if target > 0:
            size = smallest_size(features, target, em, lambda some, size: self.initial(some, size, key))
        return fit_bases(features, self.initial(features, size, key), em, values)

    def initial(self, features: Tokens, size: int, key: FitKey) -> Tensor:
        """Bases to start from, [..., k, c]."""
        generator = keyed_generator(self.settings.seed, BASES, *key)
        return initial_bases(features, size, self.settings.initialisation, generator, self.settings.clamp_to_tokens)

    def frames_seen(self, *parts: Tensor) -> tuple[Tensor, ...]:
        """The frames that EM sees of those in some parts, [n, ...] each: all of them, or evenly spaced anchors."""
        count, start, seen = sum(map(len, parts)), 0, []
        if self.settings.scope != "anchor_frames" or count <= self.settings.scope_frames:
            return parts
        anchors = torch.linspace(0, count - 1, self.settings.scope_frames).round().long()
        for part in parts:
            here = anchors[(anchors >= start) & (anchors < start + len(part))] - start
            seen += [part[here.to(part.device)]] if len(here) else []
            start += len(part)
        return tuple(seen)

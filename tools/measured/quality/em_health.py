"""How expectation-maximisation fares at every layer and step: are bases used, and how surely do tokens choose?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ....nodes.methods.stem.fitting import FitKey, Fitting
from ....stem_kernels.em import Bases, EMSettings, responsibilities
from ....stem_kernels.token_parts import Tokens, parts_of

# Bases that answer for less than this many tokens count as empty, whatever the preset does with them.
EMPTY_MASS = 1e-6
MEASURES = ("bases", "live", "perplexity", "responsibility", "norm")


def health(features: Tensor, bases: Bases, settings: EMSettings) -> dict[str, float]:
    """Numbers of one fit to features [..., m, c]; with leading dimensions, the mean over them.

    tokens: m. bases: how many there are. live: of these, with a mass above EMPTY_MASS. perplexity: see `Bases`.
    responsibility: the mean over tokens of
    their largest one. norm: the mean length of the tokens.
    """
    return {
        "tokens": float(features.shape[-2]),
        "bases": float(bases.mass.shape[-1]),
        "live": float((bases.mass > EMPTY_MASS).sum(dim=-1).double().mean()),
        "perplexity": float(bases.perplexity.mean()),
        "responsibility": float(responsibilities(features, bases, settings).amax(dim=-1).mean()),
        "norm": float(features.float().norm(dim=-1).mean()),
    }


@dataclass(frozen=True)
class ObservedFitting(Fitting):
    """A fitting that also notes the health of every fit in `log`."""

    log: list[dict] = field(default_factory=list, compare=False)

    def fit(self, features: Tokens, key: FitKey, *more: Any) -> Bases:
        bases = super().fit(features, key, *more)
        found = health(torch.cat(parts_of(features), dim=-2), bases, self.settings.em)
        self.log.append({"layer": key.layer, "timestep": key.timestep} | found)
        return bases

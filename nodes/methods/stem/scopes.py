"""Which frames share bases, where their rows are in a batch, and the keys and values that they then share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ....stem_kernels.em import Bases, EMSettings, pool
from ....stem_kernels.token_parts import Tokens, parts_of
from ..attention.attention_map import AttentionMap, Gather
from .settings import StemSettings


@dataclass(frozen=True)
class Scope:
    """Frames of one cond that share bases.

    Attributes:
        group: the cond's place in the batch; the frames of different conds never mix.
        chunk: number of the chunk of frames, which keys the draws.
        frames: of the clip.
    """

    group: int
    chunk: int
    frames: slice

    def rows(self, batch: slice) -> slice | None:
        """Their rows in a batch that holds the frames `batch` of the clip for every cond; None if it has none."""
        start, stop = max(self.frames.start, batch.start), min(self.frames.stop, batch.stop)
        if start >= stop:
            return None
        offset = self.group * (batch.stop - batch.start) - batch.start
        return slice(offset + start, offset + stop)


def scopes(settings: StemSettings, groups: int, frames: int) -> list[Scope]:
    """All scopes of a clip, in the order of its rows."""
    size = settings.scope_frames if settings.scope == "frame_chunks" else frames
    return [
        Scope(group, start // size, slice(start, min(start + size, frames)))
        for group in range(groups)
        for start in range(0, frames, size)
    ]


@dataclass(frozen=True, eq=False)
class Pooling(Gather):
    """Pi of a fit: values of the pixels of a scope averaged by the responsibilities of its bases.

    Attributes:
        frames: of the scope.
        features: the tokens that the bases were fitted to.
        bases, em: of the fit.
        arranged: pixels of the scope's frames [n, p, c], laid out as the features are.
        as_keys: what was pooled, laid out as keys, [1, k, c].
    """

    frames: slice
    features: Tokens
    bases: Bases
    em: EMSettings
    arranged: Callable[[Tensor], Tensor]
    as_keys: Callable[[Tensor], Tensor]

    def __call__(self, values: Tensor) -> Tensor:
        here = self._on(values.device)
        (pooled,) = pool(here.features, (self.arranged(values[self.frames]),), here.bases, self.em)
        return self.as_keys(pooled.to(values.dtype))

    @cached_property
    def in_host_memory(self) -> Pooling:
        # kept, because every batch of frames asks for it
        return self._on("cpu")

    def _on(self, device: torch.device | str) -> Pooling:
        features = tuple(part.to(device) for part in parts_of(self.features))
        centres, mass, directions = (
            part.to(device) for part in (self.bases.centres, self.bases.mass, self.bases.directions)
        )
        return replace(self, features=features, bases=Bases(centres, mass, directions))


@dataclass(frozen=True)
class SharedKeys:
    """Keys and values of the bases, and how they come from those of the pixels.

    Attributes:
        keys, values: [1, k, c] each; before the projections, the bases themselves.
        logit_bias: what to add to the logits, [1, 1 or h, 1, k], or None.
        pooling: values of the pixels -> values of the bases [1, k, c].
    """

    keys: Tensor
    values: Tensor
    logit_bias: Tensor | None
    pooling: Pooling

    def map_of(self, q: Tensor, rows: slice = slice(None)) -> AttentionMap:
        """The attention of the queries [n, p, c] of some rows to these keys."""
        return AttentionMap(rows, q, self.keys, self.logit_bias, self.pooling)

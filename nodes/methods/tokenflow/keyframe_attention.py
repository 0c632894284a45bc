"""Attention of the edit's keyframes, which reads the others even where these go through the network in other passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from einops import rearrange, repeat
from torch import Tensor

from ....stem_kernels.correspondence import keyframe_windows
from ..attention.rows import comfyui_attention
from ..stem.attention import StemSelfAttention
from ..stem.fitting import FitKey
from .keyframe_store import KeyframeStore
from .run import KEYS, QUERIES, TOKENS


@dataclass(frozen=True)
class KeyframeRows:
    """What one pass brings to a layer: rows [groups * b, p, c] of its keyframes, the tokens only for bases."""

    keyframes: range
    queries: Tensor
    keys: Tensor
    values: Tensor
    tokens: Tensor | None


@dataclass(frozen=True)
class AllKeyframes:
    """The rows of all keyframes at a layer, in parts.

    Attributes:
        parts: of every pass, ascending.
        groups: conds whose rows were joined.
        layer: its number.
        source: has the source's rows, where these replace tokens, queries and keys; else None.
    """

    parts: list[KeyframeRows]
    groups: int
    layer: int
    source: KeyframeStore | None

    @property
    def numbers(self) -> range:
        return range(self.parts[-1].keyframes.stop)

    def queries(self, part: KeyframeRows) -> Tensor:
        """Of one pass, [groups, b, p, c]."""
        if self.source is not None:
            return self._from_source(QUERIES, part.keyframes)
        return rearrange(part.queries, "(g n) p c -> g n p c", g=self.groups)

    def keys(self, numbers: range) -> Tensor:
        """Of some keyframes, [groups, n, p, c]; so are values and tokens."""
        if self.source is not None:
            return self._from_source(KEYS, numbers)
        return self._of([part.keys for part in self.parts], numbers)

    def values(self, numbers: range) -> Tensor:
        return self._of([part.values for part in self.parts], numbers)

    def tokens(self, numbers: range) -> Tensor:
        if self.source is not None:
            return self._from_source(TOKENS, numbers)
        return self._of([part.tokens for part in self.parts], numbers)

    def _from_source(self, kind: str, numbers: range) -> Tensor:
        return repeat(self.source.rows(kind, self.layer, numbers), "n p c -> g n p c", g=self.groups)

    def _of(self, rows: Sequence[Tensor], numbers: range) -> Tensor:
        """Without joining those of other keyframes."""
        found = []
        for part, tensor in zip(self.parts, rows, strict=True):
            start = part.keyframes.start
            here = slice(max(numbers.start - start, 0), max(numbers.stop - start, 0))
            found.append(rearrange(tensor, "(g n) p c -> g n p c", g=self.groups)[:, here])
        found = [part for part in found if part.shape[1]]
        return found[0] if len(found) == 1 else torch.cat(found, dim=1)


def extended_attention(every: AllKeyframes, window: int, extra_options: dict) -> list[Tensor]:
    """Keyframes that attend to the keyframes around them (see `keyframe_windows`): [groups * b, p, c] of every pass."""
    windows, joined = keyframe_windows(len(every.numbers), window), None
    outputs = []
    for part in every.parts:
        queries, found = every.queries(part), []
        for read, of_window in groupby(part.keyframes, windows.__getitem__):
            if read != joined:
                keys, values = (rows.flatten(1, 2) for rows in (every.keys(read), every.values(read)))
                joined = read
            numbers = [number - part.keyframes.start for number in of_window]
            here = queries[:, numbers[0] : numbers[-1] + 1]
            out = comfyui_attention(here.flatten(1, 2), keys, values, extra_options)
            found.append(rearrange(out, "g (n p) c -> g n p c", n=here.shape[1]))
        outputs.append((found[0] if len(found) == 1 else torch.cat(found, dim=1)).flatten(0, 1))
    return outputs


def stem_attention(every: AllKeyframes, stem: StemSelfAttention, timestep: int, extra_options: dict) -> list[Tensor]:
    """Keyframes that attend to bases of all keyframes: [groups * b, p, c] of every pass."""
    conds, heads = extra_options["cond_or_uncond"], extra_options["n_heads"]
    pixels = zip(*(rows(every.numbers) for rows in (every.tokens, every.keys, every.values)), strict=True)
    shared = [
        stem.bases.of_pixels(*rows, FitKey(timestep, every.layer, cond), heads)
        for cond, rows in zip(conds, pixels, strict=True)
    ]
    outputs = []
    for part in every.parts:
        of_conds = zip(shared, every.queries(part), strict=True)
        found = [bases.map_of(queries).attend(bases.values, extra_options) for bases, queries in of_conds]
        outputs.append(found[0] if len(found) == 1 else torch.cat(found))
    return outputs

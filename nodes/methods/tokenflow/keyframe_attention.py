"""Attention of the edit's keyframes, which reads the others even where these go through the network in other passes."""

from __future__ import annotations

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
from .run import KEYS, QUERIES, TOKENS, VALUES


@dataclass(frozen=True)
class KeyframeRows:
    """What one pass brings to a layer: rows [groups * b, p, c] of its keyframes by kind, tokens only for bases."""

    keyframes: range
    rows: dict[str, Tensor]


@dataclass(frozen=True)
class AllKeyframes:
    """The rows of all keyframes at a layer.

    Attributes:
        parts: of every pass, ascending.
        groups: conds whose rows were joined.
        layer: its number.
        source: where the source's rows are, if they replace tokens, queries and keys.
    """

    parts: list[KeyframeRows]
    groups: int
    layer: int
    source: KeyframeStore | None

    def rows(self, kind: str, keyframes: range) -> Tensor:
        """Of some keyframes, [groups, n, p, c], without joining those of others."""
        if self.source is not None and kind != VALUES:
            return repeat(self.source.rows(kind, self.layer, keyframes), "n p c -> g n p c", g=self.groups)
        found = []
        for part in self.parts:
            first, last = (number - part.keyframes.start for number in (keyframes.start, keyframes.stop))
            if first < len(part.keyframes) and last > 0:
                rows = rearrange(part.rows[kind], "(g n) p c -> g n p c", g=self.groups)
                found.append(rows[:, max(first, 0) : last])
        return found[0] if len(found) == 1 else torch.cat(found, dim=1)


def extended_attention(every: AllKeyframes, window: int, extra_options: dict) -> list[Tensor]:
    """Keyframes that attend to the keyframes around them (see `keyframe_windows`): [groups * b, p, c] of every pass."""
    windows, joined = keyframe_windows(every.parts[-1].keyframes.stop, window), None
    outputs = []
    for part in every.parts:
        queries, found = every.rows(QUERIES, part.keyframes), []
        for read, of_window in groupby(part.keyframes, windows.__getitem__):
            if read != joined:
                keys, values = (every.rows(kind, read).flatten(1, 2) for kind in (KEYS, VALUES))
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
    numbers = range(every.parts[-1].keyframes.stop)
    pixels = zip(*(every.rows(kind, numbers) for kind in (TOKENS, KEYS, VALUES)), strict=True)
    shared = [
        stem.bases.of_pixels(*rows, FitKey(timestep, every.layer, cond), heads)
        for cond, rows in zip(conds, pixels, strict=True)
    ]
    outputs = []
    for part in every.parts:
        of_conds = zip(shared, every.rows(QUERIES, part.keyframes), strict=True)
        found = [bases.map_of(queries).attend(bases.values, extra_options) for bases, queries in of_conds]
        outputs.append(found[0] if len(found) == 1 else torch.cat(found))
    return outputs

"""Attention of the edit's keyframes, which reads the others even where these go through the network in other passes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from torch import Tensor

from ....stem_kernels.attention import join_frames, joined, split_frames
from ....stem_kernels.correspondence import keyframe_windows
from ..attention.rows import comfyui_attention
from ..stem.attention import StemSelfAttention
from ..stem.fitting import FitKey
from .keyframe_store import KeyframeStore
from .run import KEYS, QUERIES, TOKENS, VALUES


@dataclass(frozen=True)
class KeyframeRows:
    """What one pass brings to a layer: rows [b, p, c] of its keyframes by kind; tokens only for bases."""

    keyframes: range
    rows: dict[str, Tensor]


@dataclass(frozen=True)
class AllKeyframes:
    """The rows of all keyframes of a cond at a layer.

    Attributes:
        parts: of every pass, ascending.
        layer: its number.
        source: where the source's rows are, if they replace tokens, queries and keys.
    """

    parts: list[KeyframeRows]
    layer: int
    source: KeyframeStore | None

    def rows(self, kind: str, keyframes: range) -> Tensor:
        """Of some keyframes, [n, p, c], without joining those of others."""
        if self.source is not None and kind != VALUES:
            return self.source.rows(kind, self.layer, keyframes)
        found = []
        for part in self.parts:
            first, last = (number - part.keyframes.start for number in (keyframes.start, keyframes.stop))
            if first < len(part.keyframes) and last > 0:
                found.append(part.rows[kind][max(first, 0) : last])
        return joined(found)


def extended_attention(every: AllKeyframes, window: int, extra_options: dict) -> list[Tensor]:
    """Keyframes that attend to the keyframes around them (see `keyframe_windows`): [b, p, c] of every pass."""
    windows, read = keyframe_windows(every.parts[-1].keyframes.stop, window), None
    outputs = []
    for part in every.parts:
        queries, found = every.rows(QUERIES, part.keyframes), []
        for wanted, of_window in groupby(part.keyframes, windows.__getitem__):
            if wanted != read:
                keys, values = (join_frames(every.rows(kind, wanted), 1) for kind in (KEYS, VALUES))
                read = wanted
            numbers = [number - part.keyframes.start for number in of_window]
            here = join_frames(queries[numbers[0] : numbers[-1] + 1], 1)
            found.append(split_frames(comfyui_attention(here, keys, values, extra_options), len(numbers)))
        outputs.append(joined(found))
    return outputs


def stem_attention(every: AllKeyframes, stem: StemSelfAttention, key: FitKey, extra_options: dict) -> list[Tensor]:
    """Keyframes that attend to bases of all keyframes: [b, p, c] of every pass."""
    pixels = (tuple(every.rows(kind, part.keyframes) for part in every.parts) for kind in (TOKENS, KEYS, VALUES))
    shared = stem.bases.of_pixels(*pixels, key, extra_options["n_heads"])
    queries = (every.rows(QUERIES, part.keyframes) for part in every.parts)
    return [shared.map_of(of_part).attend(shared.values, extra_options) for of_part in queries]

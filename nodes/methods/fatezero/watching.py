"""Where in a clip the words of a prompt are seen, by the cross-attention that FateZero's masks are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ....stem_kernels.masks import mean_attention
from ..attention.frame_context import OWN_FRAME
from ..attention.installing import install, installed_method
from ..attention.method import check_replayable
from ..attention.rows import comfyui_attention
from ..inversion.inspection import evaluate
from ..inversion.inversion import Inversion
from ..seams.layer_map import AttentionLayer
from .replay import SourceReplay, one_block, seen_words


@dataclass(frozen=True)
class WatchedWords(SourceReplay):
    """The inversion's own attention, with that to some words noted.

    Attributes:
        columns: token columns of each word.
        seen: by layer, the attention of each batch of frames, [words, n, h, w].
    """

    columns: Mapping[str, Sequence[int]] = field(default_factory=dict)
    seen: dict[int, list[Tensor]] = field(default_factory=dict, compare=False)

    def controls(self, layer: AttentionLayer) -> bool:
        return layer.gives_masks

    def attend_cross(self, q: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, extra_options: dict) -> Tensor:
        keys = one_block(k, "the inversion's MODEL, and invert again")
        found = [seen_words(q, keys, columns, extra_options) for columns in self.columns.values()]
        self.seen.setdefault(layer.index, []).append(torch.stack(found).cpu())
        return comfyui_attention(q, k, v, extra_options)


def watched_words(
    inversion: Inversion, prompt: list, columns: Mapping[str, Sequence[int]], timestep: int, purpose: str
) -> Tensor:
    """Attention to words at a step of the inversion, run again with the CONDITIONING of a prompt: [words, n, h, w].

    columns: token columns of each word.

    Raises:
        ValueError: the attention of a step cannot be had without the steps before it.
    """
    method = installed_method(inversion.model) or OWN_FRAME
    check_replayable(method, purpose)
    watching = WatchedWords(method, frozenset(), method.frames_per_batch, purpose, columns)
    evaluate(replace(inversion, source=prompt), install(inversion.model, watching), timestep)
    return mean_attention([torch.cat(batches, dim=1) for batches in watching.seen.values()])

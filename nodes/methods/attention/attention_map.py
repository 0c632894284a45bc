"""The attention of one pass, kept as what it is computed from, so that another pass can apply it to its own values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from ....stem_kernels.attention import join_frames, joined, split_frames
from ..batching.frame_batches import batch_of, join_batches
from .rows import comfyui_attention


class Gather:
    """A linear map from values of the pixels of all frames of the clip, [n, p, c], to values at the keys of a map.

    Maps that share their keys share it, so that it is applied once for all of them.
    """

    def __call__(self, values: Tensor) -> Tensor:
        raise NotImplementedError

    @property
    def in_host_memory(self) -> Gather:
        """The same, with what it holds on the CPU."""
        return self


@dataclass(frozen=True)
class AttentionMap:
    """Self-attention of some frames as the product of A, the attention to keys, and a linear map from pixels to these.

    No p x p numbers exist: A is recomputed by ComfyUI's own attention from queries and keys.

    Attributes:
        rows: the frames whose attention this is, among those of its call.
        queries: [n, p, c] of these frames.
        keys: [n, l, c], or [1, l, c] where all frames share them.
        logit_bias: added to the logits, or None.
        gather: from pixels to keys, or None where the keys are those of the frame's own pixels.
    """

    rows: slice
    queries: Tensor
    keys: Tensor
    logit_bias: Tensor | None
    gather: Gather | None

    def attend(self, values: Tensor, extra_options: dict) -> Tensor:
        """A V for values at the keys: [n, p, c]. The values may be those of a MODEL of another precision, or be on
        another device."""
        frames = self.queries.shape[0]
        queries, keys = self.queries.to(values), self.keys.to(values)
        bias = None if self.logit_bias is None else self.logit_bias.to(values)
        if keys.shape[0] == frames:
            return comfyui_attention(queries, keys, values, extra_options, bias)
        # Queries of all frames as one sequence on the keys that they share.
        return split_frames(comfyui_attention(join_frames(queries, 1), keys, values, extra_options, bias), frames)

    @property
    def shares_keys(self) -> bool:
        """Whether all frames have the same keys."""
        return self.keys.shape[0] == 1

    @property
    def in_host_memory(self) -> AttentionMap:
        """The same on the CPU."""
        return replace(
            self,
            queries=self.queries.cpu(),
            keys=self.keys.cpu(),
            logit_bias=None if self.logit_bias is None else self.logit_bias.cpu(),
            gather=self.gather and self.gather.in_host_memory,
        )


def attend_pixels(maps: Sequence[AttentionMap], values: Tensor, extra_options: dict) -> Tensor:
    """A V for values at the pixels of the frames of a call, [n, p, c], by the maps of these frames in their order.

    Where keys are gathered from other frames, this call meets those that hold them.
    """
    if all(part.gather is None for part in maps):
        return joined([part.attend(values[part.rows], extra_options) for part in maps])

    def gathered(arrived: list[tuple[Sequence[AttentionMap], Tensor]]) -> tuple[Tensor, dict[Gather, Tensor]]:
        everywhere = join_batches([values for _, values in arrived], groups=1)
        shared = dict.fromkeys(part.gather for maps, _ in arrived for part in maps if part.shares_keys)
        return everywhere, {gather: gather(everywhere) for gather in shared}

    everywhere, shared = batch_of(extra_options).meet((maps, values), gathered)
    # keys of each frame's own are as many as all frames together, so that a call gathers its own alone
    at_keys = [shared[part.gather] if part.shares_keys else part.gather(everywhere) for part in maps]
    return joined([part.attend(found, extra_options) for part, found in zip(maps, at_keys, strict=True)])

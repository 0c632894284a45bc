"""The attention of one pass, kept as what it is computed from, so that another pass can apply it to its own values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ....stem_kernels.attention import join_frames, split_frames
from .rows import comfyui_attention


@dataclass(frozen=True)
class AttentionMap:
    """Self-attention of some frames as the product of A, the attention to keys, and a linear map from pixels to these.

    No p x p numbers exist: A is recomputed by ComfyUI's own attention from queries and keys.

    Attributes:
        rows: the frames whose attention this is.
        queries: [n, p, c] of these frames.
        keys: [n, l, c], or [1, l, c] where all frames share them.
        logit_bias: added to the logits, or None.
        gather: values of the pixels of these frames [n, p, c] -> values at the keys.
    """

    rows: slice
    queries: Tensor
    keys: Tensor
    logit_bias: Tensor | None
    gather: Callable[[Tensor], Tensor]

    def attend(self, values: Tensor, extra_options: dict) -> Tensor:
        """A V for values at the keys: [n, p, c]. The values may be those of a MODEL of another precision."""
        frames = self.queries.shape[0]
        queries, keys = self.queries.to(values.dtype), self.keys.to(values.dtype)
        bias = None if self.logit_bias is None else self.logit_bias.to(values.dtype)
        if keys.shape[0] == frames:
            return comfyui_attention(queries, keys, values, extra_options, bias)
        # Queries of all frames as one sequence on the keys that they share.
        return split_frames(comfyui_attention(join_frames(queries, 1), keys, values, extra_options, bias), frames)

    def attend_pixels(self, values: Tensor, extra_options: dict) -> Tensor:
        """The same for values at the pixels of all frames, of which it takes its own."""
        return self.attend(self.gather(values[self.rows]), extra_options)

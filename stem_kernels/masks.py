"""FateZero's blending masks: where in the frame the words of a prompt are, by their cross-attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from .attention import attention_probabilities
from .precision import arithmetic_dtype

Resizing = Literal["nearest", "bilinear"]


def word_attention(q: Tensor, k: Tensor, heads: int, columns: Sequence[int] | Tensor) -> Tensor:
    """Attention of every pixel to some tokens, summed over these and averaged over the heads.

    q: [n, p, c] queries; k: [n, tokens, c] keys; columns: positions of tokens. Returns [n, p], float32 (float64 for
    float64 queries).
    """
    dtype = arithmetic_dtype(q)
    maps = attention_probabilities(q.to(dtype), k.to(dtype), heads)  # [n, h, p, tokens]
    columns = torch.as_tensor(columns, dtype=torch.int64, device=maps.device)
    return maps.index_select(-1, columns).sum(dim=-1).mean(dim=1)


def mean_attention(maps: Sequence[Tensor]) -> Tensor:
    """Mean over layers of their attention [..., h, w]; where sizes differ, at the largest of them."""
    size = max((tuple(found.shape[-2:]) for found in maps), key=lambda of: of[0] * of[1])
    return torch.stack([found if tuple(found.shape[-2:]) == size else _resized(found, size) for found in maps]).mean(0)


def _resized(attention: Tensor, size: tuple[int, int]) -> Tensor:
    planes = attention.flatten(0, -3)[:, None]
    return interpolate(planes, size, mode="bilinear", align_corners=False).reshape(*attention.shape[:-2], *size)


def attention_mask(
    attention: Tensor, size: tuple[int, int], threshold: float, resizing: Resizing = "nearest"
) -> Tensor:
    """Where attention is more than `threshold` of its largest value in the frame.

    Attention is first widened by a 3x3 maximum and brought to the size asked for.

    Args:
        attention: [n, h, w], not negative.
        size: height and width of the mask.
        threshold: 0 marks everything that has any attention, 1 and more nothing.

    Returns:
        bool [n, *size]; all False in a frame without any attention to the words.
    """
    wide = max_pool2d(attention[:, None], kernel_size=3, stride=1, padding=1)
    options = {"align_corners": False} if resizing == "bilinear" else {}
    resized = interpolate(wide, size, mode=resizing, **options)[:, 0]
    peak = resized.amax(dim=(1, 2), keepdim=True)
    return (resized / peak.clamp_min(torch.finfo(resized.dtype).tiny) > threshold) & (peak > 0)


def blend(edited: Tensor, source: Tensor, mask: Tensor) -> Tensor:
    """The edit where the mask is 1 (True), the source where it is 0 (both to the bit), and between them a mixture.

    edited, source: [n, c, h, w]; mask: [n or 1, h, w], from 0 to 1.
    """
    return torch.lerp(source, edited, mask[:, None].to(edited))

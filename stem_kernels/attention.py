"""Attention written out: the layout of heads, and explicit probabilities where something has to read them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """[b, p, h*d] -> [b, h, p, d]."""
    return rearrange(tokens, "b p (h d) -> b h p d", h=heads)


def merge_heads(tokens: Tensor) -> Tensor:
    """[b, h, p, d] -> [b, p, h*d]."""
    return rearrange(tokens, "b h p d -> b p (h d)")


def joined(parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The parts one after the other along a dimension; one alone stays what it is, where `torch.cat` would copy it."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def join_frames(tokens: Tensor, groups: int) -> Tensor:
    """Frames of a group as one sequence: [g*n, p, c] -> [g, n*p, c]. Rows are group-major, frame-minor."""
    return rearrange(tokens, "(g n) p c -> g (n p) c", g=groups)


def split_frames(tokens: Tensor, frames: int) -> Tensor:
    """The inverse of `join_frames`: [g, n*p, c] -> [g*n, p, c]."""
    return rearrange(tokens, "g (n p) c -> (g n) p c", n=frames)


def attention_probabilities(q: Tensor, k: Tensor, heads: int) -> Tensor:
    """`softmax(q k^T / sqrt(d))` per head, [b, h, p, keys]. For tests and for maps that something reads."""
    queries, keys = split_heads(q, heads), split_heads(k, heads)
    return (queries @ keys.transpose(-1, -2) / queries.shape[-1] ** 0.5).softmax(dim=-1)


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Multi-head attention written out, [b, p, h*d]: the reference that fused kernels are held against."""
    return merge_heads(attention_probabilities(q, k, heads) @ split_heads(v, heads))

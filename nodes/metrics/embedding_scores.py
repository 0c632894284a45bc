"""How well a video fits a prompt, and itself, by embeddings of frames and texts in a common space, such as CLIP's."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity


def prompt_similarity(frames: Tensor, text: Tensor) -> Tensor:
    """CLIP score: the cosine of every frame's embedding with that of a prompt; [n, d], [d] -> float64 [n]."""
    return cosine_similarity(frames.double(), text.double()[None], dim=-1)


def frame_accuracy(frames: Tensor, source: Tensor, target: Tensor) -> float:
    """Share of frames [n, d] that are at least as close to the target prompt [d] as to the source prompt [d]."""
    closer = prompt_similarity(frames, target) >= prompt_similarity(frames, source)
    return float(closer.double().mean())


def temporal_consistency(frames: Tensor) -> Tensor:
    """Cosine of the embeddings of consecutive frames, [n, d] -> float64 [n - 1]; empty for one frame."""
    if frames.shape[0] < 2:
        return torch.empty(0, dtype=torch.float64)
    return cosine_similarity(frames[1:].double(), frames[:-1].double(), dim=-1)

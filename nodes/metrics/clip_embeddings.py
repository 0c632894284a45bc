"""Embeddings of frames and prompts by the host's CLIP models, in the space that the two share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Frames that go through the vision model at a time.
_BATCH = 16


def frame_embeddings(clip_vision: Any, video: Tensor) -> Tensor:
    """[n, d] of a video [n, h, w, 3] in [0, 1], by a CLIP_VISION model.

    Raises:
        ValueError: the model has no embedding that texts share (SigLIP and DINO have none).
    """
    embeddings = []
    for start in range(0, video.shape[0], _BATCH):
        found = clip_vision.encode_image(video[start : start + _BATCH])["image_embeds"]
        if found is None or found.ndim != 2:
            raise ValueError(
                f"Video Metrics: {type(clip_vision.model).__name__} gives no embedding that texts share. Load a CLIP "
                "vision model (of ViT-L/14 for the text model clip_l)."
            )
        embeddings.append(found.float().cpu())
    return torch.cat(embeddings)


def text_embedding(clip: Any, prompt: str, width: int) -> Tensor:
    """[width] of a prompt, by a CLIP text model with a projection to the space of frames that have `width` numbers.

    Raises:
        ValueError: the text model has no such projection, or one to another space.
    """
    _check_projection(clip)
    _, pooled = clip.encode_from_tokens(clip.tokenize(prompt), return_pooled=True)
    if pooled is None or pooled.shape[-1] != width:
        found = "none" if pooled is None else str(pooled.shape[-1])
        raise ValueError(
            f"Video Metrics: the text model's embeddings have {found} numbers, those of the vision model {width}, so "
            "they are not of one space. Load both from the same CLIP: clip_l and a ViT-L/14 vision model, for instance."
        )
    return pooled[0].float().cpu()


def _check_projection(clip: Any) -> None:
    """Raise where the projection is missing: the host then puts the identity in its place."""
    model = clip.cond_stage_model
    inner = getattr(model, getattr(model, "clip", ""), None)
    projection = getattr(getattr(inner, "transformer", None), "text_projection", None)
    weight = getattr(projection, "weight", None)
    if weight is None or torch.equal(weight.float().cpu(), torch.eye(*weight.shape)):
        raise ValueError(
            "Video Metrics: this CLIP has no text projection, so prompts and frames cannot be compared; the text model "
            "inside an SD1.x checkpoint has none. Load clip_l.safetensors with Load CLIP and connect that."
        )

"""How well a video fits a prompt, and itself, by embeddings of frames and prompts in the space of CLIP's models.

Frames have embeddings [n, d], a prompt has one [d].
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from .frames import Advance, unwatched

# Frames that go through the vision model at a time: few, so that an interruption need not wait long on a CPU.
_BATCH = 4


def prompt_similarity(frames: Tensor, text: Tensor) -> Tensor:
    """CLIP score: the cosine of every frame's embedding with that of a prompt, float64 [n]."""
    return cosine_similarity(frames.double(), text.double()[None], dim=-1)


def frame_accuracy(frames: Tensor, source: Tensor, target: Tensor) -> float:
    """Share of frames that are at least as close to the target prompt as to the source prompt."""
    return float((prompt_similarity(frames, target) >= prompt_similarity(frames, source)).double().mean())


def temporal_consistency(frames: Tensor) -> Tensor:
    """Cosine of the embeddings of consecutive frames, float64 [n - 1]."""
    return cosine_similarity(frames[1:].double(), frames[:-1].double(), dim=-1)


def frame_embeddings(clip_vision: Any, video: Tensor, advance: Advance = unwatched) -> Tensor:
    """Of a video [n, h, w, 3] in [0, 1], by a CLIP_VISION model.

    Raises:
        ValueError: the model has no embedding that texts share (SigLIP and DINO have none).
    """
    embeddings = []
    for frames in video.split(_BATCH):
        found = clip_vision.encode_image(frames)["image_embeds"]
        if found is None or found.ndim != 2:
            raise ValueError(
                f"Video Metrics: {type(clip_vision.model).__name__} has no image embedding that can be compared with "
                "text. Load a CLIP vision model (ViT-L/14 for the text model clip_l)."
            )
        embeddings.append(found.float().cpu())
        advance(len(frames))
    return torch.cat(embeddings)


def text_embedding(clip: Any, prompt: str, width: int) -> Tensor:
    """Of a prompt, by a CLIP text model with a projection to the space of frames that have `width` numbers.

    Raises:
        ValueError: the text model has no such projection, or one to another space.
    """
    model = clip.cond_stage_model
    inner = getattr(model, getattr(model, "clip", ""), None)
    projection = getattr(getattr(inner, "transformer", None), "text_projection", None)
    weight = getattr(projection, "weight", None)
    # ComfyUI puts the identity in the place of a projection that is missing.
    if weight is None or torch.equal(weight.float().cpu(), torch.eye(*weight.shape)):
        raise ValueError(
            "Video Metrics: this CLIP has no text projection, so prompts and frames cannot be compared; the text model "
            "inside an SD1.x checkpoint has none. Load clip_l.safetensors with Load CLIP and connect that."
        )
    _, pooled = clip.encode_from_tokens(clip.tokenize(prompt), return_pooled=True)
    if pooled is None or pooled.shape[-1] != width:
        found = "none" if pooled is None else str(pooled.shape[-1])
        raise ValueError(
            f"Video Metrics: the text model's embeddings have size {found}, those of the vision model {width}, so they "
            "cannot be compared. Load both from the same CLIP: clip_l and a ViT-L/14 vision model, for instance."
        )
    return pooled[0].float().cpu()

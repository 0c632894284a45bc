"""The checkpoint: one .safetensors file that Load Checkpoint opens, once tools/host/tiny_sd15 is installed."""

from __future__ import annotations

import torch
from torch import Tensor

from ...host.tiny_checkpoint import TEXT_MODEL, UNET, VAE
from .autoencoder import Autoencoder, host_weights
from .denoiser import Denoiser, without_unseen

EMBEDDING = "embeddings.token_embedding.weight"
TEXT_PREFIX = "text_model."


def assemble(vae: Autoencoder, spread: float, denoiser: Denoiser, tokens: Tensor) -> dict[str, Tensor]:
    """The file's tensors, float16. tokens: those of the training; embeddings of all others become zero."""
    text = {
        name.removeprefix(TEXT_PREFIX): weight
        for name, weight in denoiser.text.state_dict().items()
        if not name.endswith("position_ids")
    }
    text[EMBEDDING] = without_unseen(text[EMBEDDING], tokens)
    parts = {
        UNET: denoiser.unet.state_dict(),
        TEXT_MODEL: text,
        VAE: host_weights(vae, spread),
    }
    return {
        prefix + name: weight.detach().to(torch.float16)
        for prefix, weights in parts.items()
        for name, weight in weights.items()
    }

"""The checkpoint: one .safetensors file that the host's Load Checkpoint opens, once tools/tiny_sd15 is installed."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..tiny_checkpoint import TEXT_MODEL, UNET, VAE
from .autoencoder import Autoencoder, host_weights
from .denoiser import Denoiser

EMBEDDING = "embeddings.token_embedding.weight"
TEXT_PREFIX = "text_model."


def assemble(vae: Autoencoder, spread: float, denoiser: Denoiser, tokens: Tensor) -> dict[str, Tensor]:
    """The file's tensors, float16. tokens: those of the training; embeddings of all others become zero."""
    text = {
        name.removeprefix(TEXT_PREFIX): weight
        for name, weight in denoiser.text.state_dict().items()
        if not name.endswith("position_ids")
    }
    seen = torch.zeros(len(text[EMBEDDING]), 1)
    seen[tokens.unique()] = 1
    text[EMBEDDING] = text[EMBEDDING] * seen
    parts = {
        UNET: denoiser.unet.state_dict(),
        TEXT_MODEL: text,
        VAE: host_weights(vae, spread),
    }
    return {
        prefix + name: weight.detach().to(torch.float16).contiguous()
        for prefix, weights in parts.items()
        for name, weight in weights.items()
    }


def write(tensors: dict[str, Tensor], file: Path) -> None:
    """Writes the checkpoint; the file appears under its name only when it is complete."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    save_file(tensors, part, metadata={"format": "pt"})
    os.replace(part, file)

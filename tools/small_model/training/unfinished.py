"""A training that stopped before its end, small enough to be carried to another machine.

The VAE in float16, and the averaged weights of the denoiser with 8 bits a number: enough to go on from, since a few
steps mend the rounding. The optimiser's memory is not kept.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from ...host import tensor_file
from .autoencoder import Autoencoder
from .denoiser import Denoiser, without_unseen
from .loop import Start

VAE, DENOISER, SCALE = "vae.", "denoiser.", ".scale"
LEVELS = 127
EMBEDDING = "text.text_model.embeddings.token_embedding.weight"


def rounded(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Matrices and kernels as int8 with a float32 scale for each output channel; vectors and scalars as float16."""
    found = {}
    for name, weight in weights.items():
        if weight.dim() < 2:
            found[name] = weight.half()
            continue
        scale = weight.flatten(1).abs().amax(dim=1).clamp_min(1e-12) / LEVELS
        shape = (-1, *[1] * (weight.dim() - 1))
        found[name] = (weight / scale.view(shape)).round().to(torch.int8)
        found[name + SCALE] = scale
    return found


def restored(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `rounded`, but for the rounding: float32 weights."""
    found = {}
    for name, tensor in tensors.items():
        if name.endswith(SCALE):
            continue
        weight = tensor.float()
        scale = tensors.get(name + SCALE)
        found[name] = weight if scale is None else weight * scale.view(-1, *[1] * (weight.dim() - 1))
    return found


def save(file: Path, step: int, vae: Autoencoder, denoiser: Denoiser, tokens: Tensor) -> None:
    """Writes the file. tokens: those of the training; embeddings of all others are left out as zeros."""
    weights = {name: weight.detach().cpu() for name, weight in denoiser.state_dict().items()}
    weights[EMBEDDING] = without_unseen(weights[EMBEDDING], tokens)
    tensors = {VAE + name: weight.half() for name, weight in vae.state_dict().items()}
    tensors |= {DENOISER + name: tensor for name, tensor in rounded(weights).items()}
    tensor_file.write(tensors, file, {"step": str(step)})


def load(file: Path) -> tuple[Autoencoder, Start]:
    """The VAE, and where the denoiser's training goes on."""
    with safe_open(str(file), "pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}
        step = int(opened.metadata()["step"])
    vae = Autoencoder()
    vae.load_state_dict({name.removeprefix(VAE): t.float() for name, t in tensors.items() if name.startswith(VAE)})
    trained = {name.removeprefix(DENOISER): t for name, t in tensors.items() if name.startswith(DENOISER)}
    return vae, Start(step, restored(trained))

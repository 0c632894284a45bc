"""The files of the denoiser: the checkpoint that Load Checkpoint opens, and what a training that stopped early leaves.

The checkpoint is one .safetensors file; ComfyUI reads it once tools/host/tiny_sd15 is installed. An unfinished training
is small enough to be carried to another machine: the VAE in float16, and the averaged weights of the denoiser with 8
bits a number. That is enough to go on from, since a few steps mend the rounding; the optimiser's memory is not kept.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from ...host import tensor_file
from ...host.tiny_checkpoint import TEXT_MODEL, UNET, VAE
from .autoencoder import Autoencoder
from .denoiser import Denoiser
from .loop import Start

# SD1.5's scale between the latents of its VAE and those of its UNet, which ComfyUI applies.
LATENT_SCALE = 0.18215
EMBEDDING = "text.text_model.embeddings.token_embedding.weight"
LEVELS = 127
KEPT_VAE, KEPT_DENOISER, KEPT_SCALE = "vae.", "denoiser.", ".scale"


def trained_weights(denoiser: Denoiser, tokens: Tensor) -> dict[str, Tensor]:
    """The weights, with zeros for the embeddings of tokens that are not among those of the training."""
    weights = {name: weight.detach() for name, weight in denoiser.state_dict().items()}
    seen = torch.zeros(len(weights[EMBEDDING]), 1, device=weights[EMBEDDING].device)
    seen[tokens.unique()] = 1
    return weights | {EMBEDDING: weights[EMBEDDING] * seen}


def assemble(vae: Autoencoder, spread: float, denoiser: Denoiser, tokens: Tensor) -> dict[str, Tensor]:
    """The checkpoint's tensors, float16. spread: standard deviation of the encoder's output, which the scale in the
    file turns to 1 for the UNet. tokens: those of the training."""
    found = {f"{VAE}taesd_{name}": weight for name, weight in vae.state_dict().items()}
    found |= {VAE + "vae_scale": torch.tensor(LATENT_SCALE * spread), VAE + "vae_shift": torch.tensor(0.0)}
    for name, weight in trained_weights(denoiser, tokens).items():
        if not name.endswith("position_ids"):
            found[name.replace("text.text_model.", TEXT_MODEL).replace("unet.", UNET)] = weight
    return {name: weight.detach().to(torch.float16) for name, weight in found.items()}


def rounded(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Matrices and kernels as int8 with a float32 scale for each output channel; vectors and scalars as float16."""
    found = {}
    for name, weight in weights.items():
        if weight.dim() < 2:
            found[name] = weight.half()
            continue
        scale = weight.flatten(1).abs().amax(dim=1).clamp_min(1e-12) / LEVELS
        found[name] = (weight / _as_wide_as(weight, scale)).round().to(torch.int8)
        found[name + KEPT_SCALE] = scale
    return found


def restored(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `rounded`, but for the rounding: float32 weights."""
    found = {name: tensor.float() for name, tensor in tensors.items() if not name.endswith(KEPT_SCALE)}
    for name in found:
        if name + KEPT_SCALE in tensors:
            found[name] = found[name] * _as_wide_as(found[name], tensors[name + KEPT_SCALE])
    return found


def _as_wide_as(weight: Tensor, scale: Tensor) -> Tensor:
    return scale.view(-1, *[1] * (weight.dim() - 1))


def save_unfinished(file: Path, step: int, vae: Autoencoder, denoiser: Denoiser, tokens: Tensor) -> None:
    """Writes what a training goes on from. tokens: those of the training."""
    weights = {name: weight.cpu() for name, weight in trained_weights(denoiser, tokens).items()}
    tensors = {KEPT_VAE + name: weight.half() for name, weight in vae.state_dict().items()}
    tensors |= {KEPT_DENOISER + name: tensor for name, tensor in rounded(weights).items()}
    tensor_file.write(tensors, file, {"step": str(step)})


def load_unfinished(file: Path) -> tuple[Autoencoder, Start]:
    """The VAE, and where the denoiser's training goes on."""
    with safe_open(str(file), "pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}
        step = int(opened.metadata()["step"])

    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

    vae = Autoencoder()
    vae.load_state_dict(restored(part(KEPT_VAE)))
    return vae, Start(step, restored(part(KEPT_DENOISER)))

"""The VAE: ComfyUI's TAESD, trained from scratch on the rendered clips."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from comfy.taesd.taesd import TAESD
from torch import Tensor, nn
from tqdm import trange

from . import workers
from .frames import Frames
from .loop import Plan, best_device, device_of, mixed_precision, train

CROP = 64
# Of all workers together.
BATCH = 16
# Of a latent of unit spread; the decoder then forgives the small errors of a denoiser.
LATENT_NOISE = 0.05
EDGE_WEIGHT = 1.0
SPREAD_WEIGHT = 0.01
PLAN = Plan(steps=6000, learning_rate=1.5e-3, warmup=200, weight_decay=0.0)


class Autoencoder(nn.Module):
    """encoder: [n, 3, h, w] in [0, 1] to [n, 4, h / 8, w / 8]; decoder: back."""

    def __init__(self) -> None:
        super().__init__()
        vae = TAESD(latent_channels=4)
        self.encoder, self.decoder = vae.taesd_encoder, vae.taesd_decoder
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # ComfyUI leaves weights uninitialised, since it always loads them
                nn.Conv2d.reset_parameters(module)
        self.requires_grad_(True)
        self.to(memory_format=torch.channels_last)


def loss_of(frames: Frames) -> Callable[[nn.Module, torch.Generator], Tensor]:
    """The loss as a function of the network and a step's random numbers."""

    def loss(network: Autoencoder, generator: torch.Generator) -> Tensor:
        device = device_of(network)
        pictures = crops(frames.pictures, BATCH // workers.count(), generator).to(device)
        with mixed_precision(device):
            latents = network.encoder(pictures)
        latents = latents.float()
        noisy = latents + LATENT_NOISE * torch.randn(latents.shape, generator=generator).to(device)
        with mixed_precision(device):
            decoded = network.decoder(noisy)
        error = decoded.float() - pictures
        edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        spread = latents.mean(dim=(0, 2, 3)).square().mean() + (latents.square().mean().sqrt() - 1).square()
        return error.abs().mean() + error.square().mean() + EDGE_WEIGHT * edges + SPREAD_WEIGHT * spread

    return loss


def crops(pictures: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Random squares of CROP pixels, [count, 3, CROP, CROP] in [0, 1]."""
    side = pictures.shape[-1]
    which = torch.randint(len(pictures), (count,), generator=generator)
    corner = torch.randint((side - CROP) // 8 + 1, (count, 2), generator=generator) * 8
    places = zip(which.tolist(), corner.tolist(), strict=True)
    cut = torch.stack([pictures[i, :, y : y + CROP, x : x + CROP] for i, (y, x) in places])
    return (cut.float() / 255).contiguous(memory_format=torch.channels_last)


def train_autoencoder(frames: Frames, folder: Path) -> Autoencoder:
    """Trains, or goes on with, the VAE."""
    torch.manual_seed(PLAN.seed)
    return train("vae", Autoencoder().to(best_device()), loss_of(frames), PLAN, folder / "vae.pt")


@torch.inference_mode()
def encode(network: Autoencoder, pictures: Tensor, batch: int = 16) -> Tensor:
    """uint8 [n, 3, h, w] to latents [n, 4, h / 8, w / 8], float32."""
    device = device_of(network)
    latents = torch.empty(len(pictures), 4, *(side // 8 for side in pictures.shape[-2:]))
    for start in trange(0, len(pictures), batch, desc="latents", mininterval=5):
        part = pictures[start : start + batch].to(device)
        with mixed_precision(device):
            part = (part.float() / 255).contiguous(memory_format=torch.channels_last)
            latents[start : start + batch] = network.encoder(part).float()
    return latents


@torch.inference_mode()
def decode(network: Autoencoder, latents: Tensor, batch: int = 16) -> Tensor:
    """Latents [n, 4, h / 8, w / 8] to pictures [n, 3, h, w] in [0, 1], float32."""
    device = device_of(network)
    return torch.cat([network.decoder(part.to(device)).float().clamp(0, 1).cpu() for part in latents.split(batch)])

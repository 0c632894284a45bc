"""ComfyUI's library in this process, without a server: a checkpoint, prompts, encoding and decoding."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import locations


@dataclass(frozen=True)
class Loaded:
    """MODEL, CLIP and VAE of a checkpoint. Videos are [N, H, W, 3] in [0, 1], latents LATENT samples [N, 4, h, w]."""

    model: Any
    clip: Any
    vae: Any

    def prompt(self, text: str) -> list:
        """CONDITIONING of a prompt."""
        return self.clip.encode_from_tokens_scheduled(self.clip.tokenize(text))

    def encode(self, video: Tensor) -> Tensor:
        return self.vae.encode(video)

    def decode(self, latents: Tensor) -> Tensor:
        return self.vae.decode(latents).clamp(0, 1).cpu()


def prepare(pytorch_attention: bool = False) -> None:
    """Puts ComfyUI on the module path and lets it load the small checkpoints too. Call it before `load`.

    pytorch_attention: as ComfyUI's --use-pytorch-cross-attention; on a CPU it takes another by default.
    """
    host = str(locations.from_environment().host)
    if host not in sys.path:
        sys.path.insert(0, host)
    from comfy.cli_args import args

    args.cpu = not torch.cuda.is_available()
    args.use_pytorch_cross_attention = pytorch_attention or args.use_pytorch_cross_attention
    import comfy.utils

    from . import tiny_sd15

    tiny_sd15.register()
    comfy.utils.set_progress_bar_enabled(False)


def load(checkpoint: Path) -> Loaded:
    import comfy.sd

    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(checkpoint))
    return Loaded(model, clip, vae)

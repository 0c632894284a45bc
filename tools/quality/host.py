"""The host's library in this process: checkpoint, prompts, inversions, reconstructions, edits."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import locations
from .variants import CHANGES, Variant


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


def prepare() -> None:
    """Puts the host on the module path and lets it load the small checkpoints too. Call it before `load`."""
    host = str(locations.from_environment().host)
    if host not in sys.path:
        sys.path.insert(0, host)
    from comfy.cli_args import args

    args.cpu = not torch.cuda.is_available()
    import comfy.utils

    from .. import tiny_sd15

    tiny_sd15.register()
    comfy.utils.set_progress_bar_enabled(False)


def load(checkpoint: Path) -> Loaded:
    import comfy.sd

    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(checkpoint))
    return Loaded(model, clip, vae)


def method_of(variant: Variant, seed: int) -> Any:
    """The self-attention method of a variant; None where the model is left as it is."""
    from ...nodes.host.frame_context import FrameContextAttention
    from ...nodes.host.stem_attention import PRESETS, StemSelfAttention
    from ...stem_kernels.frame_context import parse_frame_references

    if variant.plain:
        return None
    if variant.inversion == "ddim":
        listed = None if variant.context == "all" else parse_frame_references(variant.context)
        return FrameContextAttention(listed)
    settings = PRESETS[variant.preset]
    changes = CHANGES[variant.change] if variant.change else {}
    of_em = {name: value for name, value in changes.items() if hasattr(settings.em, name)}
    others = {name: value for name, value in changes.items() if name not in of_em}
    em = replace(settings.em, num_bases=variant.num_bases, **of_em)
    return StemSelfAttention.from_settings(replace(settings, em=em, seed=seed, **others))


def installed(model: Any, method: Any) -> Any:
    """MODEL with a method on its self-attention, or MODEL itself."""
    from ...nodes.host.self_attention import install

    return model if method is None else install(model, method)

"""The recorded folder: arrays, settings, and its small UNet as a MODEL of the host."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import comfy.model_patcher
import comfy.supported_models
import numpy
import torch
from safetensors.torch import load_file
from torch import Tensor

UNET_CONFIG = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1] * 9 + [0] * 3,
    "transformer_depth_middle": 1,
    "context_dim": 64,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": False,
    "use_checkpoint": False,
    "legacy": False,
    "adm_in_channels": None,
    "use_temporal_resblock": False,
    "use_temporal_attention": False,
    "dtype": torch.float32,
}


@lru_cache(maxsize=8)
def arrays(folder: Path, name: str) -> dict[str, Tensor]:
    """The arrays of `name`.safetensors."""
    return load_file(folder / f"{name}.safetensors")


def settings(folder: Path, name: str) -> dict[str, Any]:
    """The settings of `name`.json."""
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


@lru_cache(maxsize=1)
def model(folder: Path) -> Any:
    """The recorded UNet as a MODEL, float32 on the CPU."""
    config = comfy.supported_models.SD15(dict(UNET_CONFIG))
    config.set_inference_dtype(torch.float32, None)
    base = config.get_model({}, device=torch.device("cpu"))
    weights = {key: value.float() for key, value in arrays(folder, "unet_ldm").items()}
    base.diffusion_model.load_state_dict(weights)
    base.diffusion_model.eval()
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(base, load_device=cpu, offload_device=cpu)


def conditioning(folder: Path, name: str) -> list:
    """CONDITIONING of a recorded text embedding."""
    return [[arrays(folder, "common")[f"embeds.{name}"], {}]]


def to_samples(model: Any, z: Tensor) -> Tensor:
    """LATENT samples of a recorded latent."""
    return model.model.process_latent_out(z)


def standard_normal(key: list[int], shape: tuple[int, ...]) -> Tensor:
    """The documented stream of draws: numpy's frozen legacy generator, seeded by an array of integers."""
    state = numpy.random.RandomState(numpy.array(key, dtype=numpy.uint32))
    return torch.from_numpy(state.standard_normal(shape).astype(numpy.float32))

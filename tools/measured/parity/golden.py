"""The recorded folder: arrays, settings, and its small UNet as a MODEL."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import comfy.model_detection
import comfy.model_patcher
import comfy.supported_models
import numpy
import torch
from safetensors.torch import load_file
from torch import Tensor


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
    weights = {key: value.float() for key, value in arrays(folder, "unet_ldm").items()}
    config = comfy.supported_models.SD15(comfy.model_detection.detect_unet_config(weights, ""))
    config.set_inference_dtype(torch.float32, None)
    cpu = torch.device("cpu")
    base = config.get_model({}, device=cpu)
    base.diffusion_model.load_state_dict(weights)
    base.diffusion_model.eval()
    return comfy.model_patcher.ModelPatcher(base, load_device=cpu, offload_device=cpu)


def clip(folder: Path, name: str) -> Tensor:
    """`z` of the clip of a run, whose name begins with that of the clip."""
    return arrays(folder, "common")[f"clip.{name.split('.')[0]}"]


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

"""A tiny SD 1.5-shaped checkpoint in process, loaded by the host itself."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import types

import comfy.sd
import folder_paths
import pytest
import torch
from comfyui_stem.tools.host import tiny_sd15
from comfyui_stem.tools.host.loaded_model import Loaded

SETUP = pathlib.Path(os.environ.get("STEM_SETUP_DIR") or pathlib.Path(__file__).resolve().parents[2] / ".setup")
FRAMES, HEIGHT, WIDTH = 5, 8, 12


@pytest.fixture(autouse=True)
def _inference():
    # The host runs nodes like this.
    with torch.inference_mode():
        yield


@pytest.fixture(scope="session")
def checkpoint() -> str:
    """The file of the generated checkpoint, which the host can load."""
    assert tiny_sd15.TinySD15 is not None  # importing the companion pack registers the model class with the host
    return str(SETUP / "models" / "tiny.safetensors")


@pytest.fixture(scope="session")
def loaded(checkpoint) -> Loaded:
    """The generated checkpoint, loaded once."""
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(checkpoint)
    return Loaded(model, clip, vae)


@pytest.fixture(scope="session")
def video() -> torch.Tensor:
    """LATENT samples of a smooth pattern that drifts by one latent pixel a frame, [n, 4, h, w]."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.randn(1, 4, 4, 6, generator=generator)
    frame = torch.nn.functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bicubic")
    return torch.cat([frame.roll(shift, -1) for shift in range(FRAMES)]) * 4


@pytest.fixture(scope="session")
def host_nodes() -> types.ModuleType:
    """The host's own nodes; its module is called `nodes`, as this folder is."""
    file = pathlib.Path(folder_paths.__file__).with_name("nodes.py")
    spec = importlib.util.spec_from_file_location("host_nodes", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

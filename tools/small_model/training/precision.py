"""Where training runs, and in which precision."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import nn


def best_device() -> torch.device:
    """The GPU where there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_of(network: nn.Module) -> torch.device:
    """Where a network's weights are."""
    return next(network.parameters()).device


def mixed_precision(device: torch.device) -> AbstractContextManager:
    """A context whose convolutions and matrix products run in bfloat16 where the device has units for it."""
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.cpu._is_amx_tile_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=fast)

"""PyTorch's attention on a CPU, where ComfyUI by itself takes its sub-quadratic one: that takes several times as long,
and saves memory only beside an attention that writes out all its weights, which PyTorch's no longer does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.ldm.modules.attention as comfyui
import torch
from comfy.cli_args import args
from torch import Tensor

_OVERRIDE = "optimized_attention_override"


def faster_on_cpu(transformer_options: dict, device: torch.device) -> dict[str, Callable]:
    """What to add to the transformer options of a run on a device; nothing where the user or a node has chosen."""
    if device.type != "cpu" or args.use_quad_cross_attention or _OVERRIDE in transformer_options:
        return {}
    return {_OVERRIDE: _pytorch_for_sub_quadratic}


def _pytorch_for_sub_quadratic(attention: Callable, *arguments: Any, **named: Any) -> Tensor:
    default = attention is comfyui.attention_sub_quad.__wrapped__
    return (comfyui.attention_pytorch if default else attention)(*arguments, **named)

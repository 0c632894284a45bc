"""What one evaluation of SD1.5's network asks of a device, counted on tensors without content."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry

from ...host.tiny_checkpoint import FULL_CHANNELS, FULL_TEXT_WIDTH, unet_config

DTYPE = torch.float16
WORDS = 77


@dataclass
class Counts:
    """products: operations of convolutions and linear layers; attention: of attention, its softmax aside; moved: bytes
    that all other operations read and write; launches: operations that are not views."""

    products: float = 0
    attention: float = 0
    moved: float = 0
    launches: int = 0

    def attend(self, attention: Callable, q: Tensor, k: Tensor, v: Tensor, heads: int, **more: Any) -> Tensor:
        """In the place of ComfyUI's attention: one fused kernel."""
        self.attention += attention_flops(q.shape[0] * q.shape[1], k.shape[1], q.shape[2])
        self.launches += 1
        return torch.empty_like(q)


class Watch(TorchDispatchMode):
    """Context manager that adds what happens inside to `counts`."""

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(self, function: Any, types: Any, arguments: tuple = (), named: dict | None = None) -> Any:
        result = function(*arguments, **(named or {}))
        makes_nothing = function.is_view or "empty" in function._schema.name
        if not makes_nothing:
            self.counts.launches += 1
            count = flop_registry.get(function._overloadpacket)
            if count is not None:
                self.counts.products += count(*arguments, **(named or {}), out_val=result)
            else:
                tensors = (value for value in tree_iter((arguments, named, result)) if isinstance(value, Tensor))
                self.counts.moved += sum(tensor.numel() * tensor.itemsize for tensor in tensors)
        return result


def attention_flops(queries: int, keys: int, channels: int) -> int:
    """Of both products, over all heads: `queries` of all rows, and the keys that each meets."""
    return 2 * 2 * queries * keys * channels


def of_network(frames: int, height: int, width: int) -> Counts:
    """One call with a row for each frame."""
    import comfy.supported_models

    described = comfy.supported_models.SD15(unet_config(FULL_CHANNELS, FULL_TEXT_WIDTH))
    described.set_inference_dtype(DTYPE, None)
    network, counts = described.get_model({}, device="meta").diffusion_model, Counts()
    x, words = (
        torch.empty(shape, device="meta", dtype=DTYPE)
        for shape in ((frames, 4, height // 8, width // 8), (frames, WORDS, FULL_TEXT_WIDTH))
    )
    with torch.no_grad(), Watch(counts):
        options = {"optimized_attention_override": counts.attend}
        network(x, torch.ones(frames, device="meta"), words, transformer_options=options)
    return counts

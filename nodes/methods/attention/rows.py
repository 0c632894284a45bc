"""The rows of a call at an attention layer: which layer, whose frames, and ComfyUI's own attention of them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from comfy.ldm.modules.attention import attention_pytorch, optimized_attention
from torch import Tensor


def comfyui_attention(q: Tensor, k: Tensor, v: Tensor, extra_options: dict, mask: Tensor | None = None) -> Tensor:
    """Multi-head attention by whatever backend the user has chosen, [b, p, c]; `mask` is added to the logits."""
    return optimized_attention(
        q,
        k,
        v,
        extra_options["n_heads"],
        mask=mask,
        attn_precision=extra_options["attn_precision"],
        transformer_options=extra_options,
    )


def prefers_masks(device: torch.device) -> bool:
    """Whether keys are better masked than left out. How many are left out is known on the device, so that the host has
    to wait for it; but attention other than PyTorch's writes masks out, or takes a slower way."""
    return device.type != "cpu" and optimized_attention is attention_pytorch


def key_of(extra_options: dict) -> tuple[str, int, int]:
    """The name of the layer that is under way, as `AttentionLayer.key`."""
    return (*extra_options["block"], extra_options.get("block_index", 0))


def size_of(extra_options: dict) -> tuple[int, int]:
    """Height and width of the features of the layer under way."""
    return tuple(extra_options["activations_shape"][-2:])


def groups_of(tokens: Tensor, extra_options: dict) -> int:
    """Number of conds (negative, positive, …) whose frames were joined into one batch: rows are group-major."""
    groups = len(extra_options["cond_or_uncond"])
    if tokens.shape[0] % groups:
        raise ValueError(
            f"{tokens.shape[0]} rows arrived at self-attention for {groups} conditionings; another node changes the "
            "batch inside the model. Disconnect it from the MODEL chain."
        )
    return groups


def rows_by_cond(extra_options: dict, *tensors: Tensor) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
    """Of every cond of a call (0 is positive, 1 negative): its number and its rows of each tensor."""
    groups = groups_of(tensors[0], extra_options)
    rows = zip(*(tensor.chunk(groups) for tensor in tensors), strict=True)
    return zip(extra_options["cond_or_uncond"], rows, strict=True)


def check_pass(tokens: Tensor, frames: int | None, extra_options: dict, name: str) -> None:
    """Raise unless rows arrive in a pass of an edit that is under way, with its number of frames for each cond."""
    if frames is None:
        raise ValueError(
            f"{name}: another node runs the model on its own within a step (as perturbed-attention guidance does), "
            "which this edit cannot follow. Disconnect that node from the MODEL chain."
        )
    groups = groups_of(tokens, extra_options)
    if tokens.shape[0] != groups * frames:
        raise ValueError(
            f"{name}: {tokens.shape[0]} rows arrived at attention for {groups} conditionings of {frames} frames; "
            "another node changes the batch. Disconnect it from the MODEL chain."
        )

"""Putting a method on the self-attention of a MODEL, and on its cross-attention where it asks for it; taking it off.

A method lives in patches of a clone of the MODEL. What it remembers during a run lives in an object that an
OUTER_SAMPLE wrapper makes and drops, so that nothing outlives the run, whether it succeeds, fails or is interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import comfy.model_management
import comfy.model_patcher
import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ..batching.frame_batches import add_batching, remove_batching
from ..seams.comfyui_versions import runs_on_several_devices
from ..seams.cpu_attention import faster_on_cpu
from ..seams.layer_map import AttentionLayer, self_attention_layers
from ..seams.network_call import NetworkCall, network_wrapper
from ..seams.patch_marks import is_marked, mark, method_of, origin
from ..seams.shared_prompt import of_rows
from . import one_call
from .method import RUN, SelfAttentionMethod
from .rows import key_of

_WRAPPER_KEY = "stem_inversion"


def install(model: Any, method: SelfAttentionMethod, layers: Sequence[AttentionLayer] | None = None) -> Any:
    """A clone of MODEL whose self-attention is `method`; a method of this pack that was there is replaced.

    Raises:
        ValueError: another pack's patch sits on the same layers, or the model is of another family.
    """
    if layers is None:
        layers = self_attention_layers(model.model.diffusion_model)
    clone = remove(model)
    refuse_foreign_patches(clone.model_options, layers, method)
    # ComfyUI deep-copies stored patches on every clone; plain functions are shared, objects would be copied.
    clone.set_model_attn1_patch(_context_patch(method, layers))
    for layer in layers:
        clone.set_model_attn1_replace(_replace_patch(method, method.attend, one_call.attend, layer), *layer.key)
    for layer in _controlled(method, layers):
        attend_cross = _replace_patch(method, partial(_attend_cross, method), one_call.attend_cross, layer)
        clone.set_model_attn2_replace(attend_cross, *layer.key)
    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, _WRAPPER_KEY, _run_wrapper(method))
    clone.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, _WRAPPER_KEY, _call_wrapper(method, layers))
    add_batching(clone, method, RUN)
    return clone


def installed_method(model: Any) -> SelfAttentionMethod | None:
    """The method of this pack that MODEL carries, if any."""
    for patch in _patches(model.model_options).get("attn1_patch", []):
        if is_marked(patch):
            return method_of(patch)
    return None


def remove(model: Any) -> Any:
    """A clone of MODEL without any method of this pack; everything else stays."""
    clone = model.clone()
    patches = _patches(clone.model_options)
    if "attn1_patch" in patches:
        patches["attn1_patch"] = [patch for patch in patches["attn1_patch"] if not is_marked(patch)]
        if not patches["attn1_patch"]:
            del patches["attn1_patch"]
    for kind in ("attn1", "attn2"):
        replaced = _replaced(clone.model_options, kind)
        for key in [key for key, patch in replaced.items() if is_marked(patch)]:
            del replaced[key]
    for kind in (WrappersMP.OUTER_SAMPLE, WrappersMP.DIFFUSION_MODEL):
        clone.remove_wrappers_with_key(kind, _WRAPPER_KEY)
    remove_batching(clone)
    return clone


def refuse_foreign_patches(model_options: dict, layers: Sequence[AttentionLayer], method: SelfAttentionMethod) -> None:
    """Raise if a patch of another pack replaces a layer of ours, or changes the tokens that self-attention reads."""
    for kind, what, ours in (
        ("attn1", "self-attention", layers),
        ("attn2", "cross-attention", _controlled(method, layers)),
    ):
        blocks = {(layer.block, layer.number) for layer in ours}
        for key, patch in _replaced(model_options, kind).items():
            if tuple(key[:2]) in blocks and not is_marked(patch):
                raise ValueError(
                    f"{method.name}: the {what} of block {key[0]} {key[1]} is already replaced by {origin(patch)}. "
                    "Only one node can replace it; with both, the result would silently be wrong. Disconnect that node "
                    "from the MODEL chain."
                )
    patches = _patches(model_options)
    for kind, patch in patches.get("forward_timestep_embed_patch", []):
        if issubclass(SpatialTransformer, kind):
            raise ValueError(
                f"{method.name}: {origin(patch)} replaces the transformer blocks of the network, so their attention is "
                "no longer there to change. Disconnect that node from the MODEL chain."
            )
    for patch in patches.get("attn1_patch", []):
        if not is_marked(patch):
            raise ValueError(
                f"{method.name}: {origin(patch)} changes the tokens that self-attention reads (as token merging and "
                "tiling do), so tokens and pixels no longer correspond. Disconnect that node from the MODEL chain."
            )


def _context_patch(method: SelfAttentionMethod, layers: Sequence[AttentionLayer]) -> Callable:
    by_key = {layer.key: layer for layer in layers}

    def attn1_patch(tokens: Tensor, context: Tensor, value: Tensor, extra_options: dict) -> tuple:
        layer = by_key.get(key_of(extra_options))
        if layer is None:
            return tokens, context, value
        if parts := extra_options.get(one_call.PARTS):
            queries_from, keys_from = one_call.context(parts, tokens, layer, extra_options)
        else:
            # one token spares the projections of the rest, where none is read
            queries_from, keys_from = method.context(tokens, layer, extra_options) or (tokens[:, :1], tokens[:, :1])
        return queries_from, keys_from, keys_from

    mark(attn1_patch, method)
    return attn1_patch


def _controlled(method: SelfAttentionMethod, layers: Sequence[AttentionLayer]) -> list[AttentionLayer]:
    """The layers whose cross-attention is the method's."""
    return [layer for layer in layers if method.controls(layer)]


def _attend_cross(
    method: SelfAttentionMethod, q: Tensor, k: Tensor, v: Tensor, layer: AttentionLayer, extra_options: dict
) -> Tensor:
    return method.attend_cross(q, of_rows(k, q.shape[0]), of_rows(v, q.shape[0]), layer, extra_options)


def _replace_patch(
    method: SelfAttentionMethod, attend: Callable, attend_parts: Callable, layer: AttentionLayer
) -> Callable:
    """`attend` for a call of the network, and `attend_parts` for one that is made of several."""

    def replace(q: Tensor, k: Tensor, v: Tensor, extra_options: dict) -> Tensor:
        # a call of the network may take minutes; nothing to trace where it is compiled
        if not torch.compiler.is_compiling():
            comfy.model_management.throw_exception_if_processing_interrupted()
        if parts := extra_options.get(one_call.PARTS):
            return attend_parts(parts, q, k, v, layer, extra_options)
        return attend(q, k, v, layer, extra_options)

    mark(replace, method)
    return replace


def _call_wrapper(method: SelfAttentionMethod, layers: Sequence[AttentionLayer]) -> Callable:
    @network_wrapper
    def diffusion_model(executor: Any, call: NetworkCall) -> Tensor:
        # Patches may have been added after ours, or for this call (perturbed-attention guidance does): the last wins.
        refuse_foreign_patches({"transformer_options": call.options}, layers, method)
        return one_call.made(executor, method, call)

    return diffusion_model


def _run_wrapper(method: SelfAttentionMethod) -> Callable:
    def outer_sample(executor: Any, *args: Any, **kwargs: Any) -> Tensor:
        guider = executor.class_obj
        original = guider.model_options
        if runs_on_several_devices(guider.model_patcher):
            raise ValueError(
                f"{method.name}: the conditionings of this MODEL run on several devices at the same time (MultiGPU CFG "
                "Split asks for it), but attention here needs what earlier calls left on the same device. Disconnect "
                "that node from the MODEL chain."
            )
        guider.model_options = comfy.model_patcher.create_model_options_clone(original)
        options = guider.model_options["transformer_options"]
        options[RUN] = method.start_run(guider.model_patcher)
        options |= faster_on_cpu(options, guider.model_patcher.load_device)
        try:
            return executor(*args, **kwargs)
        finally:
            guider.model_options = original

    return outer_sample


def _patches(model_options: dict) -> dict:
    return model_options.get("transformer_options", {}).get("patches", {})


def _replaced(model_options: dict, kind: str) -> dict:
    return model_options.get("transformer_options", {}).get("patches_replace", {}).get(kind, {})

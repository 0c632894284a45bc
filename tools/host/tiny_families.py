"""Tiny checkpoints with random weights of the families beside SD 1.x, and the classes by which ComfyUI knows them.

Topology, prediction, conditioning and tokenizers are those of the family; widths and depths are small. As for the tiny
checkpoint of SD 1.x, a part of the noise that the UNet predicts is an ideal denoiser's.
"""

from __future__ import annotations

from typing import Any

import comfy.sd1_clip
import comfy.sdxl_clip
import comfy.supported_models
import comfy.utils
import torch
from comfy.supported_models_base import ClipTarget
from comfy.text_encoders import sd2_clip

from .tiny_checkpoint import TINY_CHANNELS, UNET, carry_latent, mosaic_vae, random_weights, unet_config
from .tiny_sd15 import HEAD_WIDTH, SD15_CHANNELS, clip_config

TEXT = "cond_stage_model."
WIDTHS = {"h": 64, "l": 32, "g": 64}
TIMESTEP_WIDTH = 256
# By this weight ComfyUI tells SD 2.x models that predict velocity from those that predict noise.
V_PREDICTION_MARK = UNET + "output_blocks.11.1.transformer_blocks.0.norm1.bias"


def text_encoder(name: str, device: Any, dtype: Any, model_options: dict | None) -> comfy.sd1_clip.SDClipModel:
    """A narrow text encoder of SD 2.x (h) or SDXL (l, g): last layer but one; h and g pool and project."""
    alone = name == "l"
    return comfy.sd1_clip.SDClipModel(
        layer="hidden",
        layer_idx=-2,
        textmodel_json_config=clip_config(WIDTHS[name], {}) | {"num_hidden_layers": 3},
        device=device,
        dtype=dtype,
        layer_norm_hidden_state=name == "h",
        special_tokens={"start": 49406, "end": 49407, "pad": 49407 if alone else 0},
        return_projected_pooled=not alone,
        model_options=model_options or {},
    )


class Narrow:
    """A family's model at fewer channels."""

    @classmethod
    def matches(cls, unet_config, *args, **kwargs):
        narrow = unet_config.get("model_channels", SD15_CHANNELS) < SD15_CHANNELS
        return narrow and super().matches(unet_config, *args, **kwargs)

    def process_clip_state_dict(self, state_dict):
        return comfy.utils.state_dict_prefix_replace(state_dict, {TEXT: ""}, filter_keys=True)


class TinySD2(Narrow, comfy.supported_models.SD20):
    """SD 2.x."""

    unet_config = {
        key: value
        for key, value in comfy.supported_models.SD20.unet_config.items()
        if key not in ("model_channels", "context_dim")
    }
    unet_extra_config = comfy.supported_models.SD20.unet_extra_config | {"num_head_channels": HEAD_WIDTH}

    def clip_target(self, state_dict=None):
        class TextModel(sd2_clip.SD2ClipModel):
            def __init__(self, device="cpu", dtype=None, model_options=None):
                torch.nn.Module.__init__(self)
                self.clip_name, self.clip = "h", "clip_h"
                self.clip_h = text_encoder("h", device, dtype, model_options)
                self.dtypes = {dtype}

        return ClipTarget(sd2_clip.SD2Tokenizer, TextModel)


class TinySDXL(Narrow, comfy.supported_models.SDXL):
    """SDXL, with 1 and 2 transformers in a block instead of 2 and 10."""

    unet_config = {
        "use_linear_in_transformer": True,
        "transformer_depth": [0, 0, 1, 1, 2, 2],
        "use_temporal_attention": False,
    }
    unet_extra_config = {"num_heads": -1, "num_head_channels": HEAD_WIDTH}

    def clip_target(self, state_dict=None):
        class TextModel(comfy.sdxl_clip.SDXLClipModel):
            def __init__(self, device="cpu", dtype=None, model_options=None):
                torch.nn.Module.__init__(self)
                self.clip_l = text_encoder("l", device, dtype, model_options)
                self.clip_g = text_encoder("g", device, dtype, model_options)
                self.dtypes = {dtype}

        return ClipTarget(comfy.sdxl_clip.SDXLTokenizer, TextModel)


FAMILIES = {"sd2": TinySD2, "sd2_v": TinySD2, "sdxl": TinySDXL}


def register() -> None:
    """Adds the classes to ComfyUI's list, once."""
    models = comfy.supported_models.models
    models += [family for family in (TinySD2, TinySDXL) if family not in models]


def family_unet_config(family: str) -> dict:
    """ComfyUI's description of the UNet."""
    if family != "sdxl":
        return unet_config(TINY_CHANNELS, WIDTHS["h"]) | {"use_linear_in_transformer": True}
    return unet_config(TINY_CHANNELS, WIDTHS["l"] + WIDTHS["g"]) | {
        "num_classes": "sequential",
        "adm_in_channels": WIDTHS["g"] + 6 * TIMESTEP_WIDTH,
        "num_res_blocks": [2, 2, 2],
        "channel_mult": [1, 2, 4],
        "transformer_depth": [0, 0, 1, 1, 2, 2],
        "transformer_depth_output": [0, 0, 0, 1, 1, 1, 2, 2, 2],
        "transformer_depth_middle": 2,
        "use_linear_in_transformer": True,
    }


def build(family: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """A checkpoint's tensors in float32: "sd2" predicts noise, "sd2_v" velocity, "sdxl" noise."""
    model = FAMILIES[family](family_unet_config(family))
    model.set_inference_dtype(torch.float32, None)
    unet = random_weights(model.get_model({}, device="meta").diffusion_model, UNET, torch.float32, seed)
    carry_latent(unet, 8 if family == "sdxl" else 11)
    if family == "sd2_v":
        unet[V_PREDICTION_MARK].uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(seed))
    encoders = {}
    for name, encoder in model.clip_target().clip(device="meta", dtype=torch.float32).named_children():
        encoders |= random_weights(encoder.transformer, f"{TEXT}{name}.transformer.", torch.float32, seed)
    return {**unet, **encoders, **mosaic_vae(torch.float32)}

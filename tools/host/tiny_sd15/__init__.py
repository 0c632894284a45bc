"""A companion pack for tests and demos: ComfyUI learns to load narrow checkpoints of the SD1.5 family.

ComfyUI knows an SD1.5 UNet by its width (320) and the width of its text features (768). This pack adds one class to
ComfyUI's list of supported models, for a UNet of the same topology that is narrower. Nothing in ComfyUI is replaced.

The text encoder is a CLIP text model whose width, depth and feed-forward size are read from the checkpoint, with
SD1.5's tokenizer. What a checkpoint cannot tell is fixed here: the text model has heads of HEAD_WIDTH channels and
quick GELU as in SD1.5's own; the UNet has SD1.5's eight heads, or fewer so that none is narrower than NARROWEST_HEAD.
The VAE is whatever ComfyUI recognises by its keys.
"""

from __future__ import annotations

import comfy.sd1_clip
import comfy.supported_models
import comfy.supported_models_base

HEAD_WIDTH = 16
SD15_HEADS, NARROWEST_HEAD = 8, 8
SD15_CHANNELS = 320
# Every GroupNorm of ComfyUI's UNet has 32 groups.
CHANNEL_MULTIPLE = 32
TEXT_MODEL = "cond_stage_model.transformer.text_model."
MLP_WEIGHT = TEXT_MODEL + "encoder.layers.{}.mlp.fc1.weight"


def clip_config(width: int, state_dict: dict) -> dict:
    """The text model's configuration: as found in the checkpoint, else two layers with a fourfold feed-forward part."""
    layers = 0
    while MLP_WEIGHT.format(layers) in state_dict:
        layers += 1
    first = state_dict.get(MLP_WEIGHT.format(0))
    return {
        "hidden_act": "quick_gelu",
        "hidden_size": width,
        "intermediate_size": 4 * width if first is None else first.shape[0],
        "num_attention_heads": max(1, width // HEAD_WIDTH),
        "num_hidden_layers": layers or 2,
        "max_position_embeddings": 77,
        "eos_token_id": 49407,
        "model_type": "clip_text_model",
        "vocab_size": 49408,
    }


def clip_target(config: dict) -> comfy.supported_models_base.ClipTarget:
    """The tokenizer and text encoder classes for a configuration, in the form that ComfyUI asks for."""

    class Tokenizer(comfy.sd1_clip.SD1Tokenizer):
        def __init__(self, embedding_directory=None, tokenizer_data=None):
            super().__init__(embedding_directory=embedding_directory, tokenizer_data=tokenizer_data or {})
            self.clip_l.embedding_size = config["hidden_size"]

    class TextEncoder(comfy.sd1_clip.SDClipModel):
        def __init__(self, device="cpu", dtype=None, model_options=None):
            super().__init__(
                device=device,
                dtype=dtype,
                return_projected_pooled=False,
                textmodel_json_config=dict(config),
                model_options=model_options or {},
            )

    class TextModel(comfy.sd1_clip.SD1ClipModel):
        def __init__(self, device="cpu", dtype=None, model_options=None):
            super().__init__(device=device, dtype=dtype, model_options=model_options or {}, clip_model=TextEncoder)

    return comfy.supported_models_base.ClipTarget(Tokenizer, TextModel)


class TinySD15(comfy.supported_models.SD15):
    """SD1.5's topology at fewer channels."""

    unet_config = {
        key: value
        for key, value in comfy.supported_models.SD15.unet_config.items()
        if key not in ("model_channels", "context_dim")
    }

    def __init__(self, unet_config):
        super().__init__(unet_config)
        self.unet_config["num_heads"] = min(SD15_HEADS, unet_config["model_channels"] // NARROWEST_HEAD)

    @classmethod
    def matches(cls, unet_config, *args, **kwargs):
        channels = unet_config.get("model_channels") or SD15_CHANNELS
        narrow = channels < SD15_CHANNELS and channels % CHANNEL_MULTIPLE == 0
        return narrow and unet_config.get("context_dim") is not None and super().matches(unet_config, *args, **kwargs)

    def clip_target(self, state_dict=None):
        return clip_target(clip_config(self.unet_config["context_dim"], state_dict or {}))


def register() -> None:
    """Adds the class to ComfyUI's list, once."""
    models = comfy.supported_models.models
    if not any(model.__name__ == TinySD15.__name__ for model in models):
        models.append(TinySD15)


register()
NODE_CLASS_MAPPINGS = {}

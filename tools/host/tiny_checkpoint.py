"""Generates checkpoints with random weights: a tiny one of SD1.5's topology, or SD1.5 at full size.

The same file on every machine: each weight is drawn from a generator that is seeded with its name. The UNet and the
text encoder are untrained, so an edit made with them means nothing. With the tiny checkpoint inversion and
reconstruction do mean something: a part of its UNet's predicted noise is that of an ideal denoiser (`carry_latent`),
and its VAE is exact: it encodes to the mean colours of 8x8 pixels and decodes to a mosaic of them.
"""

from __future__ import annotations

import argparse
import math
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from .. import locations
from . import tensor_file

TINY_CHANNELS = 32
TINY_TEXT_WIDTH = 64
FULL_CHANNELS = 320
FULL_TEXT_WIDTH = 768
# Of the tiny UNet's channels, those that carry the latent past its layers, and how much of those layers is mixed in.
CARRIED = 8
RANDOM_IN_CARRIED = 0.3
RANDOM_IN_OUTPUT = 0.1
UNET = "model.diffusion_model."
TEXT_MODEL = "cond_stage_model.transformer.text_model."
VAE = "first_stage_model."


def unet_config(channels: int, text_width: int) -> dict:
    """ComfyUI's description of SD1.5's UNet, at the given widths. Narrow ones widen less on the way down: a call of so
    small a network mostly reads its weights."""
    return {
        "use_checkpoint": False,
        "image_size": 32,
        "use_spatial_transformer": True,
        "legacy": False,
        "adm_in_channels": None,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": channels,
        "num_res_blocks": [2, 2, 2, 2],
        "channel_mult": [1, 2, 4, 4] if channels >= FULL_CHANNELS else [1, 2, 2, 2],
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
        "transformer_depth_middle": 1,
        "use_linear_in_transformer": False,
        "context_dim": text_width,
        "use_temporal_resblock": False,
        "use_temporal_attention": False,
        "dtype": torch.float32,
    }


def random_weight(name: str, module: torch.nn.Module, shape: torch.Size, seed: int) -> torch.Tensor:
    """A float32 weight [*shape] of the scale that torch gives such a module, seeded by `seed` and the weight's name."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}:{name}".encode()))
    weight = torch.empty(shape)
    kind = type(module).__name__
    if "Norm" in kind:
        return weight.fill_(1.0 if name.endswith("weight") else 0.0)
    if kind == "Embedding":
        return weight.normal_(0, 0.02, generator=generator)
    # fan-in of a linear layer or a convolution: inputs times kernel size
    bound = 1 / math.sqrt(math.prod(module.weight.shape[1:]))
    return weight.uniform_(-bound, bound, generator=generator)


def random_weights(network: torch.nn.Module, prefix: str, dtype: torch.dtype, seed: int) -> dict[str, torch.Tensor]:
    """Random weights for every parameter of a network, which may lie on the meta device; keys get the prefix."""

    def weight(item: tuple[str, torch.nn.Parameter]) -> torch.Tensor:
        name, parameter = item
        module = network.get_submodule(name.rpartition(".")[0])
        return random_weight(name, module, parameter.shape, seed).to(dtype)

    parameters = dict(network.named_parameters())
    with ThreadPoolExecutor() as pool:
        return dict(zip((prefix + name for name in parameters), pool.map(weight, parameters.items()), strict=True))


def carry_latent(weights: dict[str, torch.Tensor], last_block: int = 11) -> None:
    """Changes the random weights of the tiny UNet so that the noise it predicts is u plus a smaller random part, where
    u is its input with the mean 0 and the variance 1 in every channel of every frame.

    u is what an ideal denoiser predicts of Gaussian data under strong noise. As with a trained model, latents then keep
    their size along an inversion, and it can be undone the better the more steps it has. (The noise of a merely random
    UNet has nothing to do with its input, and an inversion with it cannot be undone.)

    How: the first convolution copies the latent z and -z into CARRIED channels, the skip connection of the last block
    hands them on, the GroupNorm before the last convolution has a group for each, and silu(u) - silu(-u) = u.

    last_block: number of the last output block; its attention, if it has some, adds to the random part.
    """
    first, last, out = (UNET + name for name in ("input_blocks.0.0.", f"output_blocks.{last_block}.", "out.2."))
    skip = last + "0.skip_connection."
    latent = torch.eye(4)
    for carrier in (first, skip):
        weights[carrier + "weight"][:CARRIED] = 0
        weights[carrier + "bias"][:CARRIED] = 0
    weights[first + "weight"][:CARRIED, :, 1, 1] = torch.cat([latent, -latent])
    # the block's input is [features of the level below, features of the first convolution]
    weights[skip + "weight"][:CARRIED, TINY_CHANNELS : TINY_CHANNELS + CARRIED, 0, 0] = torch.eye(CARRIED)
    for random_part in (last + "0.out_layers.3.", last + "1.proj_out."):
        for kind in ("weight", "bias"):
            if random_part + kind in weights:
                weights[random_part + kind][:CARRIED] *= RANDOM_IN_CARRIED
    weights[out + "bias"] *= RANDOM_IN_OUTPUT
    weights[out + "weight"] *= RANDOM_IN_OUTPUT
    weights[out + "weight"][:, :CARRIED] = 0
    weights[out + "weight"][:, :CARRIED, 1, 1] = torch.cat([latent, -latent], dim=1)


def mosaic_vae(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Weights, with their keys in a checkpoint, that make ComfyUI's TAESD an exact 8x8 mosaic.

    The encoder averages 2x2 pixels three times and turns RGB into 4 channels by an isometry A [4, 3]; the decoder
    applies Aᵀ and repeats pixels. All residual branches are zero. decode(encode(x)) differs from the mosaic of x by the
    decoder's tanh alone, by less than 0.3 %. The scale 1/16 gives latents the spread of SD1.5's, about 4.
    """
    from comfy.taesd.taesd import TAESD  # ComfyUI is importable only once its folder is on the path

    vae = TAESD(latent_channels=4)
    isometry = 0.5 * torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    colours = torch.zeros(64, 64)
    colours[range(3), range(3)] = 1
    encoder, decoder = vae.taesd_encoder, vae.taesd_decoder
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.zero_()
        encoder[0].weight[:3, :, 1, 1] = torch.eye(3)
        for halving in (2, 6, 10):
            encoder[halving].weight[:, :, 1:, 1:] = 0.25 * colours[:, :, None, None]
        encoder[14].weight[:, :3, 1, 1] = isometry
        encoder[14].bias.copy_(-isometry.sum(dim=1) / 2)
        decoder[1].weight[:3, :, 1, 1] = isometry.T
        decoder[1].bias[:3] = 0.5
        for doubling in (7, 12, 17):
            decoder[doubling].weight[:, :, 1, 1] = colours
        decoder[19].weight[:, :3, 1, 1] = torch.eye(3)
        vae.vae_scale.fill_(1 / 16)
    return {VAE + name: weight.to(dtype).contiguous() for name, weight in vae.state_dict().items()}


def random_vae(dtype: torch.dtype, seed: int) -> dict[str, torch.Tensor]:
    """Random weights for SD1.5's own VAE."""
    from comfy.ldm.models.autoencoder import AutoencoderKL

    config = {
        "double_z": True,
        "z_channels": 4,
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 128,
        "ch_mult": [1, 2, 4, 4],
        "num_res_blocks": 2,
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    return random_weights(AutoencoderKL(ddconfig=config, embed_dim=4), VAE, dtype, seed)


def build(full: bool = False, dtype: torch.dtype = torch.float16, seed: int = 0) -> dict[str, torch.Tensor]:
    """A checkpoint's tensors: tiny (9 million parameters), or full (1.07 thousand million)."""
    import comfy.supported_models

    from .tiny_sd15 import TinySD15

    if full:
        model = comfy.supported_models.SD15(unet_config(FULL_CHANNELS, FULL_TEXT_WIDTH))
    else:
        model = TinySD15(unet_config(TINY_CHANNELS, TINY_TEXT_WIDTH))
    model.set_inference_dtype(torch.float32, None)
    unet = model.get_model({}, device="meta").diffusion_model
    text_model = model.clip_target().clip(device="meta", dtype=torch.float32).clip_l.transformer.text_model
    unet_weights = random_weights(unet, UNET, dtype, seed)
    if not full:
        carry_latent(unet_weights)
    return {
        **unet_weights,
        **random_weights(text_model, TEXT_MODEL, dtype, seed),
        **(random_vae(dtype, seed) if full else mosaic_vae(dtype)),
    }


def main(arguments: list[str]) -> int:
    """Writes a checkpoint; a file appears under its name only when it is complete."""
    parser = argparse.ArgumentParser(prog="tiny_checkpoint", description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="the .safetensors file to write")
    parser.add_argument("--full", action="store_true", help="SD1.5 at full size: 2.1 GB, about 40 s")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)

    sys.path.insert(0, str(locations.from_environment().host))
    from comfy.cli_args import args

    args.cpu = True
    tensors = build(options.full, seed=options.seed)
    tensor_file.write(tensors, options.file)
    print(f"{options.file}: {options.file.stat().st_size / 1e6:.1f} MB")
    return 0

"""The generated checkpoint and the host's reading of it."""

from __future__ import annotations

import comfy.sd
import pytest
import torch
from comfyui_stem.tools.host import tiny_checkpoint
from comfyui_stem.tools.host.tiny_sd15 import TEXT_MODEL, TinySD15, clip_config
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def tensors():
    return tiny_checkpoint.build()


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tensors):
    again, other = tiny_checkpoint.build(), tiny_checkpoint.build(seed=1)
    assert all(torch.equal(again[key], tensor) for key, tensor in tensors.items())
    key = tiny_checkpoint.UNET + "out.2.weight"
    assert not torch.equal(other[key], tensors[key])


def test_the_checkpoint_is_small_finite_and_in_half_precision(tensors):
    assert sum(tensor.numel() for tensor in tensors.values()) < 15_000_000
    assert all(tensor.dtype == torch.float16 and tensor.isfinite().all() for tensor in tensors.values())


def test_no_two_weights_are_alike_but_those_that_are_constant(tensors):
    weights = [tensor for key, tensor in tensors.items() if key.startswith(tiny_checkpoint.UNET) and tensor.std() > 0]
    tails = {tuple(tensor.flatten()[-8:].tolist()) for tensor in weights if tensor.numel() >= 8}
    assert len(tails) == sum(tensor.numel() >= 8 for tensor in weights)


def test_linear_weights_are_drawn_in_the_range_that_torch_gives_them():
    weight = tiny_checkpoint.random_weight("a.weight", torch.nn.Linear(4, 3), torch.Size([3, 4]), seed=0)
    assert weight.abs().max() <= 0.5 and weight.std() > 0.1


@pytest.fixture(scope="module")
def loaded(tensors):
    """MODEL, CLIP and VAE by the host's own loader."""
    return comfy.sd.load_state_dict_guess_config(dict(tensors))[:3]


def test_the_host_loads_every_part(loaded):
    model, clip, _ = loaded
    assert type(model.model.model_config).__name__ == "TinySD15"
    assert model.model.model_config.unet_config["num_heads"] == 4  # of eight channels; SD1.5 has eight of forty
    conditioning = clip.encode_from_tokens_scheduled(clip.tokenize("a (silver:1.2) jeep"))
    assert conditioning[0][0].shape == (1, 77, tiny_checkpoint.TINY_TEXT_WIDTH)


@torch.inference_mode()
def test_the_predicted_noise_is_the_normalised_latent_and_a_smaller_part_that_depends_on_all_inputs(loaded):
    unet = loaded[0].model.diffusion_model.float()
    generator = torch.Generator().manual_seed(0)
    latent = 0.5 + 2 * torch.randn(2, 4, 16, 16, generator=generator)
    text = torch.randn(2, 77, tiny_checkpoint.TINY_TEXT_WIDTH, generator=generator)
    time = torch.tensor([500.0, 500.0])
    noise = unet(latent, time, text)
    centred = latent - latent.mean(dim=(2, 3), keepdim=True)
    normalised = centred / centred.square().mean(dim=(2, 3), keepdim=True).sqrt()
    rest = (noise - normalised).std()
    assert 0.01 < rest < 0.5
    assert not torch.allclose(noise, unet(latent, time, text.flip(0)), atol=1e-5)
    assert not torch.allclose(noise, unet(latent, time / 2, text), atol=1e-4)


def test_decoding_what_was_encoded_is_the_mosaic_of_mean_colours(loaded):
    vae = loaded[2]
    picture = torch.rand(1, 32, 48, 3, generator=torch.Generator().manual_seed(0))
    means = picture.reshape(1, 4, 8, 6, 8, 3).mean(dim=(2, 4))
    mosaic = means.repeat_interleave(8, 1).repeat_interleave(8, 2)
    assert torch.allclose(vae.decode(vae.encode(picture)), mosaic, atol=5e-3)


def test_latents_have_about_the_spread_that_the_model_expects(loaded):
    vae = loaded[2]
    colours = torch.rand(1, 64, 1, 64, 1, 3, generator=torch.Generator().manual_seed(0))
    picture = colours.expand(1, 64, 8, 64, 8, 3).reshape(1, 512, 512, 3)
    assert 2 < vae.encode(picture).std() < 8


def test_the_noise_estimate_follows_the_noise(loaded):
    model = loaded[0]
    noise = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    unet = model.model.diffusion_model
    context = torch.zeros(2, 77, tiny_checkpoint.TINY_TEXT_WIDTH)
    with torch.inference_mode():
        estimate = unet(noise, torch.full((2,), 981.0), context=context)
    correlation = torch.corrcoef(torch.stack([estimate.flatten(), noise.flatten()]))[0, 1]
    assert 0.9 < correlation < 0.999
    assert 0.8 < estimate.std() < 1.2


def description(channels, text_width):
    return tiny_checkpoint.unet_config(channels, text_width)


@given(multiple=st.integers(1, 9), text_width=st.integers(16, 512))
def test_any_narrow_width_is_known_and_sd15_itself_is_left_to_the_host(multiple, text_width):
    assert TinySD15.matches(description(32 * multiple, text_width))
    assert not TinySD15.matches(description(320, text_width))
    assert not TinySD15.matches(description(32 * multiple + 8, text_width))


@pytest.mark.parametrize("change", [{"adm_in_channels": 2816}, {"use_linear_in_transformer": True}])
def test_other_families_are_not_claimed(change):
    assert not TinySD15.matches(description(64, 96) | change)
    assert not TinySD15.matches({"image_model": "flux"})


def test_the_text_encoders_shape_is_read_from_the_checkpoint():
    weights = {f"{TEXT_MODEL}encoder.layers.{layer}.mlp.fc1.weight": torch.empty(300, 96) for layer in range(5)}
    found = clip_config(96, weights)
    assert (found["num_hidden_layers"], found["intermediate_size"], found["hidden_size"]) == (5, 300, 96)
    assert found["num_attention_heads"] == 6


def test_the_full_size_description_is_that_of_sd15():
    config = description(tiny_checkpoint.FULL_CHANNELS, tiny_checkpoint.FULL_TEXT_WIDTH)
    assert comfy.supported_models.SD15.matches(config)

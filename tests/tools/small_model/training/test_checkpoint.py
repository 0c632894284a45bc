import comfy.sd
import pytest
import torch
from comfyui_stem.nodes.methods.seams.layer_map import self_attention_layers
from comfyui_stem.tools.host import tensor_file
from comfyui_stem.tools.small_model.training import autoencoder, checkpoint, denoiser

CAPTION = "a 3d red apple on a plain green background"


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    network = denoiser.Denoiser()
    for parameter in network.unet.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    networks = autoencoder.Autoencoder(), network
    for trained in networks:
        for parameter in trained.parameters():
            # the file is float16
            parameter.data = parameter.data.half().float()
    return networks


@pytest.fixture(scope="module")
def tokens():
    return denoiser.tokenise([CAPTION, ""])


@pytest.fixture(scope="module")
def file(networks, tokens, tmp_path_factory):
    file = tmp_path_factory.mktemp("checkpoint") / "model.safetensors"
    tensor_file.write(checkpoint.assemble(networks[0], 0.5, networks[1], tokens), file)
    return file


@pytest.fixture(scope="module")
def loaded(file):
    return comfy.sd.load_checkpoint_guess_config(str(file), embedding_directory=None)[:3]


def test_the_file_is_at_most_40_mb(file):
    assert file.stat().st_size <= 40e6


def test_the_host_finds_the_sixteen_layers_of_sd15(loaded):
    assert len(self_attention_layers(loaded[0].model.diffusion_model)) == 16


def test_the_host_encodes_text_as_in_training(loaded, networks, tokens):
    clip = loaded[1]
    with torch.inference_mode():
        expected = networks[1].text(tokens[:1]).last_hidden_state
    (found, _), *_ = clip.encode_from_tokens_scheduled(clip.tokenize(CAPTION))
    torch.testing.assert_close(found.float().cpu(), expected, atol=2e-3, rtol=0)


def test_the_host_predicts_noise_as_in_training(loaded, networks, tokens):
    generator = torch.Generator().manual_seed(1)
    z, timesteps = torch.randn(1, 4, 16, 16, generator=generator), torch.tensor([501])
    network, unet = networks[1], loaded[0].model.diffusion_model
    with torch.inference_mode():
        told = network.text(tokens[:1]).last_hidden_state
        expected = network.unet(z, timesteps.float(), context=told)
        found = unet(z.to(unet.dtype), timesteps.float(), context=told.to(unet.dtype)).float()
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, atol=5e-3, rtol=0)


def test_the_host_hands_the_unet_the_encoders_latents_divided_by_their_spread(loaded, networks):
    model, _, vae = loaded
    pictures = torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(2))
    latents = model.model.process_latent_in(vae.encode(pictures).cpu())
    with torch.inference_mode():
        expected = networks[0].encoder(pictures.movedim(-1, 1)) / 0.5
    torch.testing.assert_close(latents.float(), expected, atol=5e-3, rtol=0)
    decoded = vae.decode(model.model.process_latent_out(latents)).cpu()
    with torch.inference_mode():
        expected = networks[0].decoder(expected * 0.5).clamp(0, 1).movedim(1, -1)
    torch.testing.assert_close(decoded.float(), expected, atol=2e-2, rtol=0)


def test_tokens_that_never_occurred_have_no_embedding(networks, tokens):
    tensors = checkpoint.assemble(networks[0], 0.5, networks[1], tokens)
    embeddings = tensors["cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"]
    assert set(embeddings.any(dim=1).nonzero().flatten().tolist()) == set(tokens.unique().tolist())

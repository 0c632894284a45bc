import pytest
import torch
from comfyui_stem.tools.small_model.training import autoencoder, checkpoint, denoiser
from comfyui_stem.tools.small_model.training.loop import Plan, Start, train
from hypothesis import given
from hypothesis import strategies as st
from torch import nn


@given(st.integers(0, 2**32 - 1), st.sampled_from([(5,), (4, 7), (3, 2, 3, 3)]), st.floats(1e-4, 1e3))
def test_rounding_moves_no_weight_by_more_than_half_a_level_of_its_channel(seed, shape, size):
    weight = size * torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    found = checkpoint.restored(checkpoint.rounded({"w": weight}))["w"]
    if weight.dim() == 1:
        torch.testing.assert_close(found, weight, rtol=1e-3, atol=1e-7)
    else:
        level = weight.flatten(1).abs().amax(dim=1).view(-1, *[1] * (weight.dim() - 1)) / 127
        assert ((found - weight).abs() <= 0.5001 * level + 1e-12).all()


def test_a_channel_of_zeros_stays_zero():
    assert not checkpoint.restored(checkpoint.rounded({"w": torch.zeros(2, 3)}))["w"].any()


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    return autoencoder.Autoencoder(), denoiser.Denoiser()


def test_a_saved_training_comes_back_with_its_step_vae_and_nearly_its_weights(networks, tmp_path):
    vae, network = networks
    tokens = denoiser.tokenise(["a 3d red apple on a plain green background", ""])
    checkpoint.save_unfinished(tmp_path / "u.safetensors", 1234, vae, network, tokens)
    assert (tmp_path / "u.safetensors").stat().st_size < 25e6
    found, start = checkpoint.load_unfinished(tmp_path / "u.safetensors")
    assert start.step == 1234
    for name, weight in vae.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], weight, rtol=1e-3, atol=1e-6)
    again = denoiser.Denoiser()
    again.load_state_dict(start.weights)
    with torch.inference_mode():
        before, after = (net.text(tokens).last_hidden_state for net in (network, again))
    assert (before - after).norm() / before.norm() < 0.05


def test_a_training_begins_with_the_given_weights_at_the_given_step_and_warms_up_again(tmp_path):
    plan = Plan(steps=12, learning_rate=0.1, warmup=4)
    network = nn.Linear(2, 1, bias=False)
    weights = {"weight": torch.tensor([[3.0, -4.0]])}
    seen = []

    def loss(net, generator):
        seen.append(net.weight.detach().clone())
        return net.weight.square().sum()

    train("start", network, loss, plan, tmp_path / "s.pt", start=Start(9, weights))
    assert len(seen) == 3
    assert torch.equal(seen[0], weights["weight"])
    assert plan.rate(9, fresh=9) == pytest.approx(plan.rate(9) / 4)

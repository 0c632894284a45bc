import pytest
import torch
from comfyui_stem.tools.small_model.rendered_clips import random_scene
from comfyui_stem.tools.small_model.training import denoiser
from comfyui_stem.tools.small_model.training.denoiser import (
    Denoiser,
    Examples,
    alphas,
    attention,
    loss_of,
    sample,
    tokenise,
)


@pytest.fixture(autouse=True)
def _small_batch(monkeypatch):
    monkeypatch.setattr(denoiser, "BATCH", 16)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Denoiser().eval()


@pytest.fixture(scope="module")
def examples():
    captions = ["a 3d red apple on a plain green background", "a flat blue car on a striped pink background"]
    generator = torch.Generator().manual_seed(0)
    return Examples(torch.randn(2, 4, 16, 16, generator=generator), tokenise(captions), tokenise([""])[0])


def test_the_noise_levels_are_those_of_sd15():
    sigmas = ((1 - alphas()) / alphas()).sqrt()
    assert float(sigmas[1]) == pytest.approx(0.041314, rel=1e-4)
    assert float(sigmas[999]) == pytest.approx(14.61465, rel=1e-4)


def test_captions_become_77_tokens_between_the_marks_of_clip():
    tokens = tokenise(["a 3d red apple on a plain green background", ""])
    assert tokens.shape == (2, 77)
    assert tokens[:, 0].eq(49406).all() and tokens[:, -1].eq(49407).all()
    assert tokens[1, 1:].eq(49407).all()


def test_every_word_of_the_vocabulary_has_tokens_of_its_own():
    import random

    scenes = [random_scene(random.Random(seed)) for seed in range(200)]
    captions = sorted({scene.caption for scene in scenes})
    assert len({tuple(row.tolist()) for row in tokenise(captions)}) == len(captions)


def test_an_untrained_network_predicts_no_noise_so_its_loss_is_the_weighted_variance(network, examples, monkeypatch):
    monkeypatch.setattr(denoiser, "SNR_GAMMA", float("inf"))
    with torch.no_grad():
        loss = loss_of(examples)(network, torch.Generator().manual_seed(0))
    assert float(loss) == pytest.approx(1.0, abs=0.05)


def test_the_smaller_gamma_the_less_easy_steps_count(network, examples, monkeypatch):
    losses = []
    for gamma in (0.05, 5.0, float("inf")):
        monkeypatch.setattr(denoiser, "SNR_GAMMA", gamma)
        with torch.no_grad():
            losses.append(float(loss_of(examples)(network, torch.Generator().manual_seed(0))))
    assert losses == sorted(losses) and losses[0] < losses[1] < losses[2]


def test_every_weight_but_those_of_unused_tokens_gets_a_gradient_once_the_branches_are_open(examples):
    torch.manual_seed(0)
    network = Denoiser()
    for parameter in network.unet.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    loss_of(examples)(network, torch.Generator().manual_seed(0)).backward()
    without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert without == []


def test_attention_is_softmax_attention_in_the_layout_of_the_host():
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, tokens, 12, generator=generator) for tokens in (5, 7, 7))
    heads = [x.unflatten(-1, (3, 4)).transpose(1, 2) for x in (q, k, v)]
    weights = torch.softmax(heads[0] @ heads[1].transpose(-1, -2) / 2, dim=-1)
    expected = (weights @ heads[2]).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attention(None, q, k, v, 3), expected)


def test_samples_depend_on_the_seed_alone(network, examples):
    def drawn(seed):
        return sample(network, examples.tokens, examples.empty, size=16, cfg=2.0, steps=2, seed=seed)

    assert drawn(0).shape == (2, 4, 16, 16)
    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))

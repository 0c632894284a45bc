"""The number of bases that tokens ask for."""

from __future__ import annotations

import pytest
import torch
from comfyui_stem.stem_kernels.adaptive_size import SAMPLED_TOKENS, SMALLEST, explained_energy, smallest_size
from comfyui_stem.stem_kernels.em import EMSettings

EM = EMSettings(num_bases=256, temperature=0.02, iterations=5)


def normal(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def evenly(tokens, size):
    """Bases to start from: evenly spread tokens."""
    return tokens[..., torch.linspace(0, tokens.shape[-2] - 1, size).long(), :].float()


def clusters(count, tokens=3000, channels=32, noise=0.02):
    """Tokens around `count` directions, by turns."""
    centres = torch.nn.functional.normalize(normal(count, channels, seed=1), dim=-1) * channels**0.5
    return centres[torch.arange(tokens) % count] + noise * normal(tokens, channels, seed=2)


@pytest.mark.parametrize(("count", "least"), [(10, 16), (60, 64), (200, 128)])
def test_more_different_tokens_ask_for_more_bases(count, least):
    size = smallest_size(clusters(count), 0.9, EM, evenly)
    assert least <= size <= 256


def test_a_higher_target_never_takes_fewer_bases():
    tokens = normal(3000, 6, seed=3)
    sizes = [smallest_size(tokens, target, EM, evenly) for target in (0.0, 0.3, 0.6, 0.9, 1.0)]
    assert sizes == sorted(sizes)
    assert sizes[0] == SMALLEST
    assert sizes[-1] == EM.num_bases


@pytest.mark.parametrize("num_bases", [1, 16, 100])
def test_no_more_bases_are_taken_than_asked_for(num_bases):
    em = EMSettings(num_bases=num_bases)
    assert smallest_size(normal(500, 64, seed=4), 0.999, em, evenly) == num_bases


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_few_tokens_are_no_trouble(count):
    assert smallest_size(normal(count, 4, seed=5), 0.9, EM, evenly) == EM.num_bases


def test_equal_tokens_need_the_fewest():
    assert smallest_size(torch.ones(900, 5), 0.99, EM, evenly) == SMALLEST


def test_noise_is_not_explained_by_fitting_it():
    # 300 bases for 600 fitted tokens would explain half of these, but nothing of others.
    noise = normal(900, 300, seed=6)
    assert smallest_size(noise, 0.3, EM, evenly) == EM.num_bases


def test_a_long_clip_is_judged_by_a_sample_of_it():
    seen = []

    def noted(tokens, size):
        seen.append(tokens.shape[-2])
        return evenly(tokens, size)

    smallest_size(normal(20 * SAMPLED_TOKENS, 4, seed=7), 0.5, EM, noted)
    assert max(seen) <= SAMPLED_TOKENS


def test_the_sample_is_not_that_of_a_few_columns_of_the_picture():
    # Frames of 64x64 whose columns differ, but for the first: evenly spaced tokens would all lie in that one.
    frames, side = 48, 64
    columns = clusters(200, tokens=side, noise=0.0)
    columns[::16] = columns[0]
    video = columns.expand(frames, side, side, -1).reshape(frames * side * side, -1)
    assert smallest_size(video, 0.9, EM, evenly) > SMALLEST


def test_heads_are_judged_together():
    tokens = torch.stack([clusters(10), clusters(200)])
    assert smallest_size(tokens, 0.95, EM, evenly) > smallest_size(tokens[:1], 0.95, EM, evenly)


def test_explained_energy_is_one_for_the_tokens_and_zero_for_their_mean():
    tokens = normal(50, 3, seed=8)
    mean = tokens.mean(dim=0, keepdim=True)
    assert explained_energy(tokens, tokens, mean) == 1
    assert explained_energy(tokens, mean.expand_as(tokens), mean) == pytest.approx(0, abs=1e-6)
    assert explained_energy(tokens, (tokens + mean) / 2, mean) == pytest.approx(0.75, abs=1e-6)

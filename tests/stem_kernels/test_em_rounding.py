"""What float32 costs a fit: no more than it costs Eq. 8-11 computed as they stand."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from comfyui_stem.nodes.methods.stem.settings import PRESETS
from comfyui_stem.stem_kernels.backends import eager
from comfyui_stem.stem_kernels.em import EMSettings, fit_bases
from comfyui_stem.stem_kernels.initialisation import bases_from_noise
from comfyui_stem.tools.measured.errors import relative_error

DRAWS = 30
# Of the recorded calls of the published code, make parity: heads, tokens, channels, bases, iterations.
SHAPES = [(8, 320, 4, 16, 5), (8, 200, 16, 16, 5), (8, 96, 16, 16, 3), (2, 20, 16, 32, 5), (8, 256, 8, 256, 5)]
LENGTH = 5.0  # of a token; responsibilities are nearly hard, so that each iteration magnifies rounding


def draw(heads, count, channels, k, seed):
    """Tokens of low rank with noise, values, and normal numbers to start from."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(heads, *shape, generator=generator)

    tokens = normal(count, 5) @ normal(5, channels) + 0.6 * normal(count, channels)
    tokens *= LENGTH / tokens.norm(dim=-1).mean()
    return tokens, normal(count, channels), normal(k, channels)


def as_they_stand(tokens, values, noise, em):
    """Bases and pooled values by Eq. 8-11, one operation after the other, in the type of the tokens."""
    bases = tokens.mean(dim=1, keepdim=True) + tokens.std(dim=1, keepdim=True) * noise
    for _ in range(em.iterations):
        directions = bases / (bases.norm(dim=-1, keepdim=True) + em.norm_eps) if em.normalize_bases else bases
        z = torch.softmax(tokens @ directions.mT / em.temperature, dim=-1)
        mass = z.sum(dim=1, keepdim=True)
        shares = z / (mass + em.mass_eps if em.empty_bases == "kept" else mass.clamp_min(em.mass_eps))
        bases = shares.mT @ tokens
    return bases, shares.mT @ values


# Not paper_literal: its guard of 1e-30 tokens is below the responsibilities that float32 keeps (see `least_weight`).
@pytest.mark.parametrize("preset", ["reference_code", "paper", "tokenflow"])
def test_a_float32_fit_is_as_near_to_float64_as_the_equations_as_they_stand(preset):
    ratios = []
    for (*sizes, k, iterations), seed in itertools.product(SHAPES, range(DRAWS)):
        em = replace(PRESETS[preset].em, num_bases=k, iterations=iterations)
        tokens, values, noise = draw(*sizes, k, seed)
        bases = fit_bases(tokens, bases_from_noise(tokens, noise), em, (values,))
        exact = as_they_stand(tokens.double(), values.double(), noise.double(), em)
        plain = as_they_stand(tokens, values, noise, em)
        ratios += [
            relative_error(ours, expected) / relative_error(theirs, expected)
            for ours, theirs, expected in zip((bases.centres, *bases.pooled), plain, exact, strict=True)
        ]
    # Where responsibilities are nearly tied, a fit is chaotic: another order of the same sums may give any ratio.
    assert sorted(ratios)[int(0.9 * len(ratios))] < 2


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("count", [20, 600])
def test_a_base_that_one_token_makes_is_exactly_that_token(count, parts):
    tokens, values, _ = draw(2, count, 16, 1, seed=0)
    tokens *= LENGTH / tokens.norm(dim=-1, keepdim=True)
    # Every token is shared by three bases that it chooses alike: a third has no exact float32.
    initial = tokens.repeat(1, 3, 1)
    assert (eager.block_tokens(initial) < count) == (count == 600)
    em = EMSettings(temperature=1e-3, normalize_bases=False)
    bases = fit_bases(tokens.chunk(parts, dim=1), initial, em, (values,))
    assert bases.mass.unique().tolist() == pytest.approx([1 / 3])
    assert torch.equal(bases.centres, initial)
    assert torch.equal(bases.pooled[0], values.repeat(1, 3, 1))

"""Initial bases and the draws that they come from."""

from __future__ import annotations

import itertools

import pytest
import torch
from comfyui_stem.stem_kernels.initialisation import initial_bases
from comfyui_stem.stem_kernels.random_streams import BASES, keyed_generator
from hypothesis import given, settings
from hypothesis import strategies as st

PROPERTY = settings(max_examples=25)
SEEDS = st.integers(0, 2**32 - 1)
SIZES = {"m": st.integers(1, 20), "k": st.integers(1, 30), "c": st.integers(1, 6), "seed": SEEDS}
TIMESTEP, LAYER, CHUNK = 21, 3, 0


def stream(seed=0, timestep=TIMESTEP, layer=LAYER, chunk=CHUNK):
    return keyed_generator(seed, BASES, timestep, layer, chunk)


def normal(*shape, seed, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@PROPERTY
@given(dtype=st.sampled_from([torch.float16, torch.float32, torch.float64]), **SIZES)
def test_token_bases_are_distinct_tokens_the_same_ones_in_every_head(dtype, m, k, c, seed):
    # The first channel numbers the tokens.
    tokens = torch.cat([torch.arange(m).expand(2, m)[..., None], normal(2, m, c, seed=seed)], dim=-1).to(dtype)
    bases = initial_bases(tokens, k, "tokens", stream(seed))
    assert bases.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert bases.shape == (2, min(k, m), c + 1)
    chosen = bases[0, :, 0].long()
    assert len(set(chosen.tolist())) == min(k, m)
    assert torch.equal(bases, tokens[:, chosen].to(bases.dtype))


@PROPERTY
@given(**SIZES)
def test_gaussian_bases_are_the_mean_plus_unbiased_deviations_times_the_draws(m, k, c, seed):
    tokens = normal(2, m, c, seed=seed, dtype=torch.float64)
    bases = initial_bases(tokens, k, "gaussian", stream(seed), clamp=False)
    noise = torch.randn(2, k, c, generator=stream(seed)).double()
    mean = tokens.sum(dim=1, keepdim=True) / m
    variance = ((tokens - mean) ** 2).sum(dim=1, keepdim=True) / max(m - 1, 1)
    torch.testing.assert_close(bases, mean + variance.sqrt() * noise)


@PROPERTY
@given(**SIZES)
def test_gaussian_bases_follow_the_tokens_when_these_are_scaled_and_moved(m, k, c, seed):
    tokens = normal(m, c, seed=seed, dtype=torch.float64)
    bases, moved = (initial_bases(t, k, "gaussian", stream(seed)) for t in (tokens, 3 * tokens - 5))
    torch.testing.assert_close(moved, 3 * bases - 5)


def test_many_gaussian_bases_have_the_moments_of_the_tokens():
    tokens = normal(400, 3, seed=0) * torch.tensor([0.1, 1.0, 5.0]) + torch.tensor([2.0, 0.0, -3.0])
    bases = initial_bases(tokens, 20000, "gaussian", stream(), clamp=False)
    torch.testing.assert_close(bases.mean(0), tokens.mean(0), rtol=0, atol=0.1)
    torch.testing.assert_close(bases.std(0), tokens.std(0), rtol=0.03, atol=0)


@pytest.mark.parametrize(
    ("method", "clamp", "count"),
    [("tokens", True, 6), ("tokens", False, 6), ("gaussian", True, 6), ("gaussian", False, 9)],
)
def test_more_bases_than_tokens_are_clamped_except_for_unclamped_gaussians(method, clamp, count):
    assert initial_bases(normal(6, 4, seed=0), 9, method, stream(), clamp).shape == (count, 4)


@pytest.mark.parametrize("method", ["tokens", "gaussian"])
@pytest.mark.parametrize("count", [1, 5])
def test_tokens_without_spread_give_bases_equal_to_them(method, count):
    token = normal(1, 4, seed=0)
    bases = initial_bases(token.expand(count, 4), 3, method, stream(), clamp=False)
    torch.testing.assert_close(bases, token.expand(len(bases), 4))


def test_half_precision_moments_are_taken_in_float32():
    tokens = torch.full((500, 2), 5e4, dtype=torch.float16)
    tokens[::2] = 4e4
    bases = initial_bases(tokens, 8, "gaussian", stream())
    assert torch.equal(bases, initial_bases(tokens.float(), 8, "gaussian", stream()))
    assert bool(torch.isfinite(bases).all())


@PROPERTY
@given(seed=st.integers(-(2**64), 2**65), population=st.integers(1, 50), data=st.data())
def test_token_bases_are_drawn_without_repetition_whatever_the_seed(seed, population, data):
    count = data.draw(st.integers(1, population))
    numbered = torch.arange(population, dtype=torch.float32)[:, None]
    bases = initial_bases(numbered, count, "tokens", stream(seed))
    assert len(bases) == len(set(bases.flatten().tolist())) == count


def test_every_token_can_be_drawn_first():
    numbered = torch.arange(8.0)[:, None]
    firsts = [int(initial_bases(numbered, 1, "tokens", stream(timestep=t, layer=0))) for t in range(1, 400)]
    counts = torch.bincount(torch.tensor(firsts), minlength=8)
    assert int(counts.min()) > 25 and int(counts.max()) < 80  # 50 are expected


@PROPERTY
@given(seed=SEEDS, order=st.permutations(list(itertools.product((1, 21), (0, 15), (0, 1)))))
def test_a_draw_depends_on_its_key_alone_whatever_was_drawn_before(seed, order):
    tokens, seen = normal(9, 3, seed=1), {}
    for key in order:
        torch.rand(1)
        seen[key] = [initial_bases(tokens, 3, method, stream(seed, *key)) for method in ("tokens", "gaussian")]
    for key in sorted(seen):
        for method, found in zip(("tokens", "gaussian"), seen[key], strict=True):
            assert torch.equal(found, initial_bases(tokens, 3, method, stream(seed, *key)))


def test_draws_leave_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    initial_bases(normal(9, 2, seed=0), 4, "tokens", stream())
    initial_bases(normal(9, 2, seed=0), 4, "gaussian", stream())
    assert torch.equal(torch.rand(3), expected)


def test_every_seed_timestep_layer_and_chunk_starts_from_bases_of_its_own():
    keys = list(itertools.product((0, 1, 2**32), range(1, 1000, 100), range(16), range(3)))
    tokens = normal(40, 2, seed=0)
    for method, count in (("gaussian", 2), ("tokens", 40)):
        drawn = {tuple(initial_bases(tokens, count, method, stream(*key)).flatten().tolist()) for key in keys}
        assert len(drawn) == len(keys)

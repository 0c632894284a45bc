"""Initial bases and the draws that they come from."""

from __future__ import annotations

import itertools

import pytest
import torch
from comfyui_stem.stem_kernels.initialisation import DrawKey, SeededDraws, initial_bases
from hypothesis import given, settings
from hypothesis import strategies as st

PROPERTY = settings(max_examples=25, deadline=None, derandomize=True)
SEEDS = st.integers(0, 2**32 - 1)
SIZES = {"m": st.integers(1, 20), "k": st.integers(1, 30), "c": st.integers(1, 6), "seed": SEEDS}
KEY = DrawKey(timestep=21, layer=3)


def normal(*shape, seed, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@PROPERTY
@given(dtype=st.sampled_from([torch.float16, torch.float32, torch.float64]), **SIZES)
def test_token_bases_are_distinct_tokens_the_same_ones_in_every_head(dtype, m, k, c, seed):
    # The first channel numbers the tokens.
    tokens = torch.cat([torch.arange(m).expand(2, m)[..., None], normal(2, m, c, seed=seed)], dim=-1).to(dtype)
    bases = initial_bases(tokens, k, "tokens", SeededDraws(seed), KEY)
    assert bases.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert bases.shape == (2, min(k, m), c + 1)
    chosen = bases[0, :, 0].long()
    assert len(set(chosen.tolist())) == min(k, m)
    assert torch.equal(bases, tokens[:, chosen].to(bases.dtype))


@PROPERTY
@given(**SIZES)
def test_gaussian_bases_are_the_mean_plus_unbiased_deviations_times_the_draws(m, k, c, seed):
    tokens, draws = normal(2, m, c, seed=seed, dtype=torch.float64), SeededDraws(seed)
    bases = initial_bases(tokens, k, "gaussian", draws, KEY, clamp=False)
    noise = draws.standard_normal(KEY, (2, k, c)).double()
    mean = tokens.sum(dim=1, keepdim=True) / m
    variance = ((tokens - mean) ** 2).sum(dim=1, keepdim=True) / max(m - 1, 1)
    torch.testing.assert_close(bases, mean + variance.sqrt() * noise)


@PROPERTY
@given(**SIZES)
def test_gaussian_bases_follow_the_tokens_when_these_are_scaled_and_moved(m, k, c, seed):
    tokens = normal(m, c, seed=seed, dtype=torch.float64)
    bases, moved = (initial_bases(t, k, "gaussian", SeededDraws(seed), KEY) for t in (tokens, 3 * tokens - 5))
    torch.testing.assert_close(moved, 3 * bases - 5)


def test_many_gaussian_bases_have_the_moments_of_the_tokens():
    tokens = normal(400, 3, seed=0) * torch.tensor([0.1, 1.0, 5.0]) + torch.tensor([2.0, 0.0, -3.0])
    bases = initial_bases(tokens, 20000, "gaussian", SeededDraws(), KEY, clamp=False)
    torch.testing.assert_close(bases.mean(0), tokens.mean(0), rtol=0, atol=0.1)
    torch.testing.assert_close(bases.std(0), tokens.std(0), rtol=0.03, atol=0)


class StrictDraws(SeededDraws):
    def distinct(self, key, count, population):
        assert count <= population
        return super().distinct(key, count, population)


@pytest.mark.parametrize(
    ("method", "clamp", "count"),
    [("tokens", True, 6), ("tokens", False, 6), ("gaussian", True, 6), ("gaussian", False, 9)],
)
def test_more_bases_than_tokens_are_clamped_except_for_unclamped_gaussians(method, clamp, count):
    assert initial_bases(normal(6, 4, seed=0), 9, method, StrictDraws(), KEY, clamp).shape == (count, 4)


@pytest.mark.parametrize("method", ["tokens", "gaussian"])
@pytest.mark.parametrize("count", [1, 5])
def test_tokens_without_spread_give_bases_equal_to_them(method, count):
    token = normal(1, 4, seed=0)
    bases = initial_bases(token.expand(count, 4), 3, method, SeededDraws(), KEY, clamp=False)
    torch.testing.assert_close(bases, token.expand(len(bases), 4))


def test_half_precision_moments_are_taken_in_float32():
    tokens = torch.full((500, 2), 5e4, dtype=torch.float16)
    tokens[::2] = 4e4
    bases = initial_bases(tokens, 8, "gaussian", SeededDraws(), KEY)
    assert torch.equal(bases, initial_bases(tokens.float(), 8, "gaussian", SeededDraws(), KEY))
    assert bool(torch.isfinite(bases).all())


@PROPERTY
@given(seed=st.integers(-(2**64), 2**65), population=st.integers(1, 50), data=st.data())
def test_distinct_draws_are_different_indices_below_the_population(seed, population, data):
    count = data.draw(st.integers(1, population))
    indices = SeededDraws(seed).distinct(KEY, count, population)
    assert indices.dtype == torch.int64
    assert len(indices) == len(set(indices.tolist())) == count
    assert set(indices.tolist()) <= set(range(population))


def test_every_token_can_be_drawn_first():
    firsts = [int(SeededDraws().distinct(DrawKey(t, 0), 1, 8)) for t in range(1, 400)]
    counts = torch.bincount(torch.tensor(firsts), minlength=8)
    assert int(counts.min()) > 25 and int(counts.max()) < 80  # 50 are expected


@PROPERTY
@given(seed=SEEDS, order=st.permutations(list(itertools.product((1, 21), (0, 15), (0, 1)))))
def test_a_draw_depends_on_its_key_alone_whatever_was_drawn_before(seed, order):
    draws, fresh = SeededDraws(seed), SeededDraws(seed)
    seen = {}
    for key in order:
        torch.rand(1)
        seen[key] = draws.standard_normal(DrawKey(*key), (2, 3)), draws.distinct(DrawKey(*key), 3, 9)
    for key in sorted(seen):
        assert torch.equal(seen[key][0], fresh.standard_normal(DrawKey(*key), (2, 3)))
        assert torch.equal(seen[key][1], fresh.distinct(DrawKey(*key), 3, 9))


def test_draws_leave_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    initial_bases(normal(9, 2, seed=0), 4, "tokens", SeededDraws(), KEY)
    initial_bases(normal(9, 2, seed=0), 4, "gaussian", SeededDraws(), KEY)
    assert torch.equal(torch.rand(3), expected)


def test_every_seed_timestep_layer_and_chunk_has_a_stream_of_its_own():
    keys = list(itertools.product((0, 1, 2**32), range(1, 1000, 100), range(16), range(3)))
    drawn = {tuple(SeededDraws(seed).standard_normal(DrawKey(*key), (2,)).tolist()) for seed, *key in keys}
    assert len(drawn) == len(keys)
    permutations = {tuple(SeededDraws(seed).distinct(DrawKey(*key), 40, 40).tolist()) for seed, *key in keys}
    assert len(permutations) == len(keys)

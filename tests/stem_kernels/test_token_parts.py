"""Tokens in parts are the same tokens."""

from __future__ import annotations

import pytest
import torch
from comfyui_stem.stem_kernels.adaptive_size import smallest_size
from comfyui_stem.stem_kernels.em import EMSettings, fit_bases, pool
from comfyui_stem.stem_kernels.initialisation import initial_bases
from comfyui_stem.stem_kernels.random_streams import BASES, keyed_generator
from comfyui_stem.stem_kernels.token_parts import count_of, moments, parts_of, split_like, tokens_at
from comfyui_stem.tools.measured.errors import relative_error
from hypothesis import given, settings
from hypothesis import strategies as st

PROPERTY = settings(max_examples=25)
CUTS = st.lists(st.integers(1, 7), min_size=1, max_size=5)


def normal(*shape, seed, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def whole_and_parts(cuts, c, seed, heads=()):
    whole = normal(*heads, sum(cuts), c, seed=seed)
    return whole, whole.split(cuts, dim=-2)


@PROPERTY
@given(cuts=CUTS, c=st.integers(1, 6), seed=st.integers(0, 999), heads=st.sampled_from([(), (2,)]))
def test_a_fit_to_parts_is_the_fit_to_the_whole(cuts, c, seed, heads):
    whole, parts = whole_and_parts(cuts, c, seed, heads)
    values, initial = normal(*heads, sum(cuts), 3, seed=seed + 1), normal(*heads, 5, c, seed=seed + 2)
    one, other = (fit_bases(tokens, initial, EMSettings(temperature=0.3), (values,)) for tokens in (whole, parts))
    torch.testing.assert_close(other.centres, one.centres, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(other.mass, one.mass, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(other.pooled, one.pooled, rtol=1e-7, atol=1e-9)
    pooled = [pool(tokens, (values,), one, EMSettings(temperature=0.3))[0] for tokens in (whole, parts)]
    torch.testing.assert_close(*pooled, rtol=1e-7, atol=1e-9)


@PROPERTY
@given(cuts=CUTS, seed=st.integers(0, 999), method=st.sampled_from(["tokens", "gaussian"]))
def test_bases_start_from_parts_where_they_start_from_the_whole(cuts, seed, method):
    whole, parts = whole_and_parts(cuts, 4, seed)
    one, other = (initial_bases(tokens, 6, method, keyed_generator(seed, BASES, 1, 2, 0)) for tokens in (whole, parts))
    torch.testing.assert_close(other, one)


@PROPERTY
@given(cuts=CUTS, seed=st.integers(0, 999), data=st.data())
def test_tokens_are_taken_by_their_number_in_the_whole(cuts, seed, data):
    whole, parts = whole_and_parts(cuts, 3, seed, heads=(2,))
    index = torch.tensor(data.draw(st.lists(st.integers(0, sum(cuts) - 1), max_size=9)), dtype=torch.int64)
    assert torch.equal(tokens_at(parts, index), whole[:, index])
    assert count_of(parts) == count_of(whole) == sum(cuts)


def test_the_size_that_parts_ask_for_is_that_of_the_whole():
    whole, parts = whole_and_parts([400, 300, 500], 3, seed=1)

    def evenly(tokens, size):
        return tokens[..., torch.linspace(0, tokens.shape[-2] - 1, size).long(), :]

    sizes = [smallest_size(tokens, 0.9, EMSettings(num_bases=256), evenly) for tokens in (whole, parts)]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("count", [1, 2, 30])
def test_moments_are_those_of_torch(count):
    tokens = normal(count, 4, seed=3)
    mean, deviation = moments(tokens, torch.float64)
    torch.testing.assert_close(mean, tokens.mean(0, keepdim=True))
    expected = tokens.std(0, keepdim=True) if count > 1 else torch.zeros(1, 4, dtype=torch.float64)
    torch.testing.assert_close(deviation, expected)


def test_the_deviation_in_float32_is_rounded_once():
    tokens = normal(8, 320, 40, seed=6, dtype=torch.float32)
    _, deviation = moments(tokens.split(100, dim=1), torch.float32)
    assert relative_error(deviation, tokens.double().std(1, keepdim=True)) < torch.finfo(torch.float32).eps / 4


def test_a_tensor_is_its_only_part():
    tokens = normal(5, 2, seed=4)
    assert parts_of(tokens)[0] is tokens
    assert [len(part) for part in split_like(normal(5, 1, seed=5), tokens)] == [5]

"""The blocked implementation in plain PyTorch."""

from __future__ import annotations

import pytest
import torch
from comfyui_stem.stem_kernels.backends import eager
from comfyui_stem.stem_kernels.em import expectation
from hypothesis import given, settings
from hypothesis import strategies as st

PROPERTY = settings(max_examples=25)


def normal(*shape, seed, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def written_out(tokens, values, directions, temperature):
    z = expectation(tokens.to(directions.dtype), directions, temperature).transpose(-1, -2)
    return z.sum(dim=-1), [z @ value.to(directions.dtype) for value in values]


@PROPERTY
@given(
    heads=st.integers(1, 3),
    m=st.integers(1, 40),
    k=st.integers(1, 20),
    c=st.integers(1, 9),
    block=st.integers(1, 45),
    temperature=st.sampled_from([0.01, 0.05, 2.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_blocks_of_any_size_give_masses_and_sums_of_the_equations(heads, m, k, c, block, temperature, seed):
    tokens, values = normal(heads, m, c, seed=seed), normal(heads, m, 3, seed=seed + 1)
    directions = normal(heads, k, c, seed=seed + 2)
    mass, totals = eager.accumulate(tokens, (tokens, values), directions, temperature, block)
    expected_mass, expected = written_out(tokens, (tokens, values), directions, temperature)
    torch.testing.assert_close(mass, expected_mass)
    for ours, theirs in zip(totals, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_more_tokens_than_one_block_holds_are_all_counted():
    count = 2 * eager.BLOCK_TOKENS + 17
    tokens, directions = normal(1, count, 5, seed=0, dtype=torch.float32), normal(1, 7, 5, seed=1, dtype=torch.float32)
    mass, totals = eager.accumulate(tokens, (tokens,), directions, 0.5)
    whole_mass, whole = eager.accumulate(tokens, (tokens,), directions, 0.5, block=count)
    assert float(mass.sum()) == pytest.approx(count, rel=1e-5)
    torch.testing.assert_close(mass, whole_mass)
    torch.testing.assert_close(totals[0], whole[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_responsibility_is_subnormal(dtype):
    tokens, directions = normal(1, 500, 8, seed=2, dtype=dtype), normal(1, 200, 8, seed=3, dtype=dtype)
    z = expectation(tokens, directions * 20, 0.02 if dtype == torch.float32 else 0.002)
    assert bool((z == 0).any())
    assert float(z[z > 0].min()) >= torch.finfo(dtype).tiny


def test_tokens_are_not_changed():
    tokens, directions = normal(1, 30, 4, seed=4), normal(1, 6, 4, seed=5)
    before = tokens.clone(), directions.clone()
    eager.accumulate(tokens, (tokens,), directions, 0.05)
    assert torch.equal(tokens, before[0])
    assert torch.equal(directions, before[1])

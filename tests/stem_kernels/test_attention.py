"""The layout of heads and frames, and attention against its definition."""

from __future__ import annotations

import math

import torch
from comfyui_stem.stem_kernels.attention import (
    attention,
    attention_probabilities,
    join_frames,
    joined,
    merge_heads,
    split_frames,
    split_heads,
)
from hypothesis import given, settings
from hypothesis import strategies as st

PROPERTY = settings(max_examples=25)
SMALL = st.integers(1, 4)
SEEDS = st.integers(0, 2**32 - 1)


def normal(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@PROPERTY
@given(b=SMALL, p=SMALL, h=SMALL, d=SMALL)
def test_channels_of_a_head_lie_together_and_merging_undoes_splitting(b, p, h, d):
    tokens = torch.arange(b * p * h * d).reshape(b, p, h * d)
    heads = split_heads(tokens, h)
    assert heads.shape == (b, h, p, d)
    for head in range(h):
        assert torch.equal(heads[:, head], tokens[..., head * d : (head + 1) * d])
    assert torch.equal(merge_heads(heads), tokens)


@PROPERTY
@given(g=SMALL, n=SMALL, p=SMALL, c=SMALL)
def test_frames_of_a_group_are_joined_in_order_and_groups_never_mix(g, n, p, c):
    tokens = torch.arange(g * n * p * c).reshape(g * n, p, c)
    joined = join_frames(tokens, g)
    assert joined.shape == (g, n * p, c)
    for group in range(g):
        assert torch.equal(joined[group], torch.cat([tokens[group * n + frame] for frame in range(n)]))
    assert torch.equal(split_frames(joined, n), tokens)


@PROPERTY
@given(counts=st.lists(SMALL, min_size=1, max_size=3), dim=st.sampled_from([0, 1]))
def test_parts_are_joined_in_order_and_one_alone_is_not_copied(counts, dim):
    parts = [normal(*((count, 2) if dim == 0 else (2, count)), seed=count) for count in counts]
    whole = joined(parts, dim)
    assert torch.equal(whole, torch.cat(parts, dim))
    assert (whole is parts[0]) == (len(parts) == 1)


@PROPERTY
@given(b=SMALL, p=SMALL, keys=st.integers(1, 6), h=SMALL, d=SMALL, seed=SEEDS)
def test_attention_equals_its_definition_query_by_query(b, p, keys, h, d, seed):
    q, k, v = (normal(b, count, h * d, seed=seed + i) for i, count in enumerate((p, keys, keys)))
    probabilities, out = attention_probabilities(q, k, h), attention(q, k, v, h)
    assert probabilities.shape == (b, h, p, keys)
    assert out.shape == q.shape
    for row in range(b):
        for head in range(h):
            own = slice(head * d, (head + 1) * d)
            for query in range(p):
                odds = [math.exp(float(q[row, query, own] @ k[row, key, own]) / math.sqrt(d)) for key in range(keys)]
                shares = torch.tensor(odds, dtype=torch.float64) / math.fsum(odds)
                torch.testing.assert_close(probabilities[row, head, query], shares)
                expected = sum(share * v[row, key, own] for key, share in enumerate(shares))
                torch.testing.assert_close(out[row, query, own], expected)


@PROPERTY
@given(h=SMALL, d=SMALL, seed=SEEDS)
def test_attention_agrees_with_the_fused_kernel_of_torch(h, d, seed):
    q, k, v = (normal(2, count, h * d, seed=seed + i).float() for i, count in enumerate((9, 13, 13)))
    fused = torch.nn.functional.scaled_dot_product_attention(*(split_heads(tensor, h) for tensor in (q, k, v)))
    torch.testing.assert_close(attention(q, k, v, h), merge_heads(fused), rtol=1e-5, atol=1e-5)


@PROPERTY
@given(n=SMALL, p=SMALL, keys=SMALL, seed=SEEDS)
def test_frames_joined_on_shared_keys_give_the_attention_of_each_frame(n, p, keys, seed):
    q, k, v = normal(n, p, 4, seed=seed), normal(1, keys, 4, seed=seed + 1), normal(1, keys, 4, seed=seed + 2)
    joined = split_frames(attention(join_frames(q, 1), k, v, heads=2), n)
    torch.testing.assert_close(joined, attention(q, k.expand(n, -1, -1), v.expand(n, -1, -1), heads=2))


@PROPERTY
@given(keys=st.integers(1, 6), seed=SEEDS)
def test_the_order_of_the_keys_does_not_change_attention(keys, seed):
    q, k, v = normal(1, 3, 4, seed=seed), normal(1, keys, 4, seed=seed + 1), normal(1, keys, 4, seed=seed + 2)
    order = torch.randperm(keys, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(attention(q, k[:, order], v[:, order], heads=2), attention(q, k, v, heads=2))

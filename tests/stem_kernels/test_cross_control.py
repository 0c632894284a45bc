"""Control of cross-attention as arithmetic on values, against the maps that FateZero writes out."""

from __future__ import annotations

import pytest
import torch
from comfyui_stem.stem_kernels.attention import attention, attention_probabilities, merge_heads, split_heads
from comfyui_stem.stem_kernels.cross_control import control_at, refined, replaced
from comfyui_stem.stem_kernels.prompt_alignment import refine_alignment
from hypothesis import given, settings
from hypothesis import strategies as st

COLUMNS, HEADS, PIXELS, CHANNELS = 9, 2, 5, 8


def drawn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mapping_of(kind, seed):
    generator = torch.Generator().manual_seed(seed)
    if kind == "replace":
        mapper = torch.rand(COLUMNS, COLUMNS, generator=generator)
        return replaced(mapper / mapper.sum(dim=1, keepdim=True)), mapper / mapper.sum(dim=1, keepdim=True)
    source, target = (torch.randint(4, (COLUMNS - 2,), generator=generator).tolist() for _ in range(2))
    alignment = refine_alignment([90, *source, 91], [90, *target, 91], COLUMNS)
    return refined(alignment), alignment


def published_map(kind, mapper, alpha, factors, a_source, a_edit):
    """The controlled map as FateZero makes it, column by column."""
    if kind == "replace":
        read = a_source @ mapper.double()
    else:
        read = torch.stack(
            [
                a_source[..., m] if beta else a_edit[..., j]
                for j, (m, beta) in enumerate(zip(mapper.mapper, mapper.aligned, strict=True))
            ],
            dim=-1,
        )
    return alpha * factors * read + (1 - alpha) * a_edit


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), kind=st.sampled_from(["replace", "refine"]))
def test_two_attentions_give_the_output_of_the_published_map(seed, kind):
    mapping, mapper = mapping_of(kind, seed)
    generator = torch.Generator().manual_seed(seed)
    alpha = torch.randint(2, (COLUMNS,), generator=generator).double()
    factors = torch.where(torch.rand(COLUMNS, generator=generator) < 0.3, 10.0, 1.0).double()
    q_source, q_edit = drawn(seed, 2, PIXELS, CHANNELS), drawn(seed + 1, 2, PIXELS, CHANNELS)
    k_source, k_edit, values = (drawn(seed + i, 2, COLUMNS, CHANNELS) for i in (2, 3, 4))
    a_source, a_edit = (attention_probabilities(q, k, HEADS) for q, k in ((q_source, k_source), (q_edit, k_edit)))
    expected = published_map(kind, mapper, alpha, factors, a_source, a_edit)
    control = control_at(mapping, alpha, factors, "within_window")
    controlled = a_source @ control.source.double() + a_edit * control.edit
    torch.testing.assert_close(controlled, expected, rtol=1e-6, atol=1e-6)
    ours = attention(q_source, k_source, control.source_values(values), HEADS)
    ours = ours + attention(q_edit, k_edit, control.edit_values(values), HEADS)
    output = merge_heads(expected @ split_heads(values, HEADS))
    torch.testing.assert_close(ours, output, rtol=1e-5, atol=1e-5)


def test_outside_the_window_nothing_changes_unless_weights_act_in_all_steps():
    mapping, _ = mapping_of("refine", 1)
    nothing, factors = torch.zeros(COLUMNS), torch.ones(COLUMNS)
    factors[3] = 10
    within, always = (control_at(mapping, nothing, factors, when) for when in ("within_window", "all_steps"))
    assert not within.changes_something and not within.reads_source
    assert always.changes_something and not always.reads_source
    assert always.edit.tolist() == factors.tolist()


def test_the_same_prompt_with_full_control_is_the_source_attention():
    alignment = refine_alignment([90, 1, 2, 91], [90, 1, 2, 91], COLUMNS)
    control = control_at(refined(alignment), torch.ones(COLUMNS), torch.ones(COLUMNS), "within_window")
    assert torch.equal(control.source, torch.eye(COLUMNS)) and not control.reads_edit


def test_a_word_without_a_source_reads_the_edit_alone():
    alignment = refine_alignment([90, 1, 91], [90, 5, 1, 91], COLUMNS)
    control = control_at(refined(alignment), torch.ones(COLUMNS), torch.ones(COLUMNS), "within_window")
    assert control.edit.nonzero().flatten().tolist() == [1]
    assert control.source[:, 1].sum() == 0 and control.source[1, 2] == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_values_keep_their_precision(dtype):
    mapping, _ = mapping_of("replace", 1)
    control = control_at(mapping, torch.ones(COLUMNS), torch.ones(COLUMNS), "within_window")
    values = drawn(1, 1, COLUMNS, CHANNELS).to(dtype)
    assert control.source_values(values).dtype == control.edit_values(values).dtype == dtype

from __future__ import annotations

import pytest
import torch
from comfyui_stem.stem_kernels.attention import attention_probabilities
from comfyui_stem.stem_kernels.masks import attention_mask, blend, mean_attention, word_attention
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import interpolate


def peak_at(y, x, height=6, width=10):
    attention = torch.zeros(1, height, width)
    attention[0, y, x] = 0.5
    return attention


def test_word_attention_is_the_mean_over_heads_of_the_sum_over_the_words_tokens():
    generator = torch.Generator().manual_seed(1)
    q, k = (torch.randn(2, n, 8, generator=generator, dtype=torch.float64) for n in (6, 5))
    maps = attention_probabilities(q, k, 2)
    expected = (maps[:, 0, :, 1] + maps[:, 1, :, 1] + maps[:, 0, :, 4] + maps[:, 1, :, 4]) / 2
    torch.testing.assert_close(word_attention(q, k, 2, (1, 4)), expected)
    # All tokens together have all the attention, in half precision too.
    total = word_attention(q.half(), k.half(), 2, range(5))
    assert total.dtype == torch.float32
    torch.testing.assert_close(total, torch.ones(2, 6))


def test_a_mask_is_widened_by_a_pixel_and_follows_frames_that_are_not_square():
    mask = attention_mask(peak_at(2, 7), (6, 10), 0.3)
    expected = torch.zeros(1, 6, 10, dtype=torch.bool)
    expected[0, 1:4, 6:9] = True
    assert torch.equal(mask, expected)
    doubled = attention_mask(peak_at(2, 7), (12, 20), 0.3)
    assert torch.equal(doubled, expected.repeat_interleave(2, 1).repeat_interleave(2, 2))


@pytest.mark.parametrize("resizing", ["nearest", "bilinear"])
def test_every_frame_is_measured_by_its_own_peak(resizing):
    frames = torch.cat([peak_at(2, 7), 0.001 * peak_at(2, 7)])
    first, second = attention_mask(frames, (12, 20), 0.3, resizing)
    assert torch.equal(first, second) and first.any() and not first.all()


@given(th=st.floats(1, 10))
def test_a_threshold_of_one_and_more_masks_nothing_and_zero_all_that_has_attention(th):
    attention = torch.rand(2, 6, 10, generator=torch.Generator().manual_seed(3)) + 0.01
    assert not attention_mask(attention, (6, 10), th).any()
    assert attention_mask(attention, (6, 10), 0.0).all()


def test_a_word_without_attention_gives_an_empty_mask_and_no_number_that_is_none():
    assert not attention_mask(torch.zeros(2, 6, 10), (12, 20), 0.0).any()


def test_blending_takes_the_edit_in_the_mask_and_the_source_outside_to_the_bit():
    edited, source = torch.full((1, 4, 2, 2), 1.5), torch.full((1, 4, 2, 2), -0.25)
    mask = torch.tensor([[[True, False], [False, True]]])
    assert blend(edited, source, mask)[0, 0].tolist() == [[1.5, -0.25], [-0.25, 1.5]]
    assert torch.equal(blend(edited, source, torch.ones_like(mask)), edited)
    assert torch.equal(blend(edited, source, torch.zeros_like(mask)), source)


def test_the_mean_of_layers_is_taken_at_the_largest_of_their_sizes():
    small, large = torch.rand(3, 2, 4), torch.rand(3, 4, 8)
    assert torch.equal(mean_attention([small, small + 1]), torch.stack([small, small + 1]).mean(0))
    expected = (large + interpolate(small[:, None], (4, 8), mode="bilinear", align_corners=False)[:, 0]) / 2
    torch.testing.assert_close(mean_attention([small, large]), expected)
    words = mean_attention([small[None].expand(5, -1, -1, -1), large[None].expand(5, -1, -1, -1)])
    torch.testing.assert_close(words, expected[None].expand(5, -1, -1, -1))

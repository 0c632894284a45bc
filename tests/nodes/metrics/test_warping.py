"""Frames moved along known flows."""

from __future__ import annotations

import pytest
import torch
from comfyui_stem.nodes.metrics.warping import moved, sampled_at, visible, warp_error
from hypothesis import given, settings
from hypothesis import strategies as st


def noise(seed, frames=3, side=16):
    return torch.rand(frames, side, side, 3, generator=torch.Generator().manual_seed(seed))


def constant(dx, dy, pairs=2, side=16):
    return torch.tensor([dx, dy]).float().expand(pairs, side, side, 2)


@settings(max_examples=20)
@given(st.integers(-4, 4), st.integers(-4, 4))
def test_whole_pixel_motion_is_undone_exactly(dx, dy):
    """Frame n + 1 shows at (x, y) what frame n shows at (x - dx, y - dy)."""
    first = noise(2, frames=1)[0]
    video = torch.stack([first.roll((n * dy, n * dx), (0, 1)) for n in range(3)])
    seen = torch.zeros(2, 16, 16, dtype=torch.bool)
    seen[:, 4:-4, 4:-4] = True
    error = warp_error(video, constant(-dx, -dy), seen)
    assert error.seen < 1e-9
    assert (error.all > 1) == bool(dx or dy)


def test_the_warp_error_of_still_frames_is_their_mean_squared_difference_times_a_thousand():
    video = torch.stack([torch.full((16, 16, 3), value, dtype=torch.float64) for value in (0.2, 0.3, 0.5)])
    error = warp_error(video, constant(0, 0), torch.ones(2, 16, 16, dtype=torch.bool))
    assert error.seen == pytest.approx(1000 * (0.01 + 0.04) / 2, rel=1e-6)
    assert error.all == pytest.approx(error.seen)
    assert error.pairs.tolist() == pytest.approx([10, 40], rel=1e-6)


def test_known_noise_gives_its_variance_twice():
    generator = torch.Generator().manual_seed(5)
    video = 0.5 + 0.05 * torch.randn(9, 96, 96, 3, generator=generator)
    error = warp_error(video, constant(0, 0, 8, 96), torch.ones(8, 96, 96, dtype=torch.bool))
    assert error.all == pytest.approx(1000 * 2 * 0.05**2, rel=0.02)


def test_half_a_pixel_is_the_mean_of_two():
    ramp = torch.arange(8.0).reshape(1, 1, 8, 1).expand(1, 4, 8, 1)
    found = sampled_at(ramp, constant(0.5, 0, 1, 8)[:, :4])
    assert found[0, 0, :7, 0].tolist() == pytest.approx([n + 0.5 for n in range(7)])


def test_a_flow_and_its_reverse_agree_and_two_that_differ_do_not():
    agreeing = visible(constant(2, -1), constant(-2, 1))
    assert bool(agreeing[:, 4:-4, 4:-4].all())
    assert not bool(visible(constant(3, 0), constant(3, 0)).any())


@pytest.mark.parametrize(("dx", "outside"), [(-3, slice(0, 3)), (3, slice(13, 16))])
def test_what_comes_from_outside_the_picture_is_not_seen(dx, outside):
    seen = visible(constant(-dx, 0), constant(dx, 0))
    assert not bool(seen[:, :, outside].any())
    assert int(seen.sum()) == 2 * 16 * 13


def test_the_allowance_is_that_of_the_definition():
    # |there + back|^2 against 0.01 (|there|^2 + |back|^2) + 0.5
    there = 8.0
    for back in (-8.0, -7.2, -7.0, -6.9, -6.5, -5.0):
        allowed = 0.01 * (there**2 + back**2) + 0.5
        expected = (there + back) ** 2 < allowed
        seen = visible(constant(back, 0, 1, 40), constant(there, 0, 1, 40))
        assert bool(seen[0, 20, 15]) == expected


def test_nothing_seen_is_no_number():
    error = warp_error(noise(1), constant(0, 0), torch.zeros(2, 16, 16, dtype=torch.bool))
    assert error.seen != error.seen
    assert error.all > 0


def test_the_border_is_repeated():
    video = noise(3)
    assert torch.equal(moved(video, constant(-100, 0))[0, :, 5], moved(video, constant(-100, 0))[0, :, 9])

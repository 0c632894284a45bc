"""PSNR and SSIM against closed forms and a direct evaluation of their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from comfyui_stem.nodes.metrics.closeness import psnr, ssim
from hypothesis import given
from hypothesis import strategies as st

C1, C2 = 0.01**2, 0.03**2


def video(frames=2, height=16, width=20, seed=0):
    return torch.rand(frames, height, width, 3, generator=torch.Generator().manual_seed(seed))


@given(offset=st.floats(0.001, 0.5))
def test_psnr_of_a_constant_offset_is_its_closed_form(offset):
    dark = torch.full((3, 4, 5, 3), 0.25)
    assert psnr(dark, dark + offset).tolist() == pytest.approx([-20 * math.log10(offset)] * 3, abs=1e-3)


def test_psnr_is_per_frame_and_finite_for_identical_frames():
    a = video()
    b = a.clone()
    b[1] = 1 - b[1]
    values = psnr(a, b)
    assert values[0] == pytest.approx(100)
    assert values[1] < 20


def test_ssim_of_two_flat_frames_is_the_luminance_term():
    a, b = torch.full((1, 16, 16, 3), 0.2), torch.full((1, 16, 16, 3), 0.7)
    expected = (2 * 0.2 * 0.7 + C1) / (0.2**2 + 0.7**2 + C1)
    assert ssim(a, b).item() == pytest.approx(expected, rel=1e-6)


def direct_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """SSIM of one channel [H, W], a window at a time."""
    taps = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window = np.outer(taps, taps) / taps.sum() ** 2
    values = []
    for y in range(a.shape[0] - 10):
        for x in range(a.shape[1] - 10):
            p, q = a[y : y + 11, x : x + 11], b[y : y + 11, x : x + 11]
            mean_p, mean_q = (window * p).sum(), (window * q).sum()
            var_p, var_q = (window * (p - mean_p) ** 2).sum(), (window * (q - mean_q) ** 2).sum()
            covariance = (window * (p - mean_p) * (q - mean_q)).sum()
            luminance = (2 * mean_p * mean_q + C1) / (mean_p**2 + mean_q**2 + C1)
            values.append(luminance * (2 * covariance + C2) / (var_p + var_q + C2))
    return float(np.mean(values))


def test_ssim_equals_its_definition_evaluated_window_by_window():
    a, b = video(seed=1), 0.6 * video(seed=1) + 0.4 * video(seed=2)
    expected = [
        np.mean([direct_ssim(x[..., c].double().numpy(), y[..., c].double().numpy()) for c in range(3)])
        for x, y in zip(a, b, strict=True)
    ]
    assert ssim(a, b).tolist() == pytest.approx(expected, abs=1e-6)


@given(seed=st.integers(0, 50))
def test_ssim_is_symmetric_and_one_only_for_the_same_frame(seed):
    a, b = video(seed=seed), video(seed=seed + 1)
    assert ssim(a, a).tolist() == pytest.approx([1, 1])
    assert ssim(a, b).tolist() == pytest.approx(ssim(b, a).tolist())
    assert ssim(a, b).max() < 0.9


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_videos_of_different_shapes_are_refused(metric):
    with pytest.raises(ValueError, match="cannot be compared"):
        metric(video(frames=2), video(frames=3))


def test_frames_smaller_than_the_window_are_refused():
    with pytest.raises(ValueError, match="smaller than the 11x11 window"):
        ssim(video(height=10), video(height=10))

"""Means with intervals."""

from __future__ import annotations

import numpy as np
import pytest
from comfyui_stem.tools.measured.quality.bootstrap import estimate
from hypothesis import given, settings
from hypothesis import strategies as st

numbers = st.lists(st.floats(-100, 100), min_size=1, max_size=4)


@settings(max_examples=30)
@given(st.lists(numbers, min_size=1, max_size=6))
def test_the_interval_lies_within_the_numbers_and_the_mean_is_that_of_the_clips(values):
    found = estimate(dict(enumerate(values)), resamples=200)
    assert found.mean == pytest.approx(np.mean([np.mean(clip) for clip in values]))
    low, high = min(map(min, values)), max(map(max, values))
    assert low - 1e-9 <= found.low <= found.high <= high + 1e-9


def test_equal_clips_have_no_interval():
    found = estimate({clip: [3.0, 3.0] for clip in range(5)})
    assert (found.mean, found.low, found.high) == (3, 3, 3)


def test_it_is_the_same_every_time():
    values = {clip: [float(clip), clip + 0.5] for clip in range(9)}
    assert estimate(values) == estimate(values)


def test_the_interval_holds_the_true_mean_about_as_often_as_it_says():
    """Clips differ by 1, seeds by 0.5: an interval over single numbers would be too narrow."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        clips = rng.normal(0, 1, (24, 1)) + rng.normal(0, 0.5, (24, 3))
        found = estimate(dict(enumerate(clips.tolist())), resamples=400)
        hits += found.low <= 0 <= found.high
    assert 0.89 <= hits / 200 <= 1

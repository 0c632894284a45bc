"""What the soak run says of its numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from comfyui_stem.tools.robustness.soak import FILE, Run, slope_of, summary


def test_a_leak_is_seen_and_noise_is_not():
    noise = np.random.default_rng(1).normal(0, 2, 60)
    flat, leaking = slope_of(list(700 + noise)), slope_of(list(700 + noise + 0.5 * np.arange(60)))
    assert flat.low < 0 < flat.high
    assert 0.4 < leaking.low < leaking.slope < leaking.high < 0.6


def test_the_warm_up_does_not_count():
    runs = [Run(9.0, 100.0 * n, n) for n in range(10)] + [Run(2.0, 1000.0, 10) for _ in range(30)]
    found = summary(runs)
    assert found["warm_up"] == 10 and found["runs"] == 40
    assert found["megabytes_per_run"]["slope"] == pytest.approx(0, abs=1e-9)
    assert found["files_after_first_and_last"] == [10, 10]
    assert found["seconds"] == 2.0


def test_the_recorded_run_found_no_leak():
    found = json.loads(FILE.read_text(encoding="utf-8"))
    assert found["runs"] >= 50
    # less than a thousandth of what the host holds, for each run
    assert found["megabytes_per_run"]["low"] < found["megabytes"] / 1000
    assert found["files_after_first_and_last"][0] == found["files_after_first_and_last"][1]

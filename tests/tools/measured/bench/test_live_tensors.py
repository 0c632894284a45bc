"""Bytes of tensors that are alive, counted."""

from __future__ import annotations

import torch
from comfyui_stem.tools.measured.bench.live_tensors import LiveTensors, live_mb

MB = 250_000  # numbers of four bytes


def test_the_most_that_is_alive_at_once_is_counted():
    def run():
        first = torch.zeros(MB)
        second = first + 1  # two
        del first
        third = second + 1  # two again
        del second, third
        torch.zeros(MB)

    assert live_mb(run) == 2.0


def test_views_and_operations_in_place_make_nothing_new():
    def run():
        x = torch.zeros(4, MB // 4)
        x.t().reshape(2, 2, -1)[0].add_(1)
        x.mul_(2)

    # a transposed matrix cannot be reshaped without a copy
    assert live_mb(run) == 2.0
    assert live_mb(lambda: torch.zeros(4, MB // 4).view(2, -1)[0].add_(1)) == 1.0


def test_nothing_is_left_after_a_run_in_inference_mode():
    with torch.inference_mode(), LiveTensors() as live:
        for _ in range(5):
            x = torch.ones(MB)
            x = x @ x
        del x
    assert live.held == 0
    assert 1e6 <= live.peak < 2.1e6


def test_what_was_there_before_does_not_count():
    before = torch.zeros(MB)
    assert live_mb(lambda: before.view(2, -1)) == 0
    assert live_mb(lambda: before.sum()) < 0.1

"""Scores of embeddings whose angles are known."""

from __future__ import annotations

import math

import pytest
import torch
from comfyui_stem.nodes.metrics.clip_scores import frame_accuracy, prompt_similarity, temporal_consistency


def at(*degrees):
    angles = torch.tensor([math.radians(d) for d in degrees], dtype=torch.float64)
    return torch.stack([angles.cos(), angles.sin()], dim=-1)


def test_the_score_is_the_cosine_and_does_not_know_lengths():
    frames = at(0, 60, 90, 180) * torch.tensor([[1.0], [5.0], [0.1], [2.0]])
    assert prompt_similarity(frames, 7 * at(0)[0]).tolist() == pytest.approx([1, 0.5, 0, -1], abs=1e-12)


def test_accuracy_is_the_share_of_frames_nearer_to_the_target():
    source, target = at(0)[0], at(90)[0]
    assert frame_accuracy(at(10, 40, 50, 80), source, target) == 0.5
    assert frame_accuracy(at(45.0), source, target) in (0.0, 1.0)
    assert frame_accuracy(at(10, 20), source, source) == 1.0


def test_consistency_compares_each_frame_with_the_one_before():
    assert temporal_consistency(at(0, 60, 60)).tolist() == pytest.approx([0.5, 1.0])
    assert temporal_consistency(at(0)).shape == (0,)

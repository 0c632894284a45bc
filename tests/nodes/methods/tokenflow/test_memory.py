"""What ComfyUI is asked for, and what is left for what keyframes leave."""

from __future__ import annotations

import math
from types import SimpleNamespace

import comfy.model_management
import pytest
import torch
from comfyui_stem.nodes.methods.tokenflow import memory
from comfyui_stem.nodes.methods.tokenflow.edit import TokenFlowSettings, prepared
from comfyui_stem.nodes.methods.tokenflow.memory import frames_at_once, frames_to_budget, room_for_keyframes


@pytest.mark.parametrize(
    ("frames", "batch_size", "largest"), [(64, 8, 8), (120, 8, 8), (120, 40, 40), (3, 8, 3), (5, 1, 5), (50, 1, 8)]
)
def test_a_pass_holds_frames_that_share_a_keyframe_or_eight_keyframes(frames, batch_size, largest):
    assert frames_at_once(frames, batch_size) == largest


@pytest.mark.parametrize("frames", [16, 64, 120, 960])
def test_comfyui_is_asked_for_the_largest_pass_or_for_all_keyframes_that_wait_and_one_pass(loaded, frames):
    asked, base, size = [], loaded.model.model, (64, 64)
    model = prepared(loaded.model, TokenFlowSettings())
    (wrapper,) = model.get_all_wrappers("prepare_sampling")
    wrapper(lambda model, shape, *args, **kwargs: asked.append(shape), model, (frames, 4, *size), {})
    assert asked == [[frames_to_budget(base, frames, 8, size), 4, *size]]
    of_pass = frames_at_once(frames, 8)
    if frames <= 64:
        assert asked[0][0] == of_pass
    waiting = memory._while_waiting(base, frames, 8, size)
    assert base.memory_required([2 * asked[0][0], 4, *size]) >= waiting


def test_what_keyframes_leave_gets_what_a_step_leaves_free(loaded, monkeypatch):
    base = SimpleNamespace(
        memory_required=lambda shape: shape[0] * 1000.0,
        current_patcher=SimpleNamespace(load_device=torch.device("cpu")),
    )
    assert room_for_keyframes(base, 16, 8, (8, 8)) == math.inf
    base.current_patcher.load_device = torch.device("cuda")
    monkeypatch.setattr(comfy.model_management, "minimum_inference_memory", lambda: 100)
    for free, room in ((10**6, 10**6 - 100 - 24_000), (1000, 0)):
        monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda device, free=free: free)
        assert room_for_keyframes(base, 16, 8, (8, 8)) == room

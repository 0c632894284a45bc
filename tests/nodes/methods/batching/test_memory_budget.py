"""What is free for computing, where ComfyUI keeps weights in place and where it streams them."""

from __future__ import annotations

from types import SimpleNamespace

import comfy.model_management
import pytest
import torch
from comfyui_stem.nodes.methods.batching.memory_budget import room_for

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def memory(monkeypatch):
    """1000 bytes are free, and another MODEL holds 300."""
    other = SimpleNamespace(device=CPU, model=object(), model_loaded_memory=lambda: 300)
    monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda device: 1000)
    monkeypatch.setattr(comfy.model_management, "current_loaded_models", [other])


def model(**more):
    return SimpleNamespace(load_device=CPU, model_size=lambda: 400, **more)


def test_weights_that_stay_in_place_take_room_and_those_of_others_make_way():
    assert room_for(model()) == room_for(model(is_dynamic=lambda: False)) == 1000 + 300 - 400


def test_weights_that_are_streamed_take_none_and_what_they_hold_counts_as_free():
    streamed = model(is_dynamic=lambda: True, get_free_memory=lambda device: 1700)
    assert room_for(streamed) == 1700

"""What a device has for computing: in every run, and now; where ComfyUI keeps weights in place and where not."""

from __future__ import annotations

from types import SimpleNamespace

import comfy.model_management
import pytest
import torch
from comfyui_stem.nodes.methods.batching.memory_budget import room_for, usual_room

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def memory(monkeypatch):
    """Of 5000 bytes 1000 are free, another MODEL holds 300, and ComfyUI leaves 50 for computing and 10 to others."""
    other = SimpleNamespace(device=GPU, model=object(), model_loaded_memory=lambda: 300)
    monkeypatch.setattr(comfy.model_management, "get_total_memory", lambda device: 5000)
    monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda device: 1000)
    monkeypatch.setattr(comfy.model_management, "minimum_inference_memory", lambda: 60)
    monkeypatch.setattr(comfy.model_management, "extra_reserved_memory", lambda: 10)
    monkeypatch.setattr(comfy.model_management, "current_loaded_models", [other])


def model(size=400, device=GPU, **more):
    return SimpleNamespace(load_device=device, model_size=lambda: size, **more)


def test_weights_that_stay_in_place_take_room_and_those_of_others_make_way():
    assert room_for(model()) == room_for(model(is_dynamic=lambda: False)) == 1000 + 300 - 400


def test_weights_that_are_streamed_take_none_and_what_they_hold_counts_as_free():
    streamed = model(is_dynamic=lambda: True, get_free_memory=lambda device: 1700)
    assert room_for(streamed) == 1700
    assert usual_room(streamed) == 5000 - 60


def test_weights_are_in_the_memory_of_a_cpu_in_any_case():
    assert room_for(model(device=CPU)) == 1000


def test_weights_that_are_too_large_leave_what_comfyui_leaves():
    assert room_for(model(6000)) == usual_room(model(6000)) == 50


def test_the_room_of_every_run_does_not_depend_on_what_is_free(monkeypatch):
    before = usual_room(model())
    monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda device: 10)
    monkeypatch.setattr(comfy.model_management, "current_loaded_models", [])
    assert usual_room(model()) == before == 5000 - 60 - 400

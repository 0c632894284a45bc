"""What is told of a run: memory before it, time from its first step on."""

from __future__ import annotations

import logging

import comfy.model_management
import pytest
from comfyui_stem.nodes.methods.attention.installing import install
from comfyui_stem.nodes.methods.inversion import costs
from comfyui_stem.nodes.methods.inversion.costs import Clock, duration
from comfyui_stem.nodes.methods.inversion.sampling import invert
from comfyui_stem.nodes.methods.stem.attention import StemSelfAttention
from comfyui_stem.nodes.methods.stem.settings import PRESETS
from comfyui_stem.nodes.methods.tokenflow.edit import TokenFlowSettings, edit


@pytest.fixture
def told(caplog):
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage() for record in caplog.records if "step" in record.getMessage()]


@pytest.fixture
def asked(loaded, monkeypatch):
    """Shapes that ComfyUI's estimate was asked for by what tells the costs."""
    shapes = []

    def required(shape):
        shapes.append(tuple(shape))
        return 2.5e9

    monkeypatch.setattr(loaded.model.model, "memory_required", lambda shape, *args, **kwargs: required(shape))
    return shapes


def test_an_inversion_tells_its_memory_first_and_its_time_after_the_first_step(loaded, video, told):
    invert(loaded.model, loaded.prompt("a hill"), video, 2, "next")
    before, after = told()
    assert before.startswith("Inversion: 5 frames of 96x64, 2 steps. By ComfyUI's estimate it takes ")
    assert before.endswith(" is free.") and ", and 0 MB for its result; " in before
    assert after.startswith("Inversion: step 1 of 2 took ") and "the others will take about" in after


def test_memory_is_that_of_the_rows_that_go_through_the_network_at_a_time(loaded, video, asked):
    method = StemSelfAttention.from_settings(PRESETS["tokenflow"].with_bases(8), frames_per_batch=2)
    model = install(loaded.model, method)
    inversion = invert(model, loaded.prompt("a hill"), video, 2, "next")
    assert asked[1] == (3, *video.shape[1:])  # a batch of two, and what outlives a layer of all five
    asked.clear()
    three_keyframes = TokenFlowSettings(batch_size=2, attention_injection=0.0, feature_injection=0.0)
    edit(loaded.model, inversion, loaded.prompt("a castle"), loaded.prompt(""), three_keyframes)
    assert asked[0] == (9, *video.shape[1:])  # beside the source, and for two prompts


def test_what_is_told_is_what_comfyui_is_asked_to_leave(loaded, video, told, monkeypatch):
    asked, original = [], comfy.model_management.load_models_gpu

    prompt = loaded.prompt("a hill")

    def load(models, **wanted):
        asked.append(wanted["minimum_memory_required"])
        original(models, **wanted)

    monkeypatch.setattr(comfy.model_management, "load_models_gpu", load)
    method = StemSelfAttention.from_settings(PRESETS["paper"].with_bases(8), frames_per_batch=1)
    invert(install(loaded.model, method), prompt, video, 1, "next")
    assert f" it takes {asked[0] / 1e6:.0f} MB to compute" in told()[0]


def test_the_rest_is_told_at_the_pace_so_far_and_at_the_end_what_it_took(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    shown, now = [], [100.0]
    monkeypatch.setattr(costs, "show", shown.append)
    monkeypatch.setattr(costs.time, "monotonic", lambda: now[0])
    clock = Clock("Edit", 4, started=100.0)
    for done, passed in enumerate((30.0, 50.0, 75.0, 100.0), start=1):
        now[0] = 100.0 + passed
        clock.tick(done)
    assert shown[-3:] == ["step 2 of 4, about 50 s left", "step 3 of 4, about 25 s left", "4 steps in 2 min"]
    assert shown[0] == "step 1 of 4, about 2 min left"
    assert "Edit: step 1 of 4 took 30 s, so the others will take about 2 min." in caplog.text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.44, "0.4 s"), (45, "45 s"), (100, "2 min"), (359.9, "6 min"), (4800, "1 h 20 min")]
)
def test_durations_are_said_as_a_person_would(seconds, text):
    assert duration(seconds) == text

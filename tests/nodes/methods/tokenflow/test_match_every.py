"""Steps that share correspondences: the source's frames run in the first of them alone, the others read the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from comfyui_stem.nodes import tokenflow_edit
from comfyui_stem.nodes.methods.inversion.guidance import StepSchedule
from comfyui_stem.nodes.methods.inversion.sampling import invert
from comfyui_stem.nodes.methods.stem.attention import StemSelfAttention
from comfyui_stem.nodes.methods.stem.settings import PRESETS
from comfyui_stem.nodes.methods.tokenflow import attention, keyframe_store, memory
from comfyui_stem.nodes.methods.tokenflow import edit as tokenflow
from comfyui_stem.nodes.methods.tokenflow.edit import TokenFlowGuider, TokenFlowSettings, edit
from comfyui_stem.tools.measured.errors import relative_error as relative

STEPS, FRAMES = 5, 5
PLAIN = TokenFlowSettings(batch_size=8, attention_injection=0.0, feature_injection=0.0, match_every=2)
INJECTED = replace(PLAIN, attention_injection=1.0, feature_injection=1.0)
BASES = StemSelfAttention.from_settings(PRESETS["paper"].with_bases(8))


@pytest.fixture(scope="module")
def inversion(loaded, video):
    with torch.inference_mode():
        return invert(loaded.model, loaded.prompt("a hill"), video, STEPS, "next")


def edited(loaded, inversion, settings):
    return edit(loaded.model, inversion, loaded.prompt("a castle"), loaded.prompt("rain"), settings)


# Source, negative and positive prompt of five frames; later the source's keyframe alone, and only if it is read.
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (PLAIN, [15, 10, 15, 10, 15]),
        (INJECTED, [15, 11, 15, 11, 15]),
        (replace(INJECTED, match_every=3), [15, 11, 11, 15, 11]),
        (replace(INJECTED, match_every=9), [15, 11, 11, 11, 11]),
        (replace(INJECTED, match_every=1), [15] * 5),
        (replace(INJECTED, attention_injection=0.4, feature_injection=0.6, match_every=9), [15, 11, 11, 10, 10]),
        # a run that begins at a less noisy step begins with correspondences of its own
        (replace(PLAIN, start=0.8, match_every=3), [15, 10, 10, 15]),
        (replace(PLAIN, cfg_window=(0.0, 0.4)), [15, 10, 10, 5, 10]),
    ],
)
def test_the_frames_of_the_source_run_in_the_first_step_of_those_that_share(
    loaded, inversion, rows, settings, expected
):
    rows.clear()  # of the inversion
    result = edited(loaded, inversion, settings)
    assert rows == expected and torch.isfinite(result).all()


@pytest.mark.parametrize(("steps", "sharing"), [(1, 1), (12, 1), (49, 1), (50, 2), (75, 3), (999, 39)])
def test_by_default_no_fewer_than_25_steps_draw_keyframes(steps, sharing):
    assert TokenFlowSettings().steps_sharing(steps) == sharing
    assert replace(TokenFlowSettings(), match_every=4).steps_sharing(steps) == 4


def test_a_workflow_that_was_saved_before_runs_as_it_did(loaded, inversion, monkeypatch):
    asked = []
    monkeypatch.setattr(tokenflow_edit, "edit", lambda *of_edit: asked.append(of_edit[4]) or inversion.trajectory[0])
    prompts = {"positive": loaded.prompt("a castle"), "negative": loaded.prompt("rain")}
    for more in ({}, {"match_every": 0}):
        tokenflow_edit.TokenFlowEdit.execute(loaded.model, inversion, **prompts, **more)
    assert [settings.steps_sharing(50) for settings in asked] == [1, 2]


def test_steps_that_share_have_the_keyframes_of_the_first_of_them(loaded, inversion):
    schedule = StepSchedule(inversion.timesteps, STEPS)
    guider, alone = (
        TokenFlowGuider(loaded.model, inversion, replace(PLAIN, batch_size=1, match_every=count), schedule)
        for count in (2, 1)
    )
    first, second, third, *_ = schedule.descending
    guider.batches = alone.batches = [slice(0, 1000)]
    drawn = {step: int(guider.keyframes_at(step)) for step in (first, second, third)}
    assert drawn[first] == drawn[second] == int(alone.keyframes_at(first))
    assert drawn[third] == int(alone.keyframes_at(third)) != drawn[first]


@pytest.mark.parametrize("batch_size", [2, 8])
def test_a_step_reads_the_correspondences_that_an_earlier_one_has_found(loaded, inversion, monkeypatch, batch_size):
    read, propagate = [], attention.propagate

    def noted(features, correspondence, plan):
        read.append((correspondence.first.clone(), correspondence.second.clone()))
        return propagate(features, correspondence, plan)

    monkeypatch.setattr(attention, "propagate", noted)
    edited(loaded, inversion, replace(INJECTED, batch_size=batch_size))
    half = [torch.cat([one.flatten() for one in of]) for of in zip(*read, strict=True)]
    for matches in half:
        of_steps = matches.tensor_split(STEPS)
        assert torch.equal(of_steps[0], of_steps[1]) and torch.equal(of_steps[2], of_steps[3])
        assert not torch.equal(of_steps[1], of_steps[2])


OPTIONS = {
    "injection": {},
    "bases": {"stem": BASES},
    "propagated source": {"source_rows": "propagated", "weights": "surrounding"},
    "a keyframe a frame": {"batch_size": 1},
    "two frames a keyframe": {"batch_size": 2, "feature_injection": 0.4},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_shared_correspondences_do_not_depend_on_calls_passes_and_room(loaded, inversion, monkeypatch, name):
    settings = replace(INJECTED, **OPTIONS[name])
    together = edited(loaded, inversion, settings)
    moved, move = [], keyframe_store._in_host_memory
    monkeypatch.setattr(keyframe_store, "_in_host_memory", lambda rows: moved.append(rows.shape) or move(rows))
    monkeypatch.setattr(tokenflow, "room_for_keyframes", lambda *of_step: 0)
    monkeypatch.setattr(tokenflow, "source_and_edit_join", lambda model, needed: False)
    monkeypatch.setattr(memory, "KEYFRAMES_AT_ONCE", 2)
    assert relative(edited(loaded, inversion, settings), together) < 1e-5
    assert any(len(shape) == 4 for shape in moved)  # the convolution feature of a batch


def test_nothing_is_kept_where_no_step_shares(loaded, inversion, monkeypatch):
    kept, hold = [], tokenflow.TokenFlowRun.hold
    monkeypatch.setattr(tokenflow.TokenFlowRun, "hold", lambda run, batch: kept.append(batch) or hold(run, batch))
    edited(loaded, inversion, replace(INJECTED, match_every=1))
    assert not kept
    edited(loaded, inversion, INJECTED)
    assert kept == [0, 0]  # the last step has none after it

"""Keyframes in several passes give the numbers of one pass, and nothing of a pass is left when it fails."""

from __future__ import annotations

import gc
from dataclasses import replace

import comfy.model_management
import pytest
import torch
from comfyui_stem.nodes.methods.inversion.sampling import invert
from comfyui_stem.nodes.methods.stem.attention import StemSelfAttention
from comfyui_stem.nodes.methods.stem.settings import StemSettings
from comfyui_stem.nodes.methods.tokenflow import edit as tokenflow
from comfyui_stem.nodes.methods.tokenflow import keyframe_store, memory, step
from comfyui_stem.nodes.methods.tokenflow.edit import TokenFlowSettings, edit
from comfyui_stem.nodes.methods.tokenflow.keyframe_store import KeyframeStore
from comfyui_stem.nodes.methods.tokenflow.run import Pass, TokenFlowRun
from comfyui_stem.stem_kernels.em import EMSettings
from comfyui_stem.tools.measured.errors import relative_error as relative
from greenlet import greenlet

FRAMES = 5
EVERY_FRAME = TokenFlowSettings(batch_size=1, attention_injection=1.0, feature_injection=1.0)
SMALL = StemSettings(em=EMSettings(num_bases=16))
BASES, KEY_BASES = (StemSelfAttention.from_settings(replace(SMALL, space=s)) for s in ("features", "keys_per_head"))
SETTINGS = {
    "injection": EVERY_FRAME,
    "no injection, propagated source": replace(
        EVERY_FRAME, attention_injection=0.0, feature_injection=0.0, source_rows="propagated"
    ),
    "injection, propagated source": replace(EVERY_FRAME, source_rows="propagated", weights="surrounding"),
    "two frames a keyframe, surrounding": replace(EVERY_FRAME, batch_size=2, weights="surrounding"),
    "a mask": replace(EVERY_FRAME, mask=torch.linspace(0, 1, 96).reshape(1, 8, 12), cfg=3.0),
    "no guidance": replace(EVERY_FRAME, cfg=1.0),
    "a window": replace(EVERY_FRAME, keyframe_window=3),
    "bases": replace(EVERY_FRAME, stem=BASES),
    "bases, no injection": replace(EVERY_FRAME, stem=BASES, attention_injection=0.0),
    "bases of keys": replace(EVERY_FRAME, stem=KEY_BASES),
}


class Failure(Exception):
    pass


@pytest.fixture(scope="module")
def inversion(loaded, video):
    with torch.inference_mode():
        return invert(loaded.model, loaded.prompt("a hill"), video, 1, "next")


@pytest.fixture
def keyframes_at_once(monkeypatch):
    return lambda count: monkeypatch.setattr(memory, "KEYFRAMES_AT_ONCE", count)


@pytest.fixture
def passes(monkeypatch):
    """How many passes met in each lockstep."""
    found, run_in_lockstep = [], step.run_in_lockstep
    monkeypatch.setattr(step, "run_in_lockstep", lambda calls: found.append(len(calls)) or run_in_lockstep(calls))
    return found


def edited(loaded, inversion, settings, model=None):
    prompts = loaded.prompt("a castle"), loaded.prompt("rain")
    return edit(model or loaded.model, inversion, *prompts, settings)


@pytest.mark.parametrize("name", SETTINGS)
def test_an_edit_does_not_depend_on_the_passes_that_its_keyframes_go_through_in(
    loaded, inversion, keyframes_at_once, passes, name
):
    settings = SETTINGS[name]
    whole = edited(loaded, inversion, settings)
    assert not passes
    keyframes_at_once(2)
    split = edited(loaded, inversion, settings)
    assert set(passes) == {-(-FRAMES // settings.batch_size // 2)}
    assert relative(split, whole) < 1e-5


def test_a_lora_changes_keyframes_in_several_passes_as_it_does_in_one(loaded, inversion, keyframes_at_once):
    key = "diffusion_model.output_blocks.9.1.transformer_blocks.0.attn1.to_v.weight"
    weight = loaded.model.model.state_dict()[key]
    with_lora = loaded.model.clone()
    with_lora.add_patches({key: (torch.randn(weight.shape, generator=torch.Generator().manual_seed(2)),)}, 0.5)
    whole = edited(loaded, inversion, EVERY_FRAME, with_lora)
    keyframes_at_once(3)
    assert relative(edited(loaded, inversion, EVERY_FRAME, with_lora), whole) < 1e-5
    assert relative(edited(loaded, inversion, EVERY_FRAME), whole) > 1e-4


@pytest.mark.parametrize(("settings", "room"), [("injection, propagated source", 0), ("bases", 30_000)])
def test_what_keyframes_leave_may_lie_anywhere(loaded, inversion, keyframes_at_once, monkeypatch, settings, room):
    keyframes_at_once(2)
    on_device = edited(loaded, inversion, SETTINGS[settings])
    moved, move = [], keyframe_store._in_host_memory
    monkeypatch.setattr(keyframe_store, "_in_host_memory", lambda rows: moved.append(rows.nbytes) or move(rows))
    monkeypatch.setattr(tokenflow, "room_for_keyframes", lambda *of_step: room)
    assert torch.equal(edited(loaded, inversion, SETTINGS[settings]), on_device)
    assert moved


@pytest.mark.parametrize(("weights", "most"), [("reference", 2), ("surrounding", 3)])
def test_a_batch_gets_the_rows_of_the_keyframes_that_it_reads_once_a_layer(
    loaded, inversion, keyframes_at_once, monkeypatch, weights, most
):
    keyframes_at_once(2)
    read, rows, batch = [], KeyframeStore.rows, step.Step.batch

    def noted(self, kind, layer, keyframes):
        if read:
            read[-1].append((kind, layer, tuple(keyframes)))
        return rows(self, kind, layer, keyframes)

    def of_batch(self, passes):
        read.append([])
        found = batch(self, passes)
        assert {keyframes for _, _, keyframes in read[-1]} <= {tuple(passes.keyframes)}
        assert len(passes.keyframes) <= most
        return found

    monkeypatch.setattr(KeyframeStore, "rows", noted)
    monkeypatch.setattr(step.Step, "batch", of_batch)
    settings = replace(EVERY_FRAME, batch_size=2, weights=weights, keyframes="centre")
    edited(loaded, inversion, settings)
    layers = range(16)
    expected = {(kind, layer) for kind in ("tokens", 0, 1) for layer in layers}
    assert len(read) == 3
    for of_batch in read:
        places = [(kind, layer) for kind, layer, _ in of_batch if kind != "feature"]
        assert len(places) == len(set(places)) and set(places) in (expected, set())
    assert any(read)


def passes_under_way():
    return [o for o in gc.get_objects() if isinstance(o, greenlet) and o.parent is not None and o]


@pytest.mark.parametrize(("settings", "interrupted"), [("injection", True), ("bases", False)])
def test_nothing_is_left_of_passes_that_wait_for_one_that_fails(
    loaded, inversion, keyframes_at_once, settings, interrupted
):
    keyframes_at_once(2)
    expected = edited(loaded, inversion, SETTINGS[settings])
    error, seen = comfy.model_management.InterruptProcessingException if interrupted else Failure, []

    def failing(n, extra_options):
        # the layer after the block with the hook, in the edit's second pass
        current = extra_options["stem_inversion_run"]
        if extra_options["block"] == ("output", 5) and not current.source and current.keyframes == range(2, 4):
            seen.append(len(passes_under_way()))
            raise error
        return n

    broken = loaded.model.clone()
    broken.set_model_attn1_output_patch(failing)
    with pytest.raises(error):
        edited(loaded, inversion, SETTINGS[settings], broken)
    gc.collect()
    assert seen == [3]
    assert not passes_under_way()
    assert not any(type(o) in (TokenFlowRun, Pass, KeyframeStore) for o in gc.get_objects())
    unet = loaded.model.model.diffusion_model
    assert not any(module._forward_hooks for module in unet.modules())
    assert torch.equal(edited(loaded, inversion, SETTINGS[settings]), expected)

"""Batches of frames in lockstep: the same numbers as all frames at once, or a refusal by name."""

from __future__ import annotations

from dataclasses import replace

import comfy.model_management
import pytest
import torch
from comfyui_stem.nodes.methods.attention.installing import install, remove
from comfyui_stem.nodes.methods.batching.frame_batches import batches_that_meet, join_batches, rows_of
from comfyui_stem.nodes.methods.batching.memory_budget import (
    frames_that_fit,
    frames_to_budget,
    held_bytes,
    waiting_bytes,
)
from comfyui_stem.nodes.methods.inversion.reconstruction import reconstruct
from comfyui_stem.nodes.methods.inversion.sampling import invert
from comfyui_stem.nodes.methods.stem.attention import StemSelfAttention
from comfyui_stem.nodes.methods.stem.settings import PRESETS, StemSettings
from comfyui_stem.stem_kernels import correspondence
from comfyui_stem.stem_kernels.em import EMSettings
from comfyui_stem.tools.measured.bench.live_tensors import LiveTensors
from comfyui_stem.tools.measured.errors import relative_error as relative
from hypothesis import given, settings
from hypothesis import strategies as st

SMALL = StemSettings(em=EMSettings(num_bases=8))
SETTINGS = {
    "paper": SMALL,
    "per head": replace(SMALL, space="keys_per_head"),
    "weighted": replace(SMALL, mass_weighted=True),
    "chunks": replace(SMALL, scope="frame_chunks", scope_frames=3),
    "chunks per head": replace(SMALL, scope="frame_chunks", scope_frames=2, space="keys_per_head"),
    "anchors": replace(SMALL, scope="anchor_frames", scope_frames=2),
    "warm start": replace(SMALL, warm_start=1),
    "explained energy": replace(SMALL, em=EMSettings(num_bases=64), explained_energy=0.9),
    "tokenflow": PRESETS["tokenflow"].with_bases(8),
    "reference_code": replace(PRESETS["reference_code"], em=replace(PRESETS["reference_code"].em, num_bases=8)),
}


def model_with(loaded, stem, frames_per_batch):
    return install(loaded.model, StemSelfAttention.from_settings(stem, frames_per_batch))


@pytest.mark.parametrize("name", SETTINGS)
def test_inversion_and_guided_reconstruction_do_not_depend_on_the_batches(loaded, video, calls, name):
    results = []
    for frames_per_batch in (None, 2, 1):
        model = model_with(loaded, SETTINGS[name], frames_per_batch)
        inversion = invert(model, loaded.prompt("a hill"), video, 2, "next")
        guided = reconstruct(inversion, model, inversion.source, loaded.prompt("rain"), 3.0)
        results.append((inversion.trajectory, guided))
        assert bool(calls) == (frames_per_batch is not None)
    meeting = StemSelfAttention.from_settings(SETTINGS[name]).frames_that_meet(len(video))
    assert set(calls) == {len(batches) for size in (2, 1) for batches in batches_that_meet(len(video), size, meeting)}
    for trajectory, guided in results[1:]:
        assert relative(trajectory, results[0][0]) < 1e-5
        # guidance of 3 multiplies the rounding
        assert relative(guided, results[0][1]) < 5e-5


@pytest.mark.parametrize("frames_per_batch", [0, 5, 100])
def test_frames_that_fit_go_through_at_once(loaded, video, calls, frames_per_batch):
    invert(model_with(loaded, SMALL, frames_per_batch), loaded.prompt("a hill"), video, 1, "next")
    assert calls == []


def test_as_many_frames_as_fit_are_taken_automatically(loaded, video, calls, monkeypatch):
    whole = invert(model_with(loaded, SMALL, None), loaded.prompt("a hill"), video, 1, "next").trajectory
    one = loaded.model.model.memory_required([1, *video.shape[1:]])
    monkeypatch.setattr(
        comfy.model_management,
        "get_free_memory",
        lambda dev=None, torch_free_too=False: (2.5 * one, 2.5 * one) if torch_free_too else 2.5 * one,
    )
    split = invert(model_with(loaded, SMALL, 0), loaded.prompt("a hill"), video, 1, "next").trajectory
    assert calls == [3]
    assert relative(split, whole) < 1e-5


@given(
    frames=st.integers(1, 300),
    groups=st.integers(1, 2),
    share=st.floats(0.01, 3.0),
    meeting=st.sampled_from([1, 8, 300]),
)
@settings(max_examples=50)
def test_the_frames_that_fit_are_within_the_free_memory_or_one(loaded, frames, groups, share, meeting):
    base, size = loaded.model.model, (64, 48)
    one = base.memory_required([1, 4, *size])
    free = share * frames * groups * one
    fit = frames_that_fit(base, frames, groups, size, free, meeting)
    assert 1 <= fit <= frames
    assert (fit == frames) == (share >= 1 or frames == 1 or fit == frames)
    assert fit == 1 or base.memory_required([fit * groups, 4, *size]) <= free * (1 + 1e-9)
    budget = frames_to_budget(base, frames, fit, size, meeting)
    assert fit <= budget <= frames
    assert fit == 1 or groups > 1 or base.memory_required([budget, 4, *size]) <= free + one
    # chunks are whole, or one is cut
    assert fit == frames or fit % meeting == 0 or fit <= meeting


@pytest.mark.parametrize(("name", "size"), [("paper", 2), ("tokenflow", 2), ("per head", 2), ("reference_code", 8)])
def test_what_a_frame_holds_while_others_are_computed_is_told_within_a_fifth(loaded, name, size):
    method = StemSelfAttention.from_settings(SETTINGS[name], size)
    model, held = install(loaded.model, method), []
    for frames in (8, 16):
        video = torch.randn(frames, 4, 16, 16, generator=torch.Generator().manual_seed(frames))
        with LiveTensors() as live:
            invert(model, loaded.prompt("a hill"), video, 1, "next")
        held.append(live.peak)
    told = held_bytes(model.model, 8, (16, 16)) + (8 * waiting_bytes(model.model, (16, 16)) if size < 8 else 0)
    assert 0.8 < told / (held[1] - held[0]) < 1.2


@given(frames=st.integers(1, 40), size=st.integers(1, 20), meeting=st.integers(1, 40))
@settings(max_examples=100)
def test_frames_that_need_each_other_are_in_batches_that_meet(frames, size, meeting):
    groups = batches_that_meet(frames, size, meeting)
    assert [n for batches in groups for batch in batches for n in range(batch.start, batch.stop)] == [*range(frames)]
    assert all(0 < batch.stop - batch.start <= size for batches in groups for batch in batches)
    chunks = [{n // meeting for batch in batches for n in range(batch.start, batch.stop)} for batches in groups]
    assert sum(map(len, chunks)) == -(-frames // meeting)
    # only those of one chunk wait for each other
    assert all(len(batches) == 1 or len(of) == 1 for batches, of in zip(groups, chunks, strict=True))


@given(frames=st.integers(1, 20), size=st.integers(1, 25), groups=st.integers(1, 3))
@settings(max_examples=50)
def test_rows_are_cut_into_batches_and_joined_again(frames, size, groups):
    rows = torch.arange(groups * frames * 2).reshape(groups * frames, 2)
    batches = correspondence.batch_slices(frames, size)
    parts = [rows_of(rows, batch, groups, frames, "x") for batch in batches]
    assert sum(len(part) for part in parts) == len(rows)
    assert all(len(part) <= groups * size for part in parts)
    assert torch.equal(join_batches(parts, groups), rows)
    assert all(torch.equal(part[0], rows[batch.start]) for part, batch in zip(parts, batches, strict=True))


def test_what_a_controlnet_gives_is_cut_with_the_frames():
    control = {"output": [torch.arange(6), None, torch.zeros(1)], "middle": []}
    cut = rows_of(control, slice(1, 3), 2, 3, "a ControlNet")
    assert cut["output"][0].tolist() == [1, 2, 4, 5]
    assert cut["output"][1] is None
    assert cut["output"][2] is control["output"][2]
    assert cut["middle"] == [] and cut["middle"] is not control["middle"]


def test_a_tensor_with_other_rows_is_refused_by_name():
    with pytest.raises(ValueError, match="a ControlNet has 4 rows for 2 conditionings of 3 frames.*frames_per_batch"):
        rows_of({"output": [torch.zeros(4, 2)]}, slice(0, 1), 2, 3, "a ControlNet")


def test_the_network_is_prepared_for_the_frames_of_a_batch(loaded, monkeypatch):
    import comfy.sampler_helpers

    asked = []
    monkeypatch.setattr(
        comfy.model_management, "load_models_gpu", lambda models, memory_required, **more: asked.append(memory_required)
    )
    many = torch.zeros(40, 4, 16, 16)
    for frames_per_batch in (None, 4):
        model = model_with(loaded, SMALL, frames_per_batch)
        comfy.sampler_helpers.prepare_sampling(
            model, many.shape, {}, model.model_options | {"transformer_options": {"wrappers": model.wrappers}}
        )
    assert asked[1] < asked[0] / 3


def test_taking_the_method_off_takes_the_batching_off(loaded):
    model = remove(model_with(loaded, SMALL, 2))
    assert not any(model.wrappers.get(kind, {}) for kind in ("diffusion_model", "prepare_sampling"))


class Failure(Exception):
    pass


@pytest.mark.parametrize("layer", [0, 7, 15])
@pytest.mark.parametrize("interrupted", [False, True])
def test_an_error_in_one_batch_leaves_nothing_and_the_next_run_is_undisturbed(loaded, video, layer, interrupted):
    error = comfy.model_management.InterruptProcessingException if interrupted else Failure
    model = model_with(loaded, SMALL, 2)
    whole = invert(model, loaded.prompt("a hill"), video, 1, "next").trajectory
    count = 0

    def failing(extra_options):
        nonlocal count
        count += 1
        # 3 batches and 16 layers: somewhere in the middle of the first call
        if count == 3 * layer + 2:
            raise error()

    broken = model.clone()
    broken.set_model_attn1_output_patch(lambda out, options: failing(options) or out)
    with pytest.raises(error):
        invert(broken, loaded.prompt("a hill"), video, 1, "next")
    assert torch.equal(invert(model, loaded.prompt("a hill"), video, 1, "next").trajectory, whole)

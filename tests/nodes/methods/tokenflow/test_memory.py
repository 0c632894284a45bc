"""What a step holds, counted on SD1.5's own network without content; what ComfyUI is asked for; what is left."""

from __future__ import annotations

import math
from functools import partial
from types import SimpleNamespace

import comfy.conds
import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import pytest
import torch
from comfyui_stem.nodes.methods.attention.installing import installed_method
from comfyui_stem.nodes.methods.batching.memory_budget import held_bytes
from comfyui_stem.nodes.methods.inversion.guidance import one_by_one
from comfyui_stem.nodes.methods.tokenflow import keyframe_store, memory
from comfyui_stem.nodes.methods.tokenflow.edit import TokenFlowSettings, prepared
from comfyui_stem.nodes.methods.tokenflow.memory import (
    bytes_in_one_call,
    frames_at_once,
    frames_to_budget,
    room_for_keyframes,
)
from comfyui_stem.nodes.methods.tokenflow.passes import batch_passes
from comfyui_stem.nodes.methods.tokenflow.step import Step
from comfyui_stem.stem_kernels import correspondence
from comfyui_stem.stem_kernels.correspondence import batch_slices, choose_keyframes, propagation_plan
from comfyui_stem.tools.host.tiny_checkpoint import FULL_CHANNELS, FULL_TEXT_WIDTH, unet_config
from comfyui_stem.tools.measured.bench.live_tensors import LiveTensors
from torch.utils._python_dispatch import TorchDispatchMode

META, SIZE, SETTINGS = torch.device("meta"), (64, 64), TokenFlowSettings()
# What grows with a clip, per frame of 512x512 in half precision, beside the weights.
MOST_BYTES_A_FRAME = 5e6
# Copies to the device for a batch: its plan, and which frames its source and its edit are.
COPIES_A_BATCH = 5


@pytest.fixture(scope="module")
def full_model():
    """SD1.5's network at its own size, in half precision, on a device that computes nothing."""
    described = comfy.supported_models.SD15(unet_config(FULL_CHANNELS, FULL_TEXT_WIDTH))
    described.set_inference_dtype(torch.float16, None)
    base = described.get_model({}, device="meta")
    base.model_sampling.to(META)
    return comfy.model_patcher.ModelPatcher(base, META, torch.device("cpu"))


@pytest.fixture
def without_content(monkeypatch):
    """What reads numbers gives none; what is kept in host memory takes none of it."""
    monkeypatch.setattr(
        comfy.model_management,
        "get_free_memory",
        lambda dev=None, torch_free_too=False: (1e15, 1e15) if torch_free_too else 1e15,
    )
    monkeypatch.setattr(
        correspondence,
        "nearest_tokens",
        lambda tokens, keys: torch.zeros(tokens.shape[:2], dtype=torch.int64, device=tokens.device),
    )
    monkeypatch.setattr(
        keyframe_store, "_in_host_memory", lambda rows: torch.zeros(1, dtype=rows.dtype).expand(rows.shape)
    )


class Copies(TorchDispatchMode):
    """Counts copies from host memory to the device; what waits for the device fails, as it has no numbers."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        result = function(*arguments, **(named or {}))
        if function._schema.name in ("aten::to", "aten::_to_copy"):
            self.count += arguments[0].device.type == "cpu" and result.device == META
        return result


def step_of(model, frames, read_again=False):
    """A step that keeps nothing on the device: the passes over its keyframes as a function, those of a batch, and what
    they leave for each other."""
    model = prepared(model, SETTINGS)
    base = model.model
    base.current_patcher = model
    run = installed_method(model).start_run(model)
    run.kept.room = 0
    slices = batch_slices(frames, SETTINGS.batch_size)
    keyframes = choose_keyframes(slices, "centre", torch.Generator())
    passes = batch_passes(slices, keyframes, propagation_plan(slices, keyframes, SETTINGS.weights), True)
    options = {
        **model.model_options["transformer_options"],
        "wrappers": model.wrappers,
        "optimized_attention_override": lambda attention, q, *more, **named: torch.empty_like(q),
    }

    def prompt():
        words = torch.empty(1, 77, FULL_TEXT_WIDTH, device=META, dtype=torch.float16)
        return [{"model_conds": {"c_crossattn": comfy.conds.CONDCrossAttn(words)}, "uuid": 0}]

    x, source, sigma = (torch.empty(frames, *shape, device=META) for shape in ((4, *SIZE), (4, *SIZE), ()))
    options = {"transformer_options": options}
    conds = [prompt(), prompt()], [prompt()]
    step = Step(
        partial(one_by_one, base),
        run,
        *conds,
        x,
        source,
        sigma,
        options,
        inject_attention=True,
        inject_features=True,
        read_again=read_again,
    )
    parts = batch_slices(len(keyframes), memory.keyframes_at_once(SETTINGS))
    return lambda: step.keyframes(keyframes, parts), [lambda of=of: step.batch(of) for of in passes], run


def test_beside_the_weights_keyframes_take_little_for_each_frame_and_comfyui_is_told(full_model, without_content):
    peaks, told, frames = [], [], (72, 136)
    for count in frames:
        run_keyframes, *_ = step_of(full_model, count)
        with LiveTensors("meta") as live:
            run_keyframes()
        peaks.append(live.peak)
        told.append(memory.while_waiting(full_model.model, count, SETTINGS, SIZE))
    growth = (peaks[1] - peaks[0]) / (frames[1] - frames[0])
    assert growth < MOST_BYTES_A_FRAME
    assert (told[1] - told[0]) / (frames[1] - frames[0]) == pytest.approx(growth, rel=0.1)


def test_nothing_in_a_step_waits_for_the_device_and_a_batch_is_sent_its_plan_once(full_model, without_content):
    run_keyframes, (_, run_batch, _), _ = step_of(full_model, 24)
    run_keyframes()
    with Copies() as copies:
        run_batch()
    assert 0 < copies.count <= COPIES_A_BATCH


def test_what_steps_share_takes_little_for_each_frame_and_the_device_its_matches_alone(full_model, without_content):
    run_keyframes, batches, run = step_of(full_model, 16, read_again=True)
    run_keyframes()
    for run_batch in batches:
        run_batch()
    kept = run.matched.values()
    matches = sum(one.nbytes for of in kept for found in of.matches.values() for one in {found.first, found.second})
    features = sum(of.feature.nbytes for of in kept)
    assert all(of.feature.device.type == "cpu" for of in kept)
    tokens, dtype = [4096] * 5 + [1024] * 5 + [256] * 5 + [64], 2
    # the first batch reads one keyframe, whose edit is done; the second reads two
    assert matches == (7 + 2 * 8) * sum(tokens) * dtype
    assert features == (7 + 8) * 1280 * 16 * 16 * dtype
    assert (matches + features) / 16 < 1e6


@pytest.mark.parametrize(
    ("frames", "batch_size", "largest"), [(64, 8, 8), (120, 8, 8), (120, 40, 40), (3, 8, 3), (5, 1, 5), (50, 1, 8)]
)
def test_a_pass_holds_frames_that_share_a_keyframe_or_eight_keyframes(frames, batch_size, largest):
    assert frames_at_once(frames, TokenFlowSettings(batch_size=batch_size)) == largest


@pytest.mark.parametrize("frames", [16, 64, 960])
def test_comfyui_leaves_room_for_the_largest_pass_and_for_the_keyframes_that_wait(full_model, monkeypatch, frames):
    asked, base = [], full_model.model
    # as where attention is fused
    monkeypatch.setattr(base, "memory_required", lambda shape, **more: shape[0] * 86e6)
    (wrapper,) = prepared(full_model, SETTINGS).get_all_wrappers("prepare_sampling")
    wrapper(lambda model, shape, *more: asked.append(shape), full_model, (frames, 4, *SIZE), {})
    (rows, *shape), waiting = asked[0], memory.while_waiting(base, frames, SETTINGS, SIZE)
    assert shape == [4, *SIZE] and rows == frames_to_budget(base, frames, SETTINGS, SIZE)
    largest = max(waiting, base.memory_required([frames_at_once(frames, SETTINGS)])) + held_bytes(base, frames, SIZE)
    assert (waiting > 0) == (frames > 64)
    assert largest <= base.memory_required([rows]) < largest + 86e6


@pytest.mark.parametrize(("frames", "rows"), [(8, 3 * (8 + 1)), (32, 3 * (8 + 4)), (40, 3 * 8), (960, 3 * 8)])
def test_a_call_for_source_and_edit_holds_three_conds_and_few_keyframes_beside(full_model, monkeypatch, frames, rows):
    base = full_model.model
    monkeypatch.setattr(base, "memory_required", lambda shape, **more: shape[0] * 1e9)
    needed = bytes_in_one_call(base, frames, SETTINGS, SIZE)
    waiting = memory.while_waiting(base, frames, SETTINGS, SIZE)
    assert needed == max(rows * 1e9, waiting) + held_bytes(base, frames, SIZE)
    assert frames_to_budget(base, frames, SETTINGS, SIZE, memory.CONDS) == math.ceil(needed / 1e9)


def test_what_keyframes_leave_gets_what_a_step_leaves_free(monkeypatch):
    patcher = SimpleNamespace(load_device=torch.device("cpu"))
    base = SimpleNamespace(memory_required=lambda shape: shape[0] * 1000.0, current_patcher=patcher)
    assert room_for_keyframes(base, 16, SETTINGS, SIZE) == math.inf
    patcher.load_device = torch.device("cuda")
    monkeypatch.setattr(comfy.model_management, "minimum_inference_memory", lambda: 100)
    for free, room in ((10**6, 10**6 - 100 - 8_000), (1000, 0)):
        monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda device, free=free: free)
        assert room_for_keyframes(base, 16, SETTINGS, SIZE) == room

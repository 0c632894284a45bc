"""Steps in batches of frames: the same as all frames at once, and nothing left where one is stopped."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import pytest
import torch
from comfy.model_management import InterruptProcessingException
from comfyui_stem.nodes.methods.attention.attention_map import AttentionMap, attend_pixels
from comfyui_stem.nodes.methods.attention.frame_context import OWN_FRAME, FrameContextAttention
from comfyui_stem.nodes.methods.attention.installing import install
from comfyui_stem.nodes.methods.batching.lockstep import run_in_lockstep
from comfyui_stem.nodes.methods.batching.memory_budget import held_bytes, waiting_bytes
from comfyui_stem.nodes.methods.fatezero import edit as fatezero
from comfyui_stem.nodes.methods.fatezero import replay
from comfyui_stem.nodes.methods.fatezero.attention import FateZeroAttention
from comfyui_stem.nodes.methods.fatezero.edit import FateZeroGuider, FateZeroSettings
from comfyui_stem.nodes.methods.fatezero.prompts import read_prompt
from comfyui_stem.nodes.methods.fatezero.replay import frames_per_batch
from comfyui_stem.nodes.methods.fatezero.source import SourceBefore, SourceBeside
from comfyui_stem.nodes.methods.fatezero.word_control import WordWishes, read_words
from comfyui_stem.nodes.methods.inversion.sampling import invert
from comfyui_stem.nodes.methods.seams.layer_map import AttentionLayer
from comfyui_stem.nodes.methods.stem.attention import StemSelfAttention
from comfyui_stem.nodes.methods.stem.scopes import Pooling
from comfyui_stem.nodes.methods.stem.settings import PRESETS
from comfyui_stem.stem_kernels.em import Bases, EMSettings
from comfyui_stem.tools.measured.bench.live_tensors import LiveTensors
from comfyui_stem.tools.measured.errors import relative_error as relative
from greenlet import getcurrent, greenlet
from torch.utils._python_dispatch import TorchDispatchMode

STEPS = 2
SOURCE, TARGET = "a red hill", "a red castle"
ALL_LEVELS = frozenset((0, 1, 2, 3))


def stem(preset, **changes):
    settings = replace(PRESETS[preset], **changes)
    return StemSelfAttention.from_settings(replace(settings, em=replace(settings.em, num_bases=8)))


METHODS = {
    "plain": OWN_FRAME,
    "paper": stem("paper"),
    "chunks of 3": stem("paper", scope="frame_chunks", scope_frames=3),
    "anchors": stem("paper", scope="anchor_frames", scope_frames=2, mass_weighted=True),
    # each iteration at the reference code's temperature of 0.01 magnifies rounding
    "reference_code": stem("reference_code", scope_frames=3, em=replace(PRESETS["reference_code"].em, iterations=1)),
    "tokenflow": stem("tokenflow"),
    "own and middle frame": FrameContextAttention((0, "mid")),
    "previous and first frame": FrameContextAttention((-1, "first"), finest_level=1),
    "all frames": FrameContextAttention(None),
}


@pytest.fixture(scope="module")
def video(video):
    return video[:4]


@pytest.fixture(scope="module")
def inverted(loaded, video):
    """Inversions of the clip by method, made once."""
    kept = {}

    def get(name):
        if name not in kept:
            model = loaded.model if name == "plain" else install(loaded.model, METHODS[name])
            kept[name] = invert(model, loaded.prompt(SOURCE), video, STEPS, "next")
        return kept[name]

    with torch.inference_mode():
        yield get


@pytest.fixture
def calls(monkeypatch):
    """The calls of the network: whether it is the source's, and how many frames it holds."""
    made = []

    class Noting(FateZeroGuider):
        def run_model(self, conds, x, sigma, model_options, network=None):
            made.append((network is not None, len(x)))
            return super().run_model(conds, x, sigma, model_options, network)

    monkeypatch.setattr(fatezero, "FateZeroGuider", Noting)
    return made


@pytest.fixture
def edited(loaded, inverted, monkeypatch):
    """An edit in batches of `size` frames."""

    def edit(name, size, model=None, inversion=None, wishes=None, **changes):
        monkeypatch.setattr(fatezero, "frames_per_batch", lambda model, inversion: min(size, inversion.frames))
        source, target = (read_prompt(loaded.clip, text, "a", "Test") for text in (SOURCE, TARGET))
        defaults = {"masks_source": True, "masks_target": True, "window": 0.5}
        words = read_words(source, target, WordWishes(**defaults | (wishes or {})), STEPS, "Test").control
        settings = FateZeroSettings(
            **{"cfg": 1.5, "self_window": 1.0, "levels": ALL_LEVELS, "own": METHODS[name]} | changes
        )
        prompts = target.conditioning, loaded.prompt("rain")
        return fatezero.edit(model or loaded.model, inversion or inverted(name), *prompts, words, settings)

    return edit


@pytest.fixture(scope="module")
def known():
    """Edits of all frames at once, made once."""
    return {}


@pytest.mark.parametrize(
    ("name", "size"), [*((name, 3) for name in METHODS), ("plain", 1), ("paper", 1), ("paper", 2), ("all frames", 2)]
)
def test_a_step_does_not_depend_on_the_batches(edited, video, known, calls, name, size):
    if name not in known:
        known[name] = edited(name, len(video))
        assert calls == [(True, 4), (False, 4), (False, 4)] * STEPS
        calls.clear()
    split = edited(name, size)
    assert relative(split.samples, known[name].samples) < 1e-5
    assert {frames for _, frames in calls} == {size, len(video) % size or size}
    assert sum(frames for of_source, frames in calls if of_source) == STEPS * len(video)
    assert sum(frames for of_source, frames in calls if not of_source) == STEPS * 2 * len(video)


OPTIONS = {
    "own frames": {
        "own": METHODS["own and middle frame"],
        "levels": frozenset((1, 2, 3)),
        "self_window": 0.5,
        "cfg": 5.0,
    },
    "own bases": {"own": METHODS["reference_code"], "blend_self": True, "threshold": 0.98},
    "words keep their own": {"blend_self": True, "threshold": 0.98, "fuse_unconditional": True},
    "latents": {"blend_latents": True, "latent_window": 1.0, "threshold": 0.98, "accumulate": True},
    "masks alone": {"blend_latents": True, "latent_window": 1.0, "self_window": 0.0, "wishes": {"window": 0.0}},
    "fused unconditional": {"fuse_unconditional": True, "wishes": {"window": 0.0}},
    "weights and a mask": {
        "wishes": {"weights": {"castle": 5.0}, "reweighting": "all_steps"},
        "mask": torch.linspace(0, 1, 8 * 12).reshape(1, 8, 12),
    },
    "nothing": {"own": OWN_FRAME, "self_window": 0.0, "wishes": {"window": 0.0}},
}


@pytest.mark.parametrize("option", OPTIONS)
def test_no_option_depends_on_the_batches(edited, video, option):
    whole, split = (edited("paper", size, **OPTIONS[option]) for size in (len(video), 3))
    assert relative(split.samples, whole.samples) < 1e-5
    assert torch.equal(split.mask, whole.mask)


def test_without_guidance_the_negative_prompt_is_not_run(edited, calls):
    edited("plain", 2, cfg=1.0)
    assert calls == [(source, frames) for frames in (2, 2) for source in (False, True)] * STEPS


def test_where_words_decide_about_self_attention_the_source_runs_once_more(edited, calls):
    edited("plain", 3, blend_self=True, cfg=1.0)
    assert calls == [(True, 3), (True, 1), (False, 3), (True, 3), (False, 1), (True, 1)] * STEPS


@pytest.mark.parametrize("name", ["reference_code", "own and middle frame"])
def test_with_a_lora_the_source_waits_in_host_memory(loaded, edited, video, calls, monkeypatch, name):
    key = "diffusion_model.output_blocks.9.1.transformer_blocks.0.attn1.to_v.weight"
    shape = loaded.model.model.state_dict()[key].shape
    model = loaded.model.clone()
    model.add_patches({key: (torch.randn(shape, generator=torch.Generator().manual_seed(2)),)}, 0.5)
    kept = []
    give = SourceBefore.give
    monkeypatch.setattr(SourceBefore, "give", lambda self, *what: kept.append(self.in_host_memory) or give(self, *what))
    without = edited(name, 3)
    assert not kept
    whole = edited(name, len(video), model)
    assert kept and not any(kept)
    kept.clear(), calls.clear()
    assert relative(edited(name, 3, model).samples, whole.samples) < 1e-5
    assert kept and all(kept)
    assert calls == [(True, 3), (True, 1), *[(False, 3), (False, 1)] * 2] * STEPS
    assert relative(whole.samples, without.samples) > 1e-3


def test_what_is_in_host_memory_attends_as_before(inverted):
    tokens = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(1))
    bases = Bases(tokens[0, :3], torch.ones(3), tokens[0, :3])
    pooling = Pooling(slice(0, 2), tokens.flatten(0, 1), bases, EMSettings(), lambda part: part.flatten(0, 1), arranged)
    maps = [AttentionMap(slice(0, 2), tokens, tokens[:1, :3], torch.zeros(1, 1, 1, 3), pooling)] * 2
    moved = [part.in_host_memory for part in maps]
    # batches that share keys still do, so that values are gathered once
    assert moved[0].gather is moved[1].gather
    options = {"n_heads": 2, "attn_precision": None}
    assert torch.equal(attend_pixels(moved[:1], tokens, options), attend_pixels(maps[:1], tokens, options))


def arranged(pooled):
    return pooled[None]


def test_frames_that_need_no_other_add_their_latents_alone_to_what_is_held(edited, inverted, video):
    whole, held = inverted("plain"), []
    for frames in (2, len(video)):
        with LiveTensors() as live:
            edited("plain", 1, inversion=replace(whole, trajectory=whole.trajectory[:, :frames].clone()))
        held.append(live.peak)
    latent = video[0].nbytes
    assert held[1] - held[0] < 20 * latent * (len(video) - 2) < held[0]


def test_what_a_frame_holds_while_others_are_computed_is_told_within_a_fifth(loaded, edited):
    base, held, told = loaded.model.model, [], []
    for frames in (8, 16):
        video = torch.randn(frames, 4, 16, 16, generator=torch.Generator().manual_seed(frames))
        model = install(loaded.model, METHODS["paper"])
        inversion = invert(model, loaded.prompt(SOURCE), video, STEPS, "next")
        with LiveTensors() as live:
            edited("paper", 2, inversion=inversion)
        held.append(live.peak)
        waiting = frames * FateZeroAttention.waiting_rows * waiting_bytes(base, (16, 16))
        told.append(held_bytes(base, frames, (16, 16)) + waiting)
    assert 0.8 < (told[1] - told[0]) / (held[1] - held[0]) < 1.2


@pytest.mark.parametrize("name", ["plain", "paper", "all frames"])
def test_what_the_source_hands_over_lives_for_its_layer_alone(edited, monkeypatch, name):
    handed, give = [], SourceBeside.give

    def watched(self, kind, layer, found):
        older = [(before, queries) for before, queries in handed if before != layer and queries() is not None]
        assert older == []
        queries = found.queries if kind == "cross" else found.maps[0].queries
        handed.append((layer, weakref.ref(queries)))
        give(self, kind, layer, found)

    monkeypatch.setattr(SourceBeside, "give", watched)
    edited(name, 2, wishes={"window": 1.0})
    assert len(handed) == 2 * 2 * 16 * STEPS


class ValuesNeeded(TorchDispatchMode):
    """Counts operations that cannot go on without the value of a tensor: each makes a GPU wait."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        named_so = function._schema.name.removeprefix("aten::")
        by_mask = named_so == "index" and any(one is not None and one.dtype == torch.bool for one in arguments[1])
        self.count += by_mask or named_so in ("item", "is_nonzero", "nonzero", "equal", "_unique2")
        return function(*arguments, **(named or {}))


def test_no_layer_and_no_batch_needs_the_value_of_a_tensor(edited, video):
    counts = []
    for size in (len(video), 1):
        with ValuesNeeded() as needed:
            edited("plain", size, blend_self=True, blend_latents=True, latent_window=1.0, fuse_unconditional=True)
        counts.append(needed.count)
    # those of the start, and of a step as a whole: there are 16 layers and 2 steps
    assert counts[1] <= counts[0] < 32


class Failure(Exception):
    pass


def unfinished():
    """Calls that wait for something."""
    gc.collect()
    return [found for found in gc.get_objects() if isinstance(found, greenlet) and found and found is not getcurrent()]


@pytest.mark.parametrize(
    ("name", "of_source", "error"),
    [
        ("plain", True, Failure),
        ("plain", False, InterruptProcessingException),
        ("paper", True, InterruptProcessingException),
        ("paper", False, Failure),
    ],
)
def test_an_error_in_the_middle_unwinds_every_call(loaded, inverted, edited, name, of_source, error):
    expected, count = edited(name, 2).samples, 0

    def failing(n, extra_options):
        nonlocal count
        count += extra_options["block"] == ("output", 5)
        if count == 2:
            assert len(unfinished()) >= 2
            raise error
        return n

    inversion, model = inverted(name), loaded.model
    broken = (inversion.model if of_source else model).clone()
    broken.set_model_attn1_output_patch(failing)
    with pytest.raises(error):
        if of_source:
            edited(name, 2, inversion=replace(inversion, model=broken))
        else:
            edited(name, 2, model=broken)
    assert count == 2 and unfinished() == []
    assert torch.equal(edited(name, 2).samples, expected)


def test_a_layer_that_one_side_leaves_out_is_an_error_and_not_a_wrong_picture():
    here, next_one = AttentionLayer(0, "input", 1, 0), AttentionLayer(1, "input", 2, 0)
    with pytest.raises(RuntimeError, match="the source is at layer input 2 and the edit at input 1"):
        run_in_lockstep(
            [
                lambda meet: SourceBeside({"self": meet}).take("self", here),
                lambda meet: SourceBeside({"self": meet}).give("self", next_one, None),
            ]
        )


def test_what_treats_frames_differently_is_refused_in_batches_alone(loaded, edited, video):
    def image_for_each_frame(n, context, value, extra_options):
        count = len(n) // len(extra_options["cond_or_uncond"])
        shift = torch.arange(count).repeat(len(n) // count)[:, None, None]
        return n + shift, context, value

    model = loaded.model.clone()
    model.set_model_attn2_patch(image_for_each_frame)
    assert torch.isfinite(edited("plain", len(video), model).samples).all()
    with pytest.raises(ValueError, match="FateZero Edit: .*image_for_each_frame.* changes .* frames differently"):
        edited("plain", 2, model)


@pytest.mark.parametrize(("method", "expected"), [(None, 4), (0, 4), (2, 2), (100, 4)])
def test_as_many_frames_go_through_as_in_the_inversion(loaded, inverted, method, expected):
    model = install(loaded.model, replace(METHODS["paper"], frames_per_batch=method))
    assert frames_per_batch(loaded.model, replace(inverted("plain"), model=model)) == expected


@pytest.mark.parametrize(("decided", "expected"), [(True, 1), (False, 2)])
def test_fewer_frames_go_through_where_memory_is_short_unless_the_user_has_set_the_number(
    loaded, inverted, monkeypatch, decided, expected
):
    monkeypatch.setattr(replay, "usual_room", lambda model: 0.0)
    assert frames_per_batch(loaded.model, inverted("plain")) == 1
    model = install(loaded.model, replace(METHODS["paper"], frames_per_batch=2, decided=decided))
    assert frames_per_batch(loaded.model, replace(inverted("plain"), model=model)) == expected

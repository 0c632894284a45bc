from __future__ import annotations

from dataclasses import replace

import comfy.ldm.modules.attention as host_attention_module
import pytest
import torch
from comfyui_stem.nodes.methods.attention import rows
from comfyui_stem.nodes.methods.attention.frame_context import FrameContextAttention
from comfyui_stem.nodes.methods.attention.installing import install
from comfyui_stem.nodes.methods.inversion.sampling import invert
from comfyui_stem.nodes.methods.stem.attention import StemSelfAttention
from comfyui_stem.nodes.methods.stem.settings import PRESETS, StemSettings
from comfyui_stem.stem_kernels.em import EMSettings
from comfyui_stem.tools.measured.errors import relative_error as relative

STEPS = 2
TOKENS = 5 * 8 * 12


def inverted(loaded, video, method):
    model = loaded.model if method is None else install(loaded.model, method)
    return invert(model, loaded.prompt("a hill"), video, STEPS, "next").trajectory[-1]


def stem(**changes):
    em = {key: changes.pop(key) for key in list(changes) if key in EMSettings.__dataclass_fields__}
    settings = replace(StemSettings(), **changes)
    return StemSelfAttention.from_settings(replace(settings, em=replace(settings.em, **em)))


@pytest.mark.parametrize("space", ["features", "keys_per_head"])
def test_with_a_base_for_every_token_stem_is_attention_over_all_frames(loaded, video, space):
    # Hard assignment to distinct tokens: every base is a token, and their order does not matter.
    method = stem(space=space, num_bases=TOKENS, temperature=1e-4)
    everything = inverted(loaded, video, FrameContextAttention(None))
    assert relative(inverted(loaded, video, method), everything) < 1e-4
    assert relative(inverted(loaded, video, stem(space=space, num_bases=4)), everything) > 1e-3


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_gives_finite_latents_that_depend_on_the_bases(loaded, video, preset):
    few, many = (
        inverted(
            loaded,
            video,
            StemSelfAttention.from_settings(replace(PRESETS[preset], em=replace(PRESETS[preset].em, num_bases=k))),
        )
        for k in (4, 64)
    )
    assert torch.isfinite(few).all() and torch.isfinite(many).all()
    assert relative(few, many) > 1e-4


def test_the_same_seed_gives_the_same_latents_and_another_seed_others(loaded, video):
    first, again, other = (inverted(loaded, video, stem(num_bases=16, seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_chunks_longer_than_the_clip_are_the_whole_clip(loaded, video):
    whole = inverted(loaded, video, stem(num_bases=16))
    assert torch.equal(inverted(loaded, video, stem(num_bases=16, scope="frame_chunks", scope_frames=5)), whole)
    assert relative(inverted(loaded, video, stem(num_bases=16, scope="frame_chunks", scope_frames=2)), whole) > 1e-4


def test_as_many_anchors_as_frames_are_the_whole_clip(loaded, video):
    whole = inverted(loaded, video, stem(num_bases=16))
    assert torch.equal(inverted(loaded, video, stem(num_bases=16, scope="anchor_frames", scope_frames=5)), whole)
    assert relative(inverted(loaded, video, stem(num_bases=16, scope="anchor_frames", scope_frames=2)), whole) > 1e-4


def test_one_chunk_of_frames_does_not_see_the_others(loaded, video):
    changed = video.clone()
    changed[4] = 0
    method = stem(num_bases=16, scope="frame_chunks", scope_frames=4)
    one, other = (inverted(loaded, clip, method) for clip in (video, changed))
    assert torch.equal(one[:4], other[:4])
    one, other = (inverted(loaded, clip, stem(num_bases=16)) for clip in (video, changed))
    assert not torch.equal(one[:4], other[:4])


@pytest.mark.parametrize("space", ["features", "keys_per_head"])
def test_weighting_by_mass_changes_the_result_and_stays_finite(loaded, video, space):
    plain, weighted = (
        inverted(loaded, video, stem(space=space, num_bases=16, mass_weighted=flag)) for flag in (False, True)
    )
    assert torch.isfinite(weighted).all() and relative(weighted, plain) > 1e-4


def test_weighting_by_mass_makes_duplicate_tokens_count_as_often_as_they_occur(loaded, video):
    # A still video: every token occurs once a frame, so attention over all frames is attention within one.
    still = video[:1].repeat(5, 1, 1, 1)
    method = stem(num_bases=TOKENS, temperature=1e-4, mass_weighted=True)
    assert relative(inverted(loaded, still, method), inverted(loaded, still, None)) < 1e-3


@pytest.mark.parametrize("space", ["features", "keys_per_head"])
@pytest.mark.parametrize("empty_bases", ["masked", "kept"])
def test_more_bases_than_tokens_are_legal(loaded, video, space, empty_bases):
    method = stem(space=space, num_bases=600, empty_bases=empty_bases, clamp_to_tokens=False, initialisation="gaussian")
    assert torch.isfinite(inverted(loaded, video, method)).all()


@pytest.mark.parametrize("changes", [{}, {"mass_weighted": True}, {"space": "keys_per_head", "mass_weighted": True}])
@pytest.mark.parametrize("backend", ["attention_sub_quad", "attention_split", "attention_basic"])
def test_every_attention_backend_of_the_host_gives_the_same(loaded, video, monkeypatch, backend, changes):
    results = []
    for name in ("attention_pytorch", backend):
        monkeypatch.setattr(rows, "optimized_attention", getattr(host_attention_module, name))
        results.append(inverted(loaded, video[:3], stem(num_bases=16, **changes)))
    assert relative(*results) < 1e-4


def test_the_groups_of_a_guided_run_have_bases_of_their_own(loaded, video, monkeypatch):
    from comfyui_stem.nodes.methods.inversion.reconstruction import reconstruct

    model = install(loaded.model, stem(num_bases=16))
    inversion = invert(model, loaded.prompt("a hill"), video, STEPS, "next")
    joint = reconstruct(inversion, model, inversion.source, loaded.prompt("rain"), cfg=5.0)
    monkeypatch.setattr(loaded.model.model, "memory_required", lambda *args, **kwargs: float("inf"))
    split = reconstruct(inversion, model, inversion.source, loaded.prompt("rain"), cfg=5.0)
    assert relative(split, joint) < 1e-3


def test_settings_reach_the_inversion(loaded, video):
    method = stem(num_bases=7, seed=5)
    inversion = invert(install(loaded.model, method), loaded.prompt(""), video, 1, "next")
    assert inversion.stem == method.settings
    assert invert(loaded.model, loaded.prompt(""), video, 1, "next").stem is None

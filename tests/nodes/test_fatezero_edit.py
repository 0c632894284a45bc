"""FateZero Edit as a graph calls it."""

from __future__ import annotations

import pytest
import torch
from comfyui_stem.nodes import fatezero_edit
from comfyui_stem.nodes.fatezero_edit import FateZeroEdit
from comfyui_stem.nodes.frame_context import FrameContext
from comfyui_stem.nodes.inversion_sampler import InversionSampler
from comfyui_stem.nodes.methods.attention.frame_context import OWN_FRAME, FrameContextAttention
from comfyui_stem.nodes.methods.fatezero.edit import Edited
from comfyui_stem.nodes.methods.fatezero.presets import PRESETS
from comfyui_stem.nodes.methods.stem.attention import StemSelfAttention
from comfyui_stem.nodes.stem_bases import StemBases
from comfyui_stem.nodes.tokenflow_edit import TokenFlowEdit

SOURCE, TARGET = "a red hill", "a red castle"


def run(node, **inputs):
    defaults = {i.id: i.default for i in node.define_schema().inputs if getattr(i, "default", None) is not None}
    return node.execute(**(defaults | inputs)).args


@pytest.fixture(scope="module")
def inversions(loaded, video):
    def invert(model):
        return run(InversionSampler, model=model, positive=loaded.prompt(SOURCE), latent={"samples": video}, steps=2)[0]

    with torch.inference_mode():
        return {
            "plain": invert(loaded.model),
            "stem": invert(run(StemBases, model=loaded.model, num_bases=16)[0]),
            "frames": invert(run(FrameContext, model=loaded.model)[0]),
        }


def edit(loaded, inversion, **inputs):
    given = {"model": loaded.model, "inversion": inversion, "clip": loaded.clip}
    return run(FateZeroEdit, **(given | {"source_prompt": SOURCE, "target_prompt": TARGET} | inputs))


@pytest.fixture
def settings_of(monkeypatch, loaded, inversions):
    """The settings and the words that fields become."""

    def get(name="plain", **inputs):
        seen = []

        def instead(model, inversion, positive, negative, words, settings):
            seen.append((settings, words))
            return Edited(inversion.trajectory[0], torch.ones(5, 8, 12))

        monkeypatch.setattr(fatezero_edit, "edit", instead)
        edit(loaded, inversions[name], **inputs)
        return seen[0]

    return get


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", ["plain", "stem"])
def test_every_preset_edits_every_kind_of_inversion(loaded, video, inversions, preset, name):
    latent, mask, report = edit(loaded, inversions[name], preset=preset)
    assert latent["samples"].shape == video.shape and torch.isfinite(latent["samples"]).all()
    assert mask.shape == (5, 64, 96) and 0 <= mask.min() <= mask.max() <= 1
    assert report.splitlines()[1] == "changed words: hill -> castle"
    assert ("no word has a weight" in report) == (preset == "style")


def test_empty_fields_leave_the_preset_and_others_override_it(settings_of):
    settings, words = settings_of(preset="shape")
    assert (settings.self_window, settings.blend_self, settings.threshold) == (0.5, True, 0.3)
    assert (settings.cfg_window, settings.levels) == ((0.0, 0.75), frozenset((0, 1, 2, 3)))
    assert words.source_words == (3,) and words.target_words == ()
    assert words.alpha[:, 3].sum() == 1 and words.mapping.carried[3, 3] == 1
    fields = {
        "self_window": "0.5-1",
        "cross_window": "1.0",
        "blend_self": "off",
        "blend_latents": True,
        "latent_window": "0.1-0.9",
        "threshold": 0.5,
        "control": "refine",
        "word_weights": "castle",
        "word_windows": "red: 0.5",
        "reweighting": "all_steps",
        "fusion_levels": "2,3",
        "fuse_unconditional": True,
        "accumulate_masks": True,
        "mask_resizing": "bilinear",
        "cfg": 3.0,
        "cfg_start_percent": 0.25,
        "cfg_end_percent": 0.6,
        "tail": "zero",
    }
    settings, words = settings_of(preset="shape", **fields)
    assert (settings.self_window, settings.blend_self, settings.threshold) == ((0.5, 1.0), False, 0.5)
    assert (settings.blend_latents, settings.latent_window, settings.levels) == (True, (0.1, 0.9), frozenset((2, 3)))
    assert (settings.fuse_unconditional, settings.accumulate, settings.resizing) == (True, True, "bilinear")
    assert (settings.cfg, settings.tail, words.reweighting) == (3.0, "zero", "all_steps")
    assert settings.cfg_window == (0.25, 0.6)
    assert words.factors[3] == 10 and words.alpha[:, 3].sum() == 3 and words.alpha[:, 2].sum() == 1
    assert words.mapping.own[3] == 1 and words.target_words == (3,)


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("plain", "as the inversion", OWN_FRAME),
        ("frames", "as the inversion", FrameContextAttention((0, "mid"))),
        ("frames", "own frame", OWN_FRAME),
        ("plain", "spatiotemporal", FrameContextAttention((-1, "first"))),
    ],
)
def test_what_is_not_fused_has_the_attention_that_was_chosen(settings_of, name, kind, expected):
    assert settings_of(name, own_attention=kind, frames="-1, first")[0].own == expected


def test_stem_attention_takes_its_settings_from_the_inversion_or_the_model(settings_of, loaded, inversions):
    for kind in ("as the inversion", "stem"):
        method = settings_of("stem", own_attention=kind)[0].own
        assert isinstance(method, StemSelfAttention) and method.settings == inversions["stem"].stem
    model = run(StemBases, model=loaded.model, num_bases=7)[0]
    assert settings_of("plain", own_attention="stem", model=model)[0].own.settings.em.num_bases == 7
    with pytest.raises(ValueError, match="FateZero Edit: attention is set to stem, but neither the MODEL nor"):
        settings_of("plain", own_attention="stem")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"source_prompt": "a red hill and some other words"}, "is not the one that the INVERSION was made with"),
        ({"word_weights": "tower"}, "'tower' is not in the target prompt"),
        ({"cross_window": "often"}, "cross_window is 'often'"),
        ({"self_window": "2"}, "self-attention window runs from 0 to 2"),
        ({"fusion_levels": "4"}, "fusion_levels is '4'"),
        ({"steps": 7}, "7 steps do not match the inversion"),
        ({"own_attention": "spatiotemporal", "frames": "middel"}, "'middel' is not a frame"),
    ],
)
def test_what_cannot_work_is_refused(loaded, inversions, inputs, message):
    with pytest.raises(ValueError, match=message):
        edit(loaded, inversions["plain"], **inputs)


def test_edits_of_both_kinds_follow_each_other_on_one_inversion(loaded, inversions):
    first = edit(loaded, inversions["stem"])[0]["samples"]
    prompts = {"positive": loaded.prompt(TARGET), "negative": loaded.prompt("")}
    other = run(TokenFlowEdit, model=loaded.model, inversion=inversions["stem"], **prompts)[0]["samples"]
    assert torch.isfinite(other).all() and not torch.equal(other, first)
    assert torch.equal(edit(loaded, inversions["stem"])[0]["samples"], first)


def test_an_empty_target_prompt_is_refused(loaded, inversions):
    with pytest.raises(ValueError, match="FateZero Edit: the target prompt is empty. Write what the edited video"):
        edit(loaded, inversions["stem"], target_prompt=" \n")


def test_a_target_prompt_that_changes_nothing_is_remarked_on(loaded, inversions):
    prompts = {"source_prompt": SOURCE, "target_prompt": SOURCE}
    report = edit(loaded, inversions["stem"], **prompts)[2]
    assert "nothing will change" in report
    assert "nothing will change" not in edit(loaded, inversions["stem"], **prompts, word_weights="hill: 4")[2]

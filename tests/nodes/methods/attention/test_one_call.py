"""Source and edit in one call of the network: fewer calls, the same numbers; one after the other where they must."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from comfyui_stem.nodes.methods.attention.frame_context import FrameContextAttention
from comfyui_stem.nodes.methods.attention.installing import install
from comfyui_stem.nodes.methods.batching import memory_budget
from comfyui_stem.nodes.methods.fatezero import edit as fatezero
from comfyui_stem.nodes.methods.fatezero.edit import FateZeroSettings
from comfyui_stem.nodes.methods.fatezero.prompts import read_prompt
from comfyui_stem.nodes.methods.fatezero.word_control import WordWishes, read_words
from comfyui_stem.nodes.methods.inversion.sampling import invert
from comfyui_stem.nodes.methods.stem.attention import StemSelfAttention
from comfyui_stem.nodes.methods.stem.settings import PRESETS
from comfyui_stem.nodes.methods.tokenflow import edit as tokenflow
from comfyui_stem.nodes.methods.tokenflow.edit import TokenFlowSettings
from comfyui_stem.tools.measured.errors import relative_error as relative

SOURCE, TARGET = "a red hill", "a red castle"
STEPS = 2
STEM = StemSelfAttention.from_settings(PRESETS["paper"].with_bases(8))
KEYS = StemSelfAttention.from_settings(PRESETS["reference_code"].with_bases(8))
INJECTED = TokenFlowSettings(batch_size=4, attention_injection=1.0, feature_injection=1.0)


@pytest.fixture(scope="module")
def inverted(loaded, video):
    """Inversions of the clip by method, made once."""
    kept = {}

    def get(method=None):
        if method not in kept:
            model = install(loaded.model, method) if method else loaded.model
            kept[method] = invert(model, loaded.prompt(SOURCE), video, STEPS, "next")
        return kept[method]

    with torch.inference_mode():
        yield get


def by_tokenflow(loaded, inversion, settings, model=None, target=TARGET):
    prompts = loaded.prompt(target), loaded.prompt("rain")
    return tokenflow.edit(model or loaded.model, inversion, *prompts, settings)


def by_fatezero(loaded, inversion, model=None, **changes):
    source, target = (read_prompt(loaded.clip, text, "a", "Test") for text in (SOURCE, TARGET))
    words = read_words(source, target, WordWishes(masks_source=True, window=0.5), STEPS, "Test").control
    settings = FateZeroSettings(**{"self_window": 1.0, "levels": frozenset(range(4))} | changes)
    prompts = target.conditioning, loaded.prompt("rain")
    return fatezero.edit(model or loaded.model, inversion, *prompts, words, settings).samples


def short_of_memory(monkeypatch):
    """Neither of the two takes as much as three rows of a clip; what is decided for batches stays."""
    for module in (tokenflow, fatezero_passes()):
        monkeypatch.setattr(module, "source_and_edit_join", lambda model, needed: False)


def fatezero_passes():
    from comfyui_stem.nodes.methods.fatezero import passes

    return passes


TOKENFLOW = {
    # the keyframe of the second batch takes features from both, so its edit is not that of the keyframes
    "injection": (INJECTED, [3 * 2 + 3 * 3, 2 * 1]),
    "bases": (replace(INJECTED, stem=STEM), [3 * 2 + 3 * 3, 2 * 1]),
    "bases of keys, no injection": (replace(TokenFlowSettings(batch_size=4), stem=KEYS), None),
    "propagated source": (replace(INJECTED, source_rows="propagated", weights="surrounding"), [6 + 3 * 4, 3]),
    "no guidance": (replace(INJECTED, cfg=1.0), [2 * 2 + 2 * 3, 1]),
    "one keyframe": (replace(INJECTED, batch_size=8), [3 + 3 * 4]),
    "keyframes alone": (replace(INJECTED, batch_size=1), [15, *[2] * 4]),
    "many keyframes": (replace(INJECTED, batch_size=2), None),
}


@pytest.mark.parametrize("name", TOKENFLOW)
def test_a_step_of_tokenflow_takes_one_call_for_every_batch(loaded, inverted, rows, monkeypatch, name):
    settings, expected = TOKENFLOW[name]
    inversion = inverted()
    rows.clear()
    together = by_tokenflow(loaded, inversion, settings)
    if expected is not None:
        assert rows == expected * STEPS
    calls = len(rows)
    rows.clear()
    short_of_memory(monkeypatch)
    assert relative(together, by_tokenflow(loaded, inversion, settings)) < 1e-5
    assert len(rows) >= calls * 1.5


FATEZERO = {
    "own frames": (None, {}, [15] * STEPS),
    "bases": (STEM, {"own": STEM}, [15] * STEPS),
    "bases of keys": (KEYS, {"own": KEYS, "fuse_unconditional": True}, [15] * STEPS),
    "other frames": (FrameContextAttention((-1, "first")), {"own": FrameContextAttention(None)}, [15] * STEPS),
    "no guidance": (STEM, {"cfg": 1.0}, [10] * STEPS),
    # where the words are is seen in the source's last layers, and decides about the edit's first
    "words keep their own": (STEM, {"blend_self": True}, [5, 10] * STEPS),
    "a part of the steps": (STEM, {"self_window": 0.5}, [15, 10]),
    "masks of latents": (STEM, {"blend_latents": True, "latent_window": 1.0}, [15] * STEPS),
}


@pytest.mark.parametrize("name", FATEZERO)
def test_a_step_of_fatezero_takes_one_call(loaded, inverted, rows, monkeypatch, name):
    method, changes, expected = FATEZERO[name]
    inversion = inverted(method)
    rows.clear()
    together = by_fatezero(loaded, inversion, **changes)
    assert rows == expected
    short_of_memory(monkeypatch)
    assert relative(together, by_fatezero(loaded, inversion, **changes)) < 1e-5


def with_patch(loaded):
    model = loaded.model.clone()
    model.set_model_attn2_output_patch(lambda out, options: out)
    return {"model": model}


def with_longer_prompt(loaded):
    return {"target": TARGET + " by the sea" * 40}


@pytest.mark.parametrize("change", [with_patch, with_longer_prompt])
def test_calls_that_cannot_be_joined_are_made_one_after_the_other(loaded, inverted, rows, monkeypatch, change):
    inversion = inverted()
    more = change(loaded)
    rows.clear()
    found = by_tokenflow(loaded, inversion, replace(INJECTED, batch_size=8), **more)
    assert rows == [1, 1, 1, 4, 4, 4] * STEPS
    short_of_memory(monkeypatch)
    assert torch.equal(found, by_tokenflow(loaded, inversion, replace(INJECTED, batch_size=8), **more))


def test_a_lora_of_the_edit_runs_the_source_with_other_weights(loaded, inverted, rows):
    key = "diffusion_model.output_blocks.9.1.transformer_blocks.0.attn1.to_v.weight"
    model = loaded.model.clone()
    model.add_patches({key: (torch.ones_like(loaded.model.model.state_dict()[key]),)}, 0.1)
    inversion = inverted()
    rows.clear()
    by_fatezero(loaded, inversion, model=model)
    assert rows == [5, 10] * STEPS
    by_tokenflow(loaded, inversion, replace(INJECTED, batch_size=8), model=model)
    assert rows[2 * STEPS :] == [15] * STEPS


def test_an_attention_that_the_edit_alone_has_is_not_that_of_the_source(loaded, inverted, rows):
    asked = []

    def chosen(attention, q, *arguments, **named):
        asked.append(q.shape[0])
        return attention(q, *arguments, **named)

    model = loaded.model.clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = chosen
    inversion = inverted()
    rows.clear()
    by_fatezero(loaded, inversion, model=model)
    assert rows == [5, 5, 5] * STEPS and asked
    rows.clear()
    by_tokenflow(loaded, inversion, replace(INJECTED, batch_size=8), model=model)
    assert rows == [15] * STEPS


@pytest.mark.parametrize(("free", "joined"), [(1e15, True), (0.0, False)])
def test_what_is_free_only_matters_where_it_is_short_and_is_told(loaded, inverted, rows, monkeypatch, free, joined):
    told = []
    monkeypatch.setattr(memory_budget, "tell", told.append)
    monkeypatch.setattr(memory_budget, "room_for", lambda model: free)
    inversion = inverted()
    rows.clear()
    by_tokenflow(loaded, inversion, replace(INJECTED, batch_size=8))
    assert (rows == [15] * STEPS) is joined and bool(told) is not joined
    monkeypatch.setattr(memory_budget, "usual_room", lambda model: 0.0)
    told.clear()
    by_tokenflow(loaded, inversion, replace(INJECTED, batch_size=8))
    assert not told


class Failure(Exception):
    pass


@pytest.mark.parametrize("edit", [by_tokenflow, by_fatezero])
def test_nothing_is_left_of_a_call_that_fails(loaded, inverted, edit, monkeypatch):
    inversion = inverted(STEM)
    arguments = (INJECTED,) if edit is by_tokenflow else ()
    expected = edit(loaded, inversion, *arguments)
    unet = loaded.model.model.diffusion_model
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in unet.modules()]

    def fail(*inputs):
        raise Failure

    handle = unet.output_blocks[9][1].register_forward_pre_hook(fail)
    with pytest.raises(Failure):
        edit(loaded, inversion, *arguments)
    handle.remove()
    assert hooks == [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in unet.modules()]
    assert torch.equal(edit(loaded, inversion, *arguments), expected)

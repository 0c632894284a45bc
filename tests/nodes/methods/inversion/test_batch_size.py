"""How many frames go through at a time is decided once and kept, whatever memory is free."""

from __future__ import annotations

import itertools
import logging

import comfy.model_management
import pytest
import torch
from comfyui_stem.nodes.methods.attention.frame_context import FrameContextAttention
from comfyui_stem.nodes.methods.attention.installing import install, installed_method
from comfyui_stem.nodes.methods.fatezero.edit import FateZeroSettings
from comfyui_stem.nodes.methods.fatezero.edit import edit as edit_by_fatezero
from comfyui_stem.nodes.methods.fatezero.prompts import read_prompt
from comfyui_stem.nodes.methods.fatezero.word_control import WordWishes, read_words
from comfyui_stem.nodes.methods.inversion.batch_size import with_batch_size
from comfyui_stem.nodes.methods.inversion.file import load_inversion, save_inversion
from comfyui_stem.nodes.methods.inversion.reconstruction import reconstruct
from comfyui_stem.nodes.methods.inversion.sampling import invert
from comfyui_stem.nodes.methods.stem.attention import StemSelfAttention
from comfyui_stem.nodes.methods.stem.settings import StemSettings
from comfyui_stem.nodes.methods.tokenflow.edit import TokenFlowSettings
from comfyui_stem.nodes.methods.tokenflow.edit import edit as edit_by_tokenflow
from comfyui_stem.stem_kernels.em import EMSettings
from comfyui_stem.tools.measured.errors import relative_error as relative

SMALL = StemSettings(em=EMSettings(num_bases=8))
PLENTY = 1e12


@pytest.fixture
def memory(loaded, video, monkeypatch):
    """Sets what the device has in all and what is free: in frames, each time that ComfyUI asks the next of them."""
    one = loaded.model.model.memory_required([1, *video.shape[1:]])
    monkeypatch.setattr(comfy.model_management, "minimum_inference_memory", lambda: 0)
    monkeypatch.setattr(comfy.model_management, "extra_reserved_memory", lambda: 0)

    def is_now(total, *free):
        each = itertools.cycle([frames * one for frames in free])

        def get_free_memory(dev=None, torch_free_too=False):
            now = next(each)
            return (now, now) if torch_free_too else now

        whole = total * one + loaded.model.model_size()
        monkeypatch.setattr(comfy.model_management, "get_total_memory", lambda *args, **more: whole)
        monkeypatch.setattr(comfy.model_management, "get_free_memory", get_free_memory)

    return is_now


@pytest.fixture
def told(caplog):
    """The lines of the log that tell of a shortage."""
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage() for record in caplog.records if "so it will be" in record.getMessage()]


def with_stem(loaded, frames_per_batch=0):
    return install(loaded.model, StemSelfAttention.from_settings(SMALL, frames_per_batch))


def number_of(model):
    return installed_method(model).frames_per_batch


def everything(loaded, video):
    """An inversion, and what the nodes make of it with guidance."""
    source, target = (read_prompt(loaded.clip, text, "a", "Test") for text in ("a hill", "a castle"))
    negative = loaded.prompt("rain")
    inversion = invert(with_stem(loaded), source.conditioning, video, 2, "next")
    guided = reconstruct(inversion, inversion.model, inversion.source, negative, 3.0)
    words = read_words(source, target, WordWishes(window=1.0), 2, "Test").control
    fatezero = FateZeroSettings(self_window=1.0, own=installed_method(inversion.model))
    tokenflow = TokenFlowSettings(batch_size=2)
    return inversion, [
        inversion.trajectory,
        guided,
        edit_by_tokenflow(loaded.model, inversion, target.conditioning, negative, tokenflow),
        edit_by_fatezero(loaded.model, inversion, target.conditioning, negative, words, fatezero).samples,
    ]


def test_the_same_graph_gives_the_same_numbers_whatever_memory_is_free(loaded, video, calls, memory, told):
    results, batches = [], []
    for free in ([PLENTY], [2.6], [2.6, 40.0, 3.1, 7.9, 1e4]):
        memory(2.6, *free)
        calls.clear()
        inversion, found = everything(loaded, video)
        results.append(found)
        batches.append(list(calls))
        assert number_of(inversion.model) == 2
    assert not told()
    # two steps of the inversion, and of both prompts of the reconstruction
    assert batches == [[3] * (2 + 4)] * 3
    assert all(torch.equal(a, b) for found in results[1:] for a, b in zip(found, results[0], strict=True))


def test_what_another_program_holds_makes_fewer_frames_go_through_and_the_log_says_so(
    loaded, video, calls, memory, told
):
    memory(4.2, 2.2)
    inversion = invert(with_stem(loaded), loaded.prompt("a hill"), video, 1, "next")
    assert number_of(inversion.model) == 2 and calls == [3]
    (line,) = told()
    assert line.startswith("4 frames were to go through") and "set frames_per_batch of STEM Bases to 2" in line
    # the same number again where all of it is free
    memory(4.2, PLENTY)
    reconstruct(inversion, inversion.model, inversion.source)
    assert calls == [3, 3] and len(told()) == 1
    # and fewer still where even less is
    memory(4.2, 1.1)
    reconstruct(inversion, inversion.model, inversion.source)
    assert calls == [3, 3, 5] and len(told()) == 2
    assert number_of(inversion.model) == 2


def test_a_number_that_the_user_has_set_is_taken_whatever_memory_there_is(loaded, video, calls, memory, told):
    memory(1.0, 1.0)
    inversion = invert(with_stem(loaded, 3), loaded.prompt("a hill"), video, 1, "next")
    reconstruct(inversion, inversion.model, inversion.source)
    assert calls == [2, 2] and not told()
    assert installed_method(inversion.model) == installed_method(with_stem(loaded, 3))


def test_a_model_that_leaves_it_open_takes_the_number_of_the_inversion(loaded, video, calls, memory):
    memory(2.6, PLENTY)
    inversion = invert(with_stem(loaded), loaded.prompt("a hill"), video, 1, "next")
    memory(PLENTY, PLENTY)
    calls.clear()
    reconstruct(inversion, with_stem(loaded), inversion.source)
    assert calls == [3]
    reconstruct(inversion, with_stem(loaded, 4), inversion.source)
    assert calls == [3, 2]


@pytest.mark.parametrize("theirs", [(0,), (0, "mid")])
def test_an_inversion_with_frame_context_has_no_number_to_take(loaded, video, memory, theirs):
    memory(2.6, PLENTY)
    like = install(loaded.model, FrameContextAttention(theirs))
    assert number_of(with_batch_size(with_stem(loaded), len(video), video.shape[-2:], like)) == 2
    assert with_batch_size(like, len(video), video.shape[-2:]) is like


def test_a_bare_model_goes_through_in_batches_where_all_frames_do_not_fit(loaded, video, calls, memory, tmp_path, told):
    memory(PLENTY, PLENTY)
    prompt, negative = loaded.prompt("a hill"), loaded.prompt("rain")
    whole = invert(loaded.model, prompt, video, 2, "next")
    assert whole.model is loaded.model and not calls
    memory(2.6, PLENTY)
    split = invert(loaded.model, prompt, video, 2, "next")
    # no frame waits for another
    assert calls == [1] * (2 * 3)
    assert relative(split.trajectory, whole.trajectory) < 1e-5
    save_inversion(split, tmp_path / "x.safetensors")
    loaded_again = load_inversion(tmp_path / "x.safetensors", loaded.model, "Test")
    assert number_of(loaded_again.model) == 2
    found = [
        reconstruct(one, model, prompt, negative, 3.0)
        for one in (whole, split, loaded_again)
        for model in (one.model, loaded.model)
    ]
    assert all(relative(other, found[0]) < 1e-5 for other in found)
    memory(2.6, 1.1)
    assert number_of(invert(loaded.model, prompt, video, 1, "next").model) == 1
    (line,) = told()
    assert line.startswith("2 frames were to go through") and "frames_per_batch" not in line


def test_a_model_with_something_on_it_that_may_look_at_several_frames_is_not_split(loaded, video, calls, memory):
    memory(2.6, PLENTY)
    patched = loaded.model.clone()
    patched.set_model_attn1_output_patch(lambda output, options: output + output.mean(dim=0))
    assert invert(patched, loaded.prompt("a hill"), video, 1, "next").model is patched
    assert not calls

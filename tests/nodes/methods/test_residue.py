"""After success, failure and interruption nothing of a run is left."""

from __future__ import annotations

import functools
import gc

import comfy.model_management
import pytest
import torch
from comfyui_stem.nodes.methods.attention.installing import install
from comfyui_stem.nodes.methods.fatezero.attention import FateZeroRun
from comfyui_stem.nodes.methods.fatezero.edit import FateZeroSettings
from comfyui_stem.nodes.methods.fatezero.edit import edit as edit_by_fatezero
from comfyui_stem.nodes.methods.fatezero.prompts import read_prompt
from comfyui_stem.nodes.methods.fatezero.replay import ReplayRun
from comfyui_stem.nodes.methods.fatezero.source import SourceBefore
from comfyui_stem.nodes.methods.fatezero.word_control import WordWishes, read_words
from comfyui_stem.nodes.methods.inversion.reconstruction import reconstruct
from comfyui_stem.nodes.methods.inversion.sampling import invert
from comfyui_stem.nodes.methods.stem.attention import StemSelfAttention
from comfyui_stem.nodes.methods.stem.run import StemRun
from comfyui_stem.nodes.methods.stem.settings import StemSettings
from comfyui_stem.nodes.methods.tokenflow.edit import TokenFlowSettings, edit
from comfyui_stem.nodes.methods.tokenflow.run import Pass, TokenFlowRun
from comfyui_stem.stem_kernels.em import EMSettings

METHOD = StemSelfAttention.from_settings(StemSettings(em=EMSettings(num_bases=8)))


class Failure(Exception):
    pass


@pytest.fixture(scope="module")
def stem_model(loaded):
    return install(loaded.model, METHOD)


@pytest.fixture(scope="module")
def inversion(loaded, stem_model, video):
    with torch.inference_mode():
        return invert(stem_model, loaded.prompt("a hill"), video, 2, "next")


def runs(loaded, inversion, video):
    """Every kind of run, as a function of the MODEL."""
    prompts = loaded.prompt("a castle"), loaded.prompt("rain")
    source, target = (read_prompt(loaded.clip, text, "a", "Test") for text in ("a hill", "a castle"))
    words = read_words(source, target, WordWishes(window=1.0, masks_source=True, masks_target=True), 2, "Test").control
    fatezero = FateZeroSettings(self_window=1.0, blend_self=True, blend_latents=True, latent_window=1.0, own=METHOD)
    return {
        "fatezero": lambda model: edit_by_fatezero(model, inversion, *prompts, words, fatezero).samples,
        "inversion": lambda model: invert(install(model, METHOD), inversion.source, video, 2, "next").trajectory,
        "reconstruction": lambda model: reconstruct(inversion, install(model, METHOD), inversion.source),
        "edit": lambda model: edit(model, inversion, *prompts, TokenFlowSettings(batch_size=2)),
        "edit with bases": lambda model: edit(
            model, inversion, *prompts, TokenFlowSettings(batch_size=2, stem=METHOD, source_rows="propagated")
        ),
    }


KINDS = ["inversion", "reconstruction", "edit", "edit with bases", "fatezero"]


def failing(model, after, action):
    """MODEL that calls `action` inside self-attention, at the call number `after` of the layer output 5."""
    calls = []

    def patch(n, extra_options):
        if extra_options["block"] == ("output", 5):
            calls.append(None)
            if len(calls) == after:
                action()
        return n

    clone = model.clone()
    clone.set_model_attn1_output_patch(patch)
    return clone


def traces(model):
    unet = model.model.diffusion_model
    return {
        "hooks": [name for name, module in unet.named_modules() if module._forward_hooks or module._forward_pre_hooks],
        "forwards": [name for name, module in unet.named_modules() if "forward" in module.__dict__],
        "options": repr(model.model_options),
        "wrappers": repr(model.wrappers),
        "weights": sum(float(p.sum()) for p in unet.parameters()),
    }


def live_runs():
    gc.collect()
    kinds = (TokenFlowRun, Pass, StemRun, FateZeroRun, ReplayRun, SourceBefore)
    return [o for o in gc.get_objects() if type(o) in kinds]


def large_tensors():
    gc.collect()
    return sum(1 for o in gc.get_objects() if isinstance(o, torch.Tensor) and o.numel() > 1000)


@pytest.fixture(scope="module")
def undisturbed(loaded, inversion, video):
    """The result of a kind of run."""

    @functools.cache
    def result(kind):
        return runs(loaded, inversion, video)[kind](loaded.model)

    return result


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_after_success_and_a_second_run_is_identical(loaded, inversion, video, kind):
    run = runs(loaded, inversion, video)[kind]
    before = traces(loaded.model)
    first = run(loaded.model)
    count = large_tensors()
    second = run(loaded.model)
    assert traces(loaded.model) == before
    assert live_runs() == []
    assert torch.equal(first, second)
    assert large_tensors() <= count + 1  # `second` itself


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("after", [1, 2])
@pytest.mark.parametrize("how", ["exception", "interrupt"])
def test_nothing_is_left_after_a_failure_and_the_next_run_is_as_if_undisturbed(
    loaded, inversion, video, undisturbed, kind, after, how
):
    run = runs(loaded, inversion, video)[kind]
    expected = undisturbed(kind)
    before = traces(loaded.model)

    def action():
        if how == "exception":
            raise Failure
        comfy.model_management.interrupt_current_processing()

    expectation = Failure if how == "exception" else comfy.model_management.InterruptProcessingException
    with pytest.raises(expectation):
        run(failing(loaded.model, after, action))
    assert traces(loaded.model) == before
    assert live_runs() == []
    assert torch.equal(run(loaded.model), expected)

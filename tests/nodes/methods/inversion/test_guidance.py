from __future__ import annotations

from dataclasses import replace

import comfy.patcher_extension
import pytest
import torch
from comfyui_stem.nodes.methods.fatezero import edit as fatezero
from comfyui_stem.nodes.methods.fatezero.prompts import read_prompt
from comfyui_stem.nodes.methods.fatezero.word_control import WordWishes, read_words
from comfyui_stem.nodes.methods.inversion.reconstruction import reconstruct
from comfyui_stem.nodes.methods.inversion.sampling import invert
from comfyui_stem.nodes.methods.tokenflow import edit as tokenflow

STEPS = 4
CFG = 5.0
SOURCE, TARGET, NEGATIVE = "a hill", "a castle", "rain"
NEGATIVE_ROW = 1


@pytest.fixture(scope="module")
def inversion(loaded, video):
    with torch.inference_mode():
        return invert(loaded.model, loaded.prompt(SOURCE), video, STEPS, "next")


def by_reconstruct(loaded, inversion, model, cfg, window):
    prompts = loaded.prompt(TARGET), loaded.prompt(NEGATIVE)
    return reconstruct(inversion, model, *prompts, cfg, window)


def by_tokenflow(loaded, inversion, model, cfg, window):
    settings = tokenflow.TokenFlowSettings(cfg=cfg, cfg_window=window, batch_size=2)
    return tokenflow.edit(model, inversion, loaded.prompt(TARGET), loaded.prompt(NEGATIVE), settings)


def by_fatezero(loaded, inversion, model, cfg, window):
    source, target = (read_prompt(loaded.clip, text, "a", "Test") for text in (SOURCE, TARGET))
    words = read_words(source, target, WordWishes(window=0.5), STEPS, "Test").control
    settings = replace(fatezero.FateZeroSettings(), cfg=cfg, cfg_window=window, fuse_unconditional=True)
    prompts = target.conditioning, loaded.prompt(NEGATIVE)
    return fatezero.edit(model, inversion, *prompts, words, settings).samples


RUNS = {"Reconstruct": by_reconstruct, "TokenFlow Edit": by_tokenflow, "FateZero Edit": by_fatezero}
EVERY = pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)


@pytest.fixture
def negative_rows(loaded):
    """How many rows of the negative prompt the network has seen at each timestep."""
    seen = {}

    def look(network, args, kwargs):
        options = kwargs["transformer_options"]
        rows = len(args[0]) // len(options["cond_or_uncond"])
        timestep = int(args[1][0])
        seen[timestep] = seen.get(timestep, 0) + rows * options["cond_or_uncond"].count(NEGATIVE_ROW)

    hook = loaded.model.model.diffusion_model.register_forward_pre_hook(look, with_kwargs=True)
    yield seen
    hook.remove()


def steps_with(negative_rows):
    return [number for number, rows in enumerate(negative_rows.values()) if rows]


@EVERY
def test_outside_the_interval_no_row_of_the_negative_prompt_is_run_and_patches_see_a_cfg_of_1(
    loaded, inversion, negative_rows, run
):
    scales = []

    def patch(args):
        scales.append(args["cond_scale"])
        return args["denoised"]

    model = loaded.model.clone()
    model.set_model_sampler_post_cfg_function(patch)
    run(loaded, inversion, model, CFG, (0.25, 0.75))
    assert list(negative_rows) == list(inversion.timesteps[::-1])
    assert steps_with(negative_rows) == [1, 2]
    # TokenFlow runs some frames twice, as keyframes
    assert all(rows >= len(inversion.trajectory[0]) for rows in negative_rows.values() if rows)
    assert scales == [1.0, CFG, CFG, 1.0]


@pytest.mark.parametrize(
    ("window", "guided"), [((0.0, 1.0), [0, 1, 2, 3]), ((0.0, 0.5), [0, 1]), ((0.3, 1.0), [1, 2, 3]), (0.8, [0, 1, 2])]
)
def test_the_interval_counts_from_the_noisy_end_in_whole_steps(loaded, inversion, negative_rows, window, guided):
    by_reconstruct(loaded, inversion, loaded.model, CFG, window)
    assert steps_with(negative_rows) == guided


@EVERY
def test_an_empty_interval_is_a_cfg_of_1(loaded, inversion, negative_rows, run):
    nowhere = run(loaded, inversion, loaded.model, CFG, (0.5, 0.5))
    assert not steps_with(negative_rows)
    assert torch.equal(nowhere, run(loaded, inversion, loaded.model, 1.0, 1.0))


@EVERY
def test_a_patch_that_needs_the_negative_prompt_gets_it_in_every_step(loaded, inversion, negative_rows, run):
    # ComfyUI's own name for it, set by Self-Attention Guidance for instance
    model = loaded.model.clone()
    model.set_model_sampler_post_cfg_function(lambda args: args["denoised"], disable_cfg1_optimization=True)
    run(loaded, inversion, model, CFG, (0.0, 0.5))
    assert steps_with(negative_rows) == [0, 1, 2, 3]


@EVERY
def test_a_node_that_sets_the_guiders_cfg_for_some_steps_is_obeyed_inside_the_interval(
    loaded, inversion, negative_rows, run
):
    # as ComfyUI's CFG Override does
    steps = []

    def override(executor, *args, **kwargs):
        guider, steps_so_far = executor.class_obj, len(steps)
        steps.append(None)
        saved, guider.cfg = guider.cfg, 1.0 if steps_so_far == 1 else guider.cfg
        try:
            return executor(*args, **kwargs)
        finally:
            guider.cfg = saved

    model = loaded.model.clone()
    model.add_wrapper(comfy.patcher_extension.WrappersMP.PREDICT_NOISE, override)
    run(loaded, inversion, model, CFG, (0.0, 0.75))
    assert steps_with(negative_rows) == [0, 2]


@EVERY
def test_an_interval_that_ends_before_it_begins_is_refused(loaded, inversion, negative_rows, run):
    with pytest.raises(ValueError, match=r"The guidance interval starts at 0.75 and ends at 0.25"):
        run(loaded, inversion, loaded.model, CFG, (0.75, 0.25))
    assert not negative_rows

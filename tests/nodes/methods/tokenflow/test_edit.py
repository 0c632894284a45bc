from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from comfyui_stem.nodes.methods.attention.installing import install
from comfyui_stem.nodes.methods.inversion.guidance import StepSchedule
from comfyui_stem.nodes.methods.inversion.reconstruction import reconstruct
from comfyui_stem.nodes.methods.inversion.sampling import invert
from comfyui_stem.nodes.methods.stem.attention import StemSelfAttention
from comfyui_stem.nodes.methods.stem.settings import StemSettings
from comfyui_stem.nodes.methods.tokenflow import edit as tokenflow
from comfyui_stem.nodes.methods.tokenflow.edit import TokenFlowGuider, TokenFlowSettings, edit, start_latent
from comfyui_stem.nodes.methods.tokenflow.passes import batch_passes
from comfyui_stem.nodes.methods.tokenflow.step import Step
from comfyui_stem.stem_kernels.em import EMSettings
from comfyui_stem.tools.measured.errors import relative_error as relative

STEPS = 2
PLAIN = TokenFlowSettings(cfg=1.0, attention_injection=0.0, feature_injection=0.0, batch_size=2)


@pytest.fixture(scope="module")
def inversion(loaded, video):
    with torch.inference_mode():
        return invert(loaded.model, loaded.prompt("a hill"), video, STEPS, "next")


def edited(loaded, inversion, settings, target="a castle", negative="rain", model=None):
    return edit(model or loaded.model, inversion, loaded.prompt(target), loaded.prompt(negative), settings)


@pytest.mark.parametrize("batch_size", [1, 2, 4, 5, 8])
@pytest.mark.parametrize("weights", ["reference", "surrounding"])
def test_all_frames_are_edited_whatever_their_number_and_the_batch_size(loaded, inversion, batch_size, weights):
    result = edited(loaded, inversion, replace(TokenFlowSettings(), batch_size=batch_size, weights=weights))
    assert result.shape == inversion.trajectory.shape[1:] and torch.isfinite(result).all()
    source = loaded.model.model.process_latent_out(inversion.trajectory[0])
    assert ((result - source).flatten(1).norm(dim=1) / source.flatten(1).norm(dim=1)).min() > 1e-2


@pytest.mark.parametrize(
    ("batch_size", "weights", "keyframes"),
    [
        (1, "reference", "random"),
        (1, "surrounding", "centre"),
        (2, "reference", "centre"),
        (2, "surrounding", "random"),
        (4, "reference", "random"),
        (4, "surrounding", "centre"),
        (5, "reference", "centre"),
        (5, "surrounding", "random"),
    ],
)
def test_what_the_keyframes_had_computed_is_what_their_batches_would_compute(
    loaded, inversion, monkeypatch, weights, batch_size, keyframes
):
    settings = TokenFlowSettings(batch_size=batch_size, weights=weights, keyframes=keyframes)
    reused = edited(loaded, inversion, settings)
    rows = []
    original = TokenFlowGuider.run_model
    monkeypatch.setattr(
        TokenFlowGuider,
        "run_model",
        lambda self, conds, x, *more: rows.append(len(conds) * len(x)) or original(self, conds, x, *more),
    )
    edited(loaded, inversion, settings)
    monkeypatch.setattr(
        tokenflow, "batch_passes", lambda batches, keyframes, plan, reuse: batch_passes(batches, keyframes, plan, False)
    )
    spared = sum(rows)
    assert relative(reused, edited(loaded, inversion, settings)) < 1e-5
    assert spared < sum(rows) - spared


@pytest.mark.parametrize(("source_rows", "conds"), [("true", {0, 1}), ("propagated", {0, 1, "source"})])
def test_of_the_keyframes_only_what_batches_read_is_kept(loaded, inversion, monkeypatch, source_rows, conds):
    kept, batch = [], Step.batch

    def noted(self, passes):
        kept.append({kind for kind in ("tokens", "queries", "keys", "source", 0, 1) if self.run.kept.layers(kind)})
        return batch(self, passes)

    monkeypatch.setattr(Step, "batch", noted)
    edited(loaded, inversion, TokenFlowSettings(batch_size=2, source_rows=source_rows, attention_injection=1.0))
    assert kept == [{"tokens", *conds}] * 3 * STEPS


@pytest.mark.parametrize("source_rows", ["true", "propagated"])
@pytest.mark.parametrize("weights", ["reference", "surrounding"])
@pytest.mark.parametrize("batch_size", [2, 5])
def test_a_still_video_without_injection_is_denoised_like_its_single_frame(
    loaded, video, source_rows, weights, batch_size
):
    # Every token finds itself in the keyframe, and equal keys count once: nothing of TokenFlow is left.
    still = video[:1].repeat(5, 1, 1, 1)
    inversion = invert(loaded.model, loaded.prompt("a hill"), still, STEPS, "next")
    settings = replace(PLAIN, source_rows=source_rows, weights=weights, batch_size=batch_size)
    expected = reconstruct(inversion, loaded.model, loaded.prompt("a castle"))
    assert relative(edited(loaded, inversion, settings), expected) < 1e-4


def test_a_clip_of_one_frame_is_edited(loaded, video):
    inversion = invert(loaded.model, loaded.prompt("a hill"), video[:1], STEPS, "next")
    expected = reconstruct(inversion, loaded.model, loaded.prompt("a castle"))
    assert relative(edited(loaded, inversion, PLAIN), expected) < 1e-4


def test_injecting_the_source_into_itself_changes_nothing(loaded, video):
    # One frame, one step, from the inverted latent with the source prompt: the edit rows are the source rows.
    inversion = invert(loaded.model, loaded.prompt("a hill"), video[:1], 1, "next")
    with_injection = replace(PLAIN, attention_injection=1.0, feature_injection=1.0)
    plain = replace(with_injection, attention_injection=0.0, feature_injection=0.0)
    results = [edited(loaded, inversion, settings, "a hill") for settings in (with_injection, plain)]
    assert relative(*results) < 1e-6


@pytest.mark.parametrize("share", ["attention_injection", "feature_injection"])
def test_injection_reaches_the_edit(loaded, inversion, share):
    results = [edited(loaded, inversion, replace(PLAIN, **{share: value})) for value in (0.0, 1.0)]
    assert relative(*results) > 1e-4


def stem_method(**changes):
    return StemSelfAttention.from_settings(StemSettings(em=EMSettings(num_bases=16), **changes))


@pytest.mark.parametrize("space", ["features", "keys_per_head"])
def test_stem_attention_with_a_base_for_every_token_is_extended_attention(loaded, inversion, space):
    em = EMSettings(num_bases=5 * 8 * 12, temperature=1e-4)
    method = StemSelfAttention.from_settings(StemSettings(em=em, space=space))
    settings = replace(PLAIN, attention_injection=0.5)
    extended, few = (edited(loaded, inversion, replace(settings, stem=stem)) for stem in (None, stem_method()))
    assert relative(edited(loaded, inversion, replace(settings, stem=method)), extended) < 2e-3
    assert relative(few, extended) > 2e-3


def test_without_guidance_the_negative_prompt_does_not_matter(loaded, inversion):
    results = [edited(loaded, inversion, PLAIN, negative=negative) for negative in ("rain", "snow")]
    assert torch.equal(*results)


def test_the_same_seed_gives_the_same_pixels_and_another_seed_other_keyframes(loaded, inversion):
    settings = TokenFlowSettings(batch_size=3)
    first, again, other = (edited(loaded, inversion, replace(settings, seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_lora_on_the_edit_model_works_and_leaves_the_weights_as_they_were(loaded, inversion):
    key = "diffusion_model.output_blocks.9.1.transformer_blocks.0.attn1.to_v.weight"
    weight = loaded.model.model.state_dict()[key].clone()
    with_lora = loaded.model.clone()
    difference = torch.randn(weight.shape, generator=torch.Generator().manual_seed(2))
    with_lora.add_patches({key: (difference.to(weight.dtype),)}, 0.5)
    before = edited(loaded, inversion, PLAIN)
    changed = edited(loaded, inversion, PLAIN, model=with_lora)
    assert torch.isfinite(changed).all() and relative(changed, before) > 1e-4
    assert torch.equal(edited(loaded, inversion, PLAIN), before)
    assert torch.equal(loaded.model.model.state_dict()[key], weight)


def test_fewer_steps_than_the_inversion_are_a_subset_of_it(loaded, video):
    inversion = invert(loaded.model, loaded.prompt("a hill"), video, 10, "next")
    assert torch.isfinite(edited(loaded, inversion, replace(PLAIN, steps=5))).all()
    with pytest.raises(
        ValueError, match=r"3 steps do not match the inversion: they need timestep 334.*\[1, 2, 5, 10\]"
    ):
        edited(loaded, inversion, replace(PLAIN, steps=3))


def test_a_later_start_stays_closer_to_the_source(loaded, video):
    inversion = invert(loaded.model, loaded.prompt("a hill"), video, 5, "next")
    results = [edited(loaded, inversion, replace(PLAIN, start=start)) for start in (0.2, 0.6, 1.0)]
    distances = [relative(result, video) for result in results]
    assert distances == sorted(distances) and distances[0] < 0.05


@pytest.mark.parametrize(("start", "kept"), [(0.9, 45), (1.0, 50), (0.02, 1), (0.01, 1), (0.03, 2)])
def test_the_share_of_the_schedule_is_rounded_to_whole_steps(start, kept):
    timesteps = tuple(1 + 20 * i for i in range(50))
    schedule = StepSchedule(timesteps, max(1, round(start * 50)))
    assert len(schedule.descending) == kept and schedule.descending[-1] == 1


def test_injection_windows_count_from_the_noisy_end_of_the_whole_schedule():
    schedule = StepSchedule(tuple(1 + 100 * i for i in range(10)), 8)
    assert [t for t in schedule.timesteps if schedule.within(t, 0.5)] == [501, 601, 701, 801, 901]
    assert not any(schedule.within(t, 0.0) for t in schedule.timesteps)
    assert all(schedule.within(t, 1.0) for t in schedule.timesteps)


def test_shared_noise_is_the_same_in_every_frame_and_at_the_level_of_the_step(inversion):
    timestep = inversion.timesteps[-1]
    z = start_latent(inversion, timestep, replace(PLAIN, start_noise="shared", seed=4))
    noise = z - inversion.trajectory[0] / (1 + inversion.sigmas[-1] ** 2) ** 0.5
    assert torch.allclose(noise, noise[:1].expand_as(noise), atol=1e-5)
    assert not torch.equal(z, start_latent(inversion, timestep, replace(PLAIN, start_noise="shared", seed=5)))


def test_noise_put_on_again_at_its_own_level_is_the_end_of_the_trajectory(inversion):
    z = start_latent(inversion, inversion.timesteps[-1], replace(PLAIN, start_noise="renoised"))
    assert relative(z, inversion.trajectory[-1]) < 1e-5


def test_a_noise_level_off_the_schedule_is_refused(loaded, inversion):
    guider = TokenFlowGuider(loaded.model, inversion, PLAIN, StepSchedule(inversion.timesteps, STEPS))
    with pytest.raises(ValueError, match="the noise level 3.3 is not one of the inversion's"):
        guider.timestep_of(torch.tensor([3.3]))


def test_a_node_that_runs_the_model_for_itself_is_refused(loaded, inversion):
    import comfy.samplers

    def perturbed(args):
        comfy.samplers.calc_cond_batch(
            args["model"], [args["cond"]], args["input"], args["sigma"], args["model_options"]
        )
        return args["denoised"]

    model = loaded.model.clone()
    model.set_model_sampler_post_cfg_function(perturbed)
    with pytest.raises(ValueError, match="another node runs the model on its own"):
        edited(loaded, inversion, PLAIN, model=model)


def test_the_host_is_asked_for_the_memory_of_the_largest_pass(loaded, inversion, monkeypatch):
    asked = []
    real = loaded.model.model.memory_required
    monkeypatch.setattr(
        loaded.model.model, "memory_required", lambda shape, **kwargs: asked.append(shape[0]) or real(shape, **kwargs)
    )
    edited(loaded, inversion, replace(PLAIN, batch_size=2))
    # Three keyframes of the source and of both conditionings, and a little for latents; doubled where the host can.
    assert max(asked) == 2 * 10


def test_odd_sizes_are_inverted_and_edited(loaded):
    # 640x360 pixels: the levels are 45x80, 23x40, 12x20 and 6x10.
    still = torch.nn.functional.interpolate(
        torch.randn(1, 4, 9, 16, generator=torch.Generator().manual_seed(1)), (45, 80)
    )
    clip = torch.cat([still, still.roll(1, -1)]) * 4
    model = install(loaded.model, stem_method())
    inversion = invert(model, loaded.prompt("a hill"), clip, 1, "next")
    result = edited(loaded, inversion, TokenFlowSettings(cfg=1.0, batch_size=1, stem=stem_method()))
    assert result.shape == clip.shape and torch.isfinite(result).all()

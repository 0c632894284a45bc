from __future__ import annotations

import comfy.samplers
import pytest
import torch
from comfyui_stem.nodes.methods.inversion.reconstruction import reconstruct
from comfyui_stem.nodes.methods.inversion.sampling import (
    SourceGuider,
    denoise,
    denoising_sigmas,
    invert,
    invert_between,
)
from comfyui_stem.stem_kernels.ddim import alpha_of, inversion_timesteps, move_preserving
from comfyui_stem.tools.measured.errors import relative_error as relative

STEPS = 5


def levels(model, steps=STEPS):
    table = model.get_model_object("model_sampling").sigmas
    return torch.stack([table[0], *(table[t] for t in inversion_timesteps(steps))])


def constant_noise_model(model, noise):
    """The MODEL with a network that estimates `noise` whatever it sees."""
    clone = model.clone()

    def wrapper(apply_model, call):
        return call["input"] - call["timestep"].reshape(-1, 1, 1, 1) * noise

    clone.set_model_unet_function_wrapper(wrapper)
    return clone


def test_latents_in_half_precision_are_inverted_in_single_precision(loaded, video):
    # hosts with --fp16-intermediates hand them over so
    half, single = (
        invert(loaded.model, loaded.prompt("a hill"), samples, 2, "next").trajectory
        for samples in (video.half(), video.half().float())
    )
    assert half.dtype == torch.float32
    assert relative(half, single) < 2e-3


@pytest.mark.parametrize("steps", [10, 20, 25, 40, 50, 100])
def test_the_schedule_is_the_hosts_ddim_uniform_where_the_steps_divide_a_thousand(loaded, steps):
    host = comfy.samplers.calculate_sigmas(loaded.model.get_model_object("model_sampling"), "ddim_uniform", steps)
    assert torch.equal(host[:-1].flip(0), levels(loaded.model, steps)[1:])


@pytest.mark.parametrize("steps", [30, 60])
def test_the_schedule_has_the_steps_asked_for_where_the_hosts_has_more(loaded, steps):
    host = comfy.samplers.calculate_sigmas(loaded.model.get_model_object("model_sampling"), "ddim_uniform", steps)
    assert len(host) - 1 > steps and len(levels(loaded.model, steps)) == steps + 1


def test_the_schedule_begins_at_the_first_level_of_the_table(loaded):
    assert float(levels(loaded.model)[0]) == pytest.approx(0.0291675, abs=1e-6)


@pytest.mark.parametrize("convention", ["next", "current"])
def test_inversion_is_the_ddim_recursion_on_the_networks_own_estimates(loaded, video, convention):
    prompt = loaded.prompt("a hill")
    sigmas, timesteps = levels(loaded.model), inversion_timesteps(STEPS)
    ours = invert_between(SourceGuider(loaded.model, prompt), video, sigmas, timesteps, convention)
    z = loaded.model.model.process_latent_in(video)
    context = prompt[0][0].expand(len(z), -1, -1)
    unet, alphas = loaded.model.model.diffusion_model, alpha_of(sigmas.double())
    for i, timestep in enumerate(timesteps):
        seen = timestep if convention == "next" else ([0, *timesteps][i])
        noise = unet(z, torch.full((len(z),), float(seen)), context=context)
        z = move_preserving(z, noise, float(alphas[i]), float(alphas[i + 1]))
        assert relative(ours[i + 1], z) < 1e-4


@pytest.mark.parametrize("storage", ["memory", "file"])
def test_of_many_steps_those_of_an_edit_can_be_kept_alone(loaded, video, storage):
    prompt = loaded.prompt("a hill")
    whole = invert(loaded.model, prompt, video, 20, "next")
    kept = invert(loaded.model, prompt, video, 20, "next", storage, 5)
    assert kept.timesteps == inversion_timesteps(5) and len(kept.trajectory) == 6
    assert kept.sigmas == (whole.sigmas[0], *(whole.sigmas[whole.entry(t)] for t in kept.timesteps))
    assert torch.equal(kept.trajectory[0], whole.trajectory[0])
    for timestep in kept.timesteps:
        assert torch.equal(kept.at(timestep), whole.at(timestep))


@pytest.mark.parametrize("storage", ["memory", "file"])
def test_latents_can_be_kept_in_half_precision_and_are_read_in_float32(loaded, video, storage):
    prompt = loaded.prompt("a hill")
    whole = invert(loaded.model, prompt, video, 4, "next")
    half = invert(loaded.model, prompt, video, 4, "next", storage, precision="float16")
    assert torch.equal(half.trajectory, whole.trajectory.half())
    assert half.latent(2).dtype == half.at(whole.timesteps[1]).dtype == torch.float32
    assert relative(half.at(whole.timesteps[1]), whole.at(whole.timesteps[1])) < 1e-3
    assert relative(reconstruct(half, half.model, half.source), reconstruct(whole, whole.model, whole.source)) < 1e-2


def test_steps_that_the_inversion_does_not_have_cannot_be_kept(loaded, video):
    with pytest.raises(ValueError, match=r"3 steps do not match the inversion.*\[1, 2, 5, 10\]"):
        invert(loaded.model, loaded.prompt(""), video, 10, "next", kept_steps=3)


def test_the_two_conventions_differ(loaded, video):
    trajectories = [
        invert(loaded.model, loaded.prompt("a hill"), video, STEPS, convention).trajectory[-1]
        for convention in ("next", "current")
    ]
    assert relative(*trajectories) > 1e-3


@pytest.mark.parametrize("convention", ["next", "current"])
def test_a_constant_noise_estimate_is_undone_exactly(loaded, video, convention):
    noise = torch.randn(video.shape, generator=torch.Generator().manual_seed(1))
    inversion = invert(constant_noise_model(loaded.model, noise), loaded.prompt(""), video, STEPS, convention)
    back = reconstruct(inversion, inversion.model, inversion.source)
    assert relative(back, video) < 1e-6


def test_the_tail_decides_where_denoising_ends(loaded, video):
    inversion = invert(loaded.model, loaded.prompt(""), video, STEPS, "next")
    alpha0, zero = (denoising_sigmas(inversion, inversion.timesteps, tail) for tail in ("alpha0", "zero"))
    assert torch.equal(alpha0, torch.tensor(inversion.sigmas).flip(0))
    assert float(zero[-1]) == 0 and torch.equal(zero[:-1], alpha0[:-1])
    results = [reconstruct(inversion, loaded.model, inversion.source, tail=tail) for tail in ("alpha0", "zero")]
    assert 0 < relative(*results) < 0.1


def test_the_noisy_end_starts_a_stock_sampler_where_the_inversion_ended(loaded, video):
    inversion = invert(loaded.model, loaded.prompt("a hill"), video, STEPS, "next")
    ours = reconstruct(inversion, loaded.model, inversion.source, tail="zero")
    noisy = loaded.model.model.process_latent_out(inversion.at(inversion.timesteps[-1]))
    guider = SourceGuider(loaded.model, inversion.source)
    sigmas = denoising_sigmas(inversion, inversion.timesteps, "zero")
    theirs = guider.sample(torch.zeros_like(noisy), noisy, comfy.samplers.sampler_object("euler"), sigmas, seed=0)
    assert relative(ours, theirs) < 1e-5


def test_the_trajectory_is_kept_in_float32_on_the_cpu_and_counted(loaded, video):
    inversion = invert(loaded.model, loaded.prompt(""), video, 2, "next")
    assert inversion.trajectory.dtype == torch.float32 and inversion.trajectory.device.type == "cpu"
    assert inversion.trajectory.shape == (3, *video.shape)
    assert inversion.get_ram_usage() == inversion.trajectory.numel() * 4
    assert relative(inversion.trajectory[0], loaded.model.model.process_latent_in(video)) < 1e-6


def test_not_a_number_in_the_input_is_named_with_its_frame(loaded, video):
    broken = video.clone()
    broken[2, 1, 3, 3] = float("nan")
    with pytest.raises(ValueError, match="The LATENT to invert has NaN or infinity in frame 2"):
        invert(loaded.model, loaded.prompt(""), broken, 2, "next")


@pytest.mark.parametrize("bad_call", [1, 3])
def test_not_a_number_from_the_model_is_named_with_the_step_where_it_appeared(loaded, video, bad_call):
    calls = []

    def wrapper(apply_model, call):
        calls.append(None)
        out = apply_model(call["input"], call["timestep"], **call["c"])
        return out * float("inf") if len(calls) == bad_call else out

    model = loaded.model.clone()
    model.set_model_unet_function_wrapper(wrapper)
    timestep = inversion_timesteps(4)[bad_call - 1]
    with pytest.raises(
        ValueError, match=rf"Inversion step {bad_call} of 4 \(timestep {timestep}\) has NaN or infinity"
    ):
        invert(model, loaded.prompt(""), video, 4, "next")


def test_denoising_names_the_step_too(loaded, video):
    inversion = invert(loaded.model, loaded.prompt(""), video, 2, "next")
    start = inversion.trajectory[-1] * float("nan")
    sigmas = denoising_sigmas(inversion, inversion.timesteps, "alpha0")
    with pytest.raises(ValueError, match=r"Reconstruction step 1 of 2 \(timestep 501\)"):
        denoise(SourceGuider(loaded.model, inversion.source), start, sigmas, [501, 1], "Reconstruction")


def test_a_forced_split_of_conditionings_changes_nothing(loaded, video, monkeypatch):
    inversion = invert(loaded.model, loaded.prompt("a hill"), video, 3, "next")
    negative = loaded.prompt("a " * 90)  # two chunks of tokens beside one
    joint = reconstruct(inversion, loaded.model, inversion.source, negative, cfg=7.5)
    monkeypatch.setattr(loaded.model.model, "memory_required", lambda *args, **kwargs: float("inf"))
    split = reconstruct(inversion, loaded.model, inversion.source, negative, cfg=7.5)
    assert relative(split, joint) < 1e-5

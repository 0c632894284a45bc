"""Schedules, and DDIM in both spaces."""

from __future__ import annotations

import comfy.model_sampling
import comfy.samplers
import numpy as np
import pytest
import torch
from comfyui_stem.stem_kernels.ddim import (
    add_noise,
    alpha_of,
    declare_at,
    first_non_finite_frame,
    inversion_timesteps,
    move_exploding,
    move_preserving,
    renoise,
    select_timesteps,
    to_exploding,
    to_preserving,
)
from comfyui_stem.tools.measured.errors import relative_error as relative
from hypothesis import given, settings
from hypothesis import strategies as st

PROPERTY = settings(max_examples=40)
SEEDS = st.integers(0, 2**32 - 1)
LEVELS = st.integers(0, 999)
# Stable Diffusion's alphas: 1000 betas, linear in their square roots.
ALPHAS = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
SIGMAS = np.sqrt((1 - ALPHAS) / ALPHAS)


def normal(*shape, seed, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def host_timesteps(steps):
    sampling = comfy.model_sampling.ModelSamplingDiscrete()
    levels = comfy.samplers.calculate_sigmas(sampling, "ddim_uniform", steps)
    assert levels[-1] == 0
    return tuple(int(sampling.timestep(level)) for level in levels[:-1].flip(0))


def test_every_schedule_starts_at_1_is_evenly_spaced_and_fits_the_table():
    for steps in range(1, 1000):
        timesteps = inversion_timesteps(steps)
        assert len(timesteps) == steps
        assert timesteps[0] == 1
        assert set(np.diff(timesteps)) <= {1000 // steps}
        assert timesteps[-1] < 1000


def test_fifty_steps_are_1_to_981_by_twenties():
    assert inversion_timesteps(50) == tuple(range(1, 982, 20))


@pytest.mark.parametrize("steps", [10, 20, 25, 40, 50, 100])
def test_steps_that_divide_1000_are_those_of_the_hosts_ddim_uniform(steps):
    assert inversion_timesteps(steps) == host_timesteps(steps)


@pytest.mark.parametrize(("steps", "of_the_host", "last"), [(30, 31, 958), (60, 63, 945)])
def test_other_steps_are_as_many_as_asked_for_unlike_the_hosts(steps, of_the_host, last):
    assert len(host_timesteps(steps)) == of_the_host
    assert inversion_timesteps(steps) == host_timesteps(steps)[:steps]
    assert inversion_timesteps(steps)[-1] == last


@pytest.mark.parametrize("steps", [-1, 0, 1000])
def test_a_number_of_steps_outside_the_table_is_refused(steps):
    with pytest.raises(ValueError, match=f"{steps} steps were asked for; a DDIM schedule has 1 to 999"):
        inversion_timesteps(steps)


def test_all_timesteps_of_the_inversion_are_kept_on_request_or_by_their_number():
    irregular = (1, 5, 700)
    assert select_timesteps(irregular, 0) == irregular
    assert select_timesteps(irregular, 3) == irregular


@PROPERTY
@given(available=st.sampled_from([10, 16, 30, 50, 60, 100]), steps=st.integers(1, 120))
def test_a_shorter_schedule_is_taken_from_the_inversion_or_refused_with_those_that_fit(available, steps):
    timesteps = inversion_timesteps(available)
    fitting = [n for n in range(1, available + 1) if set(inversion_timesteps(n)) <= set(timesteps)]
    if steps in fitting:
        assert select_timesteps(timesteps, steps) == inversion_timesteps(steps)
    else:
        with pytest.raises(ValueError, match="steps do not match the inversion") as refusal:
            select_timesteps(timesteps, steps)
        assert f"Use one of {fitting}, or 0" in str(refusal.value)


def test_a_refused_schedule_names_the_first_timestep_that_is_missing():
    with pytest.raises(ValueError, match="20 steps .* need timestep 51, and the inversion of 50 steps never stopped"):
        select_timesteps(inversion_timesteps(50), 20)


def test_noise_levels_are_those_of_the_published_schedule_and_of_the_host():
    hosts = comfy.model_sampling.ModelSamplingDiscrete().sigmas
    assert hosts[[0, 1, 981, 999]].tolist() == pytest.approx([0.0291675, 0.041314, 13.12041, 14.61465], rel=2e-5)
    torch.testing.assert_close(alpha_of(hosts.double()), torch.from_numpy(ALPHAS), rtol=1e-5, atol=0)


@PROPERTY
@given(level=LEVELS, seed=SEEDS)
def test_levels_and_spaces_convert_back(level, seed):
    alpha, sigma, z = ALPHAS[level], SIGMAS[level], normal(2, 4, 3, 3, seed=seed)
    assert alpha_of(float(sigma)) == pytest.approx(alpha, rel=1e-12)
    x = to_exploding(z, sigma)
    torch.testing.assert_close(x, z / alpha**0.5)
    torch.testing.assert_close(to_preserving(x, sigma), z)


@PROPERTY
@given(level=LEVELS, to=LEVELS, seed=SEEDS)
def test_a_move_with_the_true_noise_leads_to_the_same_clean_latent_noised_at_the_new_level(level, to, seed):
    clean, noise = normal(2, 4, seed=seed), normal(2, 4, seed=seed + 1)
    start, end = (ALPHAS[t] ** 0.5 * clean + (1 - ALPHAS[t]) ** 0.5 * noise for t in (level, to))
    torch.testing.assert_close(add_noise(clean, noise, ALPHAS[level]), start)
    torch.testing.assert_close(move_preserving(start, noise, ALPHAS[level], ALPHAS[to]), end)


@PROPERTY
@given(level=LEVELS, to=LEVELS, seed=SEEDS, dtype=st.sampled_from([torch.float32, torch.float64]))
def test_an_euler_step_of_the_host_is_the_ddim_move(level, to, seed, dtype):
    z, noise = normal(2, 4, 3, 3, seed=seed, dtype=dtype), normal(2, 4, 3, 3, seed=seed + 1, dtype=dtype)
    moved = move_exploding(to_exploding(z, SIGMAS[level]), noise, SIGMAS[level], SIGMAS[to])
    expected = move_preserving(z, noise, ALPHAS[level], ALPHAS[to])
    assert relative(to_preserving(moved, SIGMAS[to]), expected) < (1e-5 if dtype == torch.float32 else 1e-10)


@PROPERTY
@given(steps=st.sampled_from([1, 7, 10, 50]), seed=SEEDS)
def test_inversion_and_denoising_with_a_fixed_noise_estimate_return_the_input(steps, seed):
    z, noise = normal(2, 4, 3, 3, seed=seed, dtype=torch.float32), normal(2, 4, 3, 3, seed=seed + 1).float()
    levels = [0, *inversion_timesteps(steps)]
    there_and_back = list(zip(levels, levels[1:], strict=False)) + list(zip(levels[:0:-1], levels[-2::-1], strict=True))
    moved, x = z, to_exploding(z, SIGMAS[0])
    for start, end in there_and_back:
        moved = move_preserving(moved, noise, ALPHAS[start], ALPHAS[end])
        x = move_exploding(x, noise, SIGMAS[start], SIGMAS[end])
        if (start, end) == there_and_back[steps - 1]:
            assert relative(moved, z) > 1e-2
    assert relative(to_preserving(x, SIGMAS[0]), z) < 1e-6
    assert relative(moved, z) < 1e-5


def network(z, timestep):
    """Stands in for the UNet: a noise estimate that depends on both of its inputs, and not linearly."""
    return torch.tanh(1.5 * z + timestep / 1000) + 0.1 * z.roll(1, -1)


def inverted(z, steps, seen_at):
    """The last latent of an inversion in the host's space; `seen_at` gives what the network is told to see."""
    x, levels = to_exploding(z, SIGMAS[0]), [0, *inversion_timesteps(steps)]
    for start, end in zip(levels, levels[1:], strict=False):
        seen = seen_at(x, SIGMAS[start], SIGMAS[end])
        x = move_exploding(x, network(to_preserving(seen, SIGMAS[end]), end), SIGMAS[start], SIGMAS[end])
    return to_preserving(x, SIGMAS[levels[-1]])


@pytest.mark.parametrize("steps", [10, 50])
def test_noise_estimated_at_the_next_timestep_needs_the_latent_declared_there(steps):
    z = expected = normal(2, 4, 4, 4, seed=3)
    levels = [0, *inversion_timesteps(steps)]
    for start, end in zip(levels, levels[1:], strict=False):
        expected = move_preserving(expected, network(expected, end), ALPHAS[start], ALPHAS[end])
    assert relative(inverted(z, steps, declare_at), expected) < 1e-10
    assert relative(inverted(z, steps, lambda x, *sigmas: x), expected) > 1e-3


def test_what_is_declared_elsewhere_is_scaled_by_the_root_of_the_alphas():
    x = normal(2, 4, seed=0)
    for start, end, factor in ((0, 1, 1.0004), (961, 981, 1.123)):
        torch.testing.assert_close(declare_at(x, SIGMAS[start], SIGMAS[end]), factor * x, rtol=2e-4, atol=0)
    assert torch.equal(declare_at(x, SIGMAS[5], SIGMAS[5]), x)


@PROPERTY
@given(noisy=st.integers(1, 999), target=LEVELS, seed=SEEDS)
def test_renoising_puts_the_same_noise_at_another_level(noisy, target, seed):
    clean, noise = normal(2, 4, seed=seed), normal(2, 4, seed=seed + 1)
    z = add_noise(clean, noise, ALPHAS[noisy])
    torch.testing.assert_close(
        renoise(clean, z, ALPHAS[noisy], ALPHAS[target]), add_noise(clean, noise, ALPHAS[target])
    )
    torch.testing.assert_close(renoise(clean, z, ALPHAS[noisy], ALPHAS[noisy]), z)


def test_noise_is_added_in_proportions_that_preserve_variance():
    clean, noise = normal(3, seed=0), normal(3, seed=1)
    torch.testing.assert_close(add_noise(clean, noise, 0.36), 0.6 * clean + 0.8 * noise)
    assert torch.equal(add_noise(clean, noise, 1.0), clean)
    assert torch.equal(add_noise(clean, noise, 0.0), noise)


@PROPERTY
@given(
    frames=st.integers(1, 6),
    bad=st.sets(st.integers(0, 5)),
    value=st.sampled_from([float("nan"), float("inf"), -float("inf")]),
    seed=SEEDS,
)
def test_the_first_frame_with_nan_or_infinity_is_found(frames, bad, value, seed):
    latents = normal(frames, 4, 3, 3, seed=seed, dtype=torch.float32)
    bad = {frame for frame in bad if frame < frames}
    for frame in bad:
        latents[frame, seed % 4, seed % 3, 1] = value
    assert first_non_finite_frame(latents) == min(bad, default=None)

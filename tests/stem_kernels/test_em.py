"""EM against a float64 reference, and what its equations imply for any tokens."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from comfyui_stem.stem_kernels.attention import attention
from comfyui_stem.stem_kernels.em import EMSettings, expectation, fit_bases, maximisation, pool, responsibilities
from hypothesis import given, settings
from hypothesis import strategies as st

PROPERTY = settings(max_examples=25)
SEEDS = st.integers(0, 2**32 - 1)
SIZES = {"m": st.integers(1, 24), "k": st.integers(1, 30), "c": st.integers(1, 9), "seed": SEEDS}
EMPTY = ["masked", "kept"]


def normal(*shape, seed, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def tokens_and_initial(m, k, c, seed, dtype=torch.float64, heads=()):
    return normal(*heads, m, c, seed=seed, dtype=dtype), normal(*heads, k, c, seed=seed + 1, dtype=dtype)


def em_settings(**fixed):
    """Settings of every kind, those that are named excepted."""
    choices = {
        "temperature": st.sampled_from([0.01, 0.05, 0.3, 2.0]),
        "iterations": st.integers(1, 4),
        "normalize_bases": st.booleans(),
        "empty_bases": st.sampled_from(EMPTY),
        "norm_eps": st.sampled_from([1e-6, 1e-4]),
        "mass_eps": st.sampled_from([1e-6, 1e-4]),
    }
    return st.builds(EMSettings, **(choices | {name: st.just(value) for name, value in fixed.items()}))


def reference_em(tokens, centres, em):
    """Centres [k, c], masses [k] and responsibilities [m, k] by Eq. 8-11 in float64, a token at a time."""
    tokens, centres = tokens.double().numpy(), centres.double().numpy()
    for _ in range(em.iterations):
        z = np.zeros((len(tokens), len(centres)))
        lengths = [math.hypot(*mu) + em.norm_eps if em.normalize_bases else 1.0 for mu in centres]
        for m, x in enumerate(tokens):
            logits = [float(mu @ x) / length / em.temperature for mu, length in zip(centres, lengths, strict=True)]
            odds = [math.exp(logit - max(logits)) for logit in logits]
            z[m] = [odd / math.fsum(odds) for odd in odds]
        mass = z.sum(axis=0)
        weight = mass + em.mass_eps if em.empty_bases == "kept" else np.maximum(mass, em.mass_eps)
        centres = np.stack([sum(z[m, k] * x for m, x in enumerate(tokens)) / weight[k] for k in range(len(centres))])
    return torch.from_numpy(centres), torch.from_numpy(mass), torch.from_numpy(z)


def assert_near(ours, reference, relative=1e-9):
    error = (ours.double() - reference.double()).norm() / reference.double().norm().clamp_min(1e-300)
    assert float(error) <= relative


@PROPERTY
@given(em=em_settings(), **SIZES)
def test_fit_equals_the_float64_reference_in_every_head(em, m, k, c, seed):
    tokens, initial = tokens_and_initial(m, k, c, seed, heads=(2,))
    bases = fit_bases(tokens, initial, em)
    for head in range(2):
        centres, mass, z = reference_em(tokens[head], initial[head], em)
        assert_near(bases.centres[head], centres, 1e-7)
        assert_near(bases.mass[head], mass, 1e-7)
        assert_near(responsibilities(tokens, bases, em)[head], z, 1e-7)


@PROPERTY
@given(em=em_settings(temperature=1.0), dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]), **SIZES)
def test_a_float32_fit_stays_within_rounding_of_the_float64_reference(em, dtype, m, k, c, seed):
    tokens, initial = tokens_and_initial(m, k, c, seed, dtype)
    bases = fit_bases(tokens, initial, em)
    centres, mass, _ = reference_em(tokens, initial, em)
    assert bases.centres.dtype == bases.mass.dtype == torch.float32
    assert_near(bases.centres, centres, 5e-5)
    assert_near(bases.mass, mass, 5e-5)


@PROPERTY
@given(scale=st.sampled_from([0.0, 1.0, 1e3]), temperature=st.sampled_from([1e-3, 0.05, 10.0]), **SIZES)
def test_responsibilities_of_a_token_sum_to_one(scale, temperature, m, k, c, seed):
    tokens, directions = tokens_and_initial(m, k, c, seed, torch.float32)
    z = expectation(tokens * scale, directions, temperature)
    assert z.shape == (m, k)
    assert bool((z >= 0).all())
    torch.testing.assert_close(z.sum(dim=-1), torch.ones(m))


@PROPERTY
@given(empty=st.sampled_from(EMPTY), **SIZES)
def test_the_m_step_averages_by_whatever_responsibilities_it_is_given(empty, m, k, c, seed):
    tokens, other = normal(m, c, seed=seed), normal(m, k, seed=seed + 1).abs()
    em = EMSettings(empty_bases=empty, mass_eps=0.25)
    centres, mass = maximisation(tokens, other, em)
    for base in range(k):
        total = math.fsum(other[:, base].tolist())
        divisor = total + 0.25 if empty == "kept" else max(total, 0.25)
        assert float(mass[base]) == pytest.approx(total, rel=1e-12)
        expected = [math.fsum((other[:, base] * tokens[:, channel]).tolist()) / divisor for channel in range(c)]
        assert centres[base].tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@PROPERTY
@given(em=em_settings(), **SIZES)
def test_masses_add_up_to_the_number_of_tokens(em, m, k, c, seed):
    bases = fit_bases(*tokens_and_initial(m, k, c, seed), em)
    assert bool((bases.mass >= 0).all())
    assert float(bases.mass.sum()) == pytest.approx(m, rel=1e-9)


@PROPERTY
@given(em=em_settings(), **SIZES)
def test_bases_lie_in_the_convex_hull_of_the_tokens(em, m, k, c, seed):
    tokens, initial = tokens_and_initial(m, k, c, seed)
    bases = fit_bases(tokens + 3, initial, em)
    corners = tokens + 3
    if em.empty_bases == "kept":
        # What is added to every mass draws the bases towards zero.
        corners = torch.cat([corners, torch.zeros(1, c, dtype=corners.dtype)])
    # A point is in the hull exactly if no direction sees it beyond all the corners.
    directions = torch.cat([torch.eye(c, dtype=torch.float64), normal(60, c, seed=seed)])
    directions = torch.cat([directions, -directions]).T
    reached, limit = (points @ directions for points in (bases.centres[bases.live(em)], corners))
    assert bool((reached <= limit.amax(dim=0) + 1e-9).all())


@PROPERTY
@given(em=em_settings(), **SIZES)
def test_values_are_pooled_in_the_last_round_as_they_would_be_afterwards(em, m, k, c, seed):
    tokens, initial = tokens_and_initial(m, k, c, seed, heads=(2,))
    values = (normal(2, m, 3, seed=seed + 2), tokens)
    bases = fit_bases(tokens, initial, em, values)
    assert_near(bases.centres, fit_bases(tokens, initial, em).centres)
    for ours, after in zip(bases.pooled, pool(tokens, values, bases, em), strict=True):
        assert_near(ours, after)


@PROPERTY
@given(em=em_settings(), **SIZES)
def test_the_order_of_the_bases_does_not_change_the_attention(em, m, k, c, seed):
    tokens, initial = tokens_and_initial(m, k, c, seed)
    order = torch.randperm(k, generator=torch.Generator().manual_seed(seed))
    bases, permuted = fit_bases(tokens, initial, em), fit_bases(tokens, initial[order], em)
    assert_near(permuted.centres, bases.centres[order], 1e-7)
    assert_near(permuted.mass, bases.mass[order], 1e-7)
    queries = normal(1, 5, c, seed=seed + 2)
    outputs = [attention(queries, fit.centres[None], fit.centres[None], heads=1) for fit in (bases, permuted)]
    assert_near(outputs[1], outputs[0], 1e-7)


@PROPERTY
@given(em=em_settings(), **SIZES)
def test_the_order_of_the_tokens_does_not_change_the_bases(em, m, k, c, seed):
    tokens, initial = tokens_and_initial(m, k, c, seed)
    order = torch.randperm(m, generator=torch.Generator().manual_seed(seed))
    bases, permuted = fit_bases(tokens, initial, em), fit_bases(tokens[order], initial, em)
    assert_near(permuted.centres, bases.centres, 1e-7)
    assert_near(responsibilities(tokens[order], permuted, em), responsibilities(tokens, bases, em)[order], 1e-7)


@PROPERTY
@given(em=em_settings(), **SIZES)
def test_pooling_repeats_the_last_m_step_and_commutes_with_projections(em, m, k, c, seed):
    tokens, initial = tokens_and_initial(m, k, c, seed)
    bases, projection = fit_bases(tokens, initial, em), normal(c, 4, seed=seed + 2)
    centres, projected = pool(tokens, (tokens, tokens @ projection), bases, em)
    assert_near(centres, bases.centres)
    assert_near(projected, bases.centres @ projection, 1e-8)
    again, mass = maximisation(tokens, responsibilities(tokens, bases, em), em)
    assert_near(again, bases.centres)
    assert_near(mass, bases.mass)


@PROPERTY
@given(em=em_settings(), more=st.integers(1, 3), **SIZES)
def test_iterations_can_be_continued_from_where_they_stopped(em, more, m, k, c, seed):
    tokens, initial = tokens_and_initial(m, k, c, seed)
    stopped = fit_bases(tokens, initial, em)
    continued = fit_bases(tokens, stopped.centres, replace(em, iterations=more))
    assert_near(fit_bases(tokens, initial, replace(em, iterations=em.iterations + more)).centres, continued.centres)


@pytest.mark.parametrize("extra", [0, 5])
@pytest.mark.parametrize("empty", EMPTY)
def test_with_a_base_for_every_token_the_attention_is_that_over_all_tokens(empty, extra):
    tokens, queries, values = normal(1, 20, 16, seed=1), normal(1, 7, 16, seed=2), normal(1, 20, 16, seed=3)
    # What has no base of its own points away from every token; it is left empty.
    initial = torch.cat([tokens[0][torch.arange(20).flip(0)], -tokens[0].mean(0).expand(extra, 16)])
    em = EMSettings(temperature=1e-4, empty_bases=empty, mass_eps=1e-9)
    bases = fit_bases(tokens[0], initial, em)
    live = bases.mass > 0.5
    (pooled,) = pool(tokens[0], (values[0],), bases, em)
    assert int(live.sum()) == 20
    if empty == "masked":
        assert torch.equal(bases.live(em), live)
    ours = attention(queries, bases.centres[live][None], pooled[live][None], heads=4)
    assert_near(ours, attention(queries, tokens, values, heads=4), 1e-7)


def test_separate_clusters_are_found_with_their_means_and_sizes():
    corners = 8 * torch.eye(4, dtype=torch.float64)[:3]
    sizes = [5, 9, 12]
    clusters = [corner + 0.1 * normal(n, 4, seed=n) for corner, n in zip(corners, sizes, strict=True)]
    bases = fit_bases(torch.cat(clusters), torch.stack([cluster[0] for cluster in clusters]), EMSettings())
    assert bases.mass.tolist() == pytest.approx(sizes)
    assert_near(bases.centres, torch.stack([cluster.mean(0) for cluster in clusters]))


@PROPERTY
@given(em=em_settings(temperature=1e9, mass_eps=1e-12), **SIZES)
def test_at_a_high_temperature_every_base_is_the_mean_of_the_tokens(em, m, k, c, seed):
    tokens, initial = tokens_and_initial(m, k, c, seed)
    assert_near(fit_bases(tokens + 3, initial, em).centres, (tokens + 3).mean(0).expand(k, c), 1e-6)


@PROPERTY
@given(em=em_settings(), dtype=st.sampled_from([torch.float16, torch.float32]), **SIZES)
def test_identical_tokens_give_that_token_as_every_base_that_counts(em, dtype, m, k, c, seed):
    token, initial = tokens_and_initial(1, k, c, seed, dtype)
    bases = fit_bases(token.expand(m, c), initial, em)
    assert bool(torch.isfinite(bases.centres).all())
    assert float(bases.mass.sum()) == pytest.approx(m, rel=1e-5)
    counting = bases.centres[bases.mass > 1e3 * em.mass_eps]
    torch.testing.assert_close(counting, token.float().expand(len(counting), c), rtol=2e-3, atol=1e-6)


@PROPERTY
@given(em=em_settings(), dtype=st.sampled_from([torch.float16, torch.float32]), **SIZES)
def test_zero_features_give_zero_bases_of_equal_mass(em, dtype, m, k, c, seed):
    bases = fit_bases(torch.zeros(m, c, dtype=dtype), normal(k, c, seed=seed, dtype=dtype), em)
    assert not bool(bases.centres.any())
    torch.testing.assert_close(bases.mass, torch.full((k,), m / k))
    assert bool(bases.live(em).all())


@PROPERTY
@given(em=em_settings(), dtype=st.sampled_from([torch.float16, torch.bfloat16]), **SIZES)
def test_half_precision_tokens_are_computed_as_the_same_numbers_in_float32(em, dtype, m, k, c, seed):
    tokens, initial = tokens_and_initial(m, k, c, seed, dtype)
    half, single = (fit_bases(t, initial, em) for t in (tokens, tokens.float()))
    assert torch.equal(half.centres, single.centres)
    assert torch.equal(half.mass, single.mass)
    assert torch.equal(responsibilities(tokens, half, em), responsibilities(tokens.float(), single, em))
    assert torch.equal(pool(tokens, (tokens,), half, em)[0], half.centres)


def test_sums_beyond_the_range_of_half_precision_stay_finite():
    tokens = torch.full((300, 8), 6e4, dtype=torch.float16)
    bases = fit_bases(tokens, tokens[:2], EMSettings())
    torch.testing.assert_close(bases.centres, tokens[:2].float())


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("empty", EMPTY)
def test_a_base_that_no_token_chooses_is_empty_and_finite(empty, normalize):
    tokens = normal(10, 4, seed=0, dtype=torch.float32) + 10
    initial = torch.stack([tokens[0], tokens[1], -tokens[0]])
    em = EMSettings(empty_bases=empty, normalize_bases=normalize)
    bases = fit_bases(tokens, initial, em)
    assert bool(torch.isfinite(bases.centres).all())
    assert float(bases.mass[2]) == 0
    assert not bool(bases.centres[2].any())
    assert bool(bases.live(em)[2]) == (empty == "kept")
    assert bool(bases.live(em)[:2].any())


@pytest.mark.parametrize(
    "wrong",
    [{"num_bases": 0}, {"iterations": 0}, {"temperature": 0.0}, {"temperature": -1.0}, {"temperature": math.nan}],
)
def test_settings_that_no_fit_can_follow_are_refused(wrong):
    with pytest.raises(ValueError, match=f"EM needs .*{next(iter(wrong.values()))}"):
        EMSettings(**wrong)

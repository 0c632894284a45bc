"""Keyframes, nearest tokens and propagation against TokenFlow's published rules."""

from __future__ import annotations

import math

import pytest
import torch
from comfyui_stem.stem_kernels.correspondence import (
    Correspondence,
    PropagationPlan,
    batch_slices,
    choose_keyframes,
    correspond,
    keyframe_windows,
    nearest_tokens,
    propagate,
    propagation_plan,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

PROPERTY = settings(max_examples=30)
SEEDS = st.integers(0, 2**32 - 1)
FRAMES, SIZE = st.integers(1, 24), st.integers(1, 9)
WEIGHTS = ["reference", "surrounding"]
# Shares of the second batch of eight frames, from the published code.
PUBLISHED = [0.6225, 0.6514, 0.6792, 0.7058, 0.7311, 0.7109, 0.6971, 0.6869]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed, dtype=torch.float64):
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64).to(dtype)


def plan_of(frames, size, weights, seed=0):
    batches = batch_slices(frames, size)
    keyframes = choose_keyframes(batches, "random", seeded(seed))
    return propagation_plan(batches, keyframes, weights), keyframes


@pytest.mark.parametrize(
    ("frames", "size", "lengths"), [(16, 8, [8, 8]), (11, 4, [4, 4, 3]), (5, 8, [5]), (1, 8, [1]), (3, 1, [1, 1, 1])]
)
def test_batches_hold_all_frames_and_the_last_one_the_remainder(frames, size, lengths):
    batches = batch_slices(frames, size)
    assert [batch.stop - batch.start for batch in batches] == lengths
    assert [frame for batch in batches for frame in range(frames)[batch]] == list(range(frames))


@PROPERTY
@given(frames=FRAMES, size=SIZE, seed=SEEDS)
def test_every_batch_has_one_keyframe_of_its_own(frames, size, seed):
    batches = batch_slices(frames, size)
    drawn, again = (choose_keyframes(batches, "random", seeded(seed)) for _ in range(2))
    assert torch.equal(drawn, again)
    for keyframes in (drawn, choose_keyframes(batches, "centre", seeded(seed))):
        assert keyframes.dtype == torch.int64
        assert [int(keyframe) // size for keyframe in keyframes] == list(range(len(batches)))
        assert int(keyframes[-1]) < frames


def test_central_keyframes_are_the_centres_of_batches_of_any_length():
    assert choose_keyframes(batch_slices(11, 4), "centre", seeded(0)).tolist() == [2, 6, 9]
    assert choose_keyframes(batch_slices(1, 4), "centre", seeded(0)).tolist() == [0]


def test_every_frame_can_become_a_random_keyframe():
    generator, batches = seeded(0), batch_slices(11, 4)
    drawn = torch.stack([choose_keyframes(batches, "random", generator) for _ in range(400)])
    counts = torch.bincount(drawn.flatten(), minlength=11)
    assert counts[:8].min() > 60 and counts[8:].min() > 90  # 100 and 133 are expected


@PROPERTY
@given(keyframes=st.integers(1, 40), size=st.integers(0, 45))
def test_the_window_of_a_keyframe_holds_as_many_as_it_should_and_none_outside_is_nearer(keyframes, size):
    windows = keyframe_windows(keyframes, size)
    assert len(windows) == keyframes
    for keyframe, window in enumerate(windows):
        assert keyframe in window and set(window) <= set(range(keyframes))
        assert len(window) == (min(size, keyframes) or keyframes)
        outside = set(range(keyframes)) - set(window)
        farthest = max(abs(other - keyframe) for other in window)
        assert all(abs(other - keyframe) >= farthest for other in outside)


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_reference_weights_are_the_published_table(batch):
    plan, _ = plan_of(40, 8, "reference")
    frames = slice(8 * batch, 8 * batch + 8)
    assert plan.weight[frames].tolist() == pytest.approx(PUBLISHED, abs=5e-5)
    assert plan.first[frames].tolist() == [batch] * 8
    assert plan.second[frames].tolist() == [batch - 1] * 8


@PROPERTY
@given(frames=FRAMES, size=SIZE, seed=SEEDS)
def test_the_reference_plan_is_a_sigmoid_of_the_distances_to_the_centres_of_two_batches(frames, size, seed):
    plan, _ = plan_of(frames, size, "reference", seed)
    for frame in range(frames):
        batch = frame // size
        before = max(batch - 1, 0)
        assert (int(plan.first[frame]), int(plan.second[frame])) == (batch, before)
        if batch == 0:
            assert float(plan.weight[frame]) == 1
            continue
        centres = [b * size + min(size, frames - b * size) // 2 for b in (batch, before)]
        near, far = (abs(frame - centre) for centre in centres)
        assert float(plan.weight[frame]) == pytest.approx(1 / (1 + math.exp(-far / (near + far))), rel=1e-6)


@PROPERTY
@given(frames=FRAMES, size=SIZE, seed=SEEDS)
def test_surrounding_keyframes_are_blended_linearly_by_distance(frames, size, seed):
    plan, keyframes = plan_of(frames, size, "surrounding", seed)
    keyframes = keyframes.tolist()
    for frame in range(frames):
        before = [number for number, keyframe in enumerate(keyframes) if keyframe <= frame]
        after = [number for number, keyframe in enumerate(keyframes) if keyframe >= frame]
        first, second = (before or after)[-1 if before else 0], (after or before)[0 if after else -1]
        gap = keyframes[second] - keyframes[first]
        expected = (keyframes[second] - frame) / gap if gap else 1
        assert (int(plan.first[frame]), int(plan.second[frame])) == (first, second)
        assert float(plan.weight[frame]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize(("frames", "size"), [(5, 8), (1, 1), (1, 8), (8, 8)])
def test_a_single_keyframe_serves_every_frame_alone(weights, frames, size):
    plan, _ = plan_of(frames, size, weights)
    assert plan.first.tolist() == plan.second.tolist() == [0] * frames
    assert plan.weight.tolist() == [1] * frames
    features = normal(1, 6, 3, seed=0)
    matches = torch.randint(6, (frames, 6), generator=seeded(1))
    carried = propagate(features, Correspondence(matches, matches), plan)
    assert torch.equal(carried, features[0][matches])


def test_the_remainder_of_eleven_frames_in_fours_has_the_centre_of_its_own_length():
    plan, _ = plan_of(11, 4, "reference")
    assert plan.second[8:].tolist() == [1, 1, 1]
    # Centres are frames 6 and 9.
    ratios = [2 / 3, 3 / 3, 4 / 5]
    assert plan.weight[8:].tolist() == pytest.approx([1 / (1 + math.exp(-ratio)) for ratio in ratios])


def test_the_plan_of_a_batch_is_its_part_of_the_whole():
    plan, _ = plan_of(11, 4, "reference")
    part = plan.of(slice(4, 8))
    assert torch.equal(part.first, plan.first[4:8])
    assert torch.equal(part.second, plan.second[4:8])
    assert torch.equal(part.weight, plan.weight[4:8])


@PROPERTY
@given(
    n=st.integers(1, 3),
    p=st.integers(1, 12),
    q=st.integers(1, 12),
    c=st.integers(1, 5),
    block=st.integers(1, 13),
    seed=SEEDS,
)
def test_no_token_of_the_keyframe_is_more_similar_than_the_nearest(n, p, q, c, block, seed):
    tokens, keys = normal(n, p, c, seed=seed), normal(n, q, c, seed=seed + 1)
    matches = nearest_tokens(tokens, keys, block)
    assert matches.dtype == torch.int64
    assert matches.shape == (n, p)
    for frame in range(n):
        for token in range(p):
            similarity = torch.cosine_similarity(tokens[frame, token][None], keys[frame], dim=-1)
            assert float(similarity[matches[frame, token]]) >= float(similarity.max()) - 1e-12


@PROPERTY
@given(
    h=st.integers(1, 5),
    w=st.integers(2, 6),
    down=st.integers(0, 4),
    right=st.integers(0, 5),
    seed=SEEDS,
    dtype=st.sampled_from([torch.float16, torch.float32, torch.float64]),
)
def test_nearest_tokens_on_shifted_copies_of_a_frame_recover_the_shift(h, w, down, right, seed, dtype):
    keyframe = normal(h, w, 16, seed=seed)
    brightness = 0.5 + torch.rand(h, w, 1, generator=seeded(seed))  # which cosine similarity must not see
    copy = keyframe.roll((down, right), (0, 1)) * brightness
    matches = nearest_tokens(copy.reshape(1, h * w, 16).to(dtype), keyframe.reshape(1, h * w, 16).to(dtype))
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    assert torch.equal(matches.reshape(h, w), (y - down) % h * w + (x - right) % w)


def test_ties_go_to_the_lowest_index():
    one_hot = torch.eye(3)
    keys = one_hot[[2, 0, 1, 0, 2, 1]][None]
    assert nearest_tokens(one_hot[None], keys).tolist() == [[1, 2, 0]]
    assert nearest_tokens(torch.zeros(1, 4, 3), keys).tolist() == [[0, 0, 0, 0]]


@PROPERTY
@given(frames=st.integers(1, 9), size=st.integers(1, 4), weights=st.sampled_from(WEIGHTS), seed=SEEDS)
def test_frames_are_matched_in_the_keyframes_that_the_plan_names(frames, size, weights, seed):
    plan, keyframes = plan_of(frames, size, weights, seed)
    tokens = normal(frames, 7, 5, seed=seed)
    key_tokens = tokens[keyframes]
    found = correspond(tokens, key_tokens, plan)
    for frame in range(frames):
        for part, number in ((found.first, plan.first[frame]), (found.second, plan.second[frame])):
            assert torch.equal(part[frame], nearest_tokens(tokens[frame][None], key_tokens[number][None])[0])
            if int(keyframes[number]) == frame:
                assert part[frame].tolist() == list(range(7))


def matched(frames, size, weights, seed, dtype=torch.float64):
    """A plan with random matches, and features of its keyframes."""
    plan, keyframes = plan_of(frames, size, weights, seed)
    first, second = (torch.randint(6, (frames, 6), generator=seeded(seed + i)) for i in (1, 2))
    second = torch.where((plan.first == plan.second)[:, None], first, second)
    return normal(len(keyframes), 6, 5, seed=seed + 3, dtype=dtype), Correspondence(first, second), plan


@PROPERTY
@given(frames=st.integers(1, 9), size=st.integers(1, 4), weights=st.sampled_from(WEIGHTS), seed=SEEDS)
def test_propagation_blends_the_matched_features_of_two_keyframes(frames, size, weights, seed):
    features, matches, plan = matched(frames, size, weights, seed)
    carried = propagate(features, matches, plan)
    assert carried.shape == (frames, 6, 5)
    for frame in range(frames):
        share, first, second = float(plan.weight[frame]), int(plan.first[frame]), int(plan.second[frame])
        for token in range(6):
            a = features[first, int(matches.first[frame, token])]
            b = features[second, int(matches.second[frame, token])]
            torch.testing.assert_close(carried[frame, token], share * a + (1 - share) * b)


@PROPERTY
@given(frames=st.integers(1, 9), size=st.integers(1, 4), weights=st.sampled_from(WEIGHTS), seed=SEEDS)
def test_propagating_before_or_after_the_output_projection_is_equal(frames, size, weights, seed):
    features, matches, plan = matched(frames, size, weights, seed)
    matrix, bias = normal(5, 8, seed=seed + 4), 3 + normal(8, seed=seed + 5)
    before, after = propagate(features @ matrix + bias, matches, plan), propagate(features, matches, plan)
    torch.testing.assert_close(before, after @ matrix + bias)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_equal_features_are_propagated_unchanged_and_in_their_own_precision(dtype):
    _, matches, plan = matched(11, 4, "reference", seed=0)
    features = torch.full((3, 6, 5), 1.5, dtype=dtype)
    torch.testing.assert_close(propagate(features, matches, plan), features[:1].expand(11, 6, 5))


def test_a_keyframe_keeps_its_own_features_with_surrounding_weights():
    tokens, keyframes = normal(11, 6, 5, seed=0), torch.tensor([1, 6, 10])
    plan = propagation_plan(batch_slices(11, 4), keyframes, "surrounding")
    features = normal(3, 6, 4, seed=1)
    carried = propagate(features, correspond(tokens, tokens[keyframes], plan), plan)
    assert torch.equal(carried[keyframes], features)


def test_batches_propagated_one_at_a_time_are_parts_of_the_whole():
    plan, keyframes = plan_of(11, 4, "reference")
    tokens, features = normal(11, 6, 5, seed=0), normal(3, 6, 4, seed=1)
    whole = propagate(features, correspond(tokens, tokens[keyframes], plan), plan)
    parts = []
    for batch in batch_slices(11, 4):
        part: PropagationPlan = plan.of(batch)
        parts.append(propagate(features, correspond(tokens[batch], tokens[keyframes], part), part))
    torch.testing.assert_close(torch.cat(parts), whole)


def test_matches_of_half_precision_tokens_are_those_of_their_exact_values():
    generator = torch.Generator().manual_seed(5)
    tokens, keys = (torch.randn(2, 60, 16, generator=generator).half() for _ in range(2))
    exact = torch.nn.functional.normalize(tokens.double(), dim=-1), torch.nn.functional.normalize(keys.double(), dim=-1)
    assert torch.equal(nearest_tokens(tokens, keys, 32), (exact[0] @ exact[1].mT).argmax(dim=-1))
    assert nearest_tokens(torch.zeros(1, 3, 4).half(), keys[:1, :, :4]).tolist() == [[0, 0, 0]]


def test_nothing_is_asked_of_a_device_to_propagate_along_a_plan_that_is_on_it():
    """Of synchronising operations, seen by PyTorch's dispatch."""
    asked = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            if function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default):
                asked.append(function)
            return function(*arguments, **(options or {}))

    plan = propagation_plan(batch_slices(8, 4), torch.tensor([1, 6]), "reference").on(torch.device("cpu"))
    features = torch.randn(2, 12, 8)
    with Watch():
        propagate(features, correspond(torch.randn(8, 12, 8), features, plan), plan)
    assert not asked and not plan.alone


@PROPERTY
@given(count=st.integers(2, 2**17), alone=st.booleans(), seed=SEEDS)
def test_matches_that_are_kept_come_back_as_they_were(count, alone, seed):
    first, second = (torch.randint(count, (1, count), generator=seeded(seed + other)) for other in (0, 1))
    found = Correspondence(first, first if alone else second)
    kept = found.compact()
    again = kept.indices()
    assert torch.equal(again.first, found.first) and torch.equal(again.second, found.second)
    assert (kept.first is kept.second) is (again.first is again.second) is alone
    assert again.first.dtype == torch.int64 and kept.first.nbytes <= found.first.nbytes // 2

from __future__ import annotations

import itertools

from comfyui_stem.stem_kernels.random_streams import BASES, KEYFRAMES, SHARED_NOISE, keyed_generator
from hypothesis import given, settings
from hypothesis import strategies as st


def state(seed, *key):
    return keyed_generator(seed, *key).initial_seed()


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_seeds_that_differ_by_a_multiple_of_two_to_the_64_are_the_same(seed):
    assert state(seed, BASES, 1) == state(seed - 2**64, BASES, 1)
    assert state(seed, BASES, 1) != state(seed + 2**63, BASES, 1)


def test_keys_of_different_length_and_purpose_have_streams_of_their_own():
    keys = [(21,), (21, 0), (21, 0, 0), (0,), (0, 21), ()]
    states = {state(0, purpose, *key) for purpose, key in itertools.product((BASES, KEYFRAMES, SHARED_NOISE), keys)}
    assert len(states) == 3 * len(keys)


def test_the_stream_of_a_key_is_the_same_in_every_release():
    assert state(0, BASES, 1, 0, 0) == 8367284563267855595
    assert state(42, KEYFRAMES, 981) == 7563820266685123898

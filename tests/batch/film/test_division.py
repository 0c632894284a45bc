"""Shots that are too long are divided into parts that overlap and cover them."""

from __future__ import annotations

import pytest
from comfyui_stem.batch.film.division import Division, Shot, divided
from comfyui_stem.batch.jobs import JobsError
from hypothesis import given
from hypothesis import strategies as st


@st.composite
def divisions(draw):
    overlap, anchors = draw(st.integers(0, 12)), draw(st.integers(0, 8))
    return Division(draw(st.integers(anchors + 2 * overlap + 2, 200)), overlap, anchors)


@given(divisions(), st.integers(0, 50), st.integers(1, 2000))
def test_parts_cover_a_shot_in_order_and_no_frame_lies_in_three(division, start, length):
    pieces = divided([Shot(start, start + length)], division)
    assert pieces[0].start == start and pieces[-1].end == start + length
    assert all(piece.frames <= division.longest for piece in pieces)
    for before, after in zip(pieces, pieces[1:], strict=False):
        assert before.start < after.start and before.end - after.start >= division.overlap
    for before, after in zip(pieces, pieces[2:], strict=False):
        assert before.end <= after.start
    if len(pieces) == 1:
        assert length <= division.longest and not pieces[0].anchors
    else:
        assert all(piece.anchors == pieces[0].anchors for piece in pieces)
        assert len(pieces[0].anchors) == division.anchors
        assert all(start <= anchor < start + length for anchor in pieces[0].anchors)
    assert len({piece.name for piece in pieces}) == len(pieces)


def test_a_longest_of_zero_leaves_shots_whole_and_a_name_tells_prompts_apart():
    one, other = (divided([Shot(0, 500, {"target": target})], Division(0)) for target in ("a fox", "a cat"))
    assert len(one) == 1 and one[0].name != other[0].name
    assert one[0].name == divided([Shot(0, 500, {"target": "a fox"})], Division(0))[0].name


def test_parts_without_frames_of_their_own_are_refused():
    with pytest.raises(JobsError, match="Parts of 20 frames, of which 4 are anchors and 8 overlap on both sides"):
        Division(20, 8, 4)

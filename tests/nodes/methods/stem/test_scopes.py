"""Rows of frames that share bases, in the whole clip and in batches of it."""

from __future__ import annotations

import pytest
from comfyui_stem.nodes.methods.stem.scopes import scopes
from comfyui_stem.nodes.methods.stem.settings import StemSettings
from comfyui_stem.stem_kernels.correspondence import batch_slices
from hypothesis import given, settings
from hypothesis import strategies as st

CHUNKS = StemSettings(scope="frame_chunks", scope_frames=3)


def test_the_whole_clip_is_one_scope_for_every_cond():
    assert [(s.group, s.chunk, s.frames) for s in scopes(StemSettings(), 2, 7)] == [
        (0, 0, slice(0, 7)),
        (1, 0, slice(0, 7)),
    ]


def test_chunks_are_counted_anew_for_every_cond():
    found = [(s.group, s.chunk, s.frames.start, s.frames.stop) for s in scopes(CHUNKS, 2, 7)]
    assert found == [(0, 0, 0, 3), (0, 1, 3, 6), (0, 2, 6, 7), (1, 0, 0, 3), (1, 1, 3, 6), (1, 2, 6, 7)]


@pytest.mark.parametrize("chosen", [StemSettings(), CHUNKS])
@given(groups=st.integers(1, 2), frames=st.integers(1, 12), size=st.integers(1, 13))
@settings(max_examples=40)
def test_every_row_of_every_batch_is_in_one_scope_and_in_order(chosen, groups, frames, size):
    for batch in batch_slices(frames, size):
        length = batch.stop - batch.start
        rows = [scope.rows(batch) for scope in scopes(chosen, groups, frames)]
        covered = [row for part in rows if part for row in range(part.start, part.stop)]
        assert covered == list(range(groups * length))

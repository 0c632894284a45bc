"""Which frames a frame reads."""

from __future__ import annotations

import pytest
import torch
from comfyui_stem.stem_kernels.frame_context import context_frames, gather_frames, parse_frame_references
from hypothesis import given, settings
from hypothesis import strategies as st

PROPERTY = settings(max_examples=30)
NAMES = st.sampled_from(["first", "mid", "last"])
REFERENCES = st.lists(st.integers(-12, 12) | st.sampled_from([2**63 - 1, -(2**63), 10**30]) | NAMES, max_size=4)


@pytest.mark.parametrize(
    ("text", "references"),
    [
        ("0, mid", (0, "mid")),
        ("-1,first", (-1, "first")),
        (" LAST , +2 ", ("last", 2)),
        ("0,,0,", (0, 0)),
        ("", ()),
        (" , ", ()),
    ],
)
def test_offsets_and_names_are_read_from_a_comma_separated_list(text, references):
    assert parse_frame_references(text) == references


@pytest.mark.parametrize("entry", ["middle", "1.5", "first last", "-"])
def test_an_entry_that_is_no_frame_is_named_in_the_refusal(entry):
    with pytest.raises(ValueError, match=f"'{entry}' is not a frame: write offsets .* first, mid, last"):
        parse_frame_references(f"0, {entry}")


@PROPERTY
@given(references=REFERENCES.filter(bool))
def test_a_list_that_is_written_out_is_read_back(references):
    assert parse_frame_references(", ".join(map(str, references))) == tuple(references)


@given(
    text=st.text(max_size=20)
    | st.lists(st.sampled_from([*"-+_.,09٣²\n\0 ", "first", "MID", "9" * 5000]), max_size=8).map("".join),
    frames=st.integers(1, 12),
)
@settings(max_examples=200)
def test_any_text_is_refused_by_an_entry_of_it_or_lists_frames_of_the_clip(text, frames):
    try:
        references = parse_frame_references(text)
    except ValueError as error:
        assert "is not a frame: write offsets" in str(error)
    else:
        context = context_frames(references, frames)
        assert context.min() >= 0 and context.max() < frames
        assert parse_frame_references(", ".join(map(str, references))) == references


@PROPERTY
@given(references=REFERENCES, frames=st.integers(1, 12))
def test_offsets_stop_at_the_ends_of_the_clip_and_names_mean_the_same_for_all(references, frames):
    context = context_frames(references, frames)
    assert context.dtype == torch.int64
    assert context.shape == (frames, max(len(references), 1))
    named = {"first": 0, "mid": (frames - 1) // 2, "last": frames - 1}
    for frame in range(frames):
        expected = [
            named[reference] if isinstance(reference, str) else min(max(frame + reference, 0), frames - 1)
            for reference in references
        ]
        assert context[frame].tolist() == (expected or [frame])


@pytest.mark.parametrize(("frames", "mid"), [(1, 0), (2, 0), (3, 1), (8, 3), (9, 4)])
def test_mid_is_the_frame_before_the_half_of_an_even_clip(frames, mid):
    assert context_frames(["mid"], frames).unique().tolist() == [mid]


def test_the_contexts_of_the_published_configurations():
    assert context_frames([-1, "first"], 4).tolist() == [[0, 0], [0, 0], [1, 0], [2, 0]]
    assert context_frames([0, "mid"], 4).tolist() == [[0, 1], [1, 1], [2, 1], [3, 1]]
    assert context_frames([], 3).tolist() == [[0], [1], [2]]


@PROPERTY
@given(
    references=REFERENCES, groups=st.integers(1, 3), frames=st.integers(1, 6), p=st.integers(1, 4), c=st.integers(1, 3)
)
def test_tokens_of_the_context_are_joined_in_its_order_within_a_group(references, groups, frames, p, c):
    tokens = torch.arange(groups * frames * p * c).reshape(groups * frames, p, c)
    context = context_frames(references, frames)
    gathered = gather_frames(tokens, context, groups)
    assert gathered.shape == (groups * frames, context.shape[1] * p, c)
    for group in range(groups):
        for frame in range(frames):
            expected = torch.cat([tokens[group * frames + other] for other in context[frame].tolist()])
            assert torch.equal(gathered[group * frames + frame], expected)


def test_a_frame_that_reads_only_itself_reads_its_own_tokens():
    tokens = torch.randn(6, 5, 4)
    assert torch.equal(gather_frames(tokens, context_frames([0], 3), groups=2), tokens)

"""The clips to measure on."""

from __future__ import annotations

import pytest
from comfyui_stem.tools.measured.quality.clips import HELD_OUT, KINDS, WORDS, held_out_cases


@pytest.fixture(scope="module")
def cases():
    return held_out_cases(24, edits=3)


def test_every_clip_shows_one_thing_that_training_never_saw_each_another(cases):
    assert all(len(case.scene.things) == 1 and case.scene.things[0].held_out for case in cases)
    assert len({case.scene.things[0] for case in cases}) == 24


def test_they_are_the_same_every_time_and_for_every_count(cases):
    assert held_out_cases(24, edits=3) == cases
    assert held_out_cases(5, edits=3) == cases[:5]


def test_an_edit_changes_its_word_and_nothing_else(cases):
    for case in cases:
        for edit in case.edits:
            (before,), (after,) = case.scene.things, edit.scene.things
            changed = [kind for kind in KINDS if getattr(before, kind) != getattr(after, kind)]
            assert changed == [edit.kind]
            assert getattr(after, edit.kind) == edit.word
            assert edit.word in WORDS[edit.kind]
            assert edit.scene.background == case.scene.background


def test_no_thing_takes_the_colour_of_its_background(cases):
    assert all(edit.scene.things[0].colour != case.scene.background.colour for case in cases for edit in case.edits)


def test_kinds_take_turns_and_more_edits_keep_the_first(cases):
    single = held_out_cases(24, edits=1)
    assert [case.edits[0].kind for case in single] == list(KINDS) * 8
    assert all(one.edits == three.edits[:1] for one, three in zip(single, cases, strict=True))
    assert all({edit.kind for edit in case.edits} == set(KINDS) for case in cases)


def test_more_clips_than_there_are_combinations_are_refused():
    with pytest.raises(ValueError, match="held-out combinations"):
        held_out_cases(HELD_OUT + 1)

"""Several target prompts in one field."""

from __future__ import annotations

import pytest
from comfyui_stem.nodes.fields.wishes import MOST, captions, grid_rows, read_targets
from hypothesis import given
from hypothesis import strategies as st

SOURCE = "a rabbit on a meadow"


def test_lines_of_three_dashes_separate_target_prompts_and_other_lines_belong_to_one():
    text = "a fox\non a meadow\n---\n  a cat, a hat \n --- \nsnow --- and ice"
    assert read_targets(SOURCE, text, "Here") == ["a fox\non a meadow", "a cat, a hat", "snow --- and ice"]
    assert read_targets(SOURCE, "a fox", "Here") == ["a fox"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" ", "Here: the target prompt is empty"),
        ("a fox\n---\n", "Here: target prompt 2 of 2 is empty"),
        ("a rabbit  on a meadow", "Here: the target prompt is the source prompt, so nothing would change"),
        ("a fox\n---\na rabbit on\na meadow", "Here: target prompt 2 of 2 is the source prompt"),
        ("\n---\n".join(["a fox"] * (MOST + 1)), f"Here: there are {MOST + 1} target prompts; a grid has room for"),
    ],
)
def test_what_asks_for_nothing_or_too_much_is_refused_by_its_number(text, message):
    with pytest.raises(ValueError, match=message):
        read_targets(SOURCE, text, "Here")


def test_a_caption_is_what_is_new_in_a_prompt_and_has_no_comma():
    targets = ["a fox on a meadow", "a rabbit, on a Meadow", "a rabbit of red,green clay on a meadow"]
    assert captions(SOURCE, targets) == ["fox", "edit 2", "of red/green clay"]
    assert "," not in "".join(captions("", ["a, b,,c " * 30])) and len(captions("", ["word " * 30])[0]) <= 40


@given(st.integers(2, MOST + 1))
def test_rows_of_a_grid_hold_all_pictures_in_order_two_to_four_each(count):
    rows = grid_rows(count)
    assert [place for row in rows for place in row] == list(range(count))
    sizes = [len(row) for row in rows]
    assert 2 <= min(sizes) <= max(sizes) <= 4 and max(sizes) - min(sizes) <= 1 and len(rows) <= 4

from __future__ import annotations

import pytest
from comfyui_stem.nodes.word_settings import (
    parse_levels,
    parse_weights,
    parse_window,
    parse_word_windows,
    parse_words,
)
from comfyui_stem.stem_kernels.prompt_alignment import window_range
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("0.8", 0.8),
        (" 1 ", 1.0),
        (".5", 0.5),
        ("0.2-0.7", (0.2, 0.7)),
        ("0.2 - 0.7", (0.2, 0.7)),
        ("0.2–0.7", (0.2, 0.7)),
        ("0.2 to 0.7", (0.2, 0.7)),
        ("0, 1", (0.0, 1.0)),
    ],
)
def test_windows_are_a_share_or_a_start_and_an_end(text, window):
    assert parse_window(text, "cross_window") == window


@pytest.mark.parametrize("text", ["", "half", "0.2-", "-0.2", "0.2-0.7-0.9", "1e-1", "nan", "0.8 steps"])
def test_anything_else_is_refused_with_the_field_and_an_example(text):
    with pytest.raises(ValueError, match=r"cross_window is .*0\.2-0\.7"):
        parse_window(text, "cross_window")


@given(st.text(max_size=30))
def test_no_text_breaks_the_parsers_otherwise_than_by_a_plain_error(text):
    for parse in (
        lambda: window_range(parse_window(text, "w"), 10),
        lambda: parse_word_windows(text, "w"),
        lambda: parse_weights(text, 10.0, "w"),
        lambda: parse_levels(text, "w"),
        lambda: parse_words(text),
    ):
        try:
            parse()
        except ValueError as error:
            assert str(error)


def test_windows_of_words_are_lines_and_phrases_may_hold_colons():
    text = "jeep: 0.2-0.7\n\n silver jeep :0.5; 10:30: 1"
    assert parse_word_windows(text, "w") == {"jeep": (0.2, 0.7), "silver jeep": 0.5, "10:30": 1.0}
    for wrong in ("jeep", ": 0.5", "jeep: often"):
        with pytest.raises(ValueError, match="jeep|0.5"):
            parse_word_windows(wrong, "word_windows")


def test_weights_take_the_presets_value_where_there_is_no_number():
    assert parse_weights("watercolor: 5, oil painting;\nsky:-1.5", 10.0, "w") == {
        "watercolor": 5.0,
        "oil painting": 10.0,
        "sky": -1.5,
    }
    for wrong in ("watercolor: much", ": 3"):
        with pytest.raises(ValueError, match="word_weights has"):
            parse_weights(wrong, 10.0, "word_weights")


def test_words_and_levels():
    assert parse_words(" silver jeep, car;\nroad ,") == ("silver jeep", "car", "road")
    assert parse_levels("1, 2,3", "fusion_levels") == frozenset((1, 2, 3))
    for wrong in ("1, 4", "", "fine"):
        with pytest.raises(ValueError, match=f"fusion_levels is '{wrong}'.*0 to 3"):
            parse_levels(wrong, "fusion_levels")

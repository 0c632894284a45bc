from __future__ import annotations

import pytest
from comfyui_stem.nodes.fields.words import parse_levels, parse_weights, parse_window, parse_word_windows, parse_words
from comfyui_stem.stem_kernels.prompt_alignment import window_range
from hypothesis import given, settings
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


def written_window(window):
    return f"{window!r}" if isinstance(window, float) else "{!r} to {!r}".format(*window)


# Each parser, and how what it accepts is written again.
PARSERS = {
    "window": (lambda text: parse_window(text, "the_field"), written_window),
    "word windows": (
        lambda text: parse_word_windows(text, "the_field"),
        lambda windows: "\n".join(f"{word}: {written_window(window)}" for word, window in windows.items()),
    ),
    "weights": (
        lambda text: parse_weights(text, 10.0, "the_field"),
        lambda weights: ";".join(f"{word}: {weight!r}" for word, weight in weights.items()),
    ),
    "levels": (lambda text: parse_levels(text, "the_field"), lambda levels: ",".join(map(str, levels))),
    "words": (parse_words, ", ".join),
}
TEXTS = st.text(max_size=30) | st.lists(
    st.sampled_from(
        ["jeep", "default_", "é", "٣", "0", "1", "0.5", "1.5", "9" * 400, ".", ":", ",", ";", "\n", " ", "-", "–", "to"]
        + ["nan", "inf", "1e5", "(", ")", "\0", "\ud800"]
    ),
    max_size=8,
).map("".join)


@pytest.mark.parametrize("name", PARSERS)
@given(text=TEXTS)
@settings(max_examples=150)
def test_any_text_is_refused_by_its_field_or_is_read_again_as_it_is_written(name, text):
    parse, write = PARSERS[name]
    try:
        value = parse(text)
    except ValueError as error:
        assert "the_field" in str(error) or "The window of '" in str(error)
    else:
        # numbers without end, and none at all, are refused where they are used
        if not any(odd in write(value) for odd in ("inf", "nan")):
            assert parse(write(value)) == value


@given(text=TEXTS, length=st.integers(1, 1000))
@settings(max_examples=150)
def test_a_window_that_is_read_lies_within_the_steps_or_is_refused_by_name(text, length):
    try:
        steps = window_range(parse_window(text, "the_field"), length, "the_field")
    except ValueError as error:
        assert "the_field" in str(error)
    else:
        assert 0 <= steps.start <= steps.stop <= length


def test_a_word_that_is_named_twice_is_refused():
    with pytest.raises(ValueError, match="word_weights has 'jeep' twice"):
        parse_weights("jeep: 2, jeep", 10.0, "word_weights")
    with pytest.raises(ValueError, match="word_windows has 'jeep' twice"):
        parse_word_windows("jeep: 0.5; jeep: 0.2-0.7", "word_windows")


def test_the_name_of_all_other_words_is_no_word():
    with pytest.raises(ValueError, match="word_windows has 'default_'.*Leave out the underscore"):
        parse_word_windows("default_: 0.5", "word_windows")


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

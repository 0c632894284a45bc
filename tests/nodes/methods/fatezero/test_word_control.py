from __future__ import annotations

import math

import pytest
import torch
from comfyui_stem.nodes.methods.fatezero import prompts
from comfyui_stem.nodes.methods.fatezero.prompts import check_source_prompt, read_prompt
from comfyui_stem.nodes.methods.fatezero.word_control import WordWishes, differing_words, read_words
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

PURPOSE = "FateZero Edit"
JEEP = "a silver jeep driving down a curvy road"
PORSCHE = "a Porsche car driving down a curvy road"
WATERCOLOR = "watercolor painting of a silver jeep driving down a curvy road"


def words(loaded, target, source=JEEP, steps=10, **wishes):
    read = (read_prompt(loaded.clip, text, role, PURPOSE) for text, role in ((source, "source"), (target, "target")))
    return read_words(*read, WordWishes(**wishes), steps, PURPOSE)


def differing(loaded, source, target):
    read = (read_prompt(loaded.clip, text, "a", PURPOSE).tokenized for text in (source, target))
    return [[word.text for word in side] for side in differing_words(*read)]


def test_auto_replaces_prompts_of_as_many_words_and_refines_others(loaded):
    replaces, refines = words(loaded, PORSCHE), words(loaded, WATERCOLOR)
    assert replaces.report.startswith("word_matching: replace") and refines.report.startswith("word_matching: refine")
    assert not replaces.control.mapping.own.any()
    assert refines.control.mapping.own.nonzero().flatten().tolist() == [1, 2, 3]
    forced = words(loaded, PORSCHE, control="refine").control.mapping.own
    # "porsche" and "car" are new, whatever number of tokens they have
    assert forced.any() and forced[0] == 0


def test_replacing_prompts_of_other_lengths_is_refused_with_both_counts(loaded):
    with pytest.raises(ValueError, match="FateZero Edit: Replace needs prompts of the same number of words.* 8 .* 11"):
        words(loaded, WATERCOLOR, control="replace")


def test_windows_weights_and_masks_reach_their_columns(loaded):
    made = words(
        loaded,
        WATERCOLOR,
        window=0.4,
        word_windows={"Silver Jeep": (0.2, 0.7)},
        weights={"watercolor": 10.0, "PAINTING,": 3.0},
        masks_source=True,
        masks_target=True,
        source_words=("jeep",),
    )
    control, jeep = made.control, [5, 6]
    assert control.factors[[1, 2]].tolist() == [10, 3] and (control.factors != 1).sum() == 2
    assert control.alpha[:, 0].tolist() == [1.0] * 4 + [0.0] * 7
    assert control.alpha[:, jeep].sum(dim=0).tolist() == [5, 5] and not control.alpha[:2, jeep].any()
    assert control.source_words == (3,) and control.target_words == (1, 2, 3)
    assert "mask of the source: jeep\nmask of the target: watercolor, painting, of" in made.report
    assert "weights: watercolor 10, PAINTING, 3" in made.report


def test_masks_are_read_from_the_words_that_differ_unless_others_are_named(loaded):
    control = words(loaded, PORSCHE, masks_source=True, masks_target=True).control
    assert control.source_words == (2, 3)
    assert set(control.target_words) >= {2, 3} and 1 not in control.target_words
    assert words(loaded, PORSCHE, masks_source=True).control.target_words == ()
    assert words(loaded, PORSCHE).control.source_words == ()


def test_of_a_word_that_occurs_twice_only_the_place_that_differs_is_masked(loaded):
    made = words(loaded, "an owl on a bench", "a cat on a bench", masks_source=True, masks_target=True)
    assert made.control.source_words == (1, 2) and made.control.target_words == (1, 2)
    made = words(loaded, "a dog sitting", "a cat , sitting", masks_source=True)
    assert made.control.source_words == (2,)


def test_blend_words_without_blending_are_looked_for_and_said_to_have_no_effect(loaded):
    made = words(loaded, PORSCHE, source_words=("jeep",))
    assert made.control.source_words == () and "source_blend_words have no effect" in made.report
    with pytest.raises(ValueError, match="'dog' is not in the source prompt"):
        words(loaded, PORSCHE, source_words=("dog",))


def test_a_mask_of_nothing_is_refused(loaded):
    with pytest.raises(ValueError, match="no word of the source prompt .* changes in the target.*source_blend_words"):
        words(loaded, WATERCOLOR, masks_source=True)


# fmt: off
PIECES = [
    "a", "silver", "jeep", "Porsche,", "(jeep:1.3)", "(", ")", ":1.2)", "…", "—", "café", "é", "吉普车", "سيارة",
    "🚙🚙", "'s", "&amp;", "\0", "\u200b", "embedding:none", "default_",
]
# fmt: on
PROMPTS = st.lists(st.sampled_from(PIECES), max_size=9).map(" ".join)


@given(
    source=PROMPTS,
    target=PROMPTS,
    phrases=st.lists(PROMPTS, max_size=3),
    window=st.floats(-0.5, 1.5) | st.tuples(st.floats(0, 1), st.floats(0, 1)),
    weight=st.floats(-20, 20) | st.sampled_from([math.nan, math.inf]),
    control=st.sampled_from(["auto", "refine", "replace"]),
    masks=st.booleans(),
    steps=st.integers(1, 20),
)
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_words_give_a_control_of_the_prompts_or_are_refused_by_the_node(
    loaded, monkeypatch, source, target, phrases, window, weight, control, masks, steps
):
    monkeypatch.setattr(prompts, "encode", lambda clip, text: [])  # slow, and not looked at here
    wishes = {
        "control": control,
        "window": window,
        "word_windows": {phrase: (0.2, 0.7) for phrase in phrases[:1]},
        "weights": {phrase: weight for phrase in phrases[1:2]},
        "masks_source": masks,
        "masks_target": masks,
        "source_words": phrases[2:],
    }
    try:
        made = words(loaded, target, source, steps, **wishes)
    except ValueError as error:
        assert str(error).startswith(PURPOSE)
        return
    assert made.control.alpha.shape == (steps + 1, 77) and set(made.control.alpha.unique().tolist()) <= {0, 1}
    assert made.control.factors.isfinite().all()
    assert all(0 < column < 76 for column in (*made.control.source_words, *made.control.target_words))
    assert made.report.startswith("word_matching: re")


@pytest.mark.parametrize(
    ("wishes", "missing", "role"),
    [
        ({"weights": {"aquarelle": 10.0}}, "'aquarelle'", "target"),
        ({"word_windows": {"jeep road": 0.5}}, "'jeep road'", "target"),
        ({"masks_source": True, "source_words": ("dog", "jeep", "cat")}, "'dog', 'cat'", "source"),
        ({"masks_source": True, "source_words": ("jeep",), "target_words": ("dog",)}, "'dog'", "target"),
    ],
)
def test_words_that_are_in_no_prompt_are_named(loaded, wishes, missing, role):
    with pytest.raises(ValueError, match=f"FateZero Edit: {missing} is not in the {role} prompt"):
        words(loaded, WATERCOLOR, **wishes)


def test_a_wrong_window_names_the_node(loaded):
    with pytest.raises(ValueError, match="FateZero Edit: The cross-attention window runs from 0 to 1.5"):
        words(loaded, PORSCHE, window=1.5)


def test_words_that_differ_ignore_case_and_punctuation(loaded):
    assert differing(loaded, "A red apple, on a table", "a green apple on a table.") == [["red"], ["green"]]
    assert differing(loaded, "a man riding", "a Spider-Man riding") == [["man"], ["Spider-Man"]]
    assert differing(loaded, "a dog", "a dog") == [[], []]


def test_a_prompt_of_more_than_one_block_is_refused(loaded):
    with pytest.raises(ValueError, match=r"FateZero Edit, source prompt: The prompt fills 2 blocks .* Shorten"):
        read_prompt(loaded.clip, "tree " * 100, "source", PURPOSE)


def test_brackets_too_deep_for_the_tokenizer_are_refused_before_it_breaks(loaded):
    with pytest.raises(ValueError, match="FateZero Edit, target prompt: .*hundreds of nested brackets"):
        read_prompt(loaded.clip, "(" * 3000 + "jeep" + ")" * 3000, "target", PURPOSE)


def test_prompt_weights_are_kept_in_the_conditioning_and_ignored_in_the_words(loaded):
    plain, weighted = (read_prompt(loaded.clip, text, "a", PURPOSE) for text in ("a red jeep", "a (red jeep:1.4)"))
    assert [word.text for word in weighted.tokenized.words] == ["a", "red", "jeep"]
    assert not torch.equal(plain.conditioning[0][0], weighted.conditioning[0][0])


class Inverted:
    """As much of an INVERSION as the check reads."""

    def __init__(self, source):
        self.source = source


@pytest.mark.parametrize(
    ("typed", "inverted"),
    [("a silver jeep", JEEP), ("", JEEP), (JEEP, "cat " * 90), ("a large old silver jeep driving down a road", JEEP)],
)
def test_another_source_prompt_than_that_of_the_inversion_is_refused(loaded, typed, inverted):
    prompt, inversion = read_prompt(loaded.clip, typed, "source", PURPOSE), Inverted(loaded.prompt(inverted))
    with pytest.raises(ValueError, match="is not the one that the INVERSION was made with"):
        check_source_prompt(prompt, inversion, PURPOSE)


def test_the_same_source_prompt_passes_and_a_slight_difference_is_told(loaded):
    prompt = read_prompt(loaded.clip, JEEP, "source", PURPOSE)
    for factor, told in ((1.0, False), (1.001, False), (1.2, True)):  # another device, a LoRA of the text encoder
        inversion = Inverted([[prompt.conditioning[0][0] * factor, {}]])
        assert bool(check_source_prompt(prompt, inversion, PURPOSE)) == told
    other_word = read_prompt(loaded.clip, JEEP.replace("road", "street"), "source", PURPOSE)
    assert "differs from" in check_source_prompt(other_word, Inverted(prompt.conditioning), PURPOSE)

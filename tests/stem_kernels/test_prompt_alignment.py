from __future__ import annotations

from itertools import accumulate, combinations
from pathlib import Path

import pytest
import torch
from comfyui_stem.stem_kernels.prompt_alignment import (
    align_tokens,
    equalizer,
    refine_alignment,
    replace_mapper,
    window_range,
    word_time_table,
)
from comfyui_stem.stem_kernels.prompt_words import Word, tokenized_prompt
from comfyui_stem.tools.measured.parity import text
from hypothesis import given, settings
from hypothesis import strategies as st

DATA = Path(__file__).parents[1] / "data"
RECORDED = text.load(DATA)
PAIRS = range(len(RECORDED.pairs))
REPLACED = [index for index in PAIRS if f"pair{index:02}.replace.mapper" in RECORDED.arrays]
REFUSED = sorted(set(PAIRS) - set(REPLACED))
DOUBLE_SPACE, TO_SPIDER_MAN, TO_MAN = 15, 6, 7


def recorded_words(index):
    pair = RECORDED.pairs[index]
    return tuple(text.reference_words(pair[side], pair[f"{side}_tokens"]) for side in ("source", "target"))


def test_the_recording_covers_both_ways_of_control():
    assert len(PAIRS) == 22 and len(REPLACED) == 11 and len(RECORDED.windows) == 8


@pytest.mark.parametrize("index", PAIRS)
def test_refine_alignment_equals_the_recorded_one(index):
    pair = RECORDED.pairs[index]
    found = refine_alignment(pair["source_ids"], pair["target_ids"])
    assert torch.equal(found.mapper, RECORDED.arrays[f"pair{index:02}.refine.mapper"].long())
    assert torch.equal(found.aligned, RECORDED.arrays[f"pair{index:02}.refine.alphas"].float())


@pytest.mark.parametrize("index", REPLACED)
def test_replace_mapper_with_the_reference_tail_equals_the_recorded_one(index):
    found = replace_mapper(*recorded_words(index), reproduce_reference_tail=True)
    assert torch.equal(found, RECORDED.arrays[f"pair{index:02}.replace.mapper"])


@pytest.mark.parametrize("index", REFUSED)
def test_replace_is_refused_where_the_reference_refused_it(index):
    source, target = recorded_words(index)
    with pytest.raises(ValueError, match=f"the source has {len(source)} and the target {len(target)}"):
        replace_mapper(source, target)


@pytest.mark.parametrize("index", PAIRS)
def test_equalizers_equal_the_recorded_ones(index):
    for case in RECORDED.pairs[index]["equalizers"]:
        values = dict(zip(case["words"], case["values"], strict=True))
        positions = text.known_positions(values, RECORDED.pairs[index]["target_word_tokens"])
        assert torch.equal(equalizer(values, positions), text.recorded_equalizer(case))


@pytest.mark.parametrize("steps", [10, 50])
@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("case", range(len(RECORDED.windows)))
def test_word_time_tables_equal_the_recorded_ones(case, index, steps):
    windows = RECORDED.windows[case]
    positions = text.known_positions(windows, RECORDED.pairs[index]["target_word_tokens"])
    recorded = RECORDED.arrays[f"alpha.T{steps}.case{case}.pair{index:02}"]
    assert torch.equal(word_time_table(windows, steps, positions), recorded.float())


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("index", PAIRS)
def test_own_words_differ_from_the_reference_only_at_a_double_space(index, side):
    pair = RECORDED.pairs[index]
    ids, texts = pair[f"{side}_ids"], pair[f"{side}_tokens"]
    block = [(token, 1.0, int(0 < position < len(ids) - 1)) for position, token in enumerate(ids)]
    own = tokenized_prompt(pair[side], [block], texts)
    assert own.ids == tuple(ids)
    found = [(word.text, word.positions) for word in own.words]
    reference = [(word.text, word.positions) for word in text.reference_words(pair[side], texts) if word.text]
    if index == DOUBLE_SPACE:
        assert found[2:] == [("with", (3,)), ("double", (4,)), ("space", (5,))] and reference[-1] == ("space", ())
    else:
        assert found == reference


TOKEN_LISTS = st.lists(st.integers(0, 3), max_size=7)


def test_new_words_have_no_source_and_the_others_keep_theirs():
    source = "<s> a silver jeep driving </s>".split()
    target = "<s> watercolor painting of a silver jeep driving </s>".split()
    assert refine_alignment(source, target).mapper[:11].tolist() == [0, -1, -1, -1, 1, 2, 3, 4, 5, 9, 10]


@pytest.mark.parametrize(
    ("source", "target", "aligned"),
    [("x", "xx", (0, -1)), ("xx", "x", (0,)), ("xy", "yx", (1, -1)), ("x", "y", (-1,))],
)
def test_ties_leave_the_target_token_unmatched_before_they_skip_a_source_token(source, target, aligned):
    assert align_tokens(source, target) == aligned


@given(ids=st.lists(st.integers(0, 3), max_size=77))
@settings(max_examples=25)
def test_a_prompt_aligned_with_itself_maps_every_token_to_itself(ids):
    alignment = refine_alignment(ids, ids)
    assert torch.equal(alignment.mapper, torch.arange(77)) and alignment.aligned.eq(1).all()


@given(source=TOKEN_LISTS, target=TOKEN_LISTS)
def test_aligned_tokens_are_equal_and_in_order(source, target):
    pairs = [(i, j) for j, i in enumerate(align_tokens(source, target)) if i >= 0]
    assert all(source[i] == target[j] for i, j in pairs)
    assert all(earlier < later for (earlier, _), (later, _) in zip(pairs, pairs[1:], strict=False))


@given(source=TOKEN_LISTS, target=TOKEN_LISTS)
def test_no_other_alignment_matches_more_tokens(source, target):
    def is_subsequence(tokens):
        remaining = iter(target)
        return all(token in remaining for token in tokens)

    longest = max(size for size in range(len(source) + 1) if any(map(is_subsequence, combinations(source, size))))
    assert sum(i >= 0 for i in align_tokens(source, target)) == longest


@given(source=TOKEN_LISTS, target=TOKEN_LISTS)
def test_weights_mark_what_is_aligned_and_padding_maps_to_itself(source, target):
    alignment = refine_alignment(source, target)
    assert torch.equal(alignment.aligned, (alignment.mapper != -1).float())
    assert torch.equal(alignment.mapper[len(target) :], torch.arange(len(target), 77))


def test_a_prompt_longer_than_the_columns_is_refused():
    with pytest.raises(ValueError, match="target prompt has 78 tokens"):
        refine_alignment([1], [1] * 78)


def test_words_after_a_longer_replacement_receive_their_own_source():
    mapper = replace_mapper(*recorded_words(TO_SPIDER_MAN))
    rides_source, rides_target, end_source, end_target = 3, 5, 11, 13
    assert mapper[:, rides_target].nonzero().flatten().tolist() == [rides_source]
    assert mapper[end_source].nonzero().flatten().tolist() == [end_target]
    assert torch.allclose(mapper[2, 2:5], torch.full((3,), 1 / 3))
    assert torch.allclose(mapper.sum(0)[:76], torch.tensor([1.0, 1, *[1 / 3] * 3, *[1] * 71]))


def test_words_after_a_shorter_replacement_receive_their_own_source():
    mapper = replace_mapper(*recorded_words(TO_MAN))
    rides_source, rides_target, end_source, end_target = 5, 3, 13, 11
    assert mapper[:, rides_target].nonzero().flatten().tolist() == [rides_source]
    assert mapper[:, end_target].nonzero().flatten().tolist() == [end_source]
    assert mapper[2:5, 2].tolist() == [1, 1, 1]
    assert mapper.sum(0).tolist() == [1, 1, 3, *[1] * 72, 0, 0]


def build(texts, sizes):
    """Words of the given token counts, one after another behind the start token."""
    ends = list(accumulate(sizes, initial=1))
    return [Word(text, tuple(range(a, b))) for text, a, b in zip(texts, ends, ends[1:], strict=False)]


@st.composite
def replacements(draw):
    """Source and target of equally many words; some words are replaced by one of another name and size."""
    sizes = draw(st.lists(st.integers(1, 4), max_size=8))
    new_sizes = [draw(st.sampled_from([size, 1, 2, 3, 5])) for size in sizes]
    names = [f"w{index}" for index in range(len(sizes))]
    renamed = [
        f"new{index}" if size != new or draw(st.booleans()) else f"w{index}"
        for index, (size, new) in enumerate(zip(sizes, new_sizes, strict=True))
    ]
    return build(names, sizes), build(renamed, new_sizes)


@given(prompts=replacements())
def test_every_source_token_hands_on_its_whole_mass(prompts):
    assert torch.allclose(replace_mapper(*prompts).sum(1), torch.ones(77))


@given(prompts=replacements())
def test_every_word_receives_the_mass_of_the_word_in_its_place_alone(prompts):
    mapper = replace_mapper(*prompts)
    for old, new in zip(*prompts, strict=True):
        received = mapper[:, list(new.positions)]
        assert received.sum(1).nonzero().flatten().tolist() == list(old.positions)
        expected = torch.full((len(new.positions),), len(old.positions) / len(new.positions))
        assert torch.allclose(received.sum(0), expected)
        if len(old.positions) == len(new.positions):
            assert torch.equal(received[list(old.positions)], torch.eye(len(old.positions)))


@given(prompts=replacements())
def test_the_end_token_follows_the_end_token(prompts):
    end_source, end_target = (words[-1].positions[-1] + 1 if words else 1 for words in prompts)
    assert replace_mapper(*prompts)[:, end_target].nonzero().flatten().tolist() == [end_source]


@given(prompts=replacements())
def test_the_reference_tail_differs_only_after_a_change_of_token_count(prompts):
    shifted = sum(len(word.positions) for word in prompts[0]) != sum(len(word.positions) for word in prompts[1])
    same = torch.equal(replace_mapper(*prompts), replace_mapper(*prompts, reproduce_reference_tail=True))
    assert same != shifted


def test_words_without_tokens_cannot_be_replaced():
    with pytest.raises(ValueError, match="'embedding:lost' has no tokens"):
        replace_mapper([Word("cat", (1,))], [Word("embedding:lost", ())])


def test_words_beyond_the_columns_are_refused():
    with pytest.raises(ValueError, match="'dog' lies beyond column 77"):
        replace_mapper([Word("cat", (1,))], [Word("dog", (77,))])


@pytest.mark.parametrize("positions", [((2,), (1,)), ((1,), (3,))])
def test_words_out_of_the_order_of_their_tokens_are_refused(positions):
    source = [Word("cat", (1,)), Word("eats", (2,))]
    target = [Word(name, at) for name, at in zip(("dog", "drinks"), positions, strict=True)]
    with pytest.raises(ValueError, match="do not follow the same words"):
        replace_mapper(source, target)


FRACTIONS = st.floats(0, 1)
STEPS = st.integers(1, 60)


@pytest.mark.parametrize(("bound", "active"), [(0.1, 5), (0.8, 40), (1.0, 51), (1, 51), (0, 0)])
def test_a_bound_covers_its_share_of_fifty_steps_and_one(bound, active):
    table = word_time_table(bound, 50)
    assert table.shape == (51, 77) and table.dtype == torch.float32
    assert table[:active].eq(1).all() and table[active:].eq(0).all()


@given(bounds=st.lists(FRACTIONS, min_size=4, max_size=4).map(sorted), steps=STEPS)
def test_a_wider_window_keeps_all_that_a_narrower_one_has(bounds, steps):
    outer, inner = (bounds[0], bounds[3]), (bounds[1], bounds[2])
    assert (word_time_table(outer, steps) >= word_time_table(inner, steps)).all()


@given(split=FRACTIONS, steps=STEPS)
def test_two_windows_that_meet_cover_every_step_once(split, steps):
    assert (word_time_table(split, steps) + word_time_table((split, 1), steps)).eq(1).all()


def test_a_words_window_replaces_the_default_one_in_its_columns_alone():
    table = word_time_table({"cat": (0.5, 1), "default_": 0.3}, 9, {"cat": (2, 5)})
    assert table[:, [2, 5]].sum(1).tolist() == [0] * 5 + [2] * 5
    others = [column for column in range(77) if column not in (2, 5)]
    assert torch.equal(table[:, others], word_time_table(0.3, 9)[:, others])


def test_columns_without_a_window_are_active_throughout():
    table = word_time_table({"cat": 0}, 9, {"cat": (2,)})
    assert table.sum(0).tolist() == [10, 10, 0, *[10] * 74]


@pytest.mark.parametrize(
    ("window", "message"),
    [
        ((0.8, 0.2), "starts at 0.8 and ends at 0.2"),
        (1.5, "from 0 to 1.5"),
        ((-0.1, 0.5), "from -0.1 to 0.5"),
        (float("nan"), "from 0 to nan"),
        ((0.1, 0.2, 0.3), "give one number, or two"),
        ((), "give one number, or two"),
        (True, "is True"),
        ("0.8", "is '0.8'"),
        ("ab", "is 'ab'"),
        (None, "is None"),
    ],
)
def test_wrong_windows_are_refused_by_name(window, message):
    with pytest.raises(ValueError, match=f"The window of 'cat' .*{message}"):
        word_time_table({"cat": window}, 10, {"cat": (1,)})
    with pytest.raises(ValueError, match=f"The cross-attention window .*{message}"):
        word_time_table(window, 10)


@pytest.mark.parametrize("positions", [None, {}, {"dog": (1,)}])
def test_a_window_for_a_word_that_was_not_found_is_refused(positions):
    with pytest.raises(ValueError, match="'cat' is not among the words found"):
        word_time_table({"cat": 0.5}, 10, positions)


def test_a_window_counts_in_steps_of_any_length():
    assert window_range((0.2, 0.6), 10) == range(2, 6)


@given(steps=st.integers(1, 1000), hundredths=st.integers(0, 100))
def test_a_share_in_hundredths_is_so_many_whole_steps_whatever_floating_point_makes_of_it(steps, hundredths):
    assert window_range(hundredths / 100, steps) == range(hundredths * steps // 100)


def test_the_equalizer_weights_the_words_columns_and_leaves_the_others():
    factors = equalizer({"cat": 3, "black cat": -1.5}, {"cat": (2, 7), "black cat": (1, 2)}, columns=9)
    assert factors.tolist() == [1, -1.5, -1.5, 1, 1, 1, 1, 3, 1] and factors.dtype == torch.float32


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_refused(value):
    with pytest.raises(ValueError, match="'cat' is"):
        equalizer({"cat": value}, {"cat": (1,)})


def test_a_weight_for_a_word_that_was_not_found_is_refused():
    with pytest.raises(ValueError, match=r"'cat' is not among the words found in the target prompt \('dog'\)"):
        equalizer({"cat": 2}, {"dog": (1,)})

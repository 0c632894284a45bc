from __future__ import annotations

import itertools

import pytest
import torch
from comfyui_stem.stem_kernels.prompt_words import (
    Word,
    embedding_names,
    match_phrases,
    plain_prompt,
    tokenized_prompt,
)
from hypothesis import given, settings
from hypothesis import strategies as st

START, END = "<|startoftext|>", "<|endoftext|>"
IDS = itertools.count(320)
ID_OF = {START: 49406, END: 49407}


def host_output(*segments):
    """What a CLIP tokenizer gives: a segment is vocabulary entries joined by spaces, or the vectors of an embedding."""
    tokens = [(START, 0)]
    for word_id, segment in enumerate(segments, 1):
        tokens += [(entry, word_id) for entry in (segment.split() if isinstance(segment, str) else segment)]
    tokens += [(END, 0)] * (77 - len(tokens))
    texts = [token if isinstance(token, str) else "" for token, _ in tokens]
    for text in texts:
        ID_OF.setdefault(text, next(IDS))
    block = [(ID_OF[token] if isinstance(token, str) else token, 1.0, word_id) for token, word_id in tokens]
    return [block], texts


def words_of(prompt, *segments, missing=()):
    return tokenized_prompt(prompt, *host_output(*segments), missing).words


@pytest.mark.parametrize(
    ("prompt", "plain"),
    [
        ("a (silver jeep:1.3) driving", "a silver jeep driving"),
        ("a (silver (jeep):1.3), ((driving))", "a silver jeep, driving"),
        (r"\(a jeep\)", "(a jeep)"),
        (r"(\(a jeep\):0.5)", "(a jeep)"),
        ("(time: noon)", "time: noon"),
        ("(10:30)", "10"),
        ("(:1.2)", ":1.2"),
        ("a (jeep", "a (jeep"),
        ("a jeep)", "a jeep)"),
    ],
)
def test_weights_and_their_brackets_are_taken_out_of_the_prompt(prompt, plain):
    assert plain_prompt(prompt) == plain


def test_words_own_their_tokens_across_weights_accents_and_hyphens():
    segments = ("a</w>", "silver</w> jeep</w>", ",</w> cafÃ©</w> spider</w> -</w> man</w>")
    assert words_of("a (silver  jeep:1.3), CAFÉ\nSpider-Man", *segments) == (
        Word("a", (1,)),
        Word("silver", (2,)),
        Word("jeep,", (3, 4), punctuation=(4,)),
        Word("CAFÉ", (5,)),
        Word("Spider-Man", (6, 7, 8)),
    )


def test_a_letter_written_as_letter_and_accent_is_read_like_the_composed_one():
    assert words_of("cafe\N{COMBINING ACUTE ACCENT} jeep", "cafÃ©</w> jeep</w>")[1].positions == (2,)


def test_a_token_that_ends_within_a_character_belongs_to_the_word_of_the_character():
    words = words_of("a “cat’s” 日本", "a</w> âĢ ľ</w> cat</w> âĢ Ļ</w> s</w> âĢ Ŀ</w> æĹ¥</w> æľ ¬</w>")
    assert [word.positions for word in words] == [(1,), (2, 3, 4, 5, 6, 7, 8, 9), (10, 11, 12)]
    assert words[1].punctuation == (2, 3, 8, 9)


@pytest.mark.parametrize(
    ("segment", "positions"),
    [
        ("coop</w> jeep</w>", [(1,), (2,)]),  # transformers 4
        ("co</w> Â Ń</w> op</w> jeep</w>", [(1, 2, 3, 4), (5,)]),  # transformers 5
    ],
)
def test_a_soft_hyphen_is_read_whether_the_tokenizer_drops_or_keeps_it(segment, positions):
    assert [word.positions for word in words_of("co\N{SOFT HYPHEN}op jeep", segment)] == positions


def test_quotes_that_the_tokenizer_straightened_are_recognised():
    assert [word.positions for word in words_of("“cat’s” eye", '"</w> cat</w> \'s</w> "</w> eye</w>')] == [
        (1, 2, 3, 4),
        (5,),
    ]


def test_vectors_of_an_embedding_belong_to_the_word_that_names_it():
    words = words_of("a embedding:style, cat", "a</w>", [torch.zeros(4), torch.ones(4)], ",</w> cat</w>")
    assert [(word.positions, word.punctuation) for word in words] == [((1,), ()), ((2, 3, 4), (4,)), ((5,), ())]


def test_two_embeddings_in_a_row_are_two_words():
    words = words_of("embedding:one embedding:two", [torch.zeros(4)], [torch.ones(4), torch.ones(4)])
    assert [word.positions for word in words] == [(1,), (2, 3)]


def test_an_embedding_that_the_host_left_out_owns_nothing():
    words = words_of("a embedding:lost cat", "a</w>", "cat</w>", missing={"lost"})
    assert [word.positions for word in words] == [(1,), (), (2,)]


def test_of_two_embeddings_the_one_that_the_host_found_owns_the_vector():
    for prompt, positions in (
        ("embedding:lost embedding:Here", [(), (1,)]),
        ("embedding:Here embedding:lost", [(1,), ()]),
        ("embedding:lost embedding:LOST embedding:Here", [(), (), (1,)]),
    ):
        assert embedding_names(prompt) == set(prompt.replace("embedding:", "").split())
        words = words_of(prompt, [torch.ones(4)], missing={"lost", "LOST"})
        assert [word.positions for word in words] == positions


def test_ids_run_from_the_start_token_to_the_first_end_token():
    blocks, texts = host_output("a</w> jeep</w>")
    assert tokenized_prompt("a jeep", blocks, texts).ids == (49406, ID_OF["a</w>"], ID_OF["jeep</w>"], 49407)
    empty = tokenized_prompt("", *host_output())
    assert empty.ids == (49406, 49407) and empty.words == ()


def test_equal_embeddings_have_equal_ids():
    first, same, other = (
        tokenized_prompt("embedding:x", *host_output([vector])).ids[1]
        for vector in (torch.ones(4), torch.ones(4), torch.zeros(4))
    )
    assert first == same != other


def test_a_prompt_of_several_blocks_is_refused():
    (block,), texts = host_output("a</w>")
    with pytest.raises(ValueError, match="fills 2 blocks"):
        tokenized_prompt("a", [block, block], texts)


def test_texts_that_do_not_fit_the_tokens_are_refused():
    blocks, texts = host_output("a</w> jeep</w>")
    with pytest.raises(ValueError, match="77 tokens came with 76 texts"):
        tokenized_prompt("a jeep", blocks, texts[1:])
    with pytest.raises(ValueError, match="read 'jeep</w>' where the prompt has 'bear'"):
        tokenized_prompt("a bear", blocks, texts)


def test_an_embedding_that_the_prompt_does_not_name_is_refused():
    with pytest.raises(ValueError, match="read 'an embedding'"):
        words_of("a cat", [torch.zeros(4)])


@pytest.fixture(scope="module")
def tokenizer():
    from comfy.sd1_clip import SD1Tokenizer

    return SD1Tokenizer().clip_l


PIECES = ["a ", "cat", "Spider-Man", "(", ")", "(jeep:1.3)", ":1.2)", r"\(", r"\)", " ", ", ", "café ", "日本 ", "“x”"]
PIECES += [
    "12 ",
    "'s ",
    "\n",
    "e\N{COMBINING ACUTE ACCENT}",
    "😀",
    "-",
    "[red] ",
    "ŒUVRE ",
    "&amp;",
    "\N{NO-BREAK SPACE}",
]


@given(prompt=st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_every_token_of_the_hosts_tokenizer_is_owned_once_and_in_order(tokenizer, prompt):
    blocks = tokenizer.tokenize_with_weights(prompt, return_word_ids=True)
    texts = [tokenizer.inv_vocab[token] for token, _, _ in blocks[0]]
    tokenized = tokenized_prompt(prompt, blocks, texts)
    owned = [position for word in tokenized.words for position in word.positions]
    assert owned == list(range(1, len(tokenized.ids) - 1))
    assert all(word.positions for word in tokenized.words)


@given(text=st.text(max_size=40) | st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
@settings(max_examples=200)
def test_no_phrase_breaks_the_search_and_what_is_found_are_columns_of_the_words(text):
    found = match_phrases(RIDER, [text])
    columns = {column for word in RIDER for column in word.positions if column not in word.punctuation}
    assert [*found.positions, *found.unmatched] == [text]
    assert set(found.positions.get(text, ())) <= columns


def test_brackets_hundreds_deep_are_refused_and_fifty_deep_are_not():
    assert plain_prompt("(" * 50 + "jeep" + ")" * 50) == "jeep"
    with pytest.raises(ValueError, match="hundreds of nested brackets"):
        plain_prompt("(" * 3000 + "jeep" + ")" * 3000)


RIDER = (
    Word("A", (1,)),
    Word("Spider-Man,", (2, 3, 4, 5), punctuation=(5,)),
    Word("a", (6,)),
    Word("-", (7,), punctuation=(7,)),
    Word("red", (8,)),
    Word("panda", (9, 10)),
    Word("and", (11,)),
    Word("a", (12,)),
    Word("RED", (13,)),
    Word("panda.", (14, 15, 16), punctuation=(16,)),
)


@pytest.mark.parametrize(
    ("phrase", "positions"),
    [
        ("spider-man", (2, 3, 4)),
        ("  SPIDER-MAN! ", (2, 3, 4)),
        ("(Spider-Man:1.2)", (2, 3, 4)),
        ("panda", (9, 10, 14, 15)),
        ("red  panda", (8, 9, 10, 13, 14, 15)),
        ("a red", (6, 8, 12, 13)),
        ("a", (1, 6, 12)),
    ],
)
def test_a_phrase_is_found_wherever_its_words_follow_one_another(phrase, positions):
    matches = match_phrases(RIDER, [phrase])
    assert matches.positions == {phrase: positions} and matches.unmatched == ()


@pytest.mark.parametrize("phrase", ["man", "red and", "panda red", "tiger", "", " , ", "panda and a red panda too"])
def test_a_phrase_that_is_not_in_the_prompt_is_returned_by_name(phrase):
    matches = match_phrases(RIDER, [phrase, "and"])
    assert matches.unmatched == (phrase,) and matches.positions == {"and": (11,)}


def test_a_phrase_that_is_asked_for_twice_is_reported_once():
    matches = match_phrases(RIDER, ["tiger", "and", "tiger", "and"])
    assert matches.unmatched == ("tiger",) and list(matches.positions) == ["and"]


def test_letters_whose_capitals_are_spelt_differently_match():
    assert match_phrases([Word("Straße", (1,))], ["STRASSE"]).positions == {"STRASSE": (1,)}


def test_straight_and_typographic_apostrophes_match():
    assert match_phrases([Word("cat’s", (1, 2, 3))], ["cat's"]).positions == {"cat's": (1, 2, 3)}

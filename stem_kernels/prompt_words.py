"""Words of a prompt, the token columns they own, and the search for a phrase among them.

Works from what a CLIP tokenizer gave (token, weight, word id) and from its vocabulary, without the tokenizer itself.
A word is what stands between white space once prompt weights such as `(word:1.2)` are taken out: "Spider-Man" is one.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import accumulate

END_OF_WORD = "</w>"
EMBEDDING = b"embedding:"
_STRAIGHT_QUOTES = str.maketrans("‘’“”", "''\"\"")
# The byte-level alphabet of CLIP's vocabulary: a printable byte is written as itself, the others as U+0100 onwards.
_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_OTHERS = tuple(byte for byte in range(0x100) if byte not in _PRINTABLE)
_BYTES = {chr(byte): byte for byte in _PRINTABLE} | {chr(0x100 + n): byte for n, byte in enumerate(_OTHERS)}


@dataclass(frozen=True)
class Word:
    """A word as typed. `positions`: all its token columns; `punctuation`: those with only punctuation around it."""

    text: str
    positions: tuple[int, ...]
    punctuation: tuple[int, ...] = ()


@dataclass(frozen=True)
class TokenizedPrompt:
    """`ids`: comparable tokens from the start token up to the first end token; `words`: in the order of the prompt."""

    ids: tuple[Hashable, ...]
    words: tuple[Word, ...]


@dataclass(frozen=True)
class PhraseMatches:
    """`positions`: token columns of each phrase that was found, ascending; `unmatched`: the phrases that were not."""

    positions: Mapping[str, tuple[int, ...]]
    unmatched: tuple[str, ...]


def plain_prompt(prompt: str) -> str:
    r"""The prompt without weighting syntax: `a (silver (jeep):1.3)` becomes `a silver jeep`, `\(` becomes `(`.

    A bracket without its partner stays, as it does in ComfyUI.

    Raises:
        ValueError: hundreds of brackets lie within each other.
    """
    held = prompt.replace("\\)", "\0\1").replace("\\(", "\0\2")
    try:
        plain = _without_weights(held)
    except RecursionError:
        raise ValueError(f"'{prompt[:40]}…' has hundreds of nested brackets. Remove some.") from None
    return plain.replace("\0\1", ")").replace("\0\2", "(")


def embedding_names(prompt: str) -> set[str]:
    """Names of the textual-inversion embeddings that a prompt asks for."""
    prefix = EMBEDDING.decode()
    words = plain_prompt(prompt).split()
    return {word.removeprefix(prefix).strip(",") for word in words if word.startswith(prefix)}


def tokenized_prompt(
    prompt: str,
    blocks: Sequence[Sequence[tuple[object, float, int]]],
    texts: Sequence[str],
    missing: Collection[str] = (),
) -> TokenizedPrompt:
    """Join ComfyUI's tokens to the words of the prompt.

    Args:
        prompt: the text that was tokenized, with its weights.
        blocks: `(token, weight, word id)` of each block of 77; word id 0 marks start, end and padding. A token that is
            not an integer is the vector of a textual-inversion embedding.
        texts: entry of the tokenizer's vocabulary for each token of the block (such as "jeep</w>"); those of word id 0
            and of embeddings are not read.
        missing: those of `embedding_names` that the tokenizer leaves out, because it cannot find them.

    Raises:
        ValueError: the prompt fills more than one block, or a token's text is not where it should be in the prompt.
    """
    if len(blocks) != 1:
        raise ValueError(
            f"The prompt fills {len(blocks)} blocks of tokens, but words can be aligned within one block only. "
            "Shorten the prompt to 75 tokens."
        )
    block = blocks[0]
    if len(texts) != len(block):
        raise ValueError(f"{len(block)} tokens came with {len(texts)} texts; give one text for each token.")
    content = [position for position, (_, _, word_id) in enumerate(block) if word_id != 0]
    tokens = [(block[position][0], block[position][2], texts[position]) for position in content]
    words = plain_prompt(prompt).split()
    owned = _as_the_tokenizer_read(words, tokens, {_normalised(name).encode() for name in missing})
    end = content[-1] + 2 if content else 2
    return TokenizedPrompt(
        # the vector of an embedding as a tuple, so that equal embeddings align
        ids=tuple(token if isinstance(token, int) else tuple(token.flatten().tolist()) for token, _, _ in block[:end]),
        words=tuple(
            Word(word, tuple(content[k] for k, _ in mine), tuple(content[k] for k, is_core in mine if not is_core))
            for word, mine in zip(words, owned, strict=True)
        ),
    )


def match_phrases(words: Sequence[Word], phrases: Iterable[str]) -> PhraseMatches:
    """Token columns of every occurrence of each phrase: whole words, upper or lower case, outer punctuation ignored.

    A phrase may have several words, which must follow one another in the prompt. Tokens that hold only the punctuation
    around a word are left out, so that "jeep" found in "jeep," leaves the comma alone.
    """
    in_order = [(folded(word.text), word) for word in words]
    # Punctuation that stands alone must not come between the words of a phrase.
    spoken = [(text, word) for text, word in in_order if text]
    positions: dict[str, tuple[int, ...]] = {}
    unmatched: list[str] = []
    for phrase in dict.fromkeys(phrases):
        wanted = [text for text in map(folded, plain_prompt(phrase).split()) if text]
        found = {
            position
            for start in range(len(spoken) - len(wanted) + 1 if wanted else 0)
            if [text for text, _ in spoken[start : start + len(wanted)]] == wanted
            for _, word in spoken[start : start + len(wanted)]
            for position in set(word.positions) - set(word.punctuation)
        }
        if found:
            positions[phrase] = tuple(sorted(found))
        else:
            unmatched.append(phrase)
    return PhraseMatches(positions, tuple(unmatched))


def _without_weights(text: str) -> str:
    """Take brackets and their weights out, from the outside inwards."""
    parts: list[str] = []
    depth = start = 0
    for index, character in enumerate(text):
        if character == "(":
            if depth == 0:
                parts.append(text[start:index])
                start = index
            depth += 1
        elif character == ")":
            depth -= 1
            if depth == 0:
                parts.append(text[start : index + 1])
                start = index + 1
    parts.append(text[start:])
    return "".join(
        _without_weights(_without_number(part[1:-1])) if part.startswith("(") and part.endswith(")") else part
        for part in parts
    )


def _without_number(text: str) -> str:
    head, colon, weight = text.rpartition(":")
    try:
        float(weight)
    except ValueError:
        return text
    return head if colon and head else text


def _composed(word: str) -> str:
    return unicodedata.normalize("NFC", word).lower()


def _normalised(word: str) -> str:
    """A word as the tokenizer sees it: composed, in lower case, without control characters."""
    return "".join(character for character in _composed(word) if not unicodedata.category(character).startswith("C"))


def _core(word: str) -> tuple[int, int]:
    """First and one past the last character that is not punctuation; (0, 0) if there is none."""
    kept = [index for index, character in enumerate(word) if not unicodedata.category(character).startswith("P")]
    return (kept[0], kept[-1] + 1) if kept else (0, 0)


def folded(word: str) -> str:
    """What two spellings of a word have in common: no upper case, no punctuation around it; may be empty."""
    text = _normalised(word).translate(_STRAIGHT_QUOTES).casefold()
    return text[slice(*_core(text))]


def _as_the_tokenizer_read(
    words: Sequence[str], tokens: Sequence[tuple], missing: Set[bytes]
) -> list[list[tuple[int, bool]]]:
    """`_owned_tokens` of the first reading of the words that the tokens fit.

    Some tokenizers straighten typographic quotes before they look at the text. That of transformers 4 drops control and
    format characters (a soft hyphen, a zero-width space), that of transformers 5 keeps them.
    """
    dropped = [_normalised(word) for word in words]
    kept = [_composed(word) for word in words]
    refusals = []
    for reading in (dropped, kept):
        for read in (reading, [word.translate(_STRAIGHT_QUOTES) for word in reading]):
            try:
                return _owned_tokens(read, tokens, missing)
            except ValueError as refusal:
                refusals.append(refusal)
    raise refusals[0]


def _owned_tokens(
    words: Sequence[str], tokens: Sequence[tuple[object, int, str]], missing: Set[bytes]
) -> list[list[tuple[int, bool]]]:
    """For each word the indices of its tokens, and whether the token reaches into the word without its punctuation."""
    ends = list(accumulate(len(word.encode()) for word in words))
    owned: list[list[tuple[int, bool]]] = [[] for _ in words]
    for index, (start, end) in enumerate(_token_spans("".join(words).encode(), ends, tokens, missing)):
        owner = bisect_right(ends, start)
        word = words[owner]
        offset = ends[owner] - len(word.encode())
        first, last = (offset + len(word[:edge].encode()) for edge in _core(word))
        owned[owner].append((index, start < last and end > first))
    return owned


def _token_spans(
    stream: bytes, ends: Sequence[int], tokens: Sequence[tuple[object, int, str]], missing: Set[bytes]
) -> list[tuple[int, int]]:
    """Where in the joined words each token lies. Bytes, because a token may end in the middle of a character."""
    spans: list[tuple[int, int]] = []
    cursor = 0
    embedding_id = None
    for token, word_id, text in tokens:
        if word_id == embedding_id:
            spans.append(spans[-1])  # a further vector of the same embedding
            continue
        cursor = _after_missing(stream, ends, cursor, missing)
        if isinstance(token, int):
            written = bytes(_BYTES[character] for character in text.removesuffix(END_OF_WORD) if character in _BYTES)
            if not written or not stream.startswith(written, cursor):
                raise _out_of_step(text, stream, cursor)
            end, embedding_id = cursor + len(written), None
        else:
            if not stream.startswith(EMBEDDING, cursor):
                raise _out_of_step("an embedding", stream, cursor)
            end, embedding_id = _embedding_end(stream, ends, cursor), word_id
        spans.append((cursor, end))
        cursor = end
    return spans


def _after_missing(stream: bytes, ends: Sequence[int], cursor: int, missing: Set[bytes]) -> int:
    """Where the text goes on after embeddings that the tokenizer left out, with the commas before their names."""
    while stream.startswith(EMBEDDING, cursor):
        end = _embedding_end(stream, ends, cursor)
        if stream[cursor + len(EMBEDDING) : end].lstrip(b",") not in missing:
            break
        cursor = end
    return cursor


def _embedding_end(stream: bytes, ends: Sequence[int], start: int) -> int:
    end = ends[bisect_right(ends, start)]
    return start + len(stream[start:end].rstrip(b","))


def _out_of_step(found: str, stream: bytes, cursor: int) -> ValueError:
    rest = stream[cursor : cursor + 24].decode(errors="replace")
    return ValueError(
        f"The tokenizer read '{found}' where the prompt has '{rest}', so tokens cannot be assigned to words. "
        "Write this part of the prompt with plain characters."
    )

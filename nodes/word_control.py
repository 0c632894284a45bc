"""From two prompts and what a user wants of their words to token columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ..stem_kernels.cross_control import Reweighting, refined, replaced
from ..stem_kernels.prompt_alignment import (
    DEFAULT_WINDOW,
    Window,
    align_tokens,
    equalizer,
    refine_alignment,
    replace_mapper,
    word_time_table,
)
from ..stem_kernels.prompt_words import TokenizedPrompt, Word, match_phrases
from .host.fatezero import WordControl
from .host.prompts import Prompt

Control = Literal["auto", "refine", "replace"]


@dataclass(frozen=True)
class WordWishes:
    """What a user asks of the words.

    Attributes:
        control: "replace" matches the prompts word by word, "refine" aligns them, "auto" replaces where they have as
            many words.
        window: steps whose cross-attention comes from the source.
        word_windows: other windows for words of the target.
        weights: factors for words of the target.
        reweighting: whether these act within the window or always.
        blends: whether masks are needed.
        source_words, target_words: the words that masks are read from; where there are none, those in which the
            prompts differ.
    """

    control: Control = "auto"
    window: Window = 0.8
    word_windows: Mapping[str, Window] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    reweighting: Reweighting = "within_window"
    blends: bool = False
    source_words: Sequence[str] = ()
    target_words: Sequence[str] = ()


@dataclass(frozen=True)
class ReadWords:
    """control: for the edit; report: what was made of the prompts, in words for the user."""

    control: WordControl
    report: str


def read_words(source: Prompt, target: Prompt, wishes: WordWishes, steps: int, purpose: str) -> ReadWords:
    """The word control of an edit of `steps` steps.

    Raises:
        ValueError: a word is not in its prompt, or the prompts cannot be matched as asked.
    """
    old, new = source.tokenized, target.tokenized
    named = _columns(new, (*wishes.word_windows, *wishes.weights), "target", target.text, purpose)
    replaces = wishes.control == "replace" or (wishes.control == "auto" and len(old.words) == len(new.words))
    try:
        mapping = (
            replaced(replace_mapper(old.words, new.words)) if replaces else refined(refine_alignment(old.ids, new.ids))
        )
        windows = {DEFAULT_WINDOW: wishes.window, **wishes.word_windows}
        alpha, factors = word_time_table(windows, steps, named), equalizer(wishes.weights, named)
    except ValueError as error:
        raise ValueError(f"{purpose}: {error}") from None
    lines = [f"control: {'replace' if replaces else 'refine'}", _changes(old, new)]
    source_columns, target_columns = (), ()
    if wishes.blends:
        gone, fresh = differing_words(old, new)
        source_words = wishes.source_words or tuple(dict.fromkeys(word.text for word in gone))
        target_words = wishes.target_words or tuple(dict.fromkeys(word.text for word in fresh))
        if not source_words:
            raise ValueError(
                f"{purpose}: blending needs to know what to mask, and no word of the source prompt '{source.text}' is "
                "changed in the target. Name the words in source_blend_words, or turn blending off."
            )
        source_columns = _merged(_columns(old, source_words, "source", source.text, purpose))
        target_columns = _merged(_columns(new, target_words, "target", target.text, purpose))
        lines.append(f"masks: {', '.join(source_words)} in the source, {', '.join(target_words) or '-'} in the target")
    if wishes.weights:
        lines.append("weights: " + ", ".join(f"{word} {weight:g}" for word, weight in wishes.weights.items()))
    control = WordControl(alpha, mapping, factors, wishes.reweighting, source_columns, target_columns)
    return ReadWords(control, "\n".join(lines))


def differing_words(source: TokenizedPrompt, target: TokenizedPrompt) -> tuple[list[Word], list[Word]]:
    """Words of the source that the target lacks, and words of the target that the source lacks."""
    old, new = ([word.text.casefold().strip(".,;:!?") for word in prompt.words] for prompt in (source, target))
    aligned = align_tokens(old, new)
    gone = [word for i, word in enumerate(source.words) if i not in aligned]
    return gone, [word for word, partner in zip(target.words, aligned, strict=True) if partner < 0]


def _changes(source: TokenizedPrompt, target: TokenizedPrompt) -> str:
    gone, fresh = (" ".join(word.text for word in words) or "-" for words in differing_words(source, target))
    return f"changed words: {gone} -> {fresh}"


def _columns(
    prompt: TokenizedPrompt, phrases: Sequence[str], role: str, text: str, purpose: str
) -> Mapping[str, tuple[int, ...]]:
    found = match_phrases(prompt.words, phrases)
    if found.unmatched:
        missing = ", ".join(f"'{phrase}'" for phrase in found.unmatched)
        raise ValueError(
            f"{purpose}: {missing} is not in the {role} prompt '{text}', so it would have no effect. Write it as in "
            "the prompt (upper and lower case and punctuation do not matter), or take it out of the settings."
        )
    return found.positions


def _merged(positions: Mapping[str, Sequence[int]]) -> tuple[int, ...]:
    return tuple(sorted({column for columns in positions.values() for column in columns}))

"""From two prompts and what a user wants of their words to token columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from ....stem_kernels.cross_control import CrossControl, Reweighting, TokenMapping, control_at, refined, replaced
from ....stem_kernels.prompt_alignment import (
    DEFAULT_WINDOW,
    Window,
    align_tokens,
    equalizer,
    refine_alignment,
    replace_mapper,
    word_time_table,
)
from ....stem_kernels.prompt_words import TokenizedPrompt, Word, folded, match_phrases
from .prompts import Prompt

Control = Literal["auto", "refine", "replace"]


@dataclass(frozen=True)
class WordControl:
    """What the two prompts ask for, in token columns.

    Attributes:
        alpha: [steps + 1, columns], the word-time table (see `word_time_table`).
        mapping: from source to target tokens.
        factors: [columns], the equalizer of the target's words.
        reweighting: when the equalizer acts (see `control_at`).
        source_words, target_words: columns of the words that masks are read from; empty for none.
    """

    alpha: Tensor
    mapping: TokenMapping
    factors: Tensor
    reweighting: Reweighting = "within_window"
    source_words: Sequence[int] = ()
    target_words: Sequence[int] = ()

    def at(self, step: int) -> CrossControl:
        """The control of a step; 0 is the noisiest."""
        return control_at(self.mapping, self.alpha[step], self.factors, self.reweighting)


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
        masks_source, masks_target: whether masks are read from words of the source, and of the target.
        source_words, target_words: these words; where there are none, those in which the prompts differ.
    """

    control: Control = "auto"
    window: Window = 0.8
    word_windows: Mapping[str, Window] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    reweighting: Reweighting = "within_window"
    masks_source: bool = False
    masks_target: bool = False
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
    named = columns_of(target, (*wishes.word_windows, *wishes.weights), "target prompt", purpose)
    replaces = wishes.control == "replace" or (wishes.control == "auto" and len(old.words) == len(new.words))
    try:
        mapping = (
            replaced(replace_mapper(old.words, new.words)) if replaces else refined(refine_alignment(old.ids, new.ids))
        )
        windows = {DEFAULT_WINDOW: wishes.window, **wishes.word_windows}
        alpha, factors = word_time_table(windows, steps, named), equalizer(wishes.weights, named)
    except ValueError as error:
        raise ValueError(f"{purpose}: {error}") from None
    lines = [f"word_matching: {'replace' if replaces else 'refine'}", _changes(old, new)]
    gone, fresh = differing_words(old, new)
    source_mask = _mask_words(source, "source", wishes.source_words, gone, wishes.masks_source, purpose)
    target_mask = _mask_words(target, "target", wishes.target_words, fresh, wishes.masks_target, purpose)
    if wishes.masks_source and not source_mask.columns:
        raise ValueError(
            f"{purpose}: a mask is needed, but no word of the source prompt '{source.text}' changes in the target. "
            "Name the words in source_blend_words, or turn off blend_latents and free_shape."
        )
    lines += [*source_mask.report, *target_mask.report]
    if wishes.weights:
        lines.append("weights: " + ", ".join(f"{word} {weight:g}" for word, weight in wishes.weights.items()))
    control = WordControl(alpha, mapping, factors, wishes.reweighting, source_mask.columns, target_mask.columns)
    return ReadWords(control, "\n".join(lines))


def differing_words(source: TokenizedPrompt, target: TokenizedPrompt) -> tuple[list[Word], list[Word]]:
    """Words of the source that the target lacks, and words of the target that the source lacks."""
    old, new = ([word for word in prompt.words if folded(word.text)] for prompt in (source, target))
    aligned = align_tokens(*([folded(word.text) for word in words] for words in (old, new)))
    gone = [word for i, word in enumerate(old) if i not in aligned]
    return gone, [word for word, partner in zip(new, aligned, strict=True) if partner < 0]


@dataclass(frozen=True)
class _MaskWords:
    """columns: of the words that a mask is read from; report: lines about them."""

    columns: tuple[int, ...]
    report: tuple[str, ...] = ()


def _mask_words(
    prompt: Prompt, role: str, named: Sequence[str], differing: Sequence[Word], wanted: bool, purpose: str
) -> _MaskWords:
    # named words are looked for even where they have no effect, so that a slip is told
    found = columns_of(prompt, named, f"{role} prompt", purpose)
    if not wanted:
        unused = (f"note: {role}_blend_words have no effect, because no mask uses them",) if named else ()
        return _MaskWords((), unused)
    positions = found.values() if named else [set(word.positions) - set(word.punctuation) for word in differing]
    columns = tuple(sorted({column for columns in positions for column in columns}))
    words = ", ".join(named or [word.text for word in differing])
    return _MaskWords(columns, (f"mask of the {role}: {words or 'no word'}",))


def _changes(source: TokenizedPrompt, target: TokenizedPrompt) -> str:
    gone, fresh = (" ".join(word.text for word in words) or "-" for words in differing_words(source, target))
    return f"changed words: {gone} -> {fresh}"


def columns_of(prompt: Prompt, phrases: Sequence[str], which: str, purpose: str) -> Mapping[str, tuple[int, ...]]:
    """The token columns of phrases in a prompt, which is called `which`.

    Raises:
        ValueError: a phrase is not in the prompt, or is an embedding that ComfyUI cannot find.
    """
    words = prompt.tokenized.words
    found = match_phrases(words, phrases)
    # words without tokens, looked for as if they had one
    left_out = [word.text for word in words if not word.positions]
    if lost := match_phrases([Word(text, (0,)) for text in left_out], found.unmatched).positions:
        raise ValueError(
            f"{purpose}: ComfyUI has no such embedding as '{next(iter(lost))}', so it left it out of the {which}. "
            "Put its file into models/embeddings, or remove the word from the prompt and the settings."
        )
    if found.unmatched:
        missing = ", ".join(f"'{phrase}'" for phrase in found.unmatched)
        raise ValueError(
            f"{purpose}: {missing} is not in the {which} '{prompt.text}', so it would have no effect. Write it as in "
            "the prompt (upper and lower case and punctuation do not matter), or remove it from the settings."
        )
    return found.positions

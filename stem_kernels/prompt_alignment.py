"""FateZero's arithmetic on prompts: which source token each edited token takes its attention from, when, and how much.

At step c the cross-attention of the edit becomes `alpha[c] * R + (1 - alpha[c]) * A_edit`. R is the source's map,
carried over by a replace mapper (`A_source @ mapper`) or gathered by a refine alignment, times the equalizer. Columns
are token positions of CLIP's block of 77.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

from .prompt_words import Word

TOKENS = 77
DEFAULT_WINDOW = "default_"

Window = float | Sequence[float]


@dataclass(frozen=True)
class RefineAlignment:
    """Source token of each target token.

    `mapper`: int64 [columns], m[j] = source column, or -1 where the target token is new. `aligned`: float32 [columns],
    beta[j] = 1 where m[j] is a column, else 0. Mask m with beta before it indexes anything.
    """

    mapper: Tensor
    aligned: Tensor


def align_tokens(source: Sequence[Hashable], target: Sequence[Hashable]) -> tuple[int, ...]:
    """Needleman-Wunsch: the source index of each target token, or -1. A match counts 1, a mismatch -1, a gap 0.

    On ties a target token stays unmatched before a source token is skipped before the two are paired, so a pair is
    always a true match.
    """
    score = [[0] * (len(target) + 1) for _ in range(len(source) + 1)]
    for i, source_token in enumerate(source, 1):
        for j, target_token in enumerate(target, 1):
            paired = score[i - 1][j - 1] + (1 if source_token == target_token else -1)
            score[i][j] = max(score[i][j - 1], score[i - 1][j], paired)
    aligned = [-1] * len(target)
    i, j = len(source), len(target)
    while i > 0 and j > 0:
        if score[i][j] == score[i][j - 1]:
            j -= 1
        elif score[i][j] == score[i - 1][j]:
            i -= 1
        else:
            i, j = i - 1, j - 1
            aligned[j] = i
    return tuple(aligned)


def refine_alignment(
    source_ids: Sequence[Hashable], target_ids: Sequence[Hashable], columns: int = TOKENS
) -> RefineAlignment:
    """Alignment of two encoded prompts (start and end token included); padding columns map to themselves.

    Raises:
        ValueError: a prompt is longer than `columns`.
    """
    for name, ids in (("source", source_ids), ("target", target_ids)):
        if len(ids) > columns:
            raise ValueError(f"The {name} prompt has {len(ids)} tokens, but only {columns} columns exist. Shorten it.")
    mapper = torch.arange(columns)
    mapper[: len(target_ids)] = torch.tensor(align_tokens(source_ids, target_ids), dtype=torch.long)
    return RefineAlignment(mapper, (mapper >= 0).float())


def replace_mapper(
    source: Sequence[Word], target: Sequence[Word], columns: int = TOKENS, reproduce_reference_tail: bool = False
) -> Tensor:
    """Matrix that carries source attention to target tokens, word by word: float32 [source columns, target columns].

    Words with as many tokens map one to one. A word of token set a replaced by one of token set b gives every entry
    (a, b) the value 1/|b|. Source and target columns advance separately, so later words keep their own source. If the
    target is longer, the source's last padding columns add to the last target column; if it is shorter, the last target
    columns stay empty. Every row therefore sums to 1: attention mass is moved and never lost.

    Args:
        reproduce_reference_tail: after the last word that differs, map target column j to source column j as the
            published code does. This gives wrong tokens after a change of token count. For parity runs alone.

    Raises:
        ValueError: the word counts differ, a word has no tokens, or tokens outside words disturb the order.
    """
    if len(source) != len(target):
        raise ValueError(
            f"Replace needs prompts of the same number of words, but the source has {len(source)} and the target "
            f"{len(target)}. Set word_matching to refine or auto, or write both prompts with the same number of words."
        )
    mapper = torch.zeros(columns, columns)
    i = j = 0
    for old, new in zip(source, target, strict=True):
        if old.text == new.text and len(old.positions) == len(new.positions):
            continue
        for word in (old, new):
            if not word.positions:
                raise ValueError(f"'{word.text}' has no tokens, so it cannot be replaced. Remove it.")
            if word.positions[-1] >= columns:
                raise ValueError(f"'{word.text}' lies beyond column {columns}. Shorten the prompt.")
        a, b = old.positions, new.positions
        unchanged = a[0] - i
        if unchanged < 0 or b[0] - j != unchanged:
            raise ValueError(
                f"'{old.text}' and '{new.text}' do not follow the same words: {unchanged} source tokens and {b[0] - j} "
                "target tokens stand before them. Words must be in the order of their tokens."
            )
        steps = torch.arange(unchanged)
        mapper[i + steps, j + steps] = 1
        if len(a) == len(b):
            mapper[a, b] = 1
        else:
            mapper[a[0] : a[-1] + 1, b[0] : b[-1] + 1] = 1 / len(b)
        i, j = a[-1] + 1, b[-1] + 1
    steps = torch.arange(columns - max(i, j))
    mapper[(j if reproduce_reference_tail else i) + steps, j + steps] = 1
    if not reproduce_reference_tail:
        mapper[i + len(steps) :, -1] = 1
    return mapper


def window_range(window: Window, length: int, name: str = "The window") -> range:
    """Steps from b0 * length up to b1 * length, rounded down, of a window (b0, b1) of fractions; one number b means
    (0, b).

    Args:
        name: what messages call the window.

    Raises:
        ValueError: not one or two numbers, a bound outside 0..1, or bounds in the wrong order.
    """
    bounds = (0, window) if isinstance(window, Real) else tuple(window) if isinstance(window, Sequence) else ()
    if len(bounds) != 2 or not all(isinstance(bound, Real) and not isinstance(bound, bool) for bound in bounds):
        raise ValueError(f"{name} is {window!r}; give one number, or two for start and end.")
    start, end = bounds
    if not (0 <= start <= 1 and 0 <= end <= 1):
        raise ValueError(f"{name} runs from {start} to {end}, but its bounds are fractions of all steps: use 0 to 1.")
    if start > end:
        raise ValueError(f"{name} starts at {start} and ends at {end}, before it has begun. Swap the two.")
    # 0.58 of 50 steps are 29, though 0.58 * 50 is a little less in floating point
    return range(int(start * length + 1e-9), int(end * length + 1e-9))


def word_time_table(
    windows: Window | Mapping[str, Window],
    steps: int,
    positions: Mapping[str, Sequence[int]] | None = None,
    columns: int = TOKENS,
) -> Tensor:
    """Word-time weights alpha of cross-attention control: float32 [steps + 1, columns] of 0 and 1, row c = step c.

    Args:
        windows: one window for all columns, or windows by target word, with `default_` for all other columns (the whole
            run where it is missing). A word's window replaces the default one in the columns of the word.
        positions: token columns of each word that `windows` names; empty for a word that is to have no effect.

    Raises:
        ValueError: a wrong window (see `window_range`), or a word without an entry in `positions`.
    """
    by_word = dict(windows) if isinstance(windows, Mapping) else {DEFAULT_WINDOW: windows}
    default = by_word.pop(DEFAULT_WINDOW, (0, 1))
    table = torch.zeros(steps + 1, columns)
    active = window_range(default, steps + 1, "The cross-attention window")
    table[active.start : active.stop] = 1
    for word, window in by_word.items():
        active = window_range(window, steps + 1, f"The window of '{word}'")
        owned = _columns_of(word, positions)
        table[:, owned] = 0
        table[active.start : active.stop, owned] = 1
    return table


def equalizer(values: Mapping[str, float], positions: Mapping[str, Sequence[int]], columns: int = TOKENS) -> Tensor:
    """Factors e of reweighting: float32 [columns], the word's value in the columns of a word, 1 elsewhere.

    Where words share a column the later one counts. The rows of `R * e` no longer sum to 1: that is the amplification.

    Raises:
        ValueError: a value is not finite, or a word has no entry in `positions`.
    """
    factors = torch.ones(columns)
    for word, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"The weight of '{word}' is {value}, which would ruin every pixel. Use a finite number.")
        factors[_columns_of(word, positions)] = value
    return factors


def _columns_of(word: str, positions: Mapping[str, Sequence[int]] | None) -> list[int]:
    if positions is None or word not in positions:
        known = ", ".join(f"'{name}'" for name in positions or ()) or "none"
        raise ValueError(
            f"'{word}' is not among the words found in the target prompt ({known}). Write it as in the prompt, or "
            "remove it from the settings."
        )
    return list(positions[word])

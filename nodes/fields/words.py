"""The text fields of FateZero Edit: windows, weights of words, lists of words."""

from __future__ import annotations

import re
from typing import Any

from ...stem_kernels.prompt_alignment import DEFAULT_WINDOW, Window

_NUMBER = r"\s*(\d+(?:\.\d*)?|\.\d+)\s*"
_WINDOW = re.compile(rf"{_NUMBER}(?:(?:-|–|to|,){_NUMBER})?")


def parse_window(text: str, field: str) -> Window:
    """ "0.8" as 0.8 (from the start on), "0.2-0.7" or "0.2 to 0.7" as (0.2, 0.7).

    Raises:
        ValueError: it is neither; bounds are checked where the window is used.
    """
    found = _WINDOW.fullmatch(text)
    if not found:
        raise ValueError(
            f"{field} is '{text}'; write a share of the steps such as 0.8, or a start and an end such as 0.2-0.7."
        )
    start, end = found.groups()
    return float(start) if end is None else (float(start), float(end))


def parse_word_windows(text: str, field: str) -> dict[str, Window]:
    """Lines such as "jeep: 0.2-0.7", a window for each word or phrase; semicolons separate as well."""
    windows: dict[str, Window] = {}
    for entry in _entries(text, r"[;\n]"):
        word, colon, window = (part.strip() for part in entry.rpartition(":"))
        if not colon or not word:
            raise ValueError(f"{field} has '{entry}'; write a word, a colon and a window: jeep: 0.2-0.7.")
        if word == DEFAULT_WINDOW:
            raise ValueError(f"{field} has '{word}', which stands for all other words. Leave out the underscore.")
        _put(windows, word, parse_window(window, f"The window of '{word}'"), field)
    return windows


def parse_weights(text: str, default: float, field: str) -> dict[str, float]:
    """Entries such as "watercolor: 10", separated by commas, semicolons or lines; without a number, `default`."""
    weights: dict[str, float] = {}
    for entry in _entries(text, r"[,;\n]"):
        word, colon, number = (part.strip() for part in entry.rpartition(":"))
        try:
            weight = float(number) if colon else default
        except ValueError:
            raise ValueError(f"{field} has '{entry}'; write a word, a colon and a number: watercolor: 10.") from None
        if colon and not word:
            raise ValueError(f"{field} has '{entry}' without a word. Write watercolor: 10.")
        _put(weights, word if colon else entry, weight, field)
    return weights


def parse_words(text: str) -> tuple[str, ...]:
    """Words or phrases, separated by commas, semicolons or lines."""
    return tuple(_entries(text, r"[,;\n]"))


def parse_levels(text: str, field: str) -> frozenset[int]:
    """Resolution levels such as "1, 2, 3".

    Raises:
        ValueError: there is no entry, or one that is not 0, 1, 2 or 3.
    """
    levels = _entries(text, r"[,;\s]")
    if not levels or not set(levels) <= set("0123"):
        raise ValueError(
            f"{field} is '{text}'; list the levels 0 to 3, separated by commas. 0 is the resolution of the latent, 3 "
            "an eighth of it; FateZero uses 1, 2, 3."
        )
    return frozenset(map(int, levels))


def _put(values: dict[str, Any], word: str, value: Any, field: str) -> None:
    if word in values:
        raise ValueError(f"{field} has '{word}' twice, and only one of them can apply. Remove one.")
    values[word] = value


def _entries(text: str, separators: str) -> list[str]:
    return [entry for entry in (part.strip() for part in re.split(separators, text)) if entry]

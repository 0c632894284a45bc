"""Word and token alignment against what the published FateZero code gives, for a folder of recorded cases.

Reads the layout of a recording (one array a case) and the compact one of tests/data, which its README describes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from ....stem_kernels.prompt_alignment import (
    DEFAULT_WINDOW,
    TOKENS,
    equalizer,
    refine_alignment,
    replace_mapper,
    word_time_table,
)
from ....stem_kernels.prompt_words import Word
from .comparison import Comparison, compared

STEPS = (10, 50)
TABLE_PAIRS = (0, 1)
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Recording:
    """`pairs`: prompts, their tokens, equalizers; `windows`: of cross-attention; `arrays`: by their recorded names."""

    pairs: Sequence[Mapping]
    windows: Sequence
    arrays: Mapping[str, Tensor]


def load(folder: Path) -> Recording:
    """Read text_alignment.json and text_alignment.safetensors in either layout."""
    document = json.loads((folder / "text_alignment.json").read_text(encoding="utf-8"))
    arrays = load_file(folder / "text_alignment.safetensors")
    if "refine.mapper" in arrays:
        arrays = _expanded(arrays)
    return Recording(document["pairs"], document["cross_replace_cases"], arrays)


def comparisons(folder: Path) -> Iterator[Comparison]:
    """Every recorded pair of prompts and word-time table."""
    recording = load(folder)
    for index in range(len(recording.pairs)):
        yield from _pair(recording, index)
    for steps in STEPS:
        for case, windows in enumerate(recording.windows):
            for index in TABLE_PAIRS:
                name = f"alpha.T{steps}.case{case}.pair{index:02}"
                positions = recording.pairs[index]["target_word_tokens"]
                table = word_time_table(windows, steps, known_positions(windows, positions))
                yield compared(name, table, recording.arrays[name], TOLERANCE)


def reference_words(prompt: str, tokens: Sequence[str]) -> list[Word]:
    """Words as the published code splits a prompt: at single spaces, tokens dealt out by adding up their lengths.

    Args:
        tokens: decoded texts, start and end token included.
    """
    texts = prompt.split(" ")
    owned: list[list[int]] = [[] for _ in texts]
    word = length = 0
    for position, token in enumerate(tokens[1:-1], 1):
        owned[word].append(position)
        length += len(token)
        if length >= len(texts[word]):
            word, length = word + 1, 0
    return [Word(text, tuple(positions)) for text, positions in zip(texts, owned, strict=True)]


def known_positions(
    words: Mapping[str, object] | object, positions: Mapping[str, Sequence[int]]
) -> dict[str, Sequence[int]]:
    """Positions of the named words; none for one that the prompt lacks, which the published code passes over."""
    names = words if isinstance(words, Mapping) else {}
    return {name: positions.get(name, ()) for name in names if name != DEFAULT_WINDOW}


def recorded_equalizer(settings: Mapping) -> Tensor:
    """Factors that were recorded as a table of the columns that are not 1."""
    factors = torch.ones(TOKENS)
    for position, value in settings["nonunit"].items():
        factors[int(position)] = value
    return factors


def _pair(recording: Recording, index: int) -> Iterator[Comparison]:
    pair, name = recording.pairs[index], f"pair{index:02}"
    refined = refine_alignment(pair["source_ids"], pair["target_ids"])
    for key, found in (("mapper", refined.mapper), ("alphas", refined.aligned)):
        yield compared(f"{name}.refine.{key}", found, recording.arrays[f"{name}.refine.{key}"], TOLERANCE)
    source, target = (reference_words(pair[side], pair[f"{side}_tokens"]) for side in ("source", "target"))
    recorded = recording.arrays.get(f"{name}.replace.mapper")
    if recorded is None:
        # Nothing was recorded where the word counts differ: replace must be refused there.
        try:
            replace_mapper(source, target)
            error = float("inf")
        except ValueError:
            error = 0.0
        yield Comparison(f"{name}.replace.refused", error, TOLERANCE)
    else:
        mapper = replace_mapper(source, target, reproduce_reference_tail=True)
        yield compared(f"{name}.replace.mapper", mapper, recorded, TOLERANCE)
    for number, settings in enumerate(pair["equalizers"]):
        values = dict(zip(settings["words"], settings["values"], strict=True))
        factors = equalizer(values, known_positions(values, pair["target_word_tokens"]))
        yield compared(f"{name}.equalizer{number}", factors, recorded_equalizer(settings), TOLERANCE)


def _expanded(compact: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The arrays of the compact layout under the names of a recording."""
    arrays: dict[str, Tensor] = {}
    for key in ("mapper", "alphas"):
        for index, row in enumerate(compact[f"refine.{key}"]):
            arrays[f"pair{index:02}.refine.{key}"] = row
    entries = compact["replace.entries"].tolist()
    for (index, source, target), value in zip(entries, compact["replace.values"], strict=True):
        mapper = arrays.setdefault(f"pair{index:02}.replace.mapper", torch.zeros(TOKENS, TOKENS))
        mapper[source, target] = value
    for steps in STEPS:
        tables = torch.from_numpy(np.unpackbits(compact[f"alpha.T{steps}"].numpy(), axis=-1, count=TOKENS))
        for case, by_pair in enumerate(tables):
            for index, table in zip(TABLE_PAIRS, by_pair, strict=True):
                arrays[f"alpha.T{steps}.case{case}.pair{index:02}"] = table
    return arrays

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from comfyui_stem.tools.measured.errors import relative_error
from comfyui_stem.tools.measured.parity import text
from safetensors.torch import save_file

DATA = Path(__file__).parents[3] / "data"
RECORDED = text.load(DATA)
PAIRS = range(len(RECORDED.pairs))


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("index", PAIRS)
def test_the_restated_word_split_gives_the_recorded_positions(index, side):
    pair = RECORDED.pairs[index]
    merged: dict[str, list[int]] = {}
    for word in text.reference_words(pair[side], pair[f"{side}_tokens"]):
        merged.setdefault(word.text, []).extend(word.positions)
    assert merged == pair[f"{side}_word_tokens"]


def test_parity_reads_the_layout_of_a_recording_and_the_compact_one_alike(tmp_path):
    document = {"pairs": RECORDED.pairs, "cross_replace_cases": RECORDED.windows}
    (tmp_path / "text_alignment.json").write_text(json.dumps(document), encoding="utf-8")
    save_file(
        {name: array.contiguous() for name, array in RECORDED.arrays.items()}, tmp_path / "text_alignment.safetensors"
    )
    compact = list(text.comparisons(DATA))
    assert list(text.comparisons(tmp_path)) == compact
    assert len({case.name for case in compact}) == len(compact) == 22 * 3 + 54 + 32
    assert all(case.ok for case in compact)


def test_parity_tells_a_wrong_array_from_a_right_one():
    recorded = RECORDED.arrays["pair06.replace.mapper"]
    wrong = recorded + torch.eye(77) * 1e-4
    assert relative_error(wrong, recorded) > text.TOLERANCE
    assert relative_error(recorded[:, :1], recorded) == float("inf")
    assert relative_error(torch.ones(4), torch.zeros(4)) == 2

"""What the table of faults counts as right, and what it says."""

from __future__ import annotations

import json

import pytest
from comfyui_stem.tools.robustness.faults import JSON, PARTS
from comfyui_stem.tools.robustness.faults.graphs import SAMPLERS
from comfyui_stem.tools.robustness.faults.inside import calls_at
from comfyui_stem.tools.robustness.faults.report import is_right, page

ROW = {
    "sampler": SAMPLERS[0].name,
    "fault": "exception",
    "place": "attn1_output_patch",
    "outcome": "failed",
    "calls": [1, 7],
    "of": 12,
    "told": ["STEM Inversion failed: a | b", "again"],
    "equal": [True, True],
    "tensors_kept": 0,
    "bytes_kept": 0,
    "coroutines_kept": 0,
    "files_left": [],
    "megabytes": 700.0,
}


@pytest.mark.parametrize(
    "change",
    [
        {"equal": [True, False]},
        {"told": ["", "again"]},
        {"bytes_kept": 1},
        {"coroutines_kept": 1},
        {"files_left": ["temp/x"]},
        {"outcome": "failed elsewhere"},
        {"psnr": 20.0},
        {"half_files_offered": ["x"]},
    ],
)
def test_a_row_is_right_only_where_the_user_was_told_and_nothing_is_left(change):
    assert is_right(ROW)
    assert not is_right(ROW | change)


def test_the_page_has_a_row_for_each_fault_and_counts_those_that_are_right():
    text = page({SAMPLERS[0].name: [ROW, ROW | {"equal": [True, False]}]})
    assert "1 of the 2 rows" in text
    assert "| exception | `attn1_output_patch` | 1, 7 of 12 | STEM Inversion failed: a \\| b | yes (2 of 2) |" in text
    assert "**no** (1 of 2)" in text
    assert f"Not measured yet: {SAMPLERS[1].name}; " in text


def test_calls_lie_in_the_part_that_belongs_to_the_sampler():
    assert calls_at(12, (0.0, 1.0), (0.0, 0.5, 1.0)) == [1, 7, 12]
    assert calls_at(12, (0.5, 1.0), (0.0, 1.0)) == [7, 12]
    assert calls_at(2, (0.0, 0.5), (0.0, 0.9)) == [1]
    assert calls_at(1, (0.0, 0.5), (0.0,)) == []


def test_every_recorded_fault_was_told_and_left_nothing():
    found = json.loads(JSON.read_text(encoding="utf-8"))
    assert found and list(found) == [part for part in PARTS if part in found]
    wrong = [row for rows in found.values() for row in rows if not is_right(row)]
    assert wrong == []
    assert any(row["outcome"] == "failed" for row in found["killed"])
    assert JSON.with_suffix(".md").read_text(encoding="utf-8") == page(found)

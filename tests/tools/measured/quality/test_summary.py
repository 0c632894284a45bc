"""Gains are differences between what belongs together."""

from __future__ import annotations

import pytest
from comfyui_stem.tools.measured.quality import summary
from comfyui_stem.tools.measured.quality.clips import held_out_cases
from comfyui_stem.tools.measured.quality.plan import Item
from comfyui_stem.tools.measured.quality.variants import BASELINE, DEFAULT

CASES = held_out_cases(3, edits=2)


def done(variant, seed, number, editor="none"):
    """Results on all clips; number(clip, seed, edit) is what was measured."""
    for case in CASES:
        edits = [wish.kind for wish in case.edits] if editor != "none" else [None]
        measured = [
            {"editor": editor, "denoiser": None, "cfg": 1.0, "edit": edit}
            | {"metrics": {"psnr": number(case.index, seed, edit)}}
            for edit in edits
        ]
        yield Item("variant", case, variant, seed), {"measured": measured}


def gain_of(*parts):
    rows = summary.rows([result for part in parts for result in part])
    return next(row for row in rows if row["inversion"] == "stem" and row["edit"] in (None, summary.ALL_EDITS))


def by_seed(clip, seed, edit):
    return 100.0 * clip + 10.0 * seed + len(edit or "")


def two_more(clip, seed, edit):
    return by_seed(clip, seed, edit) + 2


def test_the_same_seed_is_compared_with_the_same_seed_in_whatever_order_they_were_run():
    parts = [done(DEFAULT, 1, two_more), done(BASELINE, 0, by_seed), done(DEFAULT, 0, two_more)]
    row = gain_of(*parts, done(BASELINE, 1, by_seed))
    assert (row["gain"], row["gain_low"], row["gain_high"]) == pytest.approx((2, 2, 2))
    assert (row["clips"], row["values"]) == (3, 6)


def test_a_baseline_that_no_seed_changes_stands_for_every_seed():
    row = gain_of(done(BASELINE, 0, by_seed), done(DEFAULT, 0, two_more), done(DEFAULT, 1, two_more))
    assert row["gain"] == pytest.approx(2 + 10 / 2)


def test_what_was_run_with_one_seed_is_compared_with_that_seed_alone():
    row = gain_of(done(BASELINE, 0, by_seed), done(BASELINE, 1, by_seed), done(DEFAULT, 0, two_more))
    assert (row["gain"], row["values"]) == (pytest.approx(2), 3)


def test_an_edit_is_compared_with_the_same_edit():
    kinds = [[wish.kind for wish in case.edits] for case in CASES]
    assert all(len(of_clip) == 2 for of_clip in kinds)
    row = gain_of(done(BASELINE, 0, by_seed, "tokenflow"), done(DEFAULT, 0, two_more, "tokenflow"))
    assert (row["gain"], row["gain_low"], row["gain_high"]) == pytest.approx((2, 2, 2))


def test_where_the_baseline_has_no_finite_number_there_is_no_gain():
    infinite = done(BASELINE, 0, lambda clip, seed, edit: float("inf") if clip else by_seed(clip, seed, edit))
    row = gain_of(infinite, done(DEFAULT, 0, two_more))
    assert row["gain"] == row["gain_low"] == row["gain_high"] == pytest.approx(2)
    assert row["clips"] == 3

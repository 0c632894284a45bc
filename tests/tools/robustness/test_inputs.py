"""Odd and broken clips, names, files, prompts and sizes through a real host: the cases of the table in docs."""

from __future__ import annotations

import json

import numpy as np
import pytest
from comfyui_stem.tools.robustness.host_under_test import HostUnderTest
from comfyui_stem.tools.robustness.inputs import CASES, FILE
from comfyui_stem.tools.robustness.inputs.odd_input import outcome_of

pytestmark = pytest.mark.host

QUICK = [case for case in CASES if case.quick]


@pytest.fixture(scope="module")
def tested(host_process):
    return HostUnderTest(host_process)


@pytest.fixture(scope="module")
def undisturbed(tested):
    """What good runs give before anything has gone wrong."""
    found = {good: outcome_of(tested, good) for good in dict.fromkeys(case.good for case in QUICK)}
    assert not any(outcome.message for outcome in found.values())
    return {good: outcome.pictures for good, outcome in found.items()}


@pytest.mark.parametrize("case", QUICK, ids=[f"{case.through}: {case.name}" for case in QUICK])
def test_an_odd_input_gives_the_right_frames_or_is_refused_by_what_is_odd(tested, undisturbed, case):
    outcome = outcome_of(tested, case.build, fresh=False)
    assert case.holds(outcome), outcome.message or outcome.pictures.shape


def test_good_runs_give_the_same_pixels_after_all_that(tested, undisturbed):
    for good, before in undisturbed.items():
        assert np.array_equal(outcome_of(tested, good).pictures, before)


def test_nothing_was_unpickled_or_written_outside_the_hosts_folders(tested, undisturbed):
    assert not (tested.base / "unpickled").exists()
    assert list(tested.folder("elsewhere").iterdir()) == []


def test_the_table_in_docs_has_every_case_and_none_failed():
    rows = json.loads(FILE.read_text(encoding="utf-8"))
    assert [(row["case"], row["through"]) for row in rows] == [(case.name, case.through) for case in CASES]
    assert all(row["outcome"].startswith(("works: ", "refused; the next run is as before")) for row in rows)

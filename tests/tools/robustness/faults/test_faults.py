"""A few of the faults of `make faults`: the user is told, and the next run is as if nothing had been."""

from __future__ import annotations

from itertools import islice

import pytest
from comfyui_stem.tools.robustness.faults import beside, inside
from comfyui_stem.tools.robustness.faults.graphs import SAMPLERS
from comfyui_stem.tools.robustness.faults.inside import ENDS_AND_MIDDLE, FIRST_AND_LATER, POSTED, FaultPlan
from comfyui_stem.tools.robustness.faults.report import is_right
from comfyui_stem.tools.robustness.host_under_test import HostUnderTest

pytestmark = pytest.mark.host
INVERSION, TOKENFLOW, FATEZERO, SOURCE_PASS = (SAMPLERS[number] for number in (0, 4, 5, 6))


@pytest.fixture(scope="module")
def tested(host_process):
    return HostUnderTest(host_process)


@pytest.mark.parametrize(
    ("sampler", "plan", "told"),
    [
        (INVERSION, FaultPlan("exception", "attn1_output_patch", FIRST_AND_LATER), "RuntimeError: A fault"),
        (INVERSION, FaultPlan("out of memory", "tensor operation", (0.0, 0.5)), "ran out of memory"),
        (TOKENFLOW, FaultPlan("interrupt", "attn1_output_patch", ENDS_AND_MIDDLE), "was interrupted"),
        (FATEZERO, FaultPlan("interrupt", POSTED), "was interrupted"),
        (SOURCE_PASS, FaultPlan("exception", "DIFFUSION_MODEL", (0.5,)), "RuntimeError: A fault"),
    ],
    ids=lambda value: f"{value.kind} in {value.place}" if isinstance(value, FaultPlan) else getattr(value, "node", ""),
)
def test_a_fault_is_told_and_leaves_the_next_runs_as_undisturbed(tested, sampler, plan, told):
    (row,) = inside.tried(tested, sampler, [plan])
    assert row["outcome"] == inside.FAILED
    assert all(told in message and sampler.node in message for message in row["told"])
    assert is_right(row), row


def test_conditionings_go_through_one_by_one_whether_or_not_the_host_is_short_of_memory(tested):
    row = next(beside.short_of_memory(tested))
    assert row["place"] == "at most 2 rows a pass instead of 2"
    assert is_right(row), row


def test_workflows_that_are_queued_together_do_not_touch_each_other(tested):
    rows = list(islice(beside.queued_together(tested), 2))
    assert [row["outcome"] for row in rows] == ["went on", "failed"]
    assert all(map(is_right, rows)), rows

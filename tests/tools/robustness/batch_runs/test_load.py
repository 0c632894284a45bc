"""What is read off a run of the batch engine, and the model that its numbers go into."""

from __future__ import annotations

import pytest
from comfyui_stem.tools.robustness.batch_runs.load import Site, rate
from hypothesis import given
from hypothesis import strategies as st


def test_the_rate_counts_clips_between_the_last_worker_and_the_last_clip_that_is_sent():
    def event(kind, time, **more):
        return {"event": kind, "time": time, **more}

    events = [event("worker", 0.0, state="ready"), event("worker", 10.0, state="ready")]
    events += [event("sent", float(time)) for time in range(21)]
    # until both workers were there, and when no more clips were sent, the machine was not busy
    events += [event("done", time) for time in (5.0, 12.0, 14.0, 16.0, 18.0, 20.0, 25.0)]
    assert rate(events) == 3600 * 5 / 10


@given(st.integers(1, 4096), st.integers(1, 4096))
def test_more_workers_are_never_slower_where_the_model_is_staged(one, other):
    few, many = sorted((one, other))
    site = Site(staged=True)
    assert site.clips_an_hour(few) <= site.clips_an_hour(many) * (1 + 1e-12)


def test_few_workers_are_bound_by_computing_and_many_by_reading_the_model_or_by_the_driver():
    site = Site(start=0, crashes=0, overhead=0)
    assert site.clips_an_hour(8) == pytest.approx(8 * 120, rel=0.002)
    assert Site().clips_an_hour(4096) < 0.2 * Site(staged=True).clips_an_hour(4096)
    assert Site(staged=True, driver=0.1).clips_an_hour(4096) == pytest.approx(36_000, rel=0.02)

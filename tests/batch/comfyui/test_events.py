"""The host's messages, as events, times and sentences."""

from __future__ import annotations

import json

from comfyui_stem.batch.comfyui.events import Event, Follower, describe_rejection

PROMPT = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {}, "_meta": {"title": "Load Checkpoint"}},
    "2": {"class_type": "SaveImage", "inputs": {}},
}


def follow(*messages):
    follower, events = Follower(PROMPT), []
    for now, (kind, data) in enumerate(messages):
        events += follower.handle(kind, data, float(now))
    return follower, events


def test_a_run_is_told_node_by_node_with_its_times():
    follower, events = follow(
        ("execution_start", {}),
        ("executing", {"node": "1"}),
        ("progress", {"node": "1", "value": 2, "max": 5}),
        ("executing", {"node": "2"}),
        ("execution_success", {}),
    )
    assert events == [
        Event("started", "1", "Load Checkpoint"),
        Event("progress", "1", "Load Checkpoint", 2, 5),
        Event("finished", "1", "Load Checkpoint", seconds=2),
        Event("started", "2", "SaveImage"),
        Event("finished", "2", "SaveImage", seconds=1),
    ]
    assert follower.seconds == {"1": 2, "2": 1}
    assert (follower.status, follower.error) == ("success", None)


def test_a_node_that_runs_twice_has_the_sum_of_its_times():
    follower, _ = follow(*[("executing", {"node": node}) for node in ("1", "2", "1", None)])
    assert follower.seconds == {"1": 2, "2": 1}
    assert follower.status is None


def test_progress_without_an_end_is_no_event():
    _, events = follow(("executing", {"node": "1"}), ("progress", {"node": "1", "value": 0, "max": 0}))
    assert [event.kind for event in events] == ["started"]


def test_a_failure_names_the_node_and_the_reason():
    follower, events = follow(
        ("executing", {"node": "1"}),
        ("execution_error", {"node_id": "1", "exception_type": "ValueError", "exception_message": "no file\n"}),
    )
    assert follower.status == "error"
    assert follower.error == "Load Checkpoint (CheckpointLoaderSimple, node 1) failed: ValueError: no file"
    assert events[-1].kind == "finished"


def test_an_interruption_is_no_failure():
    follower, _ = follow(("executing", {"node": "2"}), ("execution_interrupted", {"node_id": "2"}))
    assert follower.status == "interrupted"
    assert "SaveImage (node 2)" in follower.error


def test_a_rejection_lists_what_is_wrong_with_each_node():
    problem = {"message": "Value not in list", "details": "ckpt_name: 'a' not in ['b']"}
    body = {"error": {"message": "failed validation", "details": ""}, "node_errors": {"1": {"errors": [problem]}}}
    text = describe_rejection(PROMPT, json.dumps(body).encode())
    assert "failed validation" in text
    assert "Load Checkpoint (CheckpointLoaderSimple, node 1): Value not in list: ckpt_name: 'a' not in ['b']" in text


def test_a_rejection_that_is_no_json_is_shown_as_it_is():
    assert describe_rejection(PROMPT, b"<html>oops") == "The host refused the workflow: <html>oops"


def test_steps_are_timed_from_the_end_of_the_first_and_however_few_are_told():
    """A second for each message: the first step ends at 2, the fifth at 3, the ninth at 5; loading does not count."""
    follower, _ = follow(
        ("executing", {"node": "1"}),
        ("progress", {"node": "1", "value": 0, "max": 9}),
        ("progress", {"node": "1", "value": 1, "max": 9}),
        ("progress", {"node": "1", "value": 5, "max": 9}),
        ("status", {}),
        ("progress", {"node": "1", "value": 9, "max": 9}),
        ("executing", {"node": "2"}),
        ("progress", {"node": "2", "value": 1, "max": 1}),
        ("execution_success", {}),
    )
    assert follower.seconds_per_step == {"1": 3 / 8}


def test_of_several_bars_of_a_node_the_last_is_timed():
    told = [(1, 2), (2, 2), (1, 4), (2, 4), (4, 4)]
    follower, _ = follow(
        ("executing", {"node": "1"}), *[("progress", {"value": value, "max": of}) for value, of in told]
    )
    assert follower.seconds_per_step == {"1": 2 / 3}
    again, _ = follow(*[("executing", {"node": "1"}), *[("progress", {"value": v, "max": 4}) for v in (1, 4, 2, 3, 4)]])
    assert again.seconds_per_step == {"1": 1}
